//! When the plugin itself fails, traffic goes on.
//!
//! A real way to end it is used: the plugin as it ships, allowed so little memory that a large body, or a large
//! metrics page, is more than it can hold.

use std::time::Duration;

use crate::gateway::{ALL, Gateway, STOP_ITERATION, Setup, WORKER_SCRAPING, chat, until};
use envoy_test::envoy::little_memory::{TOO_LARGE_BYTES, plugin_with_little_memory};
use envoy_test::envoy::{Configuration, Request};
use envoy_test::model_server::MetricsMode;
use serde_json::{Value, json};

/// What Envoy writes to its log when a VM traps, whatever it trapped for.
pub const TRAPPED: &str = " failed: Uncaught ";

fn start(configuration: &str, failure_policy: &str) -> (Gateway, tempfile::TempDir) {
    let (folder, file) = plugin_with_little_memory().unwrap();
    let edit = |envoy: &mut Configuration| {
        envoy.set_plugin_file(&file);
        let filter = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters/0";
        envoy.at(&format!("{filter}/typed_config/config"))["failure_policy"] = failure_policy.into();
    };
    (Setup::new(configuration).concurrency(1).envoy(edit).start(), folder)
}

fn large_chat() -> Request {
    Request::post("/v1/completions").json(&json!({"model": "tiny", "prompt": "x".repeat(TOO_LARGE_BYTES)}))
}

fn picked(gateway: &Gateway) -> bool {
    let count = gateway.envoy.access_log().unwrap().len();
    let answer = gateway.send(chat("tiny"));
    answer.status == 200 && gateway.envoy.access_log_until(count + 1).unwrap()[count]["picked"] != Value::Null
}

#[test]
fn with_fail_reload_the_plugin_is_started_anew_and_picks_again() {
    for configuration in ALL {
        let (gateway, _folder) = start(configuration, "FAIL_RELOAD");
        assert!(picked(&gateway), "{configuration}");
        assert!(gateway.send(large_chat()).status >= 500, "{configuration}: the request that ended it");
        until("the plugin picks again", || picked(&gateway));
        let log = gateway.envoy.log_text();
        assert!(log.contains("memory allocation"), "{configuration}: it ended for want of memory");
        assert!(log.contains(TRAPPED), "{configuration}");
    }
}

#[test]
fn with_fail_open_traffic_passes_without_the_plugin() {
    let (gateway, _folder) = start(STOP_ITERATION, "FAIL_OPEN");
    gateway.send(large_chat());
    for _ in 0..20 {
        assert_eq!(gateway.send(chat("tiny")).status, 200, "Envoy's own balancing serves it");
    }
}

/// What SECURITY.md warns of: nobody removes the header any more.
#[test]
fn with_fail_open_clients_can_name_their_pod_once_the_plugin_has_ended() {
    let (gateway, _folder) = start(STOP_ITERATION, "FAIL_OPEN");
    let wish = gateway.pods.addresses()[3].to_string();
    let wishful = || chat("tiny").header("x-gateway-destination-endpoint", &wish);
    let all_served = |gateway: &Gateway| (0..8).all(|_| gateway.served_by(&gateway.send(wishful())) == 3);
    assert!(!all_served(&gateway));
    gateway.send(large_chat());
    assert!(all_served(&gateway));
}

#[test]
fn when_the_companion_service_stops_traffic_goes_on() {
    let (gateway, _folder) = start(STOP_ITERATION, "FAIL_RELOAD");
    gateway.pods.server(0).set(|knobs| knobs.metrics = MetricsMode::Huge(TOO_LARGE_BYTES));
    until("the service has ended", || gateway.envoy.log_text().contains("memory allocation"));
    let before = gateway.pods.server(1).counters().metrics_scrapes;
    std::thread::sleep(Duration::from_secs(1));
    let after = gateway.pods.server(1).counters().metrics_scrapes;
    assert!(after <= before + 1, "it scrapes no more: {before}, {after}");
    gateway.check_burst_is_spread("without the service");
}

#[test]
fn when_the_worker_that_scrapes_is_gone_another_takes_over() {
    let (folder, file) = plugin_with_little_memory().unwrap();
    let edit = |envoy: &mut Configuration| {
        envoy.set_plugin_file(&file);
    };
    let gateway = Setup::new(WORKER_SCRAPING).concurrency(2).envoy(edit).start();
    gateway.pods.server(0).set(|knobs| knobs.metrics = MetricsMode::Huge(TOO_LARGE_BYTES));
    until("the worker has ended", || gateway.envoy.log_text().contains("memory allocation"));
    gateway.pods.server(0).set(|knobs| knobs.metrics = MetricsMode::Live);
    gateway.wait_until_scraped();
    until("both workers pick", || (0..8).all(|_| picked(&gateway)));
    drop(folder);
}
