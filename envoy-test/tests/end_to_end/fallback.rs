//! What a pool has no room for, or no endpoint, other pools serve under their own names for the model.

use envoy_test::envoy::binary::project_root;
use envoy_test::envoy::{Configuration, NEWEST, OLDEST, Request, Response};
use envoy_test::model_server::ServerSettings;
use serde_json::{Value, json};

use crate::gateway::{DEFERRED, FALLBACK, Gateway, STOP_ITERATION, Setup, chat, pod, until};

const FIRST: [usize; 2] = [0, 1];
const SECOND: [usize; 2] = [2, 3];
const PROVIDER: [usize; 2] = [4, 5];
/// The header that names the pool to the routes.
const HEADER: &str = "x-gateway-pool-name";
const ROUTES: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes";

/// Two pods for each pool; the names by which they have the model differ.
fn start(mode: &'static str, version: &'static str, workers: u32) -> Gateway {
    let named = |name: &str| ServerSettings { served_models: vec![name.to_owned()], ..pod() };
    let pods = ["tiny", "tiny", "tiny-second", "tiny-second", "provider/tiny", "provider/tiny"].map(named);
    let setup = if mode == DEFERRED { deferred() } else { Setup::new(FALLBACK).envoy(provider_without_tls) };
    let setup = setup.pods(pods.to_vec()).version(version).concurrency(workers).unscraped();
    let gateway = setup.envoy(Configuration::publish_all).start();
    until("the pods that are scraped have been", || {
        FIRST.iter().chain(&SECOND).all(|place| gateway.pods.server(*place).counters().metrics_scrapes > 2)
    });
    gateway
}

fn provider_without_tls(envoy: &mut Configuration) {
    let provider = envoy.cluster("provider");
    provider.as_object_mut().unwrap().remove("transport_socket");
    let key = "/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions/http_filters/0/typed_config/credential/typed_config/credential/sds_config/path_config_source/path";
    let file = project_root().join("filter-config/fallback/provider-key.yaml");
    *provider.pointer_mut(key).unwrap() = file.to_str().unwrap().into();
}

/// What the shipped configuration has, in deferred mode: routes match on filter state in place of the header.
fn deferred() -> Setup {
    let mut shipped = Configuration::shipped(FALLBACK).unwrap();
    provider_without_tls(&mut shipped);
    let mut plugin = Value::Null;
    shipped.edit_plugin(|edited| {
        // The companion service needs to know less.
        if edited.get("models").is_some() {
            plugin = edited.clone();
        }
    });
    let clusters = ["vllm-second", "provider"].map(|name| shipped.cluster(name).clone());
    let mut routes = shipped.at(ROUTES).clone();
    for route in routes.as_array_mut().unwrap() {
        let matched = route["match"].as_object_mut().unwrap();
        if let Some(headers) = matched.remove("headers") {
            let exact = headers[0]["string_match"].clone();
            matched.insert("filter_state".into(), json!([{"key": "wasm.llm_pool", "string_match": exact}]));
        }
    }
    let edit = move |edited: &mut Value| {
        for name in ["pools", "models", "queue"] {
            edited[name] = plugin[name].clone();
        }
    };
    Setup::new(DEFERRED).plugin(edit).envoy(|envoy| {
        envoy.at("/static_resources/clusters").as_array_mut().unwrap().extend(clusters);
        *envoy.at(ROUTES) = routes;
        envoy.at("")["node"] = json!({"id": "gateway", "cluster": "gateways"});
    })
}

fn set_full(gateway: &Gateway, places: [usize; 2], is_full: bool) {
    for place in places {
        gateway.pods.server(place).set(|knobs| knobs.gauges.waiting = is_full.then_some(50.0));
    }
}

/// Some requests come to these pods, once the gateway has heard how all are, and are served there.
#[track_caller]
fn check_served_by(gateway: &Gateway, what: &str, places: [usize; 2]) {
    let serves = |answer: &Response| answer.status == 200 && places.contains(&gateway.served_by(answer));
    until(&format!("{what}: {places:?} serve"), || serves(&gateway.send(chat("tiny"))));
    for _ in 0..5 {
        let answer = gateway.send(chat("tiny"));
        assert!(serves(&answer), "{what}: {}", answer.text());
    }
}

fn check(gateway: &Gateway, what: &str) {
    check_served_by(gateway, what, FIRST);
    // No client chooses its pool.
    for wish in ["second", "provider"] {
        let answer = gateway.send(chat("tiny").header(HEADER, wish).header("wasm.llm_pool", wish));
        assert!(FIRST.contains(&gateway.served_by(&answer)), "{what}");
        gateway.send(Request::get("/v1/models").header(HEADER, wish));
    }
    let foreign = SECOND.into_iter().chain(PROVIDER);
    let asked: u64 =
        foreign.map(|place| gateway.pods.server(place).counters().requests_to("/v1/models")).sum();
    assert!(asked <= 2, "{what}: the scraper reads each scraped pod's list once, and nobody else does");
    set_full(gateway, FIRST, true);
    check_served_by(gateway, what, SECOND);
    set_full(gateway, SECOND, true);
    check_served_by(gateway, what, PROVIDER);
    set_full(gateway, SECOND, false);
    set_full(gateway, FIRST, false);
    check_served_by(gateway, what, FIRST);
    FIRST.iter().for_each(|place| gateway.pods.server(*place).set(|knobs| knobs.refuse = true));
    check_served_by(gateway, what, SECOND);
    FIRST.iter().for_each(|place| gateway.pods.server(*place).set(|knobs| knobs.refuse = false));
    check_served_by(gateway, what, FIRST);
    let log = gateway.envoy.access_log().unwrap();
    let fell_back =
        |line: &&Value| line["decision"].as_str().is_some_and(|text| text.contains(" fallback_of=first"));
    assert!(log.iter().filter(fell_back).count() >= 10, "{what}");
    let stats = gateway.envoy.stats("wasmcustom.").unwrap();
    let counted = stats.iter().find(|(name, _)| name.ends_with("inference_picker_fallbacks"));
    assert!(
        counted.is_some_and(|(name, count)| name.contains("first") && *count >= 15),
        "{what}: {counted:?}"
    );
}

#[test]
fn a_pool_that_is_full_or_gone_has_its_requests_served_by_the_next_under_its_own_name_for_the_model() {
    for (mode, version, workers) in [(STOP_ITERATION, OLDEST, 4), (DEFERRED, NEWEST, 1)] {
        check(&start(mode, version, workers), &format!("{mode} {version} {workers}"));
    }
}
