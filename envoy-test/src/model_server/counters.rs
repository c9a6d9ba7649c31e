//! What a server has seen and done, exactly, for tests to compare with what they sent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// Names counted one by one; a test that sends more finds the rest under [`OTHER_NAMES`].
const NAMES_MAX: usize = 1024;
/// Stands for every name beyond [`NAMES_MAX`].
const OTHER_NAMES: &str = "other";

/// A copy of a server's counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Requests by path, from the moment their headers were read.
    pub requests_by_path: BTreeMap<String, u64>,
    /// Inference requests by the model they asked for, known or not; empty for none.
    pub requests_by_model: BTreeMap<String, u64>,
    /// The same by path and model, `PATH MODEL`; of every JSON body and form that was sent, served or not.
    pub requests_by_path_and_model: BTreeMap<String, u64>,
    /// Requests by the prefill endpoint that they name in `x-prefiller-host-port`, whatever stands there.
    pub requests_by_prefiller: BTreeMap<String, u64>,
    /// Inference requests by the rank of the engine that they name, one that there is.
    pub requests_by_rank: BTreeMap<usize, u64>,
    /// Inference requests whose prompts were computed elsewhere.
    pub prefilled_elsewhere: u64,
    /// Inference requests that have no complete answer yet.
    pub in_flight: u64,
    pub in_flight_max: u64,
    /// Inference requests answered to the end.
    pub completed: u64,
    /// Inference requests answered with an error.
    pub failed: u64,
    /// Inference requests whose client left, or whose connection was broken, before the end.
    pub cancelled: u64,
    /// Prompt tokens of requests that got a first token; and the part of them that came from the cache.
    pub prompt_tokens: u64,
    pub cached_tokens: u64,
    pub completion_tokens: u64,
    /// What answers given to their end say they have cost, by the model they name.
    pub tokens_by_model: BTreeMap<String, ReportedTokens>,
    /// When the last inference request came, in milliseconds since the start of the server.
    pub last_request_ms: Option<u64>,
    pub metrics_scrapes: u64,
    pub metrics_scrapes_in_flight: u64,
    /// Most scrapes that were ever answered at the same time.
    pub metrics_scrapes_in_flight_max: u64,
}

/// Sums of the token counts in answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedTokens {
    pub prompt: u64,
    pub completion: u64,
    /// Where the API reports it.
    pub cached: u64,
}

impl std::ops::AddAssign for ReportedTokens {
    fn add_assign(&mut self, other: Self) {
        self.prompt += other.prompt;
        self.completion += other.completion;
        self.cached += other.cached;
    }
}

impl Counters {
    pub fn requests_to(&self, path: &str) -> u64 {
        self.requests_by_path.get(path).copied().unwrap_or(0)
    }

    pub fn requests_for(&self, model: &str) -> u64 {
        self.requests_by_model.get(model).copied().unwrap_or(0)
    }

    pub fn note_path(&mut self, path: &str) {
        count_name(&mut self.requests_by_path, path);
    }

    pub fn note_prefiller(&mut self, name: &str) {
        count_name(&mut self.requests_by_prefiller, name);
    }

    /// Requests to `path` that named this model.
    pub fn requests_to_for(&self, path: &str, model: &str) -> u64 {
        self.requests_by_path_and_model.get(&format!("{path} {model}")).copied().unwrap_or(0)
    }

    pub fn note_model(&mut self, path: &str, model: &str) {
        count_name(&mut self.requests_by_model, model);
        count_name(&mut self.requests_by_path_and_model, &format!("{path} {model}"));
    }
}

/// Counters that several connections write.
#[derive(Debug, Clone, Default)]
pub struct SharedCounters(Arc<Mutex<Counters>>);

impl SharedCounters {
    pub fn lock(&self) -> MutexGuard<'_, Counters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn snapshot(&self) -> Counters {
        self.lock().clone()
    }

    /// Counts an inference request until the guard is dropped.
    pub fn begin_request(&self, now_ms: u64) -> RequestInFlight {
        let mut counters = self.lock();
        counters.in_flight += 1;
        counters.in_flight_max = counters.in_flight_max.max(counters.in_flight);
        counters.last_request_ms = Some(now_ms);
        RequestInFlight { counters: self.clone(), end: RequestEnd::Cancelled }
    }

    /// Counts a scrape until the guard is dropped.
    pub fn begin_scrape(&self) -> ScrapeInFlight {
        let mut counters = self.lock();
        counters.metrics_scrapes += 1;
        counters.metrics_scrapes_in_flight += 1;
        counters.metrics_scrapes_in_flight_max =
            counters.metrics_scrapes_in_flight_max.max(counters.metrics_scrapes_in_flight);
        ScrapeInFlight(self.clone())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RequestEnd {
    Completed,
    Failed,
    Cancelled,
}

/// An inference request that is being answered. Dropped without a word, it was cancelled.
#[derive(Debug)]
pub struct RequestInFlight {
    counters: SharedCounters,
    end: RequestEnd,
}

impl RequestInFlight {
    pub fn complete(&mut self) {
        self.end = RequestEnd::Completed;
    }

    /// The answer has said what it has cost.
    pub fn count_tokens(&self, model: &str, tokens: ReportedTokens) {
        *self.counters.lock().tokens_by_model.entry(model.to_owned()).or_default() += tokens;
    }

    pub fn fail(&mut self) {
        self.end = RequestEnd::Failed;
    }
}

impl Drop for RequestInFlight {
    fn drop(&mut self) {
        let mut counters = self.counters.lock();
        counters.in_flight -= 1;
        match self.end {
            RequestEnd::Completed => counters.completed += 1,
            RequestEnd::Failed => counters.failed += 1,
            RequestEnd::Cancelled => counters.cancelled += 1,
        }
    }
}

/// A scrape of `/metrics` that is being answered.
#[derive(Debug)]
pub struct ScrapeInFlight(SharedCounters);

impl Drop for ScrapeInFlight {
    fn drop(&mut self) {
        self.0.lock().metrics_scrapes_in_flight -= 1;
    }
}

fn count_name(counts: &mut BTreeMap<String, u64>, name: &str) {
    let known = counts.contains_key(name) || counts.len() < NAMES_MAX;
    *counts.entry(if known { name } else { OTHER_NAMES }.to_owned()).or_default() += 1;
}
