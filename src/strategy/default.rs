//! DEFAULT: the endpoint where the request costs least.
//!
//! ```text
//! cost = (backlog + work × (1 + CROWDING_SHARE × waiting) + DECODE_TOKENS × requests + avoidable work × delayed)
//!        ÷ prefill speed × (1 + KV-cache utilization)
//!
//! backlog        = prompt tokens this gateway sent there that the endpoint has yet to compute,
//!                  those beyond UNPROVEN_TOKENS × UNPROVEN_FACTOR if its server has computed nothing yet
//!                + queued requests of others × EXTERNAL_PROMPT_TOKENS
//! work           = prompt tokens of this request that are not cached there
//!                + 0 if its adapter is loaded or being loaded there (or its model is not an adapter),
//!                  LOADING_TOKENS if there is a free slot for it, RELOADING_TOKENS if one without requests must go,
//!                  NO_SLOT_TOKENS if all others have requests
//! avoidable work = work − the least work at any endpoint
//! delayed        = requests that wait there + RUNNING_SHARE × those that run, of this gateway and of others
//! waiting        = requests that wait there, of this gateway and of others
//! requests       = this gateway's requests in flight there + those of others
//! ```
//!
//! Backlog and work are the time to first token. Work that would be done elsewhere already also delays the others there,
//! now and those that come next, of which there are as many as there are now; so the fuller the endpoints, the more it
//! counts where a prefix or an adapter is. Without that term a full pool forgets what is cached where just when it can
//! least afford to. Requests that run cost a little each, because they make each other slower.
//! And a long prompt goes where few wait, whom it would delay; a short one may go where many do.
//!
//! What this gateway has in flight is known at once and exactly; scraped numbers are as of a step that has ended, so they
//! serve only for what the gateway cannot know: the requests of others, the KV cache, the adapters. An endpoint without fresh
//! metrics is ranked by this gateway's own numbers alone. If it answers scrapes all the same (with an error, or with what is
//! no page) it is one like the others; if it does not, it is ranked behind them.

use wide::f32x4;

use super::Demand;
use crate::load::LoadTracker;
use crate::pool::{AdapterResidency, Endpoint, Freshness, Lanes};

/// What loading an adapter costs, in prompt tokens: a sixteenth of a second, at 8,000 tokens a second. Anything from 400 to
/// 2,000 is about as good.
const LOADING_TOKENS: f32 = 512.0;

/// What loading it in place of another costs: that one's next request has to load again too.
const RELOADING_TOKENS: f32 = 2.0 * LOADING_TOKENS;

/// What it costs where all slots are in use: the request waits until all answers for another adapter have ended.
const NO_SLOT_TOKENS: f32 = 8_192.0;

/// What a request in flight costs the endpoint's others, in prompt tokens: a few milliseconds over its answer. Anything from 8 to
/// 64 is about as good.
const DECODE_TOKENS: f32 = 32.0;

/// How much a waiting request is delayed by a prompt that is sent behind it, because servers compute several in one step, whose
/// first outputs come together. With 0.3 to 1 it is about as good; with 0, conversations, documents and embeddings wait 4 to 6 %
/// longer.
const CROWDING_SHARE: f32 = 0.5;

/// How much a running request is delayed by a prompt that is computed beside it, where a waiting one is by all of it.
const RUNNING_SHARE: f32 = 0.3;

/// What the adapter of a request costs at an endpoint, in prompt tokens that it could compute in that time.
pub(super) fn adapter_tokens(
    endpoint: &Endpoint,
    freshness: Freshness,
    demand: Demand<'_>,
    loads: &LoadTracker,
) -> f32 {
    let Some(adapter) = demand.adapter.filter(|_| freshness == Freshness::Fresh) else { return 0.0 };
    match endpoint.adapter_residency(adapter, loads) {
        AdapterResidency::Loaded => 0.0,
        AdapterResidency::FreeSlot => LOADING_TOKENS,
        AdapterResidency::IdleSlot => RELOADING_TOKENS,
        AdapterResidency::NoSlot => NO_SLOT_TOKENS,
    }
}

/// The cost of sending a request to four endpoints, in milliseconds; always finite and above zero. `least_work_tokens` is
/// the least work at any endpoint.
#[inline]
pub(super) fn cost(lanes: &Lanes, work_tokens: f32x4, least_work_tokens: f32, now_ms: u64) -> f32x4 {
    let avoidable = work_tokens - least_work_tokens;
    time_ms(lanes, tokens(lanes, work_tokens, now_ms) + avoidable * delayed(lanes))
}

/// Work that would not be done elsewhere, and what it delays, in prompt tokens.
pub(super) fn avoidable_tokens(lanes: &Lanes, work_tokens: f32x4, least_work_tokens: f32) -> f32x4 {
    (work_tokens - least_work_tokens) * (delayed(lanes) + 1.0)
}

#[inline]
fn delayed(lanes: &Lanes) -> f32x4 {
    let running = (lanes.requests - lanes.waiting).fast_max(f32x4::ZERO);
    lanes.waiting + running * RUNNING_SHARE
}

/// The same where the work is the same at all endpoints, and none of it avoidable.
#[inline]
pub(super) fn cost_of_same_work(lanes: &Lanes, work_tokens: f32, now_ms: u64) -> f32x4 {
    time_ms(lanes, tokens(lanes, f32x4::splat(work_tokens), now_ms))
}

fn tokens(lanes: &Lanes, work_tokens: f32x4, now_ms: u64) -> f32x4 {
    let crowded = work_tokens + work_tokens * (lanes.waiting * CROWDING_SHARE);
    lanes.backlog_tokens(now_ms) + crowded + lanes.requests * DECODE_TOKENS
}

fn time_ms(lanes: &Lanes, tokens: f32x4) -> f32x4 {
    tokens / lanes.prefill_tokens_per_ms * (lanes.kv_cache_utilization + 1.0)
}
