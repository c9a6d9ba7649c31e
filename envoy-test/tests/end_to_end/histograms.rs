//! Histograms that can be believed: buckets that are narrow where it matters, and means from sums that are exact.

use std::time::{Duration, Instant};

use crate::gateway::{
    ALL, BODY_MODES, DEFERRED, GATEWAYS, Gateway, MODELS, OBSERVED, STOP_ITERATION, Setup, chat_with, pod,
    until,
};
use envoy_test::envoy::binary::project_root;
use envoy_test::envoy::{Client, Configuration, NEWEST, OLDEST, Protocol, Request};
use envoy_test::model_server::ServerSettings;
use envoy_test::observability::{Prometheus, panels, without_variables};
use envoy_test::statistics::{Overview, Page};
use serde_json::{Value, json};

const HISTOGRAMS: [(&str, Range); 8] = [
    ("time_to_first_token_ms", Range { from: 20.0, to: 20_000.0, error: 0.15 }),
    ("time_to_first_token_error_ms", Range { from: 20.0, to: 20_000.0, error: 0.15 }),
    ("queue_wait_ms", Range { from: 20.0, to: 20_000.0, error: 0.15 }),
    ("scrape_duration_ms", Range { from: 20.0, to: 20_000.0, error: 0.15 }),
    ("request_duration_ms", Range { from: 200.0, to: 200_000.0, error: 0.15 }),
    ("time_per_output_token_us", Range { from: 2_000.0, to: 1_000_000.0, error: 0.15 }),
    ("request_prompt_tokens", Range { from: 100.0, to: 100_000.0, error: 0.3 }),
    ("request_completion_tokens", Range { from: 100.0, to: 100_000.0, error: 0.3 }),
];
/// What a scrape costs grows with them: a line each, for each model.
const BUCKETS_MAX: usize = 80;
/// Where Istio has one list for all.
const BUCKETS_OF_ALL_MAX: usize = 120;

/// Where buckets are narrow: by which part of a value, at most, a bucket is off.
struct Range {
    from: f64,
    to: f64,
    error: f64,
}

fn statistics_settings(name: &str) -> Value {
    Configuration::shipped(name).unwrap().at("/stats_config").take()
}

fn istio_file(name: &str) -> String {
    std::fs::read_to_string(project_root().join("istio").join(name)).unwrap()
}

/// What Istio's agent makes of the annotation on its pod: the keys are prefixes of names.
fn istio_bucket_settings() -> Value {
    let patch: Value = serde_saphyr::from_str(&istio_file("telemetry/gateway-patch.yaml")).unwrap();
    let annotations = &patch["spec"]["template"]["metadata"]["annotations"];
    let text = annotations["sidecar.istio.io/statsHistogramBuckets"].as_str().unwrap();
    let lists: serde_json::Map<String, Value> = serde_json::from_str(text).unwrap();
    lists.iter().map(|(prefix, buckets)| json!({"match": {"prefix": prefix}, "buckets": buckets})).collect()
}

#[test]
fn every_configuration_has_the_same_statistics_settings() {
    let settings = statistics_settings(STOP_ITERATION);
    for name in ALL.into_iter().chain([MODELS, GATEWAYS, OBSERVED]) {
        assert_eq!(statistics_settings(name), settings, "{name}");
    }
    let text = istio_file("envoy-gateway/gateway.yaml");
    let resources = text.split("\n---\n").map(|resource| serde_saphyr::from_str::<Value>(resource).unwrap());
    let proxy = resources.into_iter().find(|resource| resource["kind"] == "EnvoyProxy").unwrap();
    let bootstrap = proxy["spec"]["bootstrap"]["value"].as_str().unwrap();
    assert_eq!(serde_saphyr::from_str::<Value>(bootstrap).unwrap(), json!({"stats_config": settings}));
    // The labels are Istio's to take out of the names there.
    let text = istio_file("envoy-filter-with-companion-service/custom_bootstrap.json");
    let bootstrap: Value = serde_json::from_str(&text).unwrap();
    let buckets = json!({"histogram_bucket_settings": settings["histogram_bucket_settings"]});
    assert_eq!(bootstrap["stats_config"], buckets);
}

/// Envoy's own bin in which a value is: they have two digits.
fn bin(value: f64) -> (f64, f64) {
    let width = 10_f64.powi(value.log10().floor() as i32 - 1);
    let start = (value / width).floor() * width;
    (start, start + width)
}

/// All that is known of a value is its bucket; a quantile can be anywhere in it. Values that are in the same bin as a bound
/// are all below it in the newest Envoy, and all above it in the oldest.
fn check_bounds(what: &str, bounds: &[f64], range: &Range, count_max: usize) {
    assert!(bounds.len() <= count_max, "{what}: {}", bounds.len());
    assert!(bounds.is_sorted() && bounds[0] < range.from && range.to < bounds[bounds.len() - 1], "{what}");
    for pair in bounds.windows(2).filter(|pair| pair[1] > range.from && pair[0] < range.to) {
        let (below, above) = (pair[0], pair[1]);
        let (least, most) = (bin(below).0, bin(above).1);
        let (too_much, too_little) = (above / least - 1.0, 1.0 - below / most);
        assert!(too_much.max(too_little) <= range.error + 1e-9, "{what}: {pair:?} for {least} to {most}");
    }
}

/// The bounds that Envoy prints of the first histogram of this name, but for the infinite one.
fn printed_bounds(page: &str, histogram: &str) -> Vec<f64> {
    let prefix = format!("inference_picker_{histogram}_bucket{{");
    let mut bounds = Vec::new();
    for line in page.lines().filter(|line| line.starts_with(&prefix)) {
        let bound = line.split("le=\"").nth(1).unwrap().split('"').next().unwrap();
        if bound == "+Inf" {
            break;
        }
        bounds.push(bound.parse().unwrap());
    }
    bounds
}

#[test]
fn buckets_are_narrow_where_it_matters_and_few_in_the_oldest_and_the_newest_envoy() {
    for version in [OLDEST, NEWEST] {
        let setup = || Setup::new(STOP_ITERATION).version(version);
        check_printed(version, setup(), BUCKETS_MAX);
        let buckets = |envoy: &mut Configuration| {
            envoy.at("/stats_config")["histogram_bucket_settings"] = istio_bucket_settings();
        };
        check_printed(&format!("{version}, Istio's annotation"), setup().envoy(buckets), BUCKETS_OF_ALL_MAX);
    }
}

/// Has a value put into every histogram, and looks at what Envoy prints of them.
fn check_printed(what: &str, setup: Setup, count_max: usize) {
    let waiting = |plugin: &mut Value| {
        plugin["queue"] = json!({"maxWait": "1m"});
        plugin["trustHeaders"] = true.into();
        // On a machine that stands still for a moment, the pods stay as full as they are set.
        plugin["metricsStaleAfter"] = "10s".into();
    };
    let gateway = setup.plugin(waiting).start();
    let full = |waiting: Option<f64>| {
        gateway.pods.servers().for_each(|pod| pod.set(|knobs| knobs.gauges.waiting = waiting));
        gateway.wait_until_scraped();
    };
    full(Some(100.0));
    let client = gateway.client(Protocol::Http1);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let streamed = chat_with(json!({"model": "tiny", "max_tokens": 4, "stream": true}));
    let streamed = streamed.header("x-llm-d-slo-ttft-ms", "60000");
    let waiting = runtime.spawn(async move { client.send(streamed).await.unwrap().status });
    until("it waits", || page(&gateway).sum("inference_picker_queue_requests", &[]) == Some(1.0));
    full(None);
    assert_eq!(runtime.block_on(waiting).unwrap(), 200, "{what}");
    for (name, range) in HISTOGRAMS {
        let printed = || printed_bounds(&text(&gateway), name);
        until(name, || !printed().is_empty());
        check_bounds(&format!("{what}: {name}"), &printed(), &range, count_max);
    }
}

fn text(gateway: &Gateway) -> String {
    gateway.envoy.admin_get("/stats/prometheus?filter=wasmcustom").unwrap()
}

fn page(gateway: &Gateway) -> Page {
    Page::of(&gateway.envoy).unwrap()
}

/// What a client measured of a stream, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Measured {
    first_token: f64,
    per_token: f64,
}

const CLIENTS: usize = 12;
const REQUESTS: usize = 72;
const OUTPUT_TOKENS: usize = 4;
const SCRAPE_INTERVAL: Duration = Duration::from_secs(1);
/// How far off a quantile may be: as wide as a bucket.
const QUANTILE_TOLERANCE: f64 = 0.15;
const MEAN_TOLERANCE: f64 = 0.01;

/// Every step takes hundreds of milliseconds, so that what a busy machine adds does not decide.
fn slow_pods() -> Vec<ServerSettings> {
    let slow = |speed: f64| {
        let mut settings = pod();
        settings.engine.step_base_ms = 200.0;
        settings.engine.prefill_token_ms = 1.0;
        settings.engine.speed = speed;
        settings
    };
    vec![slow(1.0), slow(0.8), slow(0.65), slow(0.5)]
}

/// Prompts of many lengths, of which none begins like another.
fn stream(number: usize) -> Request {
    let prompt = format!("{number:03} ").repeat(50 + number * 37 % 60 * 10);
    Request::post("/v1/completions").json(&json!({
        "model": "tiny", "prompt": prompt, "max_tokens": OUTPUT_TOKENS, "stream": true}))
}

async fn measure(client: Client, number: usize) -> Measured {
    let sent_at = Instant::now();
    let mut stream = client.open(stream(number)).await.unwrap();
    let mut first_token = None;
    while stream.next_chunk().await.unwrap().is_some() {
        first_token.get_or_insert_with(|| sent_at.elapsed());
    }
    let first_token = first_token.unwrap();
    let per_token = (sent_at.elapsed() - first_token) / (OUTPUT_TOKENS as u32 - 1);
    Measured { first_token: first_token.as_secs_f64() * 1e3, per_token: per_token.as_secs_f64() * 1e3 }
}

/// What clients measure that send so many streams, each when it has had its last.
fn measure_all(client: Client) -> Vec<Measured> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let all = (0..CLIENTS).map(|first| measure_own(client, first));
    runtime.block_on(futures_util::future::join_all(all)).concat()
}

async fn measure_own(client: Client, first: usize) -> Vec<Measured> {
    let mut measured = Vec::new();
    for number in (first..REQUESTS).step_by(CLIENTS) {
        measured.push(measure(client, number).await);
    }
    measured
}

/// The value that a share of the values does not exceed.
fn quantile(values: impl Iterator<Item = f64>, share: f64) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[(values.len() as f64 * share).ceil() as usize - 1]
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    values.iter().sum::<f64>() / values.len() as f64
}

#[track_caller]
fn check_near(what: &str, shown: f64, expected: f64, tolerance: f64) {
    assert!((shown / expected - 1.0).abs() <= tolerance, "{what}: {shown} is shown, {expected} was measured");
}

/// Adds to the access log what the plugin has recorded of a stream.
pub fn log_times(envoy: &mut Configuration) {
    const FORMAT: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/access_log/0/typed_config/log_format/json_format";
    envoy.publish_all();
    let format = envoy.at(FORMAT);
    format["ttft_ms"] = "%FILTER_STATE(wasm.llm_ttft_ms:PLAIN)%".into();
    format["duration_ms"] = "%DURATION%".into();
}

/// What a panel of the dashboard shows, over the last `seconds`.
fn shown(prometheus: &Prometheus, panel: &str, line: &str, seconds: u64) -> f64 {
    let panels = panels().unwrap();
    let panel = panels.iter().find(|one| one.title == panel).unwrap_or_else(|| panic!("no panel {panel}"));
    let target = panel.targets.iter().find(|target| target.name(&[].into()) == line);
    let expression = &target.unwrap_or_else(|| panic!("{}: no line {line}", panel.title)).expression;
    prometheus.query(&without_variables(expression, &format!("{seconds}s"))).unwrap()[0]
}

/// Of the same run: what clients measured, what the plugin recorded of each request, what the dashboard shows.
#[test]
fn the_dashboards_quantiles_are_what_clients_measured_and_its_means_what_was_recorded() {
    if !Prometheus::is_installed() {
        eprintln!("skipped: no Prometheus; `make setup` installs it where Debian's package can be had");
        return;
    }
    check_dashboard(STOP_ITERATION, OLDEST);
    check_dashboard(DEFERRED, NEWEST);
}

fn check_dashboard(configuration: &str, version: &'static str) {
    let gateway = Setup::new(configuration)
        .version(version)
        .pods(slow_pods())
        .envoy(|envoy| {
            envoy.set_statistics_interval(SCRAPE_INTERVAL);
            log_times(envoy);
        })
        .start();
    let prometheus = Prometheus::start(&[gateway.envoy.admin_address()], SCRAPE_INTERVAL).unwrap();
    let client = gateway.client(Protocol::Http1);
    // A rate knows of what came after a series' first sample only, so there has to be one of each before.
    client.send_blocking(stream(REQUESTS)).unwrap();
    let samples = |count: usize| {
        let series = "inference_picker_time_per_output_token_us_count";
        let counted = || prometheus.query(&format!("{series} == {count}")).unwrap();
        until("Prometheus has what was recorded", || counted() == [count as f64]);
        std::thread::sleep(2 * SCRAPE_INTERVAL);
    };
    samples(1);
    let (before, began_at) = (page(&gateway), Instant::now());
    let measured = measure_all(client);
    samples(1 + REQUESTS);
    let (after, elapsed) = (page(&gateway), began_at.elapsed());
    let shown = |panel: &str, line: &str| shown(&prometheus, panel, line, elapsed.as_secs() + 1);
    let (first, per_token) = ("Time to first token", "Time per output token");
    let top = Overview::between(&before, &after, elapsed).models.remove(0);
    for (share, line, in_top) in
        [(0.5, "p50", top.first_token_p50_ms.unwrap()), (0.9, "p90", top.first_token_p90_ms.unwrap())]
    {
        let what = |of: &str| format!("{configuration}: {line} of {of}");
        let clients = quantile(measured.iter().map(|one| one.first_token), share);
        check_near(&what(first), shown(first, line), clients, QUANTILE_TOLERANCE);
        check_near(&what("make top"), in_top, clients, QUANTILE_TOLERANCE);
        let clients = quantile(measured.iter().map(|one| one.per_token), share);
        check_near(&what(per_token), shown(per_token, line) / 1e3, clients, QUANTILE_TOLERANCE);
    }
    let lines = gateway.envoy.access_log_until(1 + REQUESTS).unwrap();
    let number = |line: &Value, field: &str| -> f64 {
        line[field].as_f64().unwrap_or_else(|| line[field].as_str().unwrap().parse().unwrap())
    };
    let recorded = || lines[1..].iter().map(|line| (number(line, "ttft_ms"), number(line, "duration_ms")));
    let first_mean = mean(recorded().map(|(first_ms, _)| first_ms));
    let tokens = OUTPUT_TOKENS as f64 - 1.0;
    let per_token_mean = mean(recorded().map(|(first_ms, duration_ms)| (duration_ms - first_ms) / tokens));
    let duration_mean = mean(recorded().map(|(_, duration_ms)| duration_ms));
    for (panel, in_ms, expected) in [
        (first, shown(first, "mean"), first_mean),
        (per_token, shown(per_token, "mean") / 1e3, per_token_mean),
        ("End-to-end time", shown("End-to-end time", "mean"), duration_mean),
        ("make top, first token", top.first_token_mean_ms.unwrap(), first_mean),
        ("make top, per token", top.per_token_mean_ms.unwrap(), per_token_mean),
    ] {
        check_near(&format!("{configuration}: mean of {panel}"), in_ms, expected, MEAN_TOLERANCE);
    }
}

/// Envoy itself would say 1,048 of a thousand ones.
#[test]
fn sums_are_exact() {
    const ANSWERS: usize = 100;
    for configuration in BODY_MODES {
        let gateway = Setup::new(configuration).start();
        let one_token = chat_with(json!({"model": "tiny", "max_tokens": 1}));
        let answers = gateway.burst(vec![one_token; ANSWERS]);
        let usage = |answer: &envoy_test::envoy::Response| answer.json().unwrap()["usage"].take();
        let prompt: u64 = answers.iter().map(|answer| usage(answer)["prompt_tokens"].as_u64().unwrap()).sum();
        let histogram = |name: &str| page(&gateway).histogram(&format!("inference_picker_{name}"), &[]);
        until("Envoy has merged its histograms", || {
            histogram("request_completion_tokens").count() == ANSWERS as f64
        });
        let page = page(&gateway);
        let sum = |name: &str| page.sum(name, &[]).unwrap() as u64;
        assert_eq!(sum("asm_llm_proxy_completion_tokens"), ANSWERS as u64, "{configuration}");
        assert_eq!(sum("asm_llm_proxy_prompt_tokens"), prompt, "{configuration}");
        assert_ne!(sum("inference_picker_request_completion_tokens_sum"), ANSWERS as u64, "Envoy's own");
    }
}
