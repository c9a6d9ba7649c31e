//! Whether a request is sent, waits, or is refused, by how much it matters and how full its pool is.
//!
//! | priority | criticality | pool has room | saturated | saturated, with a queue |
//! |---|---|---|---|---|
//! | 100 and above | Critical: 100 | send | send | send |
//! | 0 to 99 | Standard: 0 | send | send | wait, the higher ones first |
//! | below 0 | Sheddable: -1 | send | shed | shed |
//!
//! An endpoint is saturated when its queue or its KV cache is as full as the pool's limits say; a pool is when every
//! endpoint is that may be picked and answers scrapes: those are picked first. One whose metrics cannot be read is ranked
//! by what is in flight there, and a pool without any metrics is not known to be saturated.

use std::collections::VecDeque;

use crate::config::{CRITICAL_PRIORITY, STANDARD_PRIORITY, Saturation};
use crate::load::LoadTracker;
use crate::pool::{Endpoint, Freshness, Pool};

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is sent.
    Send,
    /// It waits in the gateway's queue.
    Wait,
    /// It is refused.
    Shed,
}

/// Decides by the table above.
pub fn admit(priority: i32, saturated: bool, queue: bool) -> Admission {
    match priority {
        _ if !saturated => Admission::Send,
        CRITICAL_PRIORITY.. => Admission::Send,
        STANDARD_PRIORITY.. if queue => Admission::Wait,
        STANDARD_PRIORITY.. => Admission::Send,
        _ => Admission::Shed,
    }
}

/// Whether a request of this priority gives way to others rather than be served late.
pub fn is_sheddable(priority: i32) -> bool {
    priority < STANDARD_PRIORITY
}

/// Whether no endpoint of the pool that may be picked has room. A pool of which nothing is known is not saturated.
pub fn is_saturated(
    pool: &Pool,
    loads: &LoadTracker,
    max_consecutive_failures: u32,
    stale_after_ms: u64,
    now_ms: u64,
) -> bool {
    let freshness = |endpoint: &Endpoint| endpoint.freshness(now_ms, stale_after_ms);
    let eligible = pool.eligible(now_ms, max_consecutive_failures);
    let mut eligible = eligible.filter(|endpoint| freshness(endpoint).is_known());
    let full = |endpoint: &Endpoint| is_full(endpoint, pool.saturation, loads, stale_after_ms, now_ms);
    eligible.clone().any(|endpoint| freshness(endpoint) == Freshness::Fresh) && eligible.all(full)
}

fn is_full(
    endpoint: &Endpoint,
    limits: Saturation,
    loads: &LoadTracker,
    stale_after_ms: u64,
    now_ms: u64,
) -> bool {
    let in_flight = loads.in_flight(endpoint.load_id);
    let Some(queue_depth) = endpoint.queue_depth(in_flight, now_ms, stale_after_ms) else { return false };
    let is_fresh = endpoint.freshness(now_ms, stale_after_ms) == Freshness::Fresh;
    let reading = endpoint.reading().filter(|_| is_fresh);
    let utilization = reading.and_then(|reading| reading.metrics.kv_cache_utilization);
    queue_depth >= limits.queue_depth || utilization.unwrap_or(0.0) >= limits.kv_cache_utilization
}

/// How far back the drain rate looks, in milliseconds.
const WINDOW_MS: u64 = 5_000;
/// The least time between two looks, in milliseconds: the window holds at most fifty.
const LOOK_EVERY_MS: u64 = 100;
/// The longest `retry-after`, in seconds.
pub const MAX_RETRY_AFTER_S: u64 = 60;

/// How fast a pool works off what this worker sends it, in first outputs.
#[derive(Debug, Default)]
pub struct DrainRate {
    looks: VecDeque<(u64, u64)>,
    waiting: u64,
}

impl DrainRate {
    /// Notes how many requests wait and how many have had their first output, ever.
    pub fn observe(&mut self, waiting: u64, outputs: u64, now_ms: u64) {
        self.waiting = waiting;
        if self.looks.back().is_some_and(|(last_ms, _)| now_ms.saturating_sub(*last_ms) < LOOK_EVERY_MS) {
            return;
        }
        // An endpoint that has left has taken with it what it had done.
        let fallen = self.looks.back().map_or(0, |(_, last)| last.saturating_sub(outputs));
        for (_, before) in self.looks.iter_mut().filter(|_| fallen > 0) {
            *before = before.saturating_sub(fallen);
        }
        while self.looks.front().is_some_and(|(first_ms, _)| now_ms.saturating_sub(*first_ms) > WINDOW_MS) {
            self.looks.pop_front();
        }
        self.looks.push_back((now_ms, outputs));
    }

    /// When a client may come again, in seconds: the time in which what waits now is worked off (Little's law), at
    /// least one second, and the longest time where nothing is.
    pub fn retry_after_s(&self) -> u64 {
        let (Some((first_ms, first)), Some((last_ms, last))) = (self.looks.front(), self.looks.back()) else {
            return 1;
        };
        let outputs = last.saturating_sub(*first);
        let elapsed_ms = last_ms.saturating_sub(*first_ms);
        match (self.waiting * elapsed_ms).checked_div(outputs * 1_000) {
            Some(seconds) => (seconds + 1).min(MAX_RETRY_AFTER_S),
            None if self.waiting == 0 => 1,
            None => MAX_RETRY_AFTER_S,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Criticality;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn critical_requests_are_always_sent_and_sheddable_ones_give_way_first() {
        use Admission::*;
        for (priority, full, full_with_queue) in [
            (i32::MAX, Send, Send),
            (Criticality::Critical.priority(), Send, Send),
            (99, Send, Wait),
            (Criticality::Standard.priority(), Send, Wait),
            (Criticality::Sheddable.priority(), Shed, Shed),
            (i32::MIN, Shed, Shed),
        ] {
            assert_eq!(admit(priority, false, false), Send, "{priority}");
            assert_eq!(admit(priority, false, true), Send, "{priority}");
            assert_eq!(admit(priority, true, false), full, "{priority}");
            assert_eq!(admit(priority, true, true), full_with_queue, "{priority}");
        }
    }

    /// With looks at these times, and this many waiting at the last.
    fn check(looks: &[(u64, u64)], waiting: u64, retry_after_s: u64) {
        let mut rate = DrainRate::default();
        for (now_ms, outputs) in looks {
            rate.observe(waiting, *outputs, *now_ms);
        }
        assert_eq!(rate.retry_after_s(), retry_after_s, "{looks:?}, {waiting} waiting");
    }

    #[test]
    fn clients_may_come_again_when_what_waits_is_worked_off() {
        check(&[], 0, 1);
        check(&[(0, 0), (1_000, 10)], 35, 4);
        check(&[(0, 0), (1_000, 10)], 0, 1);
        check(&[(0, 0), (1_000, 10)], 10_000, 60);
        check(&[(0, 5), (1_000, 5)], 3, 60);
        check(&[(0, 0), (10, 500), (1_000, 10)], 35, 4);
    }

    #[test]
    fn an_endpoint_that_leaves_takes_what_it_had_done_with_it() {
        check(&[(0, 50_000), (1_000, 50_010), (2_000, 10), (3_000, 20)], 35, 6);
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        check(&[(0, 0), (10_000, 1_000), (11_000, 1_010)], 35, 4);
    }
}
