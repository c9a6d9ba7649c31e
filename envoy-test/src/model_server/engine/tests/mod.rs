//! Claims about the engine. Costs are round numbers: a step takes 10 ms, 1 ms more for each prefill token.

mod batching;
mod lifecycle;
mod lora;
mod prefix_cache;

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;

fn settings() -> EngineSettings {
    EngineSettings {
        step_base_ms: 10.0,
        prefill_token_ms: 1.0,
        decode_sequence_ms: 0.0,
        lora_load_ms: 100.0,
        block_tokens: 4,
        ..EngineSettings::default()
    }
}

fn request(prompt: impl IntoIterator<Item = u32>, output_tokens: usize) -> EngineRequest {
    EngineRequest { prompt: prompt.into_iter().collect(), output_tokens, adapter: None, cache_salt: None }
}

fn with_adapter(adapter: &str, request: EngineRequest) -> EngineRequest {
    EngineRequest { adapter: Some(adapter.to_owned()), ..request }
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Submits requests that all arrive at time zero.
fn engine_with(settings: EngineSettings, requests: impl IntoIterator<Item = EngineRequest>) -> Engine {
    let mut engine = Engine::new(settings);
    for request in requests {
        engine.submit(ms(0), request).unwrap();
    }
    engine
}

/// Moves to the end of the next step.
fn finish_one_step(engine: &mut Engine) -> Vec<Output> {
    let steps = engine.finished_steps();
    let mut outputs = Vec::new();
    while engine.finished_steps() == steps {
        let at = engine.next_event().expect("the engine is idle");
        outputs.extend(engine.advance(at));
    }
    outputs
}

fn run_until_idle(engine: &mut Engine) -> Vec<Output> {
    let mut outputs = Vec::new();
    while let Some(at) = engine.next_event() {
        outputs.extend(engine.advance(at));
    }
    outputs
}

/// Requests in the order of their first tokens.
fn order_of_first_tokens(outputs: &[Output]) -> Vec<RequestId> {
    outputs.iter().filter(|output| output.output_tokens == 1).map(|output| output.request).collect()
}

fn order_of_last_tokens(outputs: &[Output]) -> Vec<RequestId> {
    outputs.iter().filter(|output| output.finished).map(|output| output.request).collect()
}
