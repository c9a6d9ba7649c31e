//! Conversations keep their pod: where a response is stored, and where a session's prefix is cached.

use std::time::Duration;

use envoy_test::envoy::configuration::FilterPosition;
use envoy_test::envoy::{Client, Configuration, NEWEST, OLDEST, Protocol, PushedListener, Request, Response};
use envoy_test::model_server::Knobs;
use hyper::Method;
use serde_json::{Value, json};

use crate::gateway::{BODY_MODES, CONVERSATIONS, DEFERRED, GATEWAYS, Gateway, STOP_ITERATION, Setup, until};
use crate::log::first_pick;

/// Longer than it takes one gateway to receive another's state on a busy machine.
const EXCHANGED: Duration = Duration::from_millis(800);
/// As many at once as pods take without a queue that would send some elsewhere.
const AT_ONCE: usize = 50;

/// Asks for a response, streamed or not.
fn ask(more: Value) -> Request {
    let mut body = json!({"model": "tiny", "input": "Once upon a time", "max_output_tokens": 2});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Request::post("/v1/responses").json(&body)
}

/// Asks for many responses, every other one streamed.
fn many() -> Vec<Request> {
    (0..AT_ONCE).map(|place| ask(json!({"stream": place % 2 == 0}))).collect()
}

/// Those that follow these.
fn follow_ups(first: &[Response]) -> Vec<Request> {
    first.iter().map(|answer| ask(json!({"previous_response_id": id_of(answer)}))).collect()
}

/// How many of these were given by the pods that gave the first ones, and are good.
fn followed(gateway: &Gateway, first: &[Response], then: &[Response]) -> usize {
    let is_followed = |(first, then): &(&Response, &Response)| {
        then.status == 200 && gateway.served_by(first) == gateway.served_by(then)
    };
    first.iter().zip(then).filter(is_followed).count()
}

/// No 404 is sent elsewhere, so that it is seen where a request went; and answers are compressed for those who ask for it.
fn without_retries_and_compressed(envoy: &mut Configuration) {
    let library = json!({"name": "gzip", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip"}});
    let compressor = json!({"name": "compressor", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor",
        "response_direction_config": {"common_config": {"min_content_length": 1}}, "compressor_library": library}});
    envoy.insert_filter(FilterPosition::Before("envoy.filters.http.router"), compressor);
    let route = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes/0/route";
    envoy.at(route)["retry_policy"]["retriable_status_codes"] = json!([503]);
}

/// What the log says of the last of so many requests.
fn decision(gateway: &Gateway, count: usize) -> String {
    let lines = gateway.envoy.access_log_until(count).unwrap();
    lines[count - 1]["decision"].as_str().unwrap().to_owned()
}

/// The id of a response: that of the document, or of its first event.
fn id_of(answer: &Response) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    let (_, behind) = text.split_once(r#""id":"resp_"#).unwrap();
    format!("resp_{}", behind.split_once('"').unwrap().0)
}

#[test]
fn all_that_can_be_asked_of_a_stored_response_is_asked_of_its_pod() {
    for (mode, version) in BODY_MODES.into_iter().zip([OLDEST, NEWEST]) {
        let gateway = Setup::new(mode).version(version).envoy(without_retries_and_compressed).start();
        for round in 0..5 {
            let first =
                gateway.send(ask(json!({"stream": round % 2 == 0})).header("accept-encoding", "gzip"));
            let (id, pod) = (id_of(&first), gateway.served_by(&first));
            let path = format!("/v1/responses/{id}");
            let follow_up = ask(json!({"previous_response_id": id}));
            for (request, status) in [
                (follow_up, 200),
                (Request::get(&path), 200),
                (Request::get(&format!("{path}?stream=true")), 200),
                (Request::post(&format!("{path}/cancel")), 200),
                (Request::post(&format!("{path}/cancel")).json(&json!({})), 200),
                // Servers that were seen do not know these; where they go is the gateway's all the same.
                (Request::new(Method::DELETE, &path), 404),
                (Request::get(&format!("{path}/input_items")), 404),
            ] {
                let what = format!("{mode} {version} {round}: {request:?}");
                let answer = gateway.send(request);
                assert_eq!((answer.status, gateway.served_by(&answer)), (status, pod), "{what}");
            }
        }
    }
}

#[test]
fn a_thousand_follow_ups_reach_their_pods_whichever_worker_has_them() {
    let gateway = Setup::new(STOP_ITERATION).concurrency(4).start();
    let reached: usize = (0..20)
        .map(|_| {
            let first = gateway.burst(many());
            let shares = gateway.shares(&first);
            assert!(shares.iter().all(|share| *share > 0), "they begin everywhere: {shares:?}");
            let then = gateway.burst(follow_ups(&first));
            followed(&gateway, &first, &then)
        })
        .sum();
    assert_eq!(reached, 1_000);
    until("they are counted", || {
        let counted = gateway.envoy.stats("").unwrap();
        let of = |statistic: &str| -> u64 {
            counted.iter().filter(|(name, _)| name.contains(statistic)).map(|(_, count)| count).sum()
        };
        (of("picker_stored_kept"), of("picker_stored_lost")) == (1_000, 0)
    });
}

#[test]
fn a_thousand_follow_ups_reach_their_pods_through_another_gateway() {
    let gateways = Setup::new(GATEWAYS).start_gateways(2);
    // A gateway publishes once it has sent something; what was published before that is not waited for.
    gateways.iter().for_each(|gateway| drop(gateway.send(ask(json!({})))));
    std::thread::sleep(EXCHANGED);
    for (here, there) in [(0, 1), (1, 0)] {
        let first: Vec<Response> = (0..10).flat_map(|_| gateways[here].burst(many())).collect();
        std::thread::sleep(EXCHANGED);
        let chunks = first.chunks(AT_ONCE);
        let then: Vec<Response> = chunks.flat_map(|chunk| gateways[there].burst(follow_ups(chunk))).collect();
        assert_eq!(followed(&gateways[here], &first, &then), 500);
    }
}

#[test]
fn what_is_stored_outlives_a_configuration() {
    let mut listener = None;
    let setup = Setup::new(STOP_ITERATION).concurrency(2);
    let gateway = setup.start_with(|envoy, _| listener = PushedListener::take(envoy).ok());
    let mut listener = listener.unwrap();
    let client = Client::new(listener.address(), Protocol::Http1);
    let burst = |requests: Vec<Request>| -> Vec<Response> {
        client.burst_blocking(requests).unwrap().into_iter().map(Result::unwrap).collect()
    };
    let first = burst(many());
    let taken = || gateway.envoy.stats("listener_manager.lds.update_success").unwrap();
    for queue in 100..103 {
        let before = taken();
        listener.edit_plugin(|plugin| plugin["queue"] = json!({"maxRequests": queue})).unwrap();
        listener.push().unwrap();
        until("the push is taken", || taken() != before);
        assert_eq!(followed(&gateway, &first, &burst(follow_ups(&first))), AT_ONCE);
    }
}

#[test]
fn a_pod_that_was_replaced_at_the_same_address_is_not_followed() {
    let gateway = Setup::new(DEFERRED).start();
    let first = gateway.send(ask(json!({"input": "long ".repeat(400)})));
    let pod = gateway.pods.server(gateway.served_by(&first));
    gateway.wait_until_scraped();
    gateway.send(ask(json!({"previous_response_id": id_of(&first)})));
    assert!(decision(&gateway, 2).contains(" session=kept "));
    pod.restart();
    gateway.wait_until_scraped();
    let answer = gateway.send(ask(json!({"previous_response_id": id_of(&first)})));
    assert_eq!(answer.status, 404, "as without a gateway");
    assert!(decision(&gateway, 3).contains(" session=new "));
}

fn chat() -> Request {
    let body = json!({"model": "tiny", "max_tokens": 2, "messages": [{"role": "user", "content": "Hi"}]});
    Request::post("/v1/chat/completions").json(&body)
}

#[test]
fn a_token_leads_back_to_its_pod_and_nothing_else_does() {
    let gateway = Setup::new(CONVERSATIONS).concurrency(4).start();
    let firsts = gateway.burst(vec![chat(); 20]);
    for first in &firsts {
        let (token, pod) = (first.header("x-session-token").unwrap(), gateway.served_by(first));
        let address = gateway.pods.addresses()[pod].to_string();
        assert!(!token.contains(&address) && token.len() == 100, "{token}");
        let then = gateway.send(chat().header("x-session-token", token));
        assert_eq!(gateway.served_by(&then), pod);
        assert_eq!(then.header("x-session-token"), None, "the client has it");
    }
    let token = firsts[0].header("x-session-token").unwrap().to_owned();
    for forged in [token.replacen(&token[40..41], "x", 1), "a".repeat(100), "a".repeat(4_096)] {
        let answer = gateway.send(chat().header("x-session-token", &forged));
        assert_eq!(answer.status, 200);
        assert!(answer.header("x-session-token").is_some(), "it is none, and the session gets one");
    }
    gateway.pods.server(gateway.served_by(&firsts[0])).set(|knobs| knobs.refuse = true);
    let moved = gateway.send(chat().header("x-session-token", &token));
    assert_eq!(moved.status, 200);
    assert_ne!(gateway.served_by(&moved), gateway.served_by(&firsts[0]));
    assert!(moved.header("x-session-token").is_some_and(|new| new != token));
}

#[test]
fn a_session_stays_where_it_is_cached_and_its_name_may_be_anything() {
    let gateway = Setup::new(STOP_ITERATION).concurrency(2).start();
    for (place, name) in ["one", &"two".repeat(1_400), "\u{1f600}"].into_iter().enumerate() {
        let mut prompt = "something long that is cached. ".repeat(60);
        let mut pods = Vec::new();
        for _ in 0..4 {
            let body = json!({"model": "tiny", "max_tokens": 2, "prompt": prompt});
            let answer =
                gateway.send(Request::post("/v1/completions").header("x-session-id", name).json(&body));
            pods.push(gateway.served_by(&answer));
            prompt.push_str("and more. ");
        }
        assert!(pods.iter().all(|pod| *pod == pods[0]), "{place}: {pods:?}");
    }
    let decisions: Vec<String> = (1..=12).map(|count| decision(&gateway, count)).collect();
    let of = |outcome: &str| decisions.iter().filter(|line| line.contains(outcome)).count();
    assert_eq!((of(" session=new "), of(" session=kept ")), (3, 9), "{decisions:?}");
}

/// The pod that serves the next request of a session, and what the log says of it.
fn next_of(gateway: &Gateway, session: &str) -> (usize, String) {
    let of_session = || -> Vec<String> {
        let lines = gateway.envoy.access_log().unwrap();
        let decisions = lines.iter().filter_map(|line| line["decision"].as_str());
        decisions.filter(|decision| decision.contains(" session=")).map(str::to_owned).collect()
    };
    let before = of_session().len();
    let answer = gateway.send(chat().header("x-session-id", session));
    assert_eq!(answer.status, 200, "{}", answer.text());
    until("it is logged", || of_session().len() > before);
    (gateway.served_by(&answer), of_session().pop().unwrap())
}

#[test]
fn a_strict_session_stays_as_long_as_its_pod_may_be_picked() {
    let strict = |plugin: &mut Value| plugin["pools"][0]["sessionAffinity"] = "strict".into();
    let gateway = Setup::new(DEFERRED).version(OLDEST).plugin(strict).start();
    let check = |expected: &dyn Fn(usize) -> bool, outcome: &str| {
        let (pod, line) = next_of(&gateway, "one");
        assert!(expected(pod) && line.contains(&format!(" session={outcome} ")), "{pod}: {line}");
        pod
    };
    let first = check(&|_| true, "new");
    // By its cost it would go anywhere else.
    gateway.pods.server(first).set(|knobs| knobs.gauges.waiting = Some(50.0));
    gateway.wait_until_scraped();
    for _ in 0..3 {
        check(&|pod| pod == first, "kept");
    }
    gateway.pods.server(first).set(|knobs| knobs.gauges.waiting = None);
    gateway.wait_until_scraped();
    gateway.pods.server(first).set(|knobs| knobs.refuse = true);
    let address = gateway.pods.addresses()[first].to_string();
    until("it may not be picked", || {
        // As many as do not pass it over by chance.
        gateway.burst(vec![chat(); 48]);
        let lines = gateway.envoy.access_log().unwrap();
        lines.iter().rev().take(40).all(|line| first_pick(line) != address)
    });
    let next = check(&|pod| pod != first, "moved");
    gateway.pods.server(first).set(|knobs| *knobs = Knobs::default());
    gateway.wait_until_scraped();
    check(&|pod| pod == next, "kept");
}
