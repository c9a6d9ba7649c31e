//! ROUND_ROBIN: each endpoint in turn.
//!
//! `cost = (index − next) mod endpoints`, where `next` follows the last pick.

use super::Candidate;

/// Steps from the endpoint whose turn it is.
pub(super) fn cost(candidate: &Candidate<'_>, next: usize, endpoints: usize) -> f64 {
    let endpoints = endpoints.max(1);
    ((candidate.index + endpoints - next % endpoints) % endpoints) as f64
}
