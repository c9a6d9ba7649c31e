//! DEFAULT: the endpoint where the request costs least.
//!
//! ```text
//! cost = (waiting tokens + own tokens) × (requests + 1) × (1 + KV-cache utilization) × adapter factor
//!
//! waiting tokens = prompt tokens this gateway sent there that have had no first output
//!                + queued requests of others × FOREIGN_PROMPT_TOKENS
//! own tokens     = prompt tokens of this request
//! requests       = this gateway's requests in flight there + those of others, queued and running
//! adapter factor = 1 if the adapter is loaded or being loaded (or the model is not an adapter),
//!                  FREE_SLOT_FACTOR if there is a free slot for it, EVICTION_FACTOR if another must go
//! ```
//!
//! The first factor is the time to first token, up to the endpoint's prefill speed, which is the same for all. The
//! second stands for the whole answer: every request in the batch makes the others slower. What this gateway has in
//! flight is known at once and exactly; scraped numbers are as of a step that has ended, so they serve only for what
//! the gateway cannot know: the requests of others, the KV cache, the adapters. A product has no weights to tune.
//!
//! An endpoint with stale metrics is judged by this gateway's own numbers alone, and ranked behind the fresh ones.

use super::{Candidate, Demand};
use crate::load::LoadBook;
use crate::pool::Freshness;

/// Prompt tokens taken for a queued request of another gateway, whose size nobody tells: a typical chat turn.
const FOREIGN_PROMPT_TOKENS: f64 = 512.0;

/// Loading an adapter into a free slot costs tenths of a second; a pod that has it may be this many times busier.
const FREE_SLOT_FACTOR: f64 = 4.0;

/// Loading it in place of another makes the other's next request pay again.
const EVICTION_FACTOR: f64 = 8.0;

/// The cost of sending a request to an endpoint, in token-requests; always finite and above zero.
pub fn cost(candidate: &Candidate<'_>, demand: Demand, loads: &LoadBook) -> f64 {
    let in_flight = candidate.in_flight;
    let own = (
        in_flight.waiting_tokens as f64 + f64::from(demand.prompt_tokens),
        f64::from(in_flight.requests) + 1.0,
    );
    let fresh = candidate.endpoint.reading.as_ref().filter(|_| candidate.freshness == Freshness::Fresh);
    let Some(reading) = fresh else {
        return own.0 * own.1;
    };
    let tokens = own.0 + f64::from(reading.foreign_waiting) * FOREIGN_PROMPT_TOKENS;
    let requests = own.1 + f64::from(reading.foreign_requests);
    let kv_cache = 1.0 + f64::from(reading.metrics.kv_cache_utilization.unwrap_or(0.0));
    tokens * requests * kv_cache * adapter_factor(candidate, demand, loads)
}

fn adapter_factor(candidate: &Candidate<'_>, demand: Demand, loads: &LoadBook) -> f64 {
    match demand.adapter {
        Some(adapter) if candidate.endpoint.has_adapter(adapter, loads) => 1.0,
        Some(_) if candidate.endpoint.has_free_adapter_slot(loads) => FREE_SLOT_FACTOR,
        Some(_) => EVICTION_FACTOR,
        None => 1.0,
    }
}
