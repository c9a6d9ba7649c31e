//! A simulated engine held against a real server: the requests of a trace, played again in virtual time.
//!
//! ```text
//! step = base + prefill token · prompt tokens computed + decode sequence · sequences that decode
//!      + attended token · tokens before each token computed
//! time to first token = front + waiting for the step in progress + steps until the prompt is computed
//! ```
//!
//! `front` is what a request takes before and behind the engine: the server's front end and the client. It and the four costs
//! of a step are not known; [`fit`] finds them on the first half of a trace. All else is as the real server was started
//! ([`server`]). The error is stated on the second half ([`comparison`]).

pub mod comparison;
pub mod fit;
pub mod report;
pub mod server;
pub mod trace;

use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::model_server::engine::{Engine, EngineRequest, EngineSettings};
use trace::ServedRequest;

/// Everything that decides a replay.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplaySettings {
    pub engine: EngineSettings,
    /// What every request takes outside the engine.
    pub front_ms: f64,
}

/// The same requests, as the simulated engine serves them.
///
/// # Errors
/// A request that the engine refuses.
pub fn replay(trace: &[ServedRequest], settings: &ReplaySettings) -> Result<Vec<ServedRequest>> {
    let front = Duration::from_secs_f64(settings.front_ms / 1_000.0);
    let mut engine = Engine::new(settings.engine.clone());
    let mut outputs = Vec::new();
    for (place, served) in trace.iter().enumerate() {
        let (sent, there) = (served.sent, served.sent.arrival + front);
        outputs.extend(engine.advance(there));
        let request = EngineRequest {
            prompt: sent.prompt(place),
            output_tokens: sent.output_tokens,
            adapter: None,
            cache_salt: None,
        };
        engine.submit(there, request).map_err(|refusal| anyhow!("request {place}: {refusal:?}"))?;
    }
    outputs.extend(engine.advance(Duration::MAX));
    // The engine numbers requests as they come, from one on.
    outputs.retain(|output| output.finished);
    outputs.sort_by_key(|output| output.request);
    let pairs = trace.iter().zip(outputs);
    Ok(pairs
        .map(|(served, output)| ServedRequest {
            sent: served.sent,
            cached_tokens: output.cached_tokens,
            first_token: output.first - served.sent.arrival,
            end_to_end: output.at - served.sent.arrival,
        })
        .collect())
}
