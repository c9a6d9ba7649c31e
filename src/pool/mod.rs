//! A pool as one worker knows it: its endpoints, what was scraped from each, and which of them may be picked.

mod discovery;
mod endpoint;
mod snapshot;

use std::collections::HashMap;
use std::net::SocketAddr;

pub use discovery::{DiscoveredEndpoint, DiscoveryError, read_clusters};
pub use endpoint::{Endpoint, Freshness};
pub use snapshot::{EndpointReading, Reading, Snapshot, decode, encode};

use crate::config;
use crate::load::{LoadBook, LoadId};

/// An adapter's place in the pool's list of adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdapterId(pub(crate) u32);

/// What one worker knows of a pool.
#[derive(Debug)]
pub struct Pool {
    /// The name, for people.
    pub name: String,
    /// The Envoy cluster.
    pub cluster: String,
    /// How an endpoint is picked.
    pub routing_strategy: config::RoutingStrategy,
    /// Where ROUND_ROBIN goes on.
    pub round_robin_next: usize,
    endpoints: Option<Vec<Endpoint>>,
    discovered: bool,
    adapters: HashMap<String, AdapterId>,
}

impl Pool {
    /// A pool of which only the configuration is known yet.
    pub fn new(config: &config::Pool, loads: &mut LoadBook) -> Pool {
        let endpoints = config.endpoints.as_ref().map(|addresses| {
            addresses.iter().map(|&address| Endpoint::new(address, loads.id(address))).collect()
        });
        Pool {
            name: config.name.clone(),
            cluster: config.cluster.clone(),
            routing_strategy: config.routing_strategy,
            round_robin_next: 0,
            discovered: endpoints.is_none(),
            endpoints,
            adapters: HashMap::new(),
        }
    }

    /// The endpoints; `None` as long as discovery has not answered.
    pub fn endpoints(&self) -> Option<&[Endpoint]> {
        self.endpoints.as_deref()
    }

    /// The endpoint of this load.
    pub fn endpoint_mut(&mut self, load_id: LoadId) -> Option<&mut Endpoint> {
        self.endpoints.as_mut()?.iter_mut().find(|endpoint| endpoint.load_id == load_id)
    }

    /// The endpoint of this address as Envoy prints it.
    pub fn endpoint_at(&self, address: &[u8]) -> Option<&Endpoint> {
        self.endpoints.as_ref()?.iter().find(|endpoint| endpoint.text.as_bytes() == address)
    }

    /// Whether this is one of its endpoints.
    pub fn has_endpoint(&self, address: &SocketAddr) -> bool {
        self.endpoints.iter().flatten().any(|endpoint| endpoint.address == *address)
    }

    /// The adapter of this name, if any endpoint has it loaded.
    pub fn adapter(&self, model: &str) -> Option<AdapterId> {
        self.adapters.get(model).copied()
    }

    /// Takes over what the scraper has published. Where endpoints are configured, only they count; where they are
    /// discovered, the snapshot lists them. What this worker has seen itself (failures in a row) is kept.
    pub fn apply(&mut self, snapshot: Snapshot, loads: &mut LoadBook) {
        let Some(readings) = snapshot.endpoints else {
            return;
        };
        self.adapters.clear();
        if self.discovered {
            self.follow(&readings, loads);
        }
        self.read_all(readings);
    }

    /// Makes the list of endpoints that of the snapshot.
    fn follow(&mut self, readings: &[EndpointReading], loads: &mut LoadBook) {
        let known = self.endpoints.get_or_insert_default();
        if in_same_order(known, readings) {
            return;
        }
        let mut before: HashMap<SocketAddr, Endpoint> =
            known.drain(..).map(|endpoint| (endpoint.address, endpoint)).collect();
        known.extend(readings.iter().map(|reading| {
            let address = reading.address;
            before.remove(&address).unwrap_or_else(|| Endpoint::new(address, loads.id(address)))
        }));
    }

    fn read_all(&mut self, readings: Vec<EndpointReading>) {
        let Some(endpoints) = &mut self.endpoints else {
            return;
        };
        if in_same_order(endpoints, &readings) {
            for (endpoint, reading) in endpoints.iter_mut().zip(readings) {
                endpoint.read(reading, &mut self.adapters);
            }
            return;
        }
        let mut by_address: HashMap<SocketAddr, EndpointReading> =
            readings.into_iter().map(|reading| (reading.address, reading)).collect();
        for endpoint in endpoints {
            if let Some(reading) = by_address.remove(&endpoint.address) {
                endpoint.read(reading, &mut self.adapters);
            }
        }
    }
}

/// The common case, in which nothing needs to be looked up: every snapshot but one that follows a change.
fn in_same_order(endpoints: &[Endpoint], readings: &[EndpointReading]) -> bool {
    endpoints.len() == readings.len()
        && endpoints.iter().zip(readings).all(|(endpoint, reading)| endpoint.address == reading.address)
}
