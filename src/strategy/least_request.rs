//! LEAST_REQUEST: the endpoint with the fewest requests in flight from this gateway.
//!
//! `cost = requests in flight`

use super::Candidate;

/// Requests in flight.
pub(super) fn cost(candidate: &Candidate<'_>) -> f64 {
    f64::from(candidate.in_flight.requests)
}
