//! Models that are published under one name and served under others.

use std::collections::BTreeMap;

use crate::gateway::{BODY_MODES, Gateway, Setup, chat_with, pod};
use envoy_test::envoy::{Protocol, Request};
use envoy_test::model_server::ServerSettings;
use serde_json::{Value, json};

fn gateway(configuration: &str, targets: Value) -> Gateway {
    let adapters = vec!["tweet-summary".to_owned(), "sql-lora".to_owned()];
    let pods = vec![ServerSettings { lora_adapters: adapters, ..pod() }; 4];
    let edit = |plugin: &mut Value| {
        let model = json!({"modelName": "lora-request", "criticality": "Critical",
            "poolRef": {"name": "vllm-llama2-7b-pool"}, "targetModels": targets});
        plugin["models"] = json!([model]);
    };
    Setup::new(configuration).concurrency(4).pods(pods).plugin(edit).start()
}

#[test]
fn traffic_is_shared_among_targets_by_weight() {
    for configuration in BODY_MODES {
        let targets = json!([{"name": "tweet-summary", "weight": 9}, {"name": "sql-lora", "weight": 1}]);
        let gateway = gateway(configuration, targets);
        let mut answered: BTreeMap<String, u64> = BTreeMap::new();
        for _ in 0..5 {
            for answer in
                gateway.burst(vec![chat_with(json!({"model": "lora-request", "max_tokens": 1})); 40])
            {
                *answered.entry(answer.json().unwrap()["model"].as_str().unwrap().to_owned()).or_default() +=
                    1;
            }
        }
        // Each of four workers is at most one request away from the share.
        let share = answered["sql-lora"];
        assert!((16..=24).contains(&share), "{configuration}: {answered:?}");
        let received: u64 = gateway.pods.servers().map(|pod| pod.counters().requests_for("sql-lora")).sum();
        assert_eq!(received, share, "{configuration}");
        let lines = gateway.envoy.access_log_until(200).unwrap();
        let logged = lines.iter().filter(|line| line["target_model"] == "sql-lora").count();
        assert_eq!(logged as u64, share, "{configuration}");
        assert!(lines.iter().all(|line| line["model"] == "lora-request"), "{configuration}");
    }
}

#[test]
fn the_models_name_is_replaced_in_bodies_of_every_form() {
    for configuration in BODY_MODES {
        let gateway = gateway(configuration, json!([{"name": "sql-lora"}]));
        let body =
            r#"{ "max_tokens" : 1, "model" :"lora-request", "prompt": "caf\u00e9", "model":"lora-request" }"#;
        let request = Request::post("/v1/completions").header("content-type", "application/json").body(body);
        let forms = [request.clone(), request.clone().in_frames_of(7), request.trailer("x-checksum", "1")];
        for protocol in [Protocol::Http1, Protocol::Http2] {
            for form in forms.clone() {
                let answer = gateway.client(protocol).send_blocking(form).unwrap();
                assert_eq!(answer.status, 200, "{configuration}, {protocol:?}: {}", answer.text());
                assert_eq!(answer.json().unwrap()["model"], "sql-lora", "{configuration}, {protocol:?}");
            }
        }
    }
}
