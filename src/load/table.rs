//! What one worker has in flight, as it is published to the others.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::missing_models::{MAX_MISSING_MODELS, Missing};
use super::{AdapterId, InFlight};

/// A table not published for this long, in milliseconds, is that of a worker that is gone.
pub const TABLE_EXPIRES_AFTER_MS: u64 = 2_000;

/// Rows that are read of one table: more than one worker can have endpoints.
const MAX_TABLE_ROWS: usize = 65_536;

/// What one worker has in flight, as it is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadTable {
    /// When it was published, in milliseconds of the host's monotonic clock.
    pub published_ms: u64,
    /// The endpoints that are not idle.
    pub rows: Vec<(SocketAddr, InFlight)>,
    /// The adapters with requests in flight, and where.
    pub adapters: Vec<(SocketAddr, AdapterId)>,
    /// What was lately noted of models that endpoints do not have.
    pub missing: Vec<(SocketAddr, AdapterId, Missing)>,
    /// Batches of what happened to prompts that this worker has published, ever.
    pub batches: u64,
}

impl LoadTable {
    /// Whether its worker still publishes.
    pub fn is_alive(&self, now_ms: u64) -> bool {
        is_recent(self.published_ms, now_ms)
    }

    /// The same by another clock, which shows `here_ms` when the table's own shows `there_ms`.
    pub fn by_clock(mut self, there_ms: u64, here_ms: u64) -> LoadTable {
        self.published_ms = by_clock(self.published_ms, there_ms, here_ms);
        for (_, load) in &mut self.rows {
            if let Some(oldest) = &mut load.oldest {
                oldest.sent_ms = by_clock(oldest.sent_ms, there_ms, here_ms);
            }
            // 0 is never, by any clock.
            if load.last_output_ms > 0 {
                load.last_output_ms = by_clock(load.last_output_ms, there_ms, here_ms);
            }
        }
        for (.., missing) in &mut self.missing {
            missing.noted_ms = by_clock(missing.noted_ms, there_ms, here_ms);
        }
        self
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &(SocketAddr, InFlight)> {
        self.rows.iter().take(MAX_TABLE_ROWS)
    }

    pub(super) fn adapters(&self) -> impl Iterator<Item = &(SocketAddr, AdapterId)> {
        self.adapters.iter().take(MAX_TABLE_ROWS)
    }

    pub(super) fn missing(&self) -> impl Iterator<Item = &(SocketAddr, AdapterId, Missing)> {
        self.missing.iter().take(MAX_MISSING_MODELS)
    }
}

/// Whether what a worker has told at a time still counts. What is dated so far ahead of the clock was not told by a worker
/// here, and would otherwise count for ever.
pub fn is_recent(told_ms: u64, now_ms: u64) -> bool {
    now_ms.abs_diff(told_ms) < TABLE_EXPIRES_AFTER_MS
}

/// A time as long ago by another clock. None is later than now.
fn by_clock(time_ms: u64, there_ms: u64, here_ms: u64) -> u64 {
    here_ms.saturating_sub(there_ms.saturating_sub(time_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn what_is_old_does_not_count_nor_what_is_dated_ahead() {
        const NOW_MS: u64 = 10_000;
        let dated = |published_ms| {
            let table =
                LoadTable { published_ms, rows: vec![], adapters: vec![], missing: vec![], batches: 0 };
            table.is_alive(NOW_MS)
        };
        assert_eq!([0, 8_000, 8_001, 10_000, 11_999].map(dated), [false, false, true, true, true]);
        assert_eq!([12_000, u64::MAX].map(dated), [false; 2]);
    }
}
