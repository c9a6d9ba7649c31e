//! Fallback: which pool serves a request when its own one is full or gone.
//!
//! ```text
//! served by = the first of its own pool and that one's fallbacks that serves the model and has room
//! has room  = an endpoint may be picked of which nothing says that it would not answer,
//!             and the request would be sent: it would neither wait nor be shed
//! ```
//!
//! If none has room, its own pool does with it what it would without fallbacks. It is decided once, when the request has
//! been read: with the pool goes the model's name in the body, which cannot be changed any more once the request has been
//! sent, or waits.

use crate::admission::{self, Admission};
use crate::config::Config;
use crate::decide;
use crate::load::LoadTracker;
use crate::pool::Pool;

/// What is known of a pool that may serve a request.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The pool.
    pub pool: &'a Pool,
    /// Whether requests wait for it.
    pub others_wait: bool,
}

impl Candidate<'_> {
    /// Whether it has room for a request of this priority.
    pub fn has_room(&self, config: &Config, priority: i32, loads: &LoadTracker, now_ms: u64) -> bool {
        let is_there =
            self.pool.has_unnamed() || self.pool.has_ready(now_ms, config.max_consecutive_failures);
        let is_full = || self.others_wait || decide::is_saturated(config, self.pool, loads, now_ms);
        is_there && admission::admit(priority, is_full(), config.queue.is_some()) == Admission::Send
    }
}
