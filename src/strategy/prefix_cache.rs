//! PREFIX_CACHE: the endpoint where the request costs least, given what is cached there; what is new has its home.
//!
//! ```text
//! cost           = that of DEFAULT, where prompt tokens − matched tokens are not cached
//! matched tokens = prompt tokens × bytes of the matched blocks ÷ bytes of the prompt, in whole blocks of the server
//!
//! home = of the endpoints whose cost is at most PLACEMENT_SLACK × the least:
//!        the one where the conversation was served last, if it is one of them,
//!        else the one with the highest hash(first block that no endpoint holds, endpoint)
//! ```
//!
//! The cost lets a prompt follow its prefix as long as that saves more than waiting there costs: a hot prefix spreads by
//! itself. The home is bounded-load consistent hashing: where several endpoints are about as good, workers and gateways
//! that have not told each other yet send what begins alike to the same one, and few prompts move when an endpoint comes
//! or goes.

use wide::f32x4;

use super::Demand;
use super::best::Contender;
use crate::hash::mix;
use crate::pool::{Endpoint, Pool, Quad};
use crate::prefix::{BLOCK_BYTES, BlockHash};

/// How much more than the least an endpoint's cost may be for a prompt to go where it belongs.
const PLACEMENT_SLACK: f32 = 1.05;

/// The tokens of a prompt that are cached at an endpoint where so many blocks of it are; servers share whole blocks of their own.
pub(super) fn matched_tokens(demand: Demand<'_>, matched_blocks: usize, endpoint: &Endpoint) -> u32 {
    let Some(blocks) = demand.blocks.filter(|_| matched_blocks > 0) else { return 0 };
    let share = (matched_blocks * BLOCK_BYTES) as f64 / blocks.bytes.max(1) as f64;
    let tokens = (f64::from(demand.prompt_tokens) * share) as u32;
    tokens - tokens % endpoint.cache_block_tokens()
}

/// The endpoint to which a prompt belongs whose first block that is nowhere cached is `first_new`; `least_cost` is the least
/// of the costs, `visited` the place at which its conversation was served last.
pub(super) fn home(
    pool: &Pool,
    quads: &[Quad],
    costs: &[f32x4],
    least_cost: f32,
    first_new: BlockHash,
    visited: Option<u32>,
) -> Option<Contender> {
    let highest_cost = least_cost * PLACEMENT_SLACK;
    let has_near = |costs: &f32x4| costs.simd_le(f32x4::splat(highest_cost)).to_bitmask() != 0;
    let near = quads.iter().zip(costs).filter(|(_, costs)| has_near(costs));
    let near = near.flat_map(|(quad, costs)| quad.present(costs.to_array()));
    let near = near.filter(|(_, cost)| *cost <= highest_cost);
    let endpoints = pool.endpoints().unwrap_or_default();
    let first_new = u64::from(u32::from_le_bytes(first_new));
    let score =
        |place: u32| endpoints.get(place as usize).map(|endpoint| mix(first_new ^ endpoint.address_hash));
    let (place, cost) = near.max_by_key(|(place, _)| (Some(*place) == visited, score(*place)))?;
    Some(Contender { cost, lot: 0, place })
}
