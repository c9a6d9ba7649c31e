//! Pods that do not have the model that is asked for: in the middle of a rolling update to another one, and where an adapter
//! is loaded on some of them.

use envoy_test::envoy::{Configuration, Request, Response};
use envoy_test::model_server::ServerSettings;
use serde_json::json;

use crate::gateway::{BODY_MODES, Gateway, STOP_ITERATION, Setup, long_chat, pod, until};

/// The version of Envoy beside the newest one.
const OLDEST: &str = "1.36.4";

/// A short request for this model at one of the APIs.
fn ask(path: &str, model: &str, stream: bool) -> Request {
    let messages = json!([{"role": "user", "content": "Which pod will this be?"}]);
    let body = match path {
        "/v1/completions" => json!({"prompt": "Which pod will this be?", "max_tokens": 4}),
        "/v1/responses" => json!({"input": "Which pod will this be?", "max_output_tokens": 4}),
        _ => json!({"messages": messages, "max_tokens": 4}),
    };
    let mut body = body;
    (body["model"], body["stream"]) = (json!(model), json!(stream));
    Request::post(path).json(&body)
}

fn chat(model: &str) -> Request {
    ask("/v1/chat/completions", model, false)
}

/// At each API in turn, streamed and not.
fn ask_all_ways(gateway: &Gateway, model: &str, count: usize) -> Vec<Response> {
    let paths = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"];
    let ways = paths.iter().flat_map(|path| [(path, false), (path, true)]).cycle();
    ways.take(count).map(|(path, stream)| gateway.send(ask(path, model, stream))).collect()
}

/// Pods 0 and 1 have been updated to another model.
fn update_half(gateway: &Gateway) {
    for index in [0, 1] {
        gateway.pods.server(index).set(|knobs| knobs.served_models = Some(vec!["newer".to_owned()]));
    }
    gateway.wait_until_scraped();
}

/// Only failures are retried, no 404.
fn without_retries(envoy: &mut Configuration) {
    let route = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes/0/route";
    envoy.at(route)["retry_policy"]["retriable_status_codes"] = json!([503]);
}

fn count(answers: &[Response], status: u16) -> usize {
    answers.iter().filter(|answer| answer.status == status).count()
}

/// Each of the two is asked once at first, and then ever more seldom.
#[test]
fn pods_that_do_not_have_the_model_are_hardly_asked_for_it() {
    for configuration in BODY_MODES {
        for workers in [1, 4] {
            let gateway = Setup::new(configuration).concurrency(workers).envoy(without_retries).start();
            update_half(&gateway);
            let answers = ask_all_ways(&gateway, "tiny", 100);
            let missing = count(&answers, 404);
            assert!(
                (1..=14).contains(&missing),
                "{configuration}, {workers} workers: {missing} of 100 failed"
            );
            assert_eq!(missing + count(&answers, 200), 100);
            assert!(!gateway.envoy.log_text().contains("it is ejected"), "{configuration}: they are well");
            let newer = ask_all_ways(&gateway, "newer", 32);
            assert!(
                count(&newer, 404) <= 14 && count(&newer, 200) >= 18,
                "{configuration}, {workers} workers"
            );
        }
    }
}

/// The shipped routes retry them where they are: no client sees any.
#[test]
fn requests_that_reach_a_pod_without_the_model_are_answered_by_the_next_of_the_pick() {
    for configuration in BODY_MODES {
        for (workers, version) in [(1, None), (4, Some(OLDEST))] {
            let setup = Setup::new(configuration).concurrency(workers);
            let gateway = version.map_or(setup.clone(), |version| setup.version(version)).start();
            update_half(&gateway);
            let answers = ask_all_ways(&gateway, "tiny", 100);
            assert_eq!(count(&answers, 200), 100, "{configuration}, {workers} workers");
            let asked: u64 =
                [0, 1].map(|index| gateway.pods.server(index).counters().requests_for("tiny")).iter().sum();
            assert!((1..=40).contains(&asked), "{configuration}, {workers} workers: {asked} retries");
            assert!(!gateway.envoy.log_text().contains("it is ejected"), "{configuration}: they are well");
        }
    }
}

#[test]
fn what_no_pod_has_is_asked_for_all_the_same_and_its_404_reaches_the_client() {
    for configuration in BODY_MODES {
        let gateway = Setup::new(configuration).concurrency(1).start();
        for answer in ask_all_ways(&gateway, "nowhere", 16) {
            assert_eq!(answer.status, 404);
            assert!(answer.text().contains("The model `nowhere` does not exist"), "{}", answer.text());
        }
        gateway.check_burst_is_spread(configuration);
    }
}

/// Half of the pods have an adapter; then the others load it, and all of them are asked.
#[test]
fn an_adapter_is_asked_for_where_it_is_loaded() {
    for workers in [1, 4] {
        let pods = vec![ServerSettings { lora_adapters: vec!["sql".to_owned()], ..pod() }; 4];
        let gateway =
            Setup::new(STOP_ITERATION).pods(pods).concurrency(workers).envoy(without_retries).start();
        let have = |adapters: &[&str]| {
            let names: Vec<String> = adapters.iter().map(|name| (*name).to_owned()).collect();
            for index in [0, 1] {
                gateway.pods.server(index).set(|knobs| knobs.lora_adapters = Some(names.clone()));
            }
        };
        have(&[]);
        let answers: Vec<Response> = (0..40).map(|_| gateway.send(chat("sql"))).collect();
        let missing = count(&answers, 404);
        assert!(missing <= 10, "{workers} workers: {missing} of 40 failed");
        gateway.check_burst_is_spread("the base model is everywhere");
        have(&["sql"]);
        let asked = |index: usize| gateway.pods.server(index).counters().requests_for("sql");
        let before = [0, 1].map(asked);
        until("they are asked again", || {
            // So many that it is worth loading the adapter elsewhere.
            gateway.burst(vec![chat("sql"); 64]);
            [0, 1].map(asked).iter().zip(before).all(|(now, before)| *now > before + 8)
        });
    }
}

/// A path that a pod does not know takes no model away from it.
#[test]
fn a_404_that_is_about_the_path_says_nothing_of_the_model() {
    let gateway = Setup::new(STOP_ITERATION).concurrency(1).envoy(without_retries).start();
    for _ in 0..3 {
        let answer = gateway.send(ask("/nowhere/v1/messages", "tiny", false));
        assert_eq!((answer.status, answer.text().contains("Not Found")), (404, true), "{}", answer.text());
    }
    let answers = gateway.burst(vec![long_chat(); 32]);
    assert!(gateway.shares(&answers).iter().all(|share| (6..=10).contains(share)));
}
