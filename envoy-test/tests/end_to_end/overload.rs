//! Full pools: what is sent, what waits in the gateway, and what is asked to retry later.

use std::time::Duration;

use crate::gateway::{BODY_MODES, Gateway, STOP_ITERATION, Setup, chat, pod, until};
use envoy_test::envoy::blocking::wait_for;
use envoy_test::envoy::{Protocol, Response};
use envoy_test::model_server::{FixedGauges, ServerSettings};
use serde_json::{Value, json};

const CLASSES: [&str; 3] = ["Critical", "Standard", "Sheddable"];

/// A gateway with a model for each class, each served as `tiny`; with a queue if `queue` says so.
fn gateway(configuration: &str, queue: Option<Value>) -> Gateway {
    let edit = |plugin: &mut Value| {
        let model = |class: &str| {
            json!({"modelName": class.to_lowercase(), "criticality": class,
                "poolRef": {"name": "vllm-llama2-7b-pool"}, "targetModels": [{"name": "tiny"}]})
        };
        plugin["models"] = CLASSES.iter().map(|class| model(class)).collect();
        // On a machine that stands still for a moment, the pods stay as full as they are set.
        plugin["metricsStaleAfter"] = "10s".into();
        if let Some(queue) = &queue {
            plugin["queue"] = queue.clone();
        }
    };
    Setup::new(configuration).concurrency(1).pods(vec![pod(); 2]).plugin(edit).start()
}

/// Has every pod say that so many requests are queued there.
fn set_queues(gateway: &Gateway, waiting: Option<f64>) {
    for server in gateway.pods.servers() {
        server.set(|knobs| knobs.gauges = FixedGauges { waiting, ..Default::default() });
    }
    gateway.wait_until_scraped();
}

fn refused(answer: &Response, code: &str) {
    assert_eq!(answer.status, 429, "{}", answer.text());
    let error = answer.json().unwrap()["error"].clone();
    assert_eq!((&error["code"], &error["type"]), (&code.into(), &"rate_limit_error".into()));
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
}

#[test]
fn without_a_queue_only_sheddable_requests_give_way() {
    for configuration in BODY_MODES {
        let gateway = gateway(configuration, None);
        for class in CLASSES {
            assert_eq!(gateway.send(chat(&class.to_lowercase())).status, 200, "{configuration}: {class}");
        }
        // More than the five of the limit: of what stays when requests have ended, theirs do not count.
        set_queues(&gateway, Some(9.0));
        assert_eq!(gateway.send(chat("critical")).status, 200, "{configuration}");
        assert_eq!(gateway.send(chat("standard")).status, 200, "{configuration}");
        refused(&gateway.send(chat("sheddable")), "pool_saturated");
        set_queues(&gateway, None);
        assert_eq!(gateway.send(chat("sheddable")).status, 200, "{configuration}");
    }
}

#[test]
fn a_full_kv_cache_saturates_too_and_one_pod_with_room_is_enough() {
    let gateway = gateway(STOP_ITERATION, None);
    let fill = |index: usize| {
        let gauges = FixedGauges { kv_cache_usage: Some(0.8), ..Default::default() };
        gateway.pods.server(index).set(|knobs| knobs.gauges = gauges);
        gateway.wait_until_scraped();
    };
    fill(0);
    assert_eq!(gateway.send(chat("sheddable")).status, 200);
    fill(1);
    refused(&gateway.send(chat("sheddable")), "pool_saturated");
}

#[test]
fn a_standard_request_waits_until_a_pod_has_room() {
    for configuration in BODY_MODES {
        let gateway = gateway(configuration, Some(json!({"maxWait": "20s"})));
        set_queues(&gateway, Some(9.0));
        let answers = wait_for(async {
            let client = gateway.client(Protocol::Http1);
            let waiting = client.burst(["standard", "standard", "standard", "critical"].map(chat).to_vec());
            let open = async {
                tokio::time::sleep(Duration::from_millis(500)).await;
                let sent: u64 = gateway.pods.servers().map(|pod| pod.counters().requests_for("tiny")).sum();
                assert_eq!(sent, 1, "{configuration}: only the critical one was sent");
                // Room at the second pod alone: late binding sends them there.
                gateway.pods.server(1).set(|knobs| knobs.gauges = FixedGauges::default());
            };
            tokio::join!(waiting, open).0.unwrap()
        });
        for answer in &answers[..3] {
            let answer = answer.as_ref().unwrap();
            assert_eq!(
                (answer.status, gateway.served_by(answer)),
                (200, 1),
                "{configuration}: {}",
                answer.text()
            );
        }
        assert_eq!(answers[3].as_ref().unwrap().status, 200);
        let lines = gateway.envoy.access_log_until(4).unwrap();
        assert!(lines.iter().all(|line| line["upstream"] == crate::log::first_pick(line)), "{configuration}");
    }
}

#[test]
fn a_request_that_has_waited_too_long_is_refused_with_retry_after() {
    for configuration in BODY_MODES {
        let gateway = gateway(configuration, Some(json!({"maxWait": "300ms"})));
        set_queues(&gateway, Some(9.0));
        refused(&gateway.send(chat("standard")), "queue_timeout");
        set_queues(&gateway, None);
        assert_eq!(gateway.send(chat("standard")).status, 200, "{configuration}");
    }
}

#[test]
fn a_full_queue_refuses_at_once() {
    let gateway = gateway(STOP_ITERATION, Some(json!({"maxWait": "3s", "maxRequests": 2})));
    set_queues(&gateway, Some(9.0));
    let answers = gateway.burst(vec![chat("standard"); 5]);
    answers.iter().for_each(|answer| refused(answer, "queue_timeout"));
    let lines = gateway.envoy.access_log_until(5).unwrap();
    let waited = lines.iter().filter(|line| line["duration_ms"].as_u64().unwrap() >= 3_000).count();
    assert_eq!(waited, 2, "the others were refused at once: {lines:?}");
}

#[test]
fn a_client_that_leaves_makes_room_in_the_queue_at_once() {
    let gateway = gateway(STOP_ITERATION, Some(json!({"maxWait": "20s", "maxRequests": 1})));
    set_queues(&gateway, Some(9.0));
    wait_for(async {
        let client = gateway.client(Protocol::Http1);
        let left = tokio::time::timeout(Duration::from_millis(500), client.send(chat("standard"))).await;
        assert!(left.is_err(), "it waited");
    });
    gateway.envoy.access_log_until(1).unwrap();
    let answer = wait_for(async {
        let client = gateway.client(Protocol::Http1);
        let room = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            gateway
                .pods
                .servers()
                .for_each(|server| server.set(|knobs| knobs.gauges = FixedGauges::default()));
        };
        tokio::join!(client.send(chat("standard")), room).0.unwrap()
    });
    assert_eq!(answer.status, 200, "{}", answer.text());
    let sent: u64 = gateway.pods.servers().map(|pod| pod.counters().requests_for("tiny")).sum();
    assert_eq!(sent, 1, "the one whose client had left was not sent");
}

/// Slow pods and more requests than they take: whatever waits in the gateway is answered in the end.
#[test]
fn nothing_that_waits_is_lost() {
    let slow = ServerSettings {
        engine: envoy_test::model_server::engine::EngineSettings { sequences_max: 2, ..Default::default() },
        ..pod()
    };
    let edit = |plugin: &mut Value| {
        plugin["queue"] = json!({"maxWait": "60s"});
        plugin["pools"][0]["saturation"] = json!({"queueDepth": 1});
    };
    let gateway = Setup::new(STOP_ITERATION).concurrency(2).pods(vec![slow; 2]).plugin(edit).start();
    let answers = gateway.burst(vec![chat("tiny"); 60]);
    assert!(answers.iter().all(|answer| answer.status == 200));
    let completed: u64 = gateway.pods.servers().map(|pod| pod.counters().completed).sum();
    assert_eq!(completed, 60);
    until("nothing is in flight", || gateway.pods.servers().all(|pod| pod.counters().in_flight == 0));
}

/// A gateway with objectives and tenants, which trusts the headers that name them, or does not.
fn gateway_with_objectives(configuration: &str, trusted: bool) -> Gateway {
    let edit = move |plugin: &mut Value| {
        plugin["metricsStaleAfter"] = "10s".into();
        plugin["trustHeaders"] = trusted.into();
        plugin["objectives"] = json!([{"name": "batch", "priority": -7}]);
        plugin["queue"] = json!({"maxWait": "300ms"});
        plugin["fairness"] = json!({"tenants": ["acme"]});
    };
    Setup::new(configuration).concurrency(1).pods(vec![pod(); 2]).plugin(edit).start()
}

#[test]
fn an_objective_decides_who_gives_way_where_headers_are_trusted_and_is_removed_elsewhere() {
    for configuration in BODY_MODES {
        let gateway = gateway_with_objectives(configuration, true);
        let of_acme = chat("tiny").header("x-llm-d-inference-fairness-id", "acme");
        assert_eq!(gateway.send(of_acme).status, 200, "{configuration}");
        until("the tenant is counted", || {
            let tokens = gateway.envoy.stats("wasmcustom.tenant=.=acme;.;").unwrap();
            tokens.values().any(|tokens| *tokens > 0)
        });
        set_queues(&gateway, Some(9.0));
        for name in ["x-llm-d-inference-objective", "x-gateway-inference-objective"] {
            let answer = gateway.send(chat("tiny").header(name, "batch"));
            refused(&answer, "pool_saturated");
            assert_eq!(answer.header("x-llm-d-request-dropped-reason"), Some("rejected-saturated"));
        }
        let answer = gateway.send(chat("tiny").header("x-llm-d-inference-objective", "other"));
        refused(&answer, "queue_timeout");
        assert_eq!(answer.header("x-llm-d-request-dropped-reason"), Some("rejected-ttl-expired"));

        let gateway = gateway_with_objectives(configuration, false);
        set_queues(&gateway, Some(9.0));
        refused(&gateway.send(chat("tiny").header("x-llm-d-inference-objective", "batch")), "queue_timeout");
    }
}
