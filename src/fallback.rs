//! Fallback: which pool serves a request when its own one is full or gone.
//!
//! ```text
//! served by = the first of its own pool and that one's fallbacks that serves the model and has room
//! has room  = an endpoint may be picked of which nothing says that it would not answer,
//!             and the request would be sent: it would neither wait nor be shed
//! ```
//!
//! If none has room, its own pool does with it what it would without fallbacks.
//!
//! It is decided when the request has been read, because with the pool goes the model's name in the body. Later the body cannot be
//! changed. So a request that its pool has failed to answer, or has had wait for `queue.fallbackAfter`, is begun anew
//! ([`crate::first_pass`]), and served by
//!
//! ```text
//! the first of its own pool's fallbacks, but the one that has failed, that serves the model and has room
//! or, after a failure, the first in whose queue it may wait
//! ```
//!
//! Where there is none, it is not begun anew. What has failed so: [`is_retriable`]. Envoy begins a request anew once: what the second
//! pool fails to answer the client gets. So a pool that fails as a fallback comes behind all others for a time ([`FallbackHealth`]):
//!
//! ```text
//! fails = its last maxConsecutiveFailures answers as a fallback are failures, and the last one came less than RETRY_MS ago
//! ```

use crate::admission::{self, Admission};
use crate::config::Config;
use crate::decide;
use crate::load::LoadTracker;
use crate::pool::Pool;

/// By which some servers say that they are full.
const TOO_MANY_REQUESTS: u16 = 429;
/// By which other servers say so, and Envoy that it has reached none, or that none has begun to answer.
const UNAVAILABLE: u16 = 503;

/// For how long a pool that fails as a fallback comes behind all others, in milliseconds: then one request tries it again.
const RETRY_MS: u64 = 5_000;

/// Whether an answer of this status, of which the client has nothing yet, is one that another pool may give in its place.
pub fn is_retriable(status: u16) -> bool {
    matches!(status, TOO_MANY_REQUESTS | UNAVAILABLE)
}

/// How a pool has answered lately as a fallback.
#[derive(Debug, Clone, Copy, Default)]
pub struct FallbackHealth {
    /// Failures in a row.
    failures: u32,
    failed_ms: u64,
}

impl FallbackHealth {
    /// It has answered as a fallback.
    pub fn answered(&mut self, is_failure: bool, now_ms: u64) {
        *self = match is_failure {
            true => FallbackHealth { failures: self.failures.saturating_add(1), failed_ms: now_ms },
            false => FallbackHealth::default(),
        };
    }

    /// Whether it is taken to fail.
    pub fn fails(&self, max_consecutive_failures: u32, now_ms: u64) -> bool {
        self.failures >= max_consecutive_failures && now_ms.saturating_sub(self.failed_ms) < RETRY_MS
    }
}

/// What is asked of a fallback.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// The model asked for.
    pub model: &'a str,
    /// How much the request matters.
    pub priority: i32,
    /// The place of its own pool, whose fallbacks are asked.
    pub own_pool: usize,
    /// The place of the pool that it leaves.
    pub but: usize,
}

/// What is known of a pool that may serve a request.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The pool.
    pub pool: &'a Pool,
    /// Whether requests wait for it.
    pub others_wait: bool,
}

impl Candidate<'_> {
    /// What would become of a request of this priority there; `None`: no endpoint may be picked.
    pub fn admission(
        &self,
        config: &Config,
        priority: i32,
        loads: &LoadTracker,
        now_ms: u64,
    ) -> Option<Admission> {
        let is_there =
            self.pool.has_unnamed() || self.pool.has_ready(now_ms, config.max_consecutive_failures);
        let is_full = || self.others_wait || decide::is_saturated(config, self.pool, loads, now_ms);
        is_there.then(|| admission::admit(priority, is_full(), config.queue.is_some()))
    }
}
