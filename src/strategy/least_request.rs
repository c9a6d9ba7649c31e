//! LEAST_REQUEST: the endpoint with the fewest requests in flight from this gateway.
//!
//! `cost = requests in flight`

use wide::f32x4;

use crate::pool::Quad;

/// Requests in flight; those of others, which only metrics tell of, do not count.
pub(super) fn cost(quad: &Quad) -> f32x4 {
    quad.own_requests
}
