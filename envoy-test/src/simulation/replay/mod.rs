//! A simulated engine held against a real server: the requests of a trace, played again in virtual time.
//!
//! ```text
//! step = base + prefill token · prompt tokens computed + decode sequence · sequences that decode
//!      + attended token · tokens before each token computed
//! time to first token = front + waiting for the step in progress + steps until the prompt is computed
//! ```
//!
//! `front` is what a request takes before and behind the engine: the server's front end and the client. It and the four costs
//! of a step are not known; [`fit`] finds them on every second request of a trace. All else is as the real server was started
//! ([`server`]). The error is stated on the other requests ([`comparison`]). Not on halves: a machine that others use, too, may be
//! half as fast a minute later, and that is no error of the engine.

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

/// Every second request: those to which costs are fitted.
pub fn fitted(trace: &[ServedRequest]) -> Vec<ServedRequest> {
    trace.iter().step_by(2).copied().collect()
}

/// The others: those on which the error is stated.
pub fn compared(trace: &[ServedRequest]) -> Vec<ServedRequest> {
    trace.iter().skip(1).step_by(2).copied().collect()
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

#[cfg(test)]
mod tests {
    use super::comparison::Comparison;
    use super::fit::{COSTS, with_costs};
    use super::server::RecordedServer;
    use super::*;

    /// With the costs of `docs/simulated-servers.md`.
    fn comparison(server: RecordedServer, costs: [f64; COSTS]) -> Comparison {
        let known = ReplaySettings { engine: server.settings(), front_ms: 0.0 };
        let settings = with_costs(&known, &costs);
        let trace = server.trace().unwrap();
        let replayed = replay(&trace, &settings).unwrap();
        assert_eq!(replayed.len(), trace.len());
        Comparison::of(&compared(&trace), &compared(&replayed))
    }

    #[test]
    fn vllms_first_tokens_are_ordered_as_the_real_ones() {
        let compared = comparison(RecordedServer::Vllm, [0.32, 10.0, 0.443, 1.02, 0.000_144]);
        assert!(compared.ordered_alike > 0.94, "{compared:?}");
        assert!(compared.first_token_error < 0.15, "{compared:?}");
        assert!(compared.same_hits_share > 0.97, "{compared:?}");
    }

    #[test]
    fn llama_cpps_first_tokens_are_ordered_as_the_real_ones() {
        let compared = comparison(RecordedServer::LlamaCpp, [25.87, 0.59, 0.675, 2.59, 0.000_388]);
        assert!(compared.ordered_alike > 0.91, "{compared:?}");
        assert!(compared.first_token_error < 0.19, "{compared:?}");
    }
}
