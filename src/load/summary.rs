//! What every pick asks of every row, kept apart from it: small enough that a pick gets over a thousand of them in a few
//! microseconds.

use super::in_flight::Backlog;
use super::row::{DEFAULT_PREFILL_TOKENS_PER_MS, Row};

/// The load of one endpoint, as far as it decides where a request goes.
#[derive(Debug, Clone, Copy)]
pub struct LoadSummary {
    /// Requests sent and not ended.
    pub requests: f64,
    /// Requests without a first output.
    pub waiting: f64,
    /// How fast the endpoint computes prompts, in tokens a millisecond, as far as this worker has seen; above zero.
    pub prefill_tokens_per_ms: f64,
    backlog: Backlog,
    /// Whether there are, or were, requests for adapters.
    pub(super) any_adapter: bool,
}

impl LoadSummary {
    /// That of an endpoint of which nothing is known.
    pub(super) const UNKNOWN: LoadSummary = LoadSummary {
        requests: 0.0,
        waiting: 0.0,
        prefill_tokens_per_ms: DEFAULT_PREFILL_TOKENS_PER_MS,
        backlog: Backlog::NONE,
        any_adapter: false,
    };

    fn of(row: &Row) -> LoadSummary {
        let in_flight = row.in_flight();
        LoadSummary {
            requests: in_flight.requests.into(),
            waiting: in_flight.waiting.into(),
            prefill_tokens_per_ms: row.prefill_tokens_per_ms(),
            backlog: in_flight.backlog(),
            any_adapter: !row.recent_adapters().is_empty(),
        }
    }

    /// Prompt tokens that the endpoint has yet to compute.
    pub fn backlog_tokens(&self, now_ms: u64) -> f64 {
        self.backlog.tokens(self.prefill_tokens_per_ms, now_ms)
    }
}

/// A row behind its summary. There is one way to change the row, and it makes the summary anew.
#[derive(Debug)]
pub(super) struct SummedRow {
    summary: LoadSummary,
    row: Box<Row>,
}

impl SummedRow {
    pub fn new(row: Row) -> SummedRow {
        SummedRow { summary: LoadSummary::of(&row), row: Box::new(row) }
    }

    pub fn summary(&self) -> &LoadSummary {
        &self.summary
    }

    pub fn row(&self) -> &Row {
        &self.row
    }

    pub fn change<T>(&mut self, change: impl FnOnce(&mut Row) -> T) -> T {
        let result = change(&mut self.row);
        self.summary = LoadSummary::of(&self.row);
        result
    }
}
