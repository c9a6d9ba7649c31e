//! LEAST_REQUEST: the endpoint with the fewest requests in flight from this gateway.
//!
//! `cost = requests in flight`

use wide::f32x4;

use crate::pool::Lanes;

/// Requests in flight; those of others, which only metrics report, do not count.
pub(super) fn cost(lanes: &Lanes) -> f32x4 {
    lanes.own_requests
}
