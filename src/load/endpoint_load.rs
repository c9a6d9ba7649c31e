//! The load of one endpoint as workers publish it, and gateways publish to each other.

use serde::{Deserialize, Serialize};

use super::recent_adapters::MAX_ADAPTERS;
use super::{AdapterId, InFlight};

/// An endpoint, by a hash of its address that is the same in every worker and every gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EndpointKey(u64);

impl EndpointKey {
    /// The endpoint of this address.
    pub fn of(address: std::net::SocketAddr) -> EndpointKey {
        EndpointKey(crate::hash::fnv1a(address.to_string().as_bytes()))
    }

    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    pub(crate) fn from_bits(bits: u64) -> EndpointKey {
        EndpointKey(bits)
    }

    /// The place of those that wait for the pool of this name.
    pub fn of_queue(pool: &str) -> EndpointKey {
        EndpointKey(crate::hash::fnv1a(format!("queue of {pool}").as_bytes()))
    }
}

/// What is in flight on an endpoint, of one worker or of several.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointLoad {
    /// The requests.
    pub in_flight: InFlight,
    /// The adapters they are for, and how many are for each; above zero.
    pub adapters: Vec<(AdapterId, u32)>,
}

impl EndpointLoad {
    /// Nothing in flight.
    pub const IDLE: EndpointLoad = EndpointLoad { in_flight: InFlight::NONE, adapters: Vec::new() };

    /// Whether nothing is in flight there.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_idle() && self.adapters.is_empty()
    }

    /// Adds this to what is there.
    pub fn add(&mut self, load: &EndpointLoad) {
        self.in_flight = self.in_flight + load.in_flight;
        for (adapter, count) in &load.adapters {
            if let Some((_, sum)) = self.adapters.iter_mut().find(|(known, _)| known == adapter) {
                *sum = sum.saturating_add(*count);
            } else if self.adapters.len() < MAX_ADAPTERS {
                self.adapters.push((*adapter, *count));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn requests_and_adapters_add_up() {
        let (sql, chat) = (AdapterId(1), AdapterId(2));
        let in_flight = |requests| InFlight { requests, ..InFlight::default() };
        let mut sum = EndpointLoad { in_flight: in_flight(2), adapters: vec![(sql, 2)] };
        sum.add(&EndpointLoad { in_flight: in_flight(3), adapters: vec![(chat, 1), (sql, 2)] });
        assert_eq!(sum, EndpointLoad { in_flight: in_flight(5), adapters: vec![(sql, 4), (chat, 1)] });
    }
}
