//! Configurations pushed to a running Envoy, as a control plane does: nothing is lost, the new one counts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::gateway::{Gateway, STOP_ITERATION, Setup, chat_with, pod, until};
use envoy_test::envoy::blocking::wait_for;
use envoy_test::envoy::{Client, Protocol, PushedListener, Request, Response};
use envoy_test::model_server::{FixedGauges, ServerSettings};
use serde_json::{Value, json};

/// A gateway whose listener is pushed: Envoy reads it from a file, and again whenever it changes.
struct Pushed {
    gateway: Gateway,
    client: Client,
    listener: PushedListener,
}

impl Pushed {
    fn start(models: Value) -> Pushed {
        let mut listener = None;
        let adapters = vec!["tweet-summary".to_owned(), "sql-lora".to_owned()];
        let pods = vec![ServerSettings { lora_adapters: adapters, ..pod() }; 2];
        let edit = |plugin: &mut Value| {
            plugin["models"] = models.clone();
            plugin["queue"] = json!({"maxWait": "20s"});
            // On a machine that stands still for a moment, the pods stay as full as they are set.
            plugin["metricsStaleAfter"] = "10s".into();
        };
        let setup = Setup::new(STOP_ITERATION).pods(pods).plugin(edit);
        let gateway = setup.start_with(|envoy, _| listener = PushedListener::take(envoy).ok());
        let listener = listener.unwrap();
        let client = Client::new(listener.address(), Protocol::Http1);
        Pushed { gateway, client, listener }
    }

    /// Pushes the listener with these models, and waits until Envoy has taken it.
    fn push(&mut self, models: Value) {
        let taken = || self.gateway.envoy.stats("listener_manager.lds.update_success").unwrap();
        let before = taken();
        self.listener.edit_plugin(|plugin| plugin["models"] = models).unwrap();
        self.listener.push().unwrap();
        until("the push is taken", || taken() != before);
    }

    fn ask(&self) -> Response {
        self.client.send_blocking(request()).unwrap()
    }
}

fn request() -> Request {
    chat_with(json!({"model": "lora-request", "max_tokens": 1}))
}

fn models(targets: Value) -> Value {
    json!([{"modelName": "lora-request", "poolRef": {"name": "vllm-llama2-7b-pool"}, "targetModels": targets}])
}

#[test]
fn a_change_of_weights_moves_traffic_and_loses_no_request() {
    let only = |name: &str| models(json!([{"name": name}]));
    let mut pushed = Pushed::start(only("sql-lora"));
    let stop = AtomicBool::new(false);
    let client = pushed.client;
    let answers: Vec<Response> = std::thread::scope(|scope| {
        let ask = || {
            let mut answers = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                answers.push(client.send_blocking(request()).unwrap());
            }
            answers
        };
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        for round in 0..6 {
            std::thread::sleep(Duration::from_millis(300));
            pushed.push(only(["tweet-summary", "sql-lora"][round % 2]));
        }
        pushed.push(only("tweet-summary"));
        std::thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let failed: Vec<String> =
        answers.iter().filter(|answer| answer.status != 200).map(Response::text).collect();
    assert_eq!(failed, Vec::<String>::new(), "of {}", answers.len());
    until("the new weights count", || pushed.ask().json().unwrap()["model"] == "tweet-summary");
    assert!((0..10).all(|_| pushed.ask().json().unwrap()["model"] == "tweet-summary"));
}

#[test]
fn a_configuration_that_is_not_right_is_refused_and_the_old_one_stays() {
    let mut pushed = Pushed::start(models(json!([{"name": "sql-lora"}])));
    let rejected = || pushed.gateway.envoy.stats("listener_manager.lds.update_rejected").unwrap();
    assert!(rejected().values().all(|count| *count == 0));
    let text = pushed.listener.plugin_text().unwrap();
    *text = text.as_str().unwrap().replace("sql-lora", "").into();
    pushed.listener.push().unwrap();
    until("it is refused", || rejected().values().any(|count| *count > 0));
    assert!(pushed.gateway.envoy.log_text().contains("models[0].targetModels[0].name: must not be empty"));
    assert_eq!(pushed.ask().json().unwrap()["model"], "sql-lora");
}

#[test]
fn what_waits_in_the_queue_survives_a_push() {
    let mut pushed = Pushed::start(models(json!([{"name": "sql-lora"}])));
    let set_queues = |gateway: &Gateway, waiting| {
        for server in gateway.pods.servers() {
            server.set(|knobs| knobs.gauges = FixedGauges { waiting, ..Default::default() });
        }
    };
    set_queues(&pushed.gateway, Some(9.0));
    pushed.gateway.wait_until_scraped();
    let client = pushed.client;
    let waiting = std::thread::spawn(move || wait_for(client.burst(vec![request(); 6])).unwrap());
    std::thread::sleep(Duration::from_millis(500));
    pushed.push(models(json!([{"name": "tweet-summary"}])));
    std::thread::sleep(Duration::from_millis(500));
    set_queues(&pushed.gateway, None);
    for answer in waiting.join().unwrap() {
        let answer = answer.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json().unwrap()["model"], "sql-lora", "as was decided when it came");
    }
    assert_eq!(pushed.ask().json().unwrap()["model"], "tweet-summary");
}
