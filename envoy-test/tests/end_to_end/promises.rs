//! What a request is promised, by headers that are trusted or for its model, decides where it goes; and whether it was kept is
//! seen.

use std::time::Duration;

use envoy_test::envoy::{Configuration, NEWEST, OLDEST, Request};
use envoy_test::model_server::FixedGauges;
use serde_json::{Value, json};

use crate::gateway::{DEFERRED, Gateway, PROMISES, STOP_ITERATION, Setup, chat, chat_with, until};

const FIRST_TOKEN: [&str; 2] = ["x-llm-d-slo-ttft-ms", "x-slo-ttft-ms"];
const PER_TOKEN: [&str; 2] = ["x-llm-d-slo-tpot-ms", "x-slo-tpot-ms"];
const OBJECTIVE: &str = "x-llm-d-inference-objective";
/// What pods say others have queued there. Taken for 512 tokens each, at some 8 tokens a millisecond, these are 3.2 s, 0.64 s and
/// nothing until the first token.
const QUEUES: [Option<f64>; 4] = [Some(50.0), Some(10.0), None, None];
const FULLEST: &[usize] = &[0];
const FULL: &[usize] = &[1];
const EMPTY: &[usize] = &[2, 3];
const ANY: &[usize] = &[0, 1, 2, 3];
const LOG: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/access_log/0/typed_config/log_format/json_format";

fn start(mode: &str, version: &'static str, workers: u32, is_trusted: bool) -> Gateway {
    let edit = move |plugin: &mut Value| {
        plugin["trustHeaders"] = is_trusted.into();
        // On a machine that stands still for a moment, the pods stay as full as they are set.
        plugin["metricsStaleAfter"] = "10s".into();
        plugin["pools"][0]["saturation"] = json!({"queueDepth": 100_000});
        let models = plugin.get_mut("models").and_then(Value::as_array_mut);
        for model in models.into_iter().flatten().filter(|model| model["modelName"] == "chat") {
            model["promise"]["firstToken"] = "8s".into();
        }
    };
    let setup = if mode == DEFERRED { deferred() } else { Setup::new(PROMISES) };
    let gateway = setup.version(version).concurrency(workers).plugin(edit).envoy(log_promises).start();
    set_queues(&gateway, QUEUES);
    gateway
}

/// What the shipped configuration has, in deferred mode.
fn deferred() -> Setup {
    let mut shipped = Configuration::shipped(PROMISES).unwrap();
    let mut plugin = Value::Null;
    shipped.edit_plugin(|edited| {
        // The companion service needs to know less.
        if edited.get("models").is_some() {
            plugin = edited.clone();
        }
    });
    Setup::new(DEFERRED).plugin(move |edited| {
        for name in ["models", "objectives", "unknownModels"] {
            edited[name] = plugin[name].clone();
        }
    })
}

/// Logs what was expected, what was measured, and what reaches the pods of the headers.
fn log_promises(envoy: &mut Configuration) {
    envoy.publish_all();
    envoy.set_statistics_interval(Duration::from_secs(1));
    let format = envoy.at(LOG);
    for field in ["ttft_ms", "expected_ttft_ms"] {
        format[field] = format!("%FILTER_STATE(wasm.llm_{field}:PLAIN)%").into();
    }
    for name in FIRST_TOKEN.into_iter().chain(PER_TOKEN) {
        format[name] = format!("%REQ({name})%").into();
    }
}

fn set_queues(gateway: &Gateway, queues: [Option<f64>; 4]) {
    for (server, waiting) in gateway.pods.servers().zip(queues) {
        server.set(|knobs| knobs.gauges = FixedGauges { waiting, ..FixedGauges::default() });
    }
    gateway.wait_until_scraped();
}

/// Sends a request that one of these pods is to serve; the access log says of its promise what is expected.
#[track_caller]
fn check(gateway: &Gateway, what: &str, request: Request, pods: &[usize], promise: Option<&str>) -> Value {
    let before = gateway.envoy.access_log().unwrap().len();
    let answer = gateway.send(request);
    assert_eq!(answer.status, 200, "{what}: {}", answer.text());
    let line = gateway.envoy.access_log_until(before + 1).unwrap().remove(before);
    assert!(pods.contains(&gateway.served_by(&answer)), "{what}: {line}");
    let decision = line["decision"].as_str().unwrap();
    let said = decision.split(" promise=").nth(1).map(|rest| rest.split(' ').next().unwrap());
    assert_eq!(said, promise, "{what}: {line}");
    line
}

fn check_refused(gateway: &Gateway, what: &str, request: Request) {
    let before = gateway.envoy.access_log().unwrap().len();
    let answer = gateway.send(request);
    gateway.envoy.access_log_until(before + 1).unwrap();
    assert_eq!(answer.status, 429, "{what}: {}", answer.text());
    assert_eq!(answer.json().unwrap()["error"]["code"], "promise_not_kept", "{what}");
    assert_eq!(answer.header("x-llm-d-request-dropped-reason"), Some("rejected-saturated"), "{what}");
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{what}: {seconds}");
}

/// The fullest pod that keeps it serves, or, if none does, the one that costs least.
fn check_trusted(gateway: &Gateway, what: &str) {
    for name in FIRST_TOKEN {
        check(gateway, what, chat("tiny").header(name, "60000"), FULLEST, Some("kept"));
        check(gateway, what, chat("tiny").header(name, "8000.5"), FULL, Some("kept"));
        check(gateway, what, chat("tiny").header(name, "0.01"), EMPTY, Some("missed"));
    }
    for name in PER_TOKEN {
        check(gateway, what, chat("tiny").header(name, "0.001"), EMPTY, Some("kept"));
    }
    check(gateway, what, chat("tiny"), EMPTY, None);
}

/// What is no number of milliseconds promises nothing, and neither do two of them.
fn check_hostile(gateway: &Gateway, what: &str) {
    let long = "6".repeat(4_096);
    for value in ["-60000", "NaN", "inf", "6e4", "0", "", "60000ms", "3600001", "60000,60000", &long] {
        check(gateway, what, chat("tiny").header(FIRST_TOKEN[0], value), EMPTY, None);
    }
    let twice = chat("tiny").header(FIRST_TOKEN[0], "60000").header(FIRST_TOKEN[0], "60000");
    check(gateway, what, twice, EMPTY, None);
    let unreadable = chat("tiny").header(FIRST_TOKEN[1], b"60\xff00").header(PER_TOKEN[1], "-1");
    check(gateway, what, unreadable, EMPTY, None);
}

/// A model's promise holds whoever asks; where headers are trusted they can promise otherwise.
fn check_model(gateway: &Gateway, what: &str, is_trusted: bool) {
    check(gateway, what, chat("chat"), FULL, Some("kept"));
    let pods = if is_trusted { FULLEST } else { FULL };
    check(gateway, what, chat("chat").header(FIRST_TOKEN[0], "60000"), pods, Some("kept"));
}

/// A request that gives way gets 429 when no endpoint would keep its promise; others are sent.
fn check_broken(gateway: &Gateway, what: &str) {
    set_queues(gateway, [Some(50.0); 4]);
    let promised = |milliseconds: &str| chat("tiny").header(FIRST_TOKEN[0], milliseconds);
    check(gateway, what, promised("1000"), ANY, Some("missed"));
    check_refused(gateway, what, promised("1000").header(OBJECTIVE, "batch"));
    check(gateway, what, promised("60000").header(OBJECTIVE, "batch"), ANY, Some("kept"));
    set_queues(gateway, [None; 4]);
    check(gateway, what, promised("1000").header(OBJECTIVE, "batch"), ANY, Some("kept"));
}

/// What was expected and what came of it is in the log and in the statistics.
fn check_seen(gateway: &Gateway, what: &str) {
    let streamed = chat_with(json!({"model": "chat", "max_tokens": 4, "stream": true}));
    let line = check(gateway, what, streamed, ANY, Some("kept"));
    let ms = |field: &str| line[field].as_str().and_then(|text| text.parse::<u64>().ok());
    assert!(ms("ttft_ms").is_some() && ms("expected_ttft_ms").is_some(), "{what}: {line}");
    let page = || gateway.envoy.admin_get("/stats/prometheus?filter=wasmcustom").unwrap();
    let counted = |name: &str| {
        let series = format!("inference_picker_{name}{{model=\"chat\"}} 1");
        until(&series, || page().lines().any(|line| line == series));
    };
    counted("promises_kept");
    counted("time_to_first_token_error_ms_count");
}

#[test]
fn promises_decide_where_requests_go_and_are_seen_to_be_kept() {
    for (mode, version, workers) in [
        (STOP_ITERATION, OLDEST, 4),
        (DEFERRED, OLDEST, 1),
        (STOP_ITERATION, NEWEST, 1),
        (DEFERRED, NEWEST, 4),
    ] {
        let gateway = start(mode, version, workers, true);
        let what = format!("{mode} {version} {workers}");
        check_trusted(&gateway, &what);
        check_hostile(&gateway, &what);
        check_model(&gateway, &what, true);
        check_broken(&gateway, &what);
        check_seen(&gateway, &what);
    }
}

#[test]
fn nobody_promises_itself_anything_where_headers_are_not_trusted() {
    for (mode, version) in [(STOP_ITERATION, OLDEST), (DEFERRED, NEWEST)] {
        let gateway = start(mode, version, 1, false);
        for name in FIRST_TOKEN.into_iter().chain(PER_TOKEN) {
            let request = chat("tiny").header(name, "60000").header(name, "1");
            let line = check(&gateway, mode, request, EMPTY, None);
            assert!(line[name].is_null(), "{mode}: it is removed: {line}");
        }
        check_model(&gateway, mode, false);
    }
}
