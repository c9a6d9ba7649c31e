//! Which pod gets a request, seen at the pods and in the log.

use envoy_test::envoy::{NEWEST, OLDEST};
use envoy_test::model_server::FixedGauges;
use serde_json::Value;

use crate::gateway::{Gateway, chat, long_chat};
use crate::setup::{Deployment, Setup};

/// The first endpoint that was picked.
fn first_pick(line: &Value) -> &str {
    line["picked"].as_str().unwrap_or_default().split(',').next().unwrap_or_default()
}

/// Every request of the log went where it was picked to go.
#[track_caller]
fn check_log(gateway: &Gateway, count: usize) -> Vec<Value> {
    let lines = gateway.log(count);
    assert_eq!(lines.len(), count, "{:?}", gateway.deployment);
    for line in &lines {
        assert_eq!(line["upstream"], first_pick(line), "{:?}: {line}", gateway.deployment);
    }
    lines
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn the_pick_in_the_log_is_the_pod_that_served_and_the_pods_counters_agree() {
    for deployment in Deployment::ALL {
        let gateway = Setup::new(deployment).concurrency(4).start();
        for _ in 0..3 {
            gateway.burst(vec![chat("tiny"); 40]);
        }
        let lines = check_log(&gateway, 120);
        for line in &lines {
            assert_eq!((&line["model"], &line["target_model"]), (&"tiny".into(), &"tiny".into()));
            assert!(line["decision"].as_str().unwrap().starts_with("DEFAULT cost="), "{line}");
        }
        for (pod, address) in gateway.pods.servers().zip(gateway.pods.addresses()) {
            let logged = lines.iter().filter(|line| first_pick(line) == address.to_string()).count();
            assert_eq!(pod.counters().requests_for("tiny"), logged as u64, "{deployment:?}: {address}");
        }
        let said = gateway.proxy.log_text();
        assert!(!said.contains("[error]") && !said.contains("the host refused"), "{deployment:?}: {said}");
    }
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn a_burst_is_spread_evenly_in_the_oldest_and_the_newest_envoy() {
    for version in [OLDEST, NEWEST] {
        for deployment in Deployment::ALL {
            let gateway = Setup::new(deployment).concurrency(4).version(version).start();
            gateway.check_burst_is_spread(&format!("{version}, {deployment:?}"));
            check_log(&gateway, 32);
        }
    }
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn the_pod_with_the_shortest_queue_is_picked_where_metrics_are_read() {
    for deployment in Deployment::ALL.into_iter().filter(|deployment| deployment.reads_metrics()) {
        let lasting = |plugin: &mut Value| plugin["metricsStaleAfter"] = "10s".into();
        let gateway = Setup::new(deployment).plugin(lasting).start();
        for (pod, waiting) in gateway.pods.servers().zip([3.0, 9.0, 0.0, 5.0]) {
            pod.set(|knobs| knobs.gauges = FixedGauges { waiting: Some(waiting), ..Default::default() });
        }
        gateway.wait_until_scraped();
        for _ in 0..5 {
            let shares = gateway.shares(&[gateway.send(chat("tiny"))]);
            assert_eq!(shares, [0, 0, 1, 0], "{deployment:?}");
        }
    }
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn without_an_envoy_filter_no_pod_is_asked_for_metrics() {
    let gateway = Setup::new(Deployment::WasmPlugin).start();
    gateway.burst(vec![chat("tiny"); 8]);
    assert!(gateway.pods.servers().all(|pod| pod.counters().metrics_scrapes == 0));
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn a_clients_own_pick_is_ignored() {
    for deployment in Deployment::ALL {
        let gateway = Setup::new(deployment).start();
        let wished = gateway.pods.addresses()[0].to_string();
        let request = long_chat().header("x-gateway-destination-endpoint", &wished);
        let shares = gateway.shares(&gateway.burst(vec![request; 32]));
        assert!(shares.iter().all(|share| (6..=10).contains(share)), "{deployment:?}: {shares:?}");
        check_log(&gateway, 32);
    }
}

/// Istio's own retry policy takes the next endpoint of the pick.
#[test]
#[ignore = "needs Istio: make test-istio"]
fn a_request_to_a_pod_that_is_gone_is_sent_to_the_next_pick() {
    for deployment in Deployment::ALL {
        let gateway = Setup::new(deployment).start();
        gateway.pods.server(1).set(|knobs| knobs.refuse = true);
        let answers = gateway.burst(vec![chat("tiny"); 32]);
        assert!(answers.iter().all(|answer| answer.status == 200), "{deployment:?}");
        for line in gateway.log(32).iter().filter(|line| line["attempts"] == 2) {
            let picks: Vec<&str> = line["picked"].as_str().unwrap().split(',').collect();
            assert_eq!(line["upstream"], picks[1], "{deployment:?}: {line}");
        }
    }
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn an_inference_pool_without_an_endpoint_picker_serves_a_thousand_of_a_thousand() {
    for deployment in [Deployment::WasmPlugin, Deployment::WasmPluginWithMetrics] {
        let gateway = Setup::new(deployment).start();
        for _ in 0..25 {
            let answers = gateway.burst(vec![chat("tiny"); 40]);
            assert!(answers.iter().all(|answer| answer.status == 200), "{deployment:?}");
        }
        check_log(&gateway, 1_000);
    }
}
