//! What a pool has no room for, or no endpoint, or fails to answer, other pools serve under their own names for the model.

use std::time::Duration;

use envoy_test::envoy::binary::project_root;
use envoy_test::envoy::{Configuration, NEWEST, OLDEST, Protocol, Request, Response};
use envoy_test::load::{Load, Seen};
use envoy_test::model_server::ServerSettings;
use serde_json::{Value, json};

use crate::gateway::{DEFERRED, FALLBACK, Gateway, STOP_ITERATION, Setup, chat, chat_with, pod, until};

const FIRST: [usize; 2] = [0, 1];
const SECOND: [usize; 2] = [2, 3];
const PROVIDER: [usize; 2] = [4, 5];
/// The header that names the pool to the routes.
const HEADER: &str = "x-gateway-pool-name";
const HOSTS: &str =
    "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts";

const FILTERS: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters";

/// Two pods for each pool; the names by which they have the model differ. `waits`: a full pool's requests wait for it first.
fn start(mode: &'static str, version: &'static str, workers: u32, waits: bool) -> Gateway {
    let named = |name: &str| ServerSettings { served_models: vec![name.to_owned()], ..pod() };
    let pods = ["tiny", "tiny", "tiny-second", "tiny-second", "provider/tiny", "provider/tiny"].map(named);
    let setup = if mode == DEFERRED { deferred() } else { Setup::new(FALLBACK).envoy(provider_without_tls) };
    let setup = setup.pods(pods.to_vec()).version(version).concurrency(workers).unscraped();
    let setup = setup.plugin(|plugin| {
        if plugin.get("queue").is_none() {
            return;
        }
        plugin["pools"][0]["answersTellLoad"] = true.into();
        if waits {
            plugin["queue"] = json!({"maxWait": "20s", "fallbackAfter": "300ms"});
        }
    });
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
    let begins_anew = shipped.at(FILTERS)[0].clone();
    let mut hosts = shipped.at(HOSTS).clone();
    for route in hosts[0]["routes"].as_array_mut().unwrap() {
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
        *envoy.at(HOSTS) = hosts;
        envoy.at(FILTERS).as_array_mut().unwrap().insert(0, begins_anew);
        envoy.at("")["node"] = json!({"id": "gateway", "cluster": "gateways"});
    })
}

fn set_full(gateway: &Gateway, places: [usize; 2], is_full: bool) {
    for place in places {
        gateway.pods.server(place).set(|knobs| knobs.gauges.waiting = is_full.then_some(50.0));
    }
}

/// Some requests come to these pods, once the gateway has scraped all, and are served there.
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
        // What Envoy sets where it starts a request again, and what the plugin keeps then, may come from a client, too.
        let forged =
            chat("tiny").header("x-envoy-original-url", "anew").header("wasm.llm_begin_anew", "true");
        let kept = "00;1;1;1;a/tiny";
        let forged = forged.header("llm_first_pass", kept).header("wasm.llm_first_pass", kept);
        let answer = gateway.send(forged.header(HEADER, wish).header("wasm.llm_pool", wish));
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
    set_refuse(gateway, FIRST, true);
    check_served_by(gateway, what, SECOND);
    set_refuse(gateway, FIRST, false);
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

fn set_refuse(gateway: &Gateway, places: [usize; 2], is_refused: bool) {
    places.iter().for_each(|place| gateway.pods.server(*place).set(|knobs| knobs.refuse = is_refused));
}

/// How many requests for its name of the model a pool has got.
fn asked(gateway: &Gateway, places: [usize; 2], model: &str) -> u64 {
    places.iter().map(|place| gateway.pods.server(*place).counters().requests_for(model)).sum()
}

/// How many requests are counted as sent to an endpoint.
fn sent(gateway: &Gateway) -> u64 {
    let stats = gateway.envoy.stats("wasmcustom.").unwrap();
    let sent = stats.iter().filter(|(name, _)| name.ends_with("inference_picker_requests_sent"));
    sent.map(|(_, count)| count).sum()
}

/// Eight clients, each with one stream after the other, while `act` runs.
fn under_load(gateway: &Gateway, act: impl FnOnce()) -> Seen {
    let (client, patience) = (gateway.client(Protocol::Http1), Duration::from_secs(30));
    let request = || chat_with(json!({"model": "tiny", "max_tokens": 20, "stream": true}));
    Load { client, clients: 8, patience, request: &request }.during(|_| act())
}

/// A pool that dies under load, and one that answers 503: nobody whose answer had not begun sees a failure, and the next pool
/// gets each request once.
fn check_failures(gateway: &Gateway, what: &str) {
    let before = [asked(gateway, FIRST, "tiny"), asked(gateway, SECOND, "tiny-second")];
    let seen = under_load(gateway, || {
        until("the first pool serves", || asked(gateway, FIRST, "tiny") > before[0] + 16);
        set_refuse(gateway, FIRST, true);
        until("the second pool serves", || asked(gateway, SECOND, "tiny-second") > before[1] + 32);
    });
    assert_eq!(seen.failed_before_answer(), 0, "{what}: {:?}", seen.complaints());
    assert!(seen.good >= 32, "{what}: {} of {}", seen.good, seen.requests());
    set_refuse(gateway, FIRST, false);
    check_served_by(gateway, what, FIRST);
    let before = asked(gateway, SECOND, "tiny-second");
    FIRST.iter().for_each(|place| gateway.pods.server(*place).set(|knobs| knobs.fail_status = Some(503)));
    let counted = sent(gateway);
    for count in 1..=8 {
        let answer = gateway.send(chat_with(json!({"model": "tiny", "max_tokens": 2})));
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        assert_eq!(answer.header("endpoint-load-metrics"), None, "{what}: the client has not asked for it");
        assert_eq!(asked(gateway, SECOND, "tiny-second") - before, count, "{what}");
    }
    until("each of them is counted as sent, once", || sent(gateway) == counted + 8);
    FIRST.iter().for_each(|place| gateway.pods.server(*place).set(|knobs| knobs.fail_status = None));
}

/// The first pool fails, and so does the second: the client gets the answer of the second with its status. As that pool fails for
/// several requests in a row, the third one serves.
fn check_second_failures(gateway: &Gateway, what: &str) {
    let fail = |places: [usize; 2], status: u16| {
        let pods = places.map(|place| gateway.pods.server(place));
        pods.iter().for_each(|pod| pod.set(|knobs| knobs.fail_status = Some(status)));
    };
    fail(FIRST, 503);
    fail(SECOND, 400);
    assert_eq!(gateway.send(chat("tiny")).status, 400, "{what}: the second answer has its own status");
    fail(SECOND, 503);
    let serves = |answer: &Response| answer.status == 200 && PROVIDER.contains(&gateway.served_by(answer));
    // Each worker has to learn it.
    until(&format!("{what}: the third pool serves"), || (0..6).all(|_| serves(&gateway.send(chat("tiny")))));
}

/// What a full pool has wait goes to the next one after the configured time, and not before.
fn check_waits(gateway: &Gateway, what: &str) {
    set_full(gateway, FIRST, true);
    check_served_by(gateway, what, SECOND);
    let answers = gateway.burst(vec![chat("tiny"); 10]);
    assert!(answers.iter().all(|answer| SECOND.contains(&gateway.served_by(answer))), "{what}");
    let log = gateway.envoy.access_log().unwrap();
    let waited = log.iter().filter(|line| line["decision"] == "begun anew").count();
    assert!(waited >= 10, "{what}: {waited} of {}", log.len());
    set_full(gateway, FIRST, false);
    check_served_by(gateway, what, FIRST);
}

#[test]
fn a_pool_that_fails_or_has_requests_wait_has_them_served_by_the_next() {
    for (mode, version, workers) in [(STOP_ITERATION, NEWEST, 1), (DEFERRED, OLDEST, 4)] {
        let (gateway, what) = (start(mode, version, workers, true), format!("{mode} {version} {workers}"));
        check_served_by(&gateway, &what, FIRST);
        check_waits(&gateway, &what);
        check_failures(&gateway, &what);
    }
}

#[test]
fn a_pool_that_is_full_or_gone_has_its_requests_served_by_the_next_under_its_own_name_for_the_model() {
    for (mode, version, workers) in [(STOP_ITERATION, OLDEST, 4), (DEFERRED, NEWEST, 1)] {
        let (gateway, what) = (start(mode, version, workers, false), format!("{mode} {version} {workers}"));
        check(&gateway, &what);
        check_failures(&gateway, &what);
        check_second_failures(&gateway, &what);
    }
}
