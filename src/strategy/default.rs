//! DEFAULT: the endpoint where the request costs least.
//!
//! ```text
//! cost = (backlog + own tokens + adapter tokens) ÷ prefill speed × (requests + 1) × (1 + KV-cache utilization)
//!
//! backlog        = prompt tokens this gateway sent there that the endpoint has yet to compute
//!                + queued requests of others × FOREIGN_PROMPT_TOKENS
//! own tokens     = prompt tokens of this request that are not cached there
//! adapter tokens = 0 if the adapter is loaded or being loaded there (or the model is not an adapter),
//!                  FREE_SLOT_TOKENS if there is a free slot for it, EVICTION_TOKENS if another must go
//! requests       = this gateway's requests in flight there + those of others, queued and running
//! ```
//!
//! The quotient is the time to first token. The next factor
//! stands for the whole answer: every request in the batch makes the others slower. What this gateway has in
//! flight is known at once and exactly; scraped numbers are as of a step that has ended, so they serve only for what
//! the gateway cannot know: the requests of others, the KV cache, the adapters. A product has no weights to tune.
//!
//! An endpoint with stale metrics is judged by this gateway's own numbers alone, and ranked behind the fresh ones.

use super::{Candidate, Demand};
use crate::load::LoadBook;
use crate::pool::Freshness;

/// Prompt tokens taken for a queued request of another gateway, whose size nobody tells: a typical chat turn.
const FOREIGN_PROMPT_TOKENS: f64 = 512.0;

/// What loading an adapter costs, in prompt tokens: a quarter of a second, at 8,000 tokens a second.
const FREE_SLOT_TOKENS: f64 = 2_048.0;

/// What loading it in place of another costs: the other's next request has to load again too, and from further away.
const EVICTION_TOKENS: f64 = 8_192.0;

/// The cost of sending a request to an endpoint, in milliseconds × requests; always finite and above zero.
pub fn cost(candidate: &Candidate<'_>, demand: Demand<'_>, loads: &LoadBook, now_ms: u64) -> f64 {
    let in_flight = candidate.in_flight;
    let tokens_per_ms = loads.prefill_tokens_per_ms(candidate.endpoint.load_id);
    let uncached_tokens = demand.prompt_tokens.saturating_sub(candidate.matched_tokens).max(1);
    let own_tokens = in_flight.backlog_tokens(tokens_per_ms, now_ms) + f64::from(uncached_tokens);
    let own_requests = f64::from(in_flight.requests) + 1.0;
    let fresh = candidate.endpoint.reading.as_ref().filter(|_| candidate.freshness == Freshness::Fresh);
    let Some(reading) = fresh else { return own_tokens / tokens_per_ms * own_requests };
    let foreign_tokens = f64::from(reading.foreign_waiting) * FOREIGN_PROMPT_TOKENS;
    let tokens = own_tokens + foreign_tokens + adapter_tokens(candidate, demand, loads);
    let requests = own_requests + f64::from(reading.foreign_requests);
    let kv_cache_utilization = f64::from(reading.metrics.kv_cache_utilization.unwrap_or(0.0));
    tokens / tokens_per_ms * requests * (1.0 + kv_cache_utilization)
}

fn adapter_tokens(candidate: &Candidate<'_>, demand: Demand<'_>, loads: &LoadBook) -> f64 {
    match demand.adapter {
        Some(adapter) if candidate.endpoint.has_adapter(adapter, loads) => 0.0,
        Some(_) if candidate.endpoint.has_free_adapter_slot(loads) => FREE_SLOT_TOKENS,
        Some(_) => EVICTION_TOKENS,
        None => 0.0,
    }
}
