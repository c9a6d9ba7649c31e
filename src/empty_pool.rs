//! How long requests wait for a pool without endpoints, one that is scaled to zero say, and until when they are held back once
//! it has some.
//!
//! | the pool | requests |
//! |---|---|
//! | has no endpoint | wait, for `queue.whileEmpty` |
//! | has had some for less than `queue.whileEmpty` | wait while it is full, for as long: they came when nobody could serve them |
//! | has had some for longer | wait while it is full, for `queue.maxWait` |
//!
//! For up to [`FIRST_SCRAPE_MS`] the first endpoints get none: until their metrics are read nobody knows what they have room for,
//! and all that waits would go there at once.

use crate::config::Queue;

/// How long requests are held back until the first endpoint has been scraped, in milliseconds.
pub const FIRST_SCRAPE_MS: u64 = 1_000;

/// Whether a pool has endpoints, and since when.
#[derive(Debug, Default)]
pub struct EmptyPool {
    is_empty: bool,
    filled_ms: Option<u64>,
}

impl EmptyPool {
    /// The pool has endpoints now, or has none.
    pub fn observe(&mut self, is_empty: bool, now_ms: u64) {
        if self.is_empty && !is_empty {
            self.filled_ms = Some(now_ms);
        }
        self.is_empty = is_empty;
    }

    /// How long a request may wait, in milliseconds.
    pub fn max_wait_ms(&self, queue: &Queue, now_ms: u64) -> u64 {
        let Some(while_empty_ms) = queue.while_empty_ms else { return queue.max_wait_ms };
        let is_new = self.filled_ms.is_some_and(|filled_ms| now_ms.abs_diff(filled_ms) < while_empty_ms);
        if self.is_empty || is_new { queue.max_wait_ms.max(while_empty_ms) } else { queue.max_wait_ms }
    }

    /// Whether requests are held back: there is no endpoint, or none that `is_known` by its metrics although they are read.
    pub fn holds_back(&self, is_known: bool, now_ms: u64) -> bool {
        let is_first =
            || self.filled_ms.is_some_and(|filled_ms| now_ms.abs_diff(filled_ms) < FIRST_SCRAPE_MS);
        self.is_empty || !is_known && is_first()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn queue(while_empty_ms: Option<u64>) -> Queue {
        Queue {
            max_wait_ms: 2_000,
            max_requests: 10,
            max_bytes: 1_000,
            while_empty_ms,
            fallback_after_ms: None,
        }
    }

    #[test]
    fn requests_wait_longer_while_there_is_no_endpoint_and_while_the_first_ones_are_new() {
        let (queue, mut pool) = (queue(Some(60_000)), EmptyPool::default());
        pool.observe(false, 0);
        assert_eq!(pool.max_wait_ms(&queue, 0), 2_000, "a pool that was never empty");
        pool.observe(true, 10);
        assert_eq!(pool.max_wait_ms(&queue, 500_000), 60_000);
        pool.observe(false, 500_000);
        assert_eq!(pool.max_wait_ms(&queue, 559_999), 60_000);
        assert_eq!(pool.max_wait_ms(&queue, 560_000), 2_000);
    }

    #[test]
    fn without_such_a_time_nothing_waits_longer() {
        let mut pool = EmptyPool::default();
        pool.observe(true, 0);
        pool.observe(false, 10);
        assert_eq!(pool.max_wait_ms(&queue(None), 10), 2_000);
    }

    #[test]
    fn the_first_endpoint_gets_requests_once_its_metrics_are_read_or_a_second_later() {
        let mut pool = EmptyPool::default();
        assert!(!pool.holds_back(false, 0), "a pool that was never empty");
        pool.observe(true, 10);
        assert!(pool.holds_back(true, 10));
        pool.observe(false, 5_000);
        assert!(pool.holds_back(false, 5_999) && !pool.holds_back(true, 5_001));
        assert!(!pool.holds_back(false, 6_000));
    }
}
