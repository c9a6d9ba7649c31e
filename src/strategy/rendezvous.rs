//! The rendezvous choice of a request: which of several endpoints that cost about the same is picked, where more requests follow
//! that are to go to the same one.
//!
//! ```text
//! choice = of the endpoints whose cost is at most PLACEMENT_SLACK × the least:
//!        the one where the conversation was served last, if it is one of them,
//!        else the one with the highest hash(key, endpoint)
//!
//! key  = with PREFIX_CACHE, the first block of the prompt that no endpoint holds
//!        with DEFAULT, drawn at random for each request of a session
//! ```
//!
//! With blocks it is bounded-load consistent hashing: workers and gateways that have not published to each other yet send what begins
//! alike to the same endpoint, and few prompts move when an endpoint comes or goes. Sessions begin at random, as a session's
//! name is not to decide that; without the slack all would begin where prompts seem to be computed a little faster, and fill
//! that endpoint's cache.

use wide::f32x4;

use super::best::Contender;
use crate::pool::{Lanes, Pool};

/// How much more than the least an endpoint's cost may be for a request to go where it belongs.
const PLACEMENT_SLACK: f32 = 1.05;

/// The endpoint to which a request with this key belongs; `least_cost` is the least of the costs, `visited` the place at which its
/// conversation was served last.
pub(super) fn choose(
    pool: &Pool,
    lanes: &[Lanes],
    costs: &[f32x4],
    least_cost: f32,
    key: u64,
    visited: Option<u32>,
) -> Option<Contender> {
    let highest_cost = least_cost * PLACEMENT_SLACK;
    let has_near = |costs: &f32x4| costs.simd_le(f32x4::splat(highest_cost)).to_bitmask() != 0;
    let near = lanes.iter().zip(costs).filter(|(_, costs)| has_near(costs));
    let near = near.flat_map(|(lanes, costs)| lanes.present(costs.to_array()));
    let near = near.filter(|(_, cost)| *cost <= highest_cost);
    let endpoints = pool.endpoints().unwrap_or_default();
    let score = |place: u32| endpoints.get(place as usize).map(|endpoint| endpoint.rendezvous_score(key));
    let (place, cost) = near.max_by_key(|(place, _)| (Some(*place) == visited, score(*place)))?;
    Some(Contender { cost, tie_break: 0, place })
}
