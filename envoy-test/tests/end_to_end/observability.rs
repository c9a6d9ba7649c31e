//! Dashboard, alerts and scrape job in a real Prometheus that scrapes a real Envoy, under load in which everything
//! happens that there is a metric for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread::sleep;
use std::time::Duration;

use crate::gateway::{Gateway, MODELS, Setup, chat, chat_with, pod};
use envoy_test::envoy::configuration::FilterPosition;
use envoy_test::envoy::{Load, Protocol, Request};
use envoy_test::model_server::{FailInside, InnerFailure, Knobs, MetricsMode, ServerSettings};
use envoy_test::observability::{Prometheus, file, panels, promtool, rules, without_variables};
use serde_json::{Value, json};

const SCRAPE_INTERVAL: Duration = Duration::from_secs(1);
/// Four scrapes, as Grafana chooses it.
const RATE_INTERVAL: &str = "4s";
/// Each kind of trouble comes many times.
const STEPS_MAX: usize = 60;
/// Odd, so that every client comes to send every kind of request.
const CLIENTS: usize = 15;
const REST_MAX: Duration = Duration::from_millis(100);
/// The expressions of the dashboard that came with the two metrics that keep their names: they must not break.
const ESTABLISHED: [&str; 2] = [
    "sum by(llmproxy_model) (rate(asm_llm_proxy_completion_tokens{}[$__rate_interval]))",
    "sum by(llmproxy_model) (rate(asm_llm_proxy_prompt_tokens{}[$__rate_interval]))",
];

fn is_skipped() -> bool {
    let is_missing = !Prometheus::is_installed();
    if is_missing {
        eprintln!("skipped: no Prometheus; `make setup` installs it where Debian's package can be had");
    }
    is_missing
}

#[track_caller]
fn promtool_accepts(arguments: &[&str]) {
    let output = promtool(arguments).unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "promtool {arguments:?}: {}", String::from_utf8_lossy(&said));
}

#[test]
fn promtool_accepts_rules_and_scrape_jobs() {
    if is_skipped() {
        return;
    }
    promtool_accepts(&["check", "rules", "alerts.yaml", "llm-d-aliases.yaml"]);
    promtool_accepts(&["test", "rules", "llm-d-aliases-test.yaml"]);
    promtool_accepts(&["check", "config", "prometheus.yaml"]);
    // Debian's Prometheus cannot discover Kubernetes's pods; all else of that job is checked.
    let text = fs::read_to_string(file("prometheus-istio.yaml")).unwrap();
    let static_text =
        text.replace("kubernetes_sd_configs:\n  - role: pod", "static_configs:\n  - targets: []");
    assert_ne!(text, static_text);
    let folder = tempfile::tempdir().unwrap();
    let static_file = folder.path().join("prometheus.yaml");
    fs::write(&static_file, static_text).unwrap();
    promtool_accepts(&["check", "config", &static_file.to_string_lossy()]);
}

#[test]
fn every_alert_fires_in_a_story_and_none_when_all_is_well() {
    if is_skipped() {
        return;
    }
    promtool_accepts(&["test", "rules", "alerts-test.yaml"]);
    let alerts: BTreeSet<String> =
        rules().unwrap().into_iter().filter(|rule| rule.is_alert).map(|rule| rule.name).collect();
    assert_eq!(in_stories(|checked| !checked["exp_alerts"].is_null()), alerts, "alerts that fire");
    assert_eq!(in_stories(|checked| checked["exp_alerts"].is_null()), alerts, "alerts that do not fire");
}

/// The alerts of which a story checks this.
fn in_stories(holds: impl Fn(&Value) -> bool) -> BTreeSet<String> {
    let text = fs::read_to_string(file("alerts-test.yaml")).unwrap();
    let document: Value = serde_saphyr::from_str(&text).unwrap();
    let stories = document["tests"].as_array().unwrap().iter();
    let checks = stories.flat_map(|story| story["alert_rule_test"].as_array().unwrap());
    checks.filter(|check| holds(check)).map(|check| check["alertname"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_expression_of_dashboard_and_alerts_returns_data_under_load() {
    if is_skipped() {
        return;
    }
    let gateway = gateway();
    let prometheus = Prometheus::start(&[gateway.envoy.admin_address()], SCRAPE_INTERVAL).unwrap();
    let _load = Load::start(gateway.client(Protocol::Http1), CLIENTS, REST_MAX, request).unwrap();
    let mut missing = expressions();
    assert!(missing.len() > 50, "{missing:?}");
    for step in 0..STEPS_MAX {
        make_trouble(&gateway, step);
        sleep(SCRAPE_INTERVAL);
        missing.retain(|_, expression| !has_data(&prometheus, expression));
        if missing.is_empty() {
            break;
        }
    }
    assert!(missing.is_empty(), "no data after {STEPS_MAX} scrapes: {missing:#?}");
    let health = prometheus.rule_health().unwrap();
    assert!(health.len() > rules().unwrap().len(), "those of the aliases are there, too");
    assert!(health.values().all(|health| health == "ok"), "{health:?}");
}

fn has_data(prometheus: &Prometheus, expression: &str) -> bool {
    let values = prometheus.query(expression).unwrap_or_else(|error| panic!("{error:#}"));
    values.into_iter().any(f64::is_finite)
}

/// Two pools, one of which picks by prefixes; a queue; answers that may be compressed, or not report their usage.
fn gateway() -> Gateway {
    let adapters = vec!["tweet-summary".to_owned(), "sql-lora".to_owned()];
    Setup::new(MODELS)
        .pods(vec![ServerSettings { lora_adapters: adapters, ..pod() }; 4])
        .plugin(|plugin| {
            plugin["includeUsage"] = json!(false);
            plugin["pools"][0]["routingStrategy"] = json!("PREFIX_CACHE");
            plugin["pools"][1]["saturation"] = json!({"queueDepth": 5});
            if plugin.get("queue").is_some() {
                plugin["queue"]["maxWait"] = json!("500ms");
                plugin["models"][0]["promise"] = json!({"firstToken": "1s"});
            }
        })
        .envoy(|envoy| {
            envoy.set_statistics_interval(SCRAPE_INTERVAL);
            let compressor = "type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor";
            let gzip = "type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip";
            let filter = json!({"name": "compressor", "typed_config": {"@type": compressor,
                "compressor_library": {"name": "gzip", "typed_config": {"@type": gzip}}}});
            envoy.insert_filter(FilterPosition::Before("envoy.filters.http.router"), filter);
        })
        .start()
}

/// Streams that ask for their usage and streams that do not, answers in one piece and compressed ones, models that are
/// there and one that is not, in a few sessions.
fn request(index: usize) -> Request {
    let model = ["lora-request", "qwen", "batch", "no-such-model"][index / 4 % 4];
    let request = match index % 4 {
        0 => chat_with(json!({"model": model, "max_tokens": 8, "stream": true})),
        1 => chat_with(json!({"model": model, "max_tokens": 8, "stream": true,
            "stream_options": {"include_usage": true}})),
        2 => chat(model),
        _ => chat(model).header("accept-encoding", "gzip"),
    };
    request.header("x-session-id", (index / 4 % 8).to_string())
}

/// A second of each: requests that have to be retried, and a pool that is full; scrapes that fail, and answers that break
/// off or report a failure; adapters that no pod has; and health between them, in which the queue empties.
fn make_trouble(gateway: &Gateway, step: usize) {
    let set = |place: usize, change: fn(&mut Knobs)| {
        gateway.pods.server(place).set(|knobs| {
            *knobs = Knobs::default();
            change(knobs);
        });
    };
    (0..4).for_each(|place| set(place, |_| ()));
    match step % 6 {
        1 => {
            set(0, |knobs| knobs.fail_status = Some(503));
            set(2, |knobs| knobs.gauges.waiting = Some(50.0));
            set(3, |knobs| knobs.gauges.waiting = Some(50.0));
        }
        3 => {
            set(2, |knobs| {
                let how = InnerFailure::Error { code: Some(503) };
                knobs.fail_inside = Some(FailInside { after_tokens: 0, how });
            });
            set(1, |knobs| knobs.metrics = MetricsMode::Status(500));
            set(3, |knobs| knobs.die_mid_stream = Some(3));
        }
        5 => (0..4).for_each(|place| set(place, |knobs| knobs.lora_adapters = Some(Vec::new()))),
        _ => {}
    }
}

/// What of llm-d's own dashboard for the endpoint picker has a counterpart here, in the form that it had in June 2026, when it was in
/// the router's repository; and the same by the older names.
fn reference_dashboard() -> impl Iterator<Item = String> {
    let quantiles = ["0.5", "0.9", "0.95"].into_iter().flat_map(|quantile| {
        let histograms = [
            "llm_d_epp_request_duration_seconds",
            "llm_d_epp_request_input_tokens",
            "llm_d_epp_request_output_tokens",
            "inference_objective_request_duration_seconds",
            "inference_objective_input_tokens",
            "inference_objective_output_tokens",
        ];
        histograms.map(|name| {
            format!("histogram_quantile({quantile}, sum by(le) (rate({name}_bucket{{}}[$__rate_interval])))")
        })
    });
    let others = [
        "sum by(error_code, model_name, target_model_name) (rate(llm_d_epp_request_error_total[$__rate_interval]))",
        "sum by(model_name, target_model_name) (rate(llm_d_epp_request_total{}[$__rate_interval]))",
        "sum by(name) (llm_d_epp_average_kv_cache_utilization)",
        "sum by(name) (llm_d_epp_average_queue_size)",
        "sum by(name, model_server_endpoint, pod) (llm_d_epp_per_endpoint_queue_size)",
        "sum(deriv(llm_d_epp_flow_control_queue_size[$__rate_interval]))",
        "sum by(model_name, target_model_name) (rate(inference_objective_request_total{}[$__rate_interval]))",
        "sum by(name) (inference_pool_average_queue_size)",
        "sum by(name, model_server_pod) (inference_pool_per_pod_queue_size)",
        "sum by(name) (inference_pool_ready_pods)",
    ];
    quantiles.chain(others.map(str::to_owned))
}

/// By the place where each is from.
fn expressions() -> BTreeMap<String, String> {
    let panels = panels().unwrap().into_iter().flat_map(|panel| {
        panel.targets.into_iter().map(move |target| (panel.title.clone(), target.expression))
    });
    let rules = rules().unwrap().into_iter().map(|rule| (rule.name, rule.vector));
    let established = ESTABLISHED.map(|expression| ("established".to_owned(), expression.to_owned()));
    let reference =
        reference_dashboard().map(|expression| ("the reference dashboard".to_owned(), expression));
    let all = panels.chain(rules).chain(established).chain(reference);
    all.enumerate()
        .map(|(place, (from, expression))| {
            (format!("{place:02} {from}"), without_variables(&expression, RATE_INTERVAL))
        })
        .collect()
}
