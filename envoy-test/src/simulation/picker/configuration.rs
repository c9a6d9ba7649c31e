//! What the core is configured with in front of simulated engines. Nothing is shed or held back: what is compared is picks.

use std::ops::Range;

use inference_picker::config::Config;
use serde_json::{Value, json};

use super::Strategy;
use super::setting::address_of;
use crate::model_server::engine::{Engine, Eviction};

/// Metrics count for so many intervals, as under `scrapeBudget`.
const STALE_INTERVALS: u64 = 2;

/// One pool of engines, all of which compute prompts and generate; how often they are scraped, if that is to be said.
pub fn together(strategy: Strategy, engines: &[Engine], scrape_interval_ms: Option<u64>) -> Config {
    let mut document = document(strategy, &[pool("pool", strategy, engines, 0..engines.len())]);
    if let Some(interval_ms) = scrape_interval_ms {
        document["scrapeInterval"] = format!("{interval_ms}ms").into();
        document["metricsStaleAfter"] = format!("{}ms", interval_ms * STALE_INTERVALS).into();
    }
    parsed(&document)
}

/// The first engines only compute prompts of so many tokens and more that are not cached where they are answered.
pub fn disaggregated(
    strategy: Strategy,
    engines: &[Engine],
    prefill_pods: usize,
    threshold_tokens: usize,
) -> Config {
    let mut decode = pool("decode", strategy, engines, prefill_pods..engines.len());
    decode["prefill"] = json!({"pool": "prefill", "minUncachedTokens": threshold_tokens});
    parsed(&document(strategy, &[decode, pool("prefill", strategy, engines, 0..prefill_pods)]))
}

fn document(strategy: Strategy, pools: &[Value]) -> Value {
    let session_by = if strategy.with_sessions { vec!["body prompt_cache_key"] } else { vec![] };
    json!({"scrapeCluster": "pods", "sessionBy": session_by, "pools": pools})
}

fn parsed(document: &Value) -> Config {
    Config::parse(document.to_string().as_bytes()).expect("the configuration is valid")
}

fn pool(name: &str, strategy: Strategy, engines: &[Engine], pods: Range<usize>) -> Value {
    let endpoints: Vec<_> = pods.map(|pod| address_of(pod).to_string()).collect();
    let server = match engines.first().map(|engine| engine.settings().eviction) {
        Some(Eviction::Run) => "sglang",
        _ => "vllm",
    };
    json!({"name": name, "cluster": name, "modelServer": server, "endpoints": endpoints,
        "routingStrategy": strategy.name})
}
