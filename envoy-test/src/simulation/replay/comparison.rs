//! How far a replay is from the real server, by the figures that matter to whoever picks.
//!
//! A pick depends on which of two endpoints has its first token earlier, more than on when exactly. So beside the times there
//! is the share of all pairs of requests that both order alike by their times to first token:
//!
//! ```text
//! ordered alike = pairs of which the same one is earlier in both ÷ all pairs
//! ```

use std::time::Duration;

use super::trace::ServedRequest;
use crate::times::Times;

/// The figures of one server, real or simulated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    pub first_token_ms: Times,
    /// For each token after the first.
    pub per_token_ms: Times,
    pub end_to_end_ms: Times,
    /// Share of the prompts' tokens that were cached.
    pub cache_hit_share: f64,
}

/// What both did with the same requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    pub requests: usize,
    pub real: Figures,
    pub simulated: Figures,
    /// Of all pairs, by the time to first token.
    pub ordered_alike: f64,
    /// The same, if requests were ordered by the prompt tokens that were not cached, whatever else there was.
    pub ordered_alike_by_tokens: f64,
    /// How far off the time to first token of a single request was, of the real one.
    pub first_token_error: f64,
    /// Requests of which both had the same tokens cached.
    pub same_hits_share: f64,
}

impl Figures {
    pub fn of(trace: &[ServedRequest]) -> Figures {
        let sum = |of: fn(&ServedRequest) -> usize| trace.iter().map(of).sum::<usize>() as f64;
        Figures {
            first_token_ms: Times::of(trace.iter().map(|served| served.first_token)),
            per_token_ms: Times::of(trace.iter().filter_map(ServedRequest::per_token)),
            end_to_end_ms: Times::of(trace.iter().map(|served| served.end_to_end)),
            cache_hit_share: sum(|served| served.cached_tokens) / sum(|served| served.sent.prompt_tokens),
        }
    }
}

impl Comparison {
    /// Of the same requests in the same order.
    pub fn of(real: &[ServedRequest], simulated: &[ServedRequest]) -> Comparison {
        let first_tokens = |trace: &[ServedRequest]| trace.iter().map(|served| served.first_token).collect();
        let computed = |served: &ServedRequest| served.sent.prompt_tokens - served.cached_tokens;
        let tokens: Vec<usize> = real.iter().map(computed).collect();
        let [real_first, simulated_first]: [Vec<Duration>; 2] = [real, simulated].map(first_tokens);
        let pairs = || real.iter().zip(simulated);
        let off: Duration =
            pairs().map(|(real, simulated)| real.first_token.abs_diff(simulated.first_token)).sum();
        let same_hits = pairs().filter(|(real, simulated)| real.cached_tokens == simulated.cached_tokens);
        Comparison {
            requests: real.len(),
            real: Figures::of(real),
            simulated: Figures::of(simulated),
            ordered_alike: ordered_alike(&real_first, &simulated_first),
            ordered_alike_by_tokens: ordered_alike(&real_first, &tokens),
            first_token_error: off.as_secs_f64() / real_first.iter().sum::<Duration>().as_secs_f64(),
            same_hits_share: same_hits.count() as f64 / real.len() as f64,
        }
    }
}

/// Two that are equal in one order are half alike, whatever they are in the other.
fn ordered_alike<A: Ord, B: Ord>(one: &[A], other: &[B]) -> f64 {
    let mut alike = 0.0;
    let mut pairs = 0.0;
    for later in 0..one.len() {
        for earlier in 0..later {
            let orders = (one[earlier].cmp(&one[later]), other[earlier].cmp(&other[later]));
            alike += match orders {
                (left, right) if left.is_eq() || right.is_eq() => 0.5,
                (left, right) => f64::from(u8::from(left == right)),
            };
            pairs += 1.0;
        }
    }
    alike / pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_ordered_alike_or_not() {
        assert_eq!(ordered_alike(&[1, 2, 3], &[10, 20, 30]), 1.0);
        assert_eq!(ordered_alike(&[1, 2, 3], &[30, 20, 10]), 0.0);
        assert_eq!(ordered_alike(&[1, 2, 3], &[10, 30, 20]), 2.0 / 3.0);
        assert_eq!(ordered_alike(&[1, 2], &[7, 7]), 0.5);
    }
}
