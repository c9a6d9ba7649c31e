//! ROUND_ROBIN: each endpoint in turn.
//!
//! `cost = (index − next) mod endpoints`, where `next` follows the last pick.

use crate::pool::Pool;

/// Steps from the endpoint whose turn it is.
pub(super) fn cost(index: usize, pool: &Pool) -> f64 {
    let endpoints = pool.endpoints().map_or(1, <[_]>::len).max(1);
    ((index + endpoints - pool.round_robin_next % endpoints) % endpoints) as f64
}
