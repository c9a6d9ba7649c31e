//! ROUND_ROBIN: each endpoint in turn.
//!
//! `cost = (index − next) mod endpoints`, where `next` follows the last pick of the level.

use wide::f32x4;

use crate::pool::{Lanes, Pool};

/// Steps from the endpoint whose turn it is.
pub(super) fn cost(lanes: &Lanes, pool: &Pool, level: usize) -> f32x4 {
    let endpoints = pool.endpoints().map_or(1, <[_]>::len).max(1);
    let ahead = (endpoints - pool.turn(level) % endpoints) as u32;
    // One that is absent has the highest number there is.
    let steps = |index: u32| (index.wrapping_add(ahead) % endpoints as u32) as f32;
    f32x4::new(lanes.places.to_array().map(steps))
}
