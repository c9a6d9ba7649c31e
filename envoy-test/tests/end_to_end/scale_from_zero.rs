//! A pool that has no endpoint yet: requests wait for the first one.

use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::discovery::{read_endpoints_from, write_endpoints};
use crate::gateway::{
    BODY_MODES, DEFERRED, Gateway, STOP_ITERATION, Setup, WORKER_SCRAPING, chat, chat_with, pod, until,
};
use envoy_test::envoy::blocking::wait_for;
use envoy_test::envoy::{Configuration, NEWEST, OLDEST, Protocol};
use envoy_test::model_server::ModelServers;
use serde_json::{Value, json};

/// The place of the HTTP filters.
const FILTERS: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters";

/// Has the plugin let the headers go before it knows the body, and filters behind it hold them.
fn defer(envoy: &mut Configuration) {
    let mut deferred = Configuration::shipped(DEFERRED).unwrap();
    let behind = deferred.at(FILTERS).as_array().unwrap()[1..].to_vec();
    let filters = envoy.at(FILTERS).as_array_mut().unwrap();
    filters.truncate(1);
    filters.extend(behind);
    let plugin = &mut filters[0]["typed_config"]["config"];
    plugin.as_object_mut().unwrap().remove("allow_on_headers_stop_iteration");
}

/// A gateway of four workers with this queue, whose pool has no endpoint.
fn gateway(mode: &str, version: &'static str, folder: &Path, queue: Value) -> Gateway {
    write_endpoints(folder, &[]);
    let is_deferred = mode == DEFERRED;
    let edit = move |plugin: &mut Value| {
        plugin["queue"] = queue.clone();
        plugin["pickTo"] = if is_deferred { "filterState" } else { "header" }.into();
    };
    let setup = Setup::new(WORKER_SCRAPING).version(version).concurrency(4).pods(vec![]).plugin(edit);
    let setup = if is_deferred { setup.envoy(defer) } else { setup };
    let gateway = setup.unscraped().start_with(|envoy, _| read_endpoints_from(envoy, folder));
    // Until Envoy's list of hosts has been read nobody knows that it is empty, and Envoy itself answers.
    until("the pool is known to be empty", || leaves_after(&gateway, Duration::from_millis(300)));
    until("who has left waits no longer", || queued(&gateway) == Some(0));
    gateway
}

/// Whether a request has no answer until its client leaves.
fn leaves_after(gateway: &Gateway, time: Duration) -> bool {
    let client = gateway.client(Protocol::Http1);
    wait_for(async { tokio::time::timeout(time, client.send(chat("tiny"))).await.is_err() })
}

/// How many requests wait, by the gauge that an autoscaler reads.
fn queued(gateway: &Gateway) -> Option<u64> {
    let stats = gateway.envoy.stats("wasmcustom.").unwrap();
    stats
        .into_iter()
        .find(|(name, _)| name.ends_with("inference_picker_queue_requests"))
        .map(|(_, number)| number)
}

fn healthy(addresses: &[SocketAddr]) -> Vec<(SocketAddr, &'static str)> {
    addresses.iter().map(|address| (*address, "HEALTHY")).collect()
}

#[test]
fn two_hundred_requests_wait_for_the_first_pods_and_each_is_answered_once() {
    for (mode, version) in BODY_MODES.into_iter().zip([OLDEST, NEWEST]) {
        let folder = tempfile::tempdir().unwrap();
        let pods = ModelServers::start(vec![pod(); 2]).unwrap();
        let at = healthy(&pods.addresses());
        let gateway = gateway(mode, version, folder.path(), json!({"whileEmpty": "60s", "maxWait": "1s"}));
        let answers = thread::scope(|scope| {
            let burst = scope.spawn(|| gateway.burst(vec![chat("tiny"); 200]));
            until("all wait", || queued(&gateway) == Some(200));
            assert!(leaves_after(&gateway, Duration::from_millis(300)), "{mode}: it waits like the others");
            until("who has left waits no longer", || queued(&gateway) == Some(200));
            write_endpoints(folder.path(), &at[..1]);
            until("the first pod serves", || pods.server(0).counters().requests_for("tiny") > 0);
            write_endpoints(folder.path(), &at);
            burst.join().unwrap()
        });
        assert!(answers.iter().all(|answer| answer.status == 200), "{mode} {version}");
        let served: Vec<u64> = pods.servers().map(|pod| pod.counters().requests_for("tiny")).collect();
        assert_eq!(served.iter().sum::<u64>(), 200, "{mode} {version}: {served:?}");
        until("nobody waits", || queued(&gateway) == Some(0));
    }
}

#[test]
fn who_waits_in_vain_is_refused_with_retry_after() {
    for (mode, version) in BODY_MODES.into_iter().zip([NEWEST, OLDEST]) {
        let folder = tempfile::tempdir().unwrap();
        let gateway = gateway(mode, version, folder.path(), json!({"whileEmpty": "1s"}));
        let refused = gateway.send(chat("tiny"));
        let error = refused.json().unwrap()["error"].clone();
        assert_eq!(
            (refused.status, &error["code"]),
            (503, &json!("no_endpoint")),
            "{mode} {version}: {error}"
        );
        assert_eq!(refused.header("retry-after"), Some("10"));
        assert_eq!(refused.header("x-llm-d-request-dropped-reason"), Some("rejected-no-endpoints"));
    }
}

#[test]
fn the_bodies_that_wait_have_no_more_bytes_than_is_configured() {
    let folder = tempfile::tempdir().unwrap();
    let queue = json!({"whileEmpty": "1s", "maxBytes": 300_000});
    let gateway = gateway(STOP_ITERATION, NEWEST, folder.path(), queue);
    let large = chat_with(json!({"model": "tiny", "metadata": {"document": "word ".repeat(20_000)}}));
    let answers = gateway.burst(vec![large; 40]);
    let with = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
    // Each of the four workers has room for two.
    assert!((2..=8).contains(&with(503)) && with(503) + with(429) == 40, "{} {}", with(503), with(429));
}
