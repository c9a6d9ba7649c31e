//! What a step of a real server costs: the costs with which a replay is closest to the trace.
//!
//! ```text
//! error = Σ |simulated − real| / Σ real of the times to first token + the same of the times for each further token
//! ```
//!
//! Coordinate search: each cost in turn is tried somewhat higher and somewhat lower, and kept where the error is smaller.
//! When no change helps, the next changes are half as large.

use anyhow::Result;

use super::trace::ServedRequest;
use super::{ReplaySettings, fitted, replay};

/// The first changes, and the last ones, as a share of the cost.
const CHANGE_FIRST: f64 = 0.5;
const CHANGE_LAST: f64 = 0.005;
/// From where the search starts.
const STARTING_MS: [f64; COSTS] = [5.0, 10.0, 0.3, 0.5, 0.0002];
pub(super) const COSTS: usize = 5;

/// The settings of `known` with the costs that fit every second request of `trace` best.
///
/// # Errors
/// Those of [`replay`].
pub fn fit(trace: &[ServedRequest], known: &ReplaySettings) -> Result<ReplaySettings> {
    let real = fitted(trace);
    let error_with = |costs: &[f64; COSTS]| {
        let replayed = replay(trace, &with_costs(known, costs))?;
        Ok::<f64, anyhow::Error>(error(&real, &fitted(&replayed)))
    };
    let mut best = STARTING_MS;
    let mut least = error_with(&best)?;
    let mut change = CHANGE_FIRST;
    while change > CHANGE_LAST {
        let before = least;
        for cost in 0..COSTS {
            for factor in [1.0 + change, 1.0 / (1.0 + change)] {
                let mut tried = best;
                tried[cost] *= factor;
                let error = error_with(&tried)?;
                if error < least {
                    (best, least) = (tried, error);
                }
            }
        }
        if least == before {
            change /= 2.0;
        }
    }
    Ok(with_costs(known, &best))
}

/// The settings of `known` with these costs: in front of the engine, of a step, of a prompt token, of a sequence that decodes, of a
/// token that is attended to.
pub(super) fn with_costs(known: &ReplaySettings, costs: &[f64; COSTS]) -> ReplaySettings {
    let mut settings = known.clone();
    [
        settings.front_ms,
        settings.engine.step_base_ms,
        settings.engine.prefill_token_ms,
        settings.engine.decode_sequence_ms,
        settings.engine.attended_token_ms,
    ] = *costs;
    settings
}

/// How far a replay is from what was real.
pub fn error(real: &[ServedRequest], replayed: &[ServedRequest]) -> f64 {
    let first_tokens = share_off(real, replayed, |served| served.first_token.as_secs_f64());
    let per_token = |served: &ServedRequest| served.per_token().unwrap_or_default().as_secs_f64();
    first_tokens + share_off(real, replayed, per_token)
}

fn share_off(
    real: &[ServedRequest],
    replayed: &[ServedRequest],
    time: impl Fn(&ServedRequest) -> f64,
) -> f64 {
    let off: f64 =
        real.iter().zip(replayed).map(|(real, replayed)| (time(replayed) - time(real)).abs()).sum();
    off / real.iter().map(time).sum::<f64>()
}
