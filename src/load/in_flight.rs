//! What is in flight on one endpoint, and how much of it the endpoint has yet to work off.

use serde::{Deserialize, Serialize};

/// What is in flight on one endpoint.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    /// Requests sent and not ended.
    pub requests: u32,
    /// Requests without a first output.
    pub waiting: u32,
    /// Prompt tokens of the waiting requests.
    pub waiting_tokens: u64,
    /// The one among them that has waited longest: the one the endpoint works on.
    pub oldest: Option<Oldest>,
    /// When a request there last had its first output, in milliseconds of the host's clock; 0: never.
    pub last_output_ms: u64,
}

/// The waiting request that was sent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Oldest {
    /// When it was sent.
    pub sent_ms: u64,
    /// Its prompt tokens.
    pub tokens: u32,
}

impl InFlight {
    /// Nothing.
    pub(super) const NONE: InFlight =
        InFlight { requests: 0, waiting: 0, waiting_tokens: 0, oldest: None, last_output_ms: 0 };

    /// Prompt tokens that the endpoint has yet to compute, at `tokens_per_ms`.
    ///
    /// ```text
    /// backlog = waiting tokens − min(tokens of the oldest, tokens_per_ms × time it has been worked on)
    /// ```
    ///
    /// The oldest has been worked on since it was sent, or since the last first output of another. What stands behind
    /// it has not been begun, however long it takes: a stalled endpoint works nothing off.
    pub fn backlog_tokens(&self, tokens_per_ms: f64, now_ms: u64) -> f64 {
        let worked_off = tokens_per_ms * self.working_ms(now_ms) as f64;
        let oldest_tokens = self.oldest.map_or(0.0, |oldest| oldest.tokens.into());
        (self.waiting_tokens as f64 - worked_off.min(oldest_tokens)).max(0.0)
    }

    /// How long the oldest has been worked on, in milliseconds; 0 if nothing waits.
    pub fn working_ms(&self, now_ms: u64) -> u64 {
        self.worked_on_since_ms().map_or(0, |since_ms| now_ms.saturating_sub(since_ms))
    }

    /// Since when the oldest has been worked on, in milliseconds of the host's clock.
    pub fn worked_on_since_ms(&self) -> Option<u64> {
        self.oldest.map(|oldest| oldest.sent_ms.max(self.last_output_ms))
    }

    /// Whether there is nothing to publish to others.
    pub(super) fn is_idle(&self) -> bool {
        self.requests == 0
    }
}

impl std::ops::Add for InFlight {
    type Output = InFlight;

    fn add(self, other: InFlight) -> InFlight {
        let oldest = self.oldest.into_iter().chain(other.oldest).min();
        InFlight {
            requests: self.requests.saturating_add(other.requests),
            waiting: self.waiting.saturating_add(other.waiting),
            waiting_tokens: self.waiting_tokens.saturating_add(other.waiting_tokens),
            oldest,
            last_output_ms: self.last_output_ms.max(other.last_output_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// 100 tokens sent at 1,000 ms, and 50 behind them, at 2 tokens a millisecond.
    fn check(last_output_ms: u64, now_ms: u64, backlog_tokens: f64) {
        let oldest = Some(Oldest { sent_ms: 1_000, tokens: 100 });
        let load = InFlight { requests: 2, waiting: 2, waiting_tokens: 150, oldest, last_output_ms };
        assert_eq!(load.backlog_tokens(2.0, now_ms), backlog_tokens, "{last_output_ms} {now_ms}");
    }

    #[test]
    fn the_oldest_is_worked_off_and_what_is_behind_it_is_not() {
        check(0, 1_000, 150.0);
        check(0, 1_010, 130.0);
        check(0, 1_050, 50.0);
        check(0, 9_000, 50.0);
        check(0, 900, 150.0);
        check(1_020, 1_030, 130.0);
        assert_eq!(InFlight::default().backlog_tokens(2.0, 5), 0.0);
    }

    #[test]
    fn of_two_workers_the_oldest_request_and_the_last_output_count() {
        let load = |sent_ms, last_output_ms| InFlight {
            requests: 1,
            waiting: 1,
            waiting_tokens: 10,
            oldest: Some(Oldest { sent_ms, tokens: 10 }),
            last_output_ms,
        };
        let both = load(7, 3) + load(5, 4);
        assert_eq!((both.oldest.map(|oldest| oldest.sent_ms), both.last_output_ms), (Some(5), 4));
        assert_eq!((load(7, 0) + InFlight::default()).oldest, load(7, 0).oldest);
    }

    #[test]
    fn it_is_the_same_in_whatever_order_workers_are_added_up() {
        let load = |tokens| InFlight { oldest: Some(Oldest { sent_ms: 5, tokens }), ..InFlight::default() };
        assert_eq!(load(10) + load(20), load(20) + load(10));
    }
}
