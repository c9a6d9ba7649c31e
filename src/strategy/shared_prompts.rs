//! Where a prompt is taken to be cached that other gateways may have sent, of which this one receives nothing: at its rendezvous
//! choice.
//!
//! ```text
//! rendezvous choice = the endpoint with the highest hash(own block, endpoint)
//! own block         = the prompt's first block behind what many prompts share (`prefix/popularity.rs`)
//! work there        = uncached tokens as far as this gateway knows × (1 − FOUND_SHARE × external share)
//! external share    = requests of others ÷ all requests, over the pool's endpoints
//! ```
//!
//! All gateways make the same choice for a prompt and for all that continues it. So what one has sent there the others find, and
//! a pool has one copy of it in place of one for each gateway. The cost still decides: where the chosen endpoint is busy, another
//! endpoint serves the request. Where there are no requests of others, or peers publish them, nothing changes.

use crate::pool::{Lanes, Pool};
use crate::prefix::BlockHash;

/// How much of a prompt its rendezvous choice has cached, if all requests are those of others. Anything from 0.5 to 0.98 is about
/// as good; where nothing is shared it spreads prompts by their hash.
const FOUND_SHARE: f32 = 0.9;

/// The share of a prompt that its rendezvous choice has cached, by what others have sent.
pub(super) fn found_share(lanes: &[Lanes]) -> f32 {
    let all: f32 = lanes.iter().map(|lanes| lanes.requests.reduce_add()).sum();
    let own: f32 = lanes.iter().map(|lanes| lanes.own_requests.reduce_add()).sum();
    if all > own { FOUND_SHARE * (all - own) / all } else { 0.0 }
}

/// The place of a prompt's rendezvous choice among the endpoints that may be picked.
pub(super) fn rendezvous_choice(
    pool: &Pool,
    own_block: BlockHash,
    may_be_picked: impl Fn(usize) -> bool,
) -> Option<usize> {
    let key = u64::from(u32::from_le_bytes(own_block));
    let endpoints = pool.endpoints().unwrap_or_default().iter().enumerate();
    let candidates = endpoints.filter(|(place, _)| may_be_picked(*place));
    candidates.max_by_key(|(_, endpoint)| endpoint.rendezvous_score(key)).map(|(place, _)| place)
}
