//! Promises: of the endpoints that are expected to keep what a request is promised the fullest is picked, so that the others
//! stay free for those that are promised more.
//!
//! ```text
//! first token = (backlog + work) ÷ prefill speed
//! at the latest = first token × MARGIN × (1 + KV_CACHE_WEIGHT × KV-cache utilization) + STEP_MS if anything is in flight there
//! keeps       = at the latest ≤ what is left of the promised time
//!               and KV-cache utilization < the pool's limit
//!               and nothing is in flight there, or a token has lately taken no longer than promised
//! misses      = first token > what is left of the promised time
//!               or something is in flight there, and a token has lately taken longer than promised
//! fullness    = (backlog − avoidable work × (1 + delayed)) ÷ prefill speed, and at least 0, while at the latest ≤ FILLED_SHARE × that
//!               time; 0 from then on, and where no first token is promised
//! picked      = the one of the least cost, where that neither keeps nor misses it;
//!               else of those that keep it the one of the greatest fullness; of equal ones that of the least cost
//! ```
//!
//! A prompt that another endpoint computes costs this one no time: its first token is not looked at here, and its fullness is 0. The
//! endpoint that computes it is picked by the same formula, without the last condition.
//!
//! Where the endpoint of the least cost is expected in time, with none to spare, another that keeps the promise would have to do
//! work that this one need not: in a full pool a twentieth fewer promises are kept if that one is picked.
//!
//! Backlog, work, avoidable work and delayed are those of [`default`]. Work that another endpoint would not have makes an
//! endpoint less full, as it makes it dearer: a prompt does not leave its prefix to fill a gap. Where no endpoint keeps the promise
//! the request goes by its cost. If its priority says so it is shed there, should the endpoint of the least cost miss the promise;
//! and while promises to others are at risk ([`crate::promise::PromisesAtRisk`]) also where that endpoint only has no time to spare.

use std::cmp::Reverse;

use wide::{f32x4, u32x4};

use super::best::Contender;
use super::default;
use crate::hash::mix32;
use crate::pool::Lanes;
use crate::promise::Due;

/// How much later than expected a first token may come for the promise to be kept all the same: speeds are means.
const MARGIN: f32 = 1.25;

/// How much later it may come where the KV cache is full. What runs there takes a part of every step, and what waits gets no blocks
/// before something ends. With 1 or 2 more promises are missed, with 6 more requests are shed in a pool that is not full.
const KV_CACHE_WEIGHT: f32 = 4.0;

/// How long a step of a server may take, in milliseconds, whose end a request has to wait for: vLLM's 2,048 tokens, at 8 tokens a
/// millisecond.
const STEP_MS: f32 = 250.0;

/// Up to what part of the promised time endpoints are filled: the next request may be promised less. With 1/12 it is as good; with
/// 1/3 or 1 up to a twentieth fewer promises are kept in a full pool.
const FILLED_SHARE: f32 = 1.0 / 6.0;

/// What is expected of endpoints, four side by side each.
#[derive(Debug, Default)]
pub(super) struct Outlook {
    /// When the first token would be there, in milliseconds from now.
    pub first_token_ms: Vec<f32x4>,
    /// How much sooner than promised that is, in milliseconds; without end below zero where further tokens take too long.
    pub spare_ms: Vec<f32x4>,
    /// How full those are that keep the promise, in milliseconds; without end below zero for the others.
    pub fullness_ms: Vec<f32x4>,
}

impl Outlook {
    /// Adds four endpoints. `least_work_tokens` is the least work at any endpoint, `kv_cache_limit` the KV-cache utilization from
    /// which on none keeps a promise.
    pub fn add(
        &mut self,
        lanes: &Lanes,
        (work_tokens, least_work_tokens): (f32x4, f32),
        due: Due,
        kv_cache_limit: f32,
        now_ms: u64,
    ) {
        let backlog = lanes.backlog_tokens(now_ms);
        let is_elsewhere = work_tokens.simd_ge(f32x4::splat(due.prefill_from_tokens));
        let first_token_ms = (backlog + work_tokens) / lanes.prefill_tokens_per_ms;
        let is_idle = lanes.requests.simd_le(f32x4::ZERO);
        let kv_cache_factor = lanes.kv_cache_utilization * KV_CACHE_WEIGHT + 1.0;
        let step_ms = is_idle.select(f32x4::ZERO, f32x4::splat(STEP_MS));
        let latest_ms = first_token_ms * kv_cache_factor * MARGIN + step_ms;
        let keeps_pace = is_idle | lanes.per_token_ms.simd_le(f32x4::splat(due.per_token_ms));
        let keeps = (is_elsewhere | latest_ms.simd_le(f32x4::splat(due.first_token_ms)))
            & lanes.kv_cache_utilization.simd_lt(f32x4::splat(kv_cache_limit))
            & keeps_pace;
        let avoidable = default::avoidable_tokens(lanes, work_tokens, least_work_tokens);
        let weight = if due.first_token_ms.is_finite() { 1.0 } else { 0.0 };
        let may_be_filled = latest_ms.simd_le(f32x4::splat(due.first_token_ms * FILLED_SHARE));
        let fullness_ms = (backlog - avoidable) / lanes.prefill_tokens_per_ms * weight;
        let fullness_ms = may_be_filled.select(fullness_ms.fast_max(f32x4::ZERO), f32x4::ZERO);
        let here = |ms: f32x4| is_elsewhere.select(f32x4::ZERO, ms);
        let never = f32x4::splat(f32::NEG_INFINITY);
        self.first_token_ms.push(here(first_token_ms));
        self.spare_ms.push(keeps_pace.select(here(f32x4::splat(due.first_token_ms) - first_token_ms), never));
        self.fullness_ms.push(keeps.select(here(fullness_ms), never));
    }
}

/// Of those that keep the promise and may be picked, the fullest; `draw` decides between equal ones.
pub(super) fn fullest(
    lanes: &[Lanes],
    fullness_ms: &[f32x4],
    costs: &[f32x4],
    draw: u32,
) -> Option<Contender> {
    let of_each = lanes.iter().zip(fullness_ms).zip(costs).flat_map(|((lanes, fullness_ms), costs)| {
        let tie_breaks = mix32(lanes.places ^ u32x4::splat(draw)).to_array();
        lanes.present(fullness_ms.to_array().into_iter().zip(costs.to_array()).zip(tie_breaks))
    });
    let keepers = of_each.filter(|(_, ((fullness_ms, cost), _))| fullness_ms.is_finite() && cost.is_finite());
    let rank = |((fullness_ms, cost), tie_break): ((f32, f32), u32)| (fullness_ms, -cost, Reverse(tie_break));
    let better = |one: (u32, _), other: (u32, _)| if rank(other.1) > rank(one.1) { other } else { one };
    let (place, ((_, cost), tie_break)) = keepers.reduce(better)?;
    Some(Contender { cost, tie_break, place })
}
