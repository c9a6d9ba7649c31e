//! What is applied while requests come.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use envoy_test::envoy::{Client, Protocol, Response};
use serde_json::{Value, json};

use crate::gateway::{Gateway, chat, until};
use crate::resources::Resources;
use crate::setup::{Deployment, Setup};

/// Publishes this target as lora-request.
fn publish(target: &str) -> impl FnOnce(&mut Value) {
    let models = json!([{"modelName": "lora-request", "poolRef": {"name": "vllm-llama2-7b-pool"},
        "targetModels": [{"name": target}]}]);
    |plugin| plugin["models"] = models
}

fn answered_model(gateway: &Gateway) -> Value {
    gateway.send(chat("lora-request")).json().unwrap()["model"].clone()
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn a_change_of_models_goes_live_and_fails_no_request() {
    for deployment in Deployment::ALL {
        let mut gateway = Setup::new(deployment).plugin(publish("sql-lora")).start();
        let client = gateway.client(Protocol::Http1);
        let answers = while_asking(client, || {
            for target in ["tweet-summary", "sql-lora", "tweet-summary"] {
                gateway.apply(|resources: &mut Resources| resources.edit_plugin(publish(target)));
                until("the new model answers", || answered_model(&gateway) == target);
            }
        });
        let failed: Vec<String> =
            answers.iter().filter(|answer| answer.status != 200).map(Response::text).collect();
        assert_eq!(failed, Vec::<String>::new(), "{deployment:?}, of {}", answers.len());
    }
}

/// A pool of another name is another: alerts on the gauges of the former one would never end.
#[test]
#[ignore = "needs Istio: make test-istio"]
fn a_pool_that_is_gone_leaves_nothing_in_the_gauges() {
    for deployment in Deployment::ALL.into_iter().filter(|deployment| deployment.reads_metrics()) {
        let mut gateway = Setup::new(deployment).start();
        let any_above_zero = |gateway: &Gateway, pool: &str| {
            let page = gateway.proxy.admin_get("/stats?type=Gauges&filter=inference_picker");
            let gauges = page.lines().filter(|line| line.contains(&format!("pool=.={pool};.;")));
            gauges.map(|line| line.rsplit_once(": ").unwrap().1).any(|value| value != "0")
        };
        until("gauges are written", || any_above_zero(&gateway, "vllm-llama2-7b-pool"));
        gateway
            .apply(|resources| resources.edit_plugin(|plugin| plugin["pools"][0]["name"] = "other".into()));
        until("those of the new pool are", || any_above_zero(&gateway, "other"));
        until("the others are over", || !any_above_zero(&gateway, "vllm-llama2-7b-pool"));
    }
}

/// Has four clients ask, one request after the other, while `change` runs.
fn while_asking(client: Client, change: impl FnOnce()) -> Vec<Response> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ask = || {
            let mut answers = Vec::new();
            while !done.load(Ordering::Relaxed) {
                answers.push(client.send_blocking(chat("lora-request")).unwrap());
            }
            answers
        };
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        change();
        done.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn a_configuration_that_is_not_right_is_refused_and_the_old_one_stays() {
    for deployment in Deployment::ALL {
        let mut gateway = Setup::new(deployment).plugin(publish("sql-lora")).start();
        gateway.apply(|resources| {
            resources.edit_plugin(|plugin| plugin["models"][0]["targetModels"][0]["name"] = "".into())
        });
        until("it is refused", || {
            gateway.proxy.log_text().contains("models[0].targetModels[0].name: must not be empty")
        });
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(answered_model(&gateway), "sql-lora", "{deployment:?}");
    }
}
