//! Which pod gets a request, seen at the pods.

use envoy_test::model_server::FixedGauges;

use crate::gateway::{ALL, BODY_MODES, Gateway, STOP_ITERATION, Setup, chat, long_chat, pod};
use envoy_test::model_server::ServerSettings;
use serde_json::Value;

fn gauges(waiting: f64, kv_cache_usage: f64) -> FixedGauges {
    FixedGauges {
        waiting: Some(waiting),
        running: Some(0.0),
        kv_cache_usage: Some(kv_cache_usage),
        ..Default::default()
    }
}

/// With these gauges, every request for `model`, one after the other, goes to the pod at `expected`.
fn check(configuration: &str, gauges: &[FixedGauges], model: &str, expected: usize) {
    let served = ServerSettings { lora_adapters: vec!["sql-lora".into()], ..pod() };
    let lasting = |plugin: &mut Value| plugin["metricsStaleAfter"] = "10s".into();
    let gateway = Setup::new(configuration).pods(vec![served; gauges.len()]).plugin(lasting).start();
    for (index, gauges) in gauges.iter().enumerate() {
        gateway.pods.server(index).set(|knobs| knobs.gauges = gauges.clone());
    }
    gateway.wait_until_scraped();
    for _ in 0..5 {
        let answer = gateway.send(chat(model));
        assert_eq!(gateway.served_by(&answer), expected, "{configuration}: {gauges:?}");
    }
}

#[test]
fn the_pod_with_the_shortest_queue_is_picked() {
    for configuration in ALL {
        check(configuration, &[gauges(3.0, 0.2), gauges(0.0, 0.1), gauges(10.0, 0.2)], "tiny", 1);
    }
}

#[test]
fn the_pod_that_has_the_adapter_is_picked_though_its_kv_cache_is_fuller() {
    let with = |adapter: &str, kv_cache_usage| FixedGauges {
        running_adapters: Some(vec![adapter.to_owned()]),
        max_lora: Some(2),
        ..gauges(2.0, kv_cache_usage)
    };
    for configuration in BODY_MODES {
        check(configuration, &[with("other", 0.1), with("other", 0.1), with("sql-lora", 0.8)], "sql-lora", 2);
    }
}

/// A burst is spread, and the pods' own counters agree.
fn check_burst(configuration: &str, workers: u32) {
    let gateway = Setup::new(configuration).concurrency(workers).start();
    let shares = gateway.check_burst_is_spread(&format!("{configuration}, {workers} workers"));
    assert_eq!(shares, completed(&gateway));
}

fn completed(gateway: &Gateway) -> Vec<usize> {
    gateway.pods.servers().map(|pod| pod.counters().completed as usize).collect()
}

#[test]
fn a_burst_is_spread_evenly_by_one_worker() {
    for configuration in ALL {
        check_burst(configuration, 1);
    }
}

#[test]
fn a_burst_is_spread_evenly_by_four_workers() {
    for configuration in ALL {
        check_burst(configuration, 4);
    }
}

#[test]
fn a_burst_is_spread_evenly_by_as_many_workers_as_large_machines_have_cores() {
    for workers in [16, 32] {
        check_burst(STOP_ITERATION, workers);
    }
}

#[test]
fn the_baselines_spread_a_burst_too() {
    for strategy in ["LEAST_REQUEST", "ROUND_ROBIN"] {
        let edit = |plugin: &mut Value| plugin["pools"][0]["routingStrategy"] = strategy.into();
        let gateway = Setup::new(STOP_ITERATION).concurrency(1).plugin(edit).start();
        let shares = gateway.shares(&gateway.burst(vec![long_chat(); 32]));
        assert_eq!(shares, [8; 4], "{strategy}");
    }
    let edit = |plugin: &mut Value| plugin["pools"][0]["routingStrategy"] = "RANDOM".into();
    let gateway = Setup::new(STOP_ITERATION).plugin(edit).start();
    let shares = gateway.shares(&gateway.burst(vec![chat("tiny"); 64]));
    assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
}

#[test]
fn without_a_scrape_cluster_a_burst_is_spread_from_what_is_in_flight() {
    let edit = |plugin: &mut Value| {
        plugin.as_object_mut().unwrap().remove("scrapeCluster");
    };
    let gateway = Setup::new(STOP_ITERATION).plugin(edit).unscraped().start();
    gateway.check_burst_is_spread("nothing is scraped");
    assert!(gateway.pods.servers().all(|pod| pod.counters().metrics_scrapes == 0));
}
