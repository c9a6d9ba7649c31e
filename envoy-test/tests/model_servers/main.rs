//! Claims about the simulated model servers as clients see them, by the side of what a real vLLM 0.32 answered
//! (`tests/fixtures/vllm-0.32/`).

mod changing_models;
mod counters;
mod early_events;
mod failures;
mod inner_failures;
mod llama_cpp;
mod metrics_page;
mod other_paths;
mod pages;
mod realtime;
mod recorded;
mod recorded_shapes;
mod usage;

use std::time::{Duration, Instant};

use envoy_test::envoy::{Client, Protocol, Request, Response};
use envoy_test::model_server::engine::EngineSettings;
use envoy_test::model_server::{
    Counters, MetricsMode, MetricsPage, ModelServer, ModelServers, ServerSettings, SglangRanks, Sleep,
};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";
const RESPONSES: &str = "/v1/responses";
const MESSAGES: &str = "/v1/messages";

/// How long a test waits for something that is bound to happen.
const PATIENCE: Duration = Duration::from_secs(20);

fn start(settings: ServerSettings) -> ModelServers {
    ModelServers::start(vec![settings]).unwrap()
}

/// A server that is fast enough for tests that do not look at its load.
fn quick() -> ModelServers {
    start(ServerSettings {
        lora_adapters: vec!["lora-a".to_owned(), "lora-b".to_owned()],
        engine: EngineSettings { speed: 20.0, ..EngineSettings::default() },
        ..ServerSettings::default()
    })
}

/// A server that runs one request at a time.
fn one_at_a_time(queued_max: Option<usize>) -> ModelServers {
    start(ServerSettings {
        engine: EngineSettings { sequences_max: 1, queued_max, ..EngineSettings::default() },
        ..ServerSettings::default()
    })
}

fn client_of(server: &ModelServer) -> Client {
    Client::new(server.address(), Protocol::Http1)
}

async fn get(server: &ModelServer, path: &str) -> Response {
    client_of(server).send(Request::get(path)).await.unwrap()
}

async fn post(server: &ModelServer, path: &str, body: &Value) -> Response {
    client_of(server).send(Request::post(path).json(body)).await.unwrap()
}

/// A completion of so many tokens for a prompt of token ids.
fn completion(prompt: std::ops::Range<u32>, max_tokens: usize) -> Value {
    json!({"model": "tiny", "prompt": prompt.collect::<Vec<_>>(), "max_tokens": max_tokens})
}

/// A completion that a test ends before it ends by itself: five minutes of tokens.
fn endless_completion() -> Value {
    let mut body = completion(0..10, 50_000);
    body["stream"] = json!(true);
    body
}

/// Waits until `condition` holds.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The value of a series of the metrics page, given as it is printed.
fn series(page: &str, series: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// A gauge or counter that has no labels but the engine and the model.
fn value(page: &str, name: &str) -> f64 {
    series(page, &format!(r#"{name}{{engine="0",model_name="tiny"}}"#)).unwrap_or(f64::NAN)
}
