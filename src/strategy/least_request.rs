//! LEAST_REQUEST: the endpoint with the fewest requests in flight from this gateway.
//!
//! `cost = requests in flight`

use crate::load::LoadBook;
use crate::pool::Endpoint;

/// Requests in flight.
pub(super) fn cost(endpoint: &Endpoint, loads: &LoadBook) -> f64 {
    loads.summary(endpoint.load_id).requests
}
