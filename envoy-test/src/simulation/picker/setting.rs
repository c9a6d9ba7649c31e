//! What simulated gateways have in common: the plugin's tick, and where pods are.

use std::net::SocketAddr;
use std::time::Duration;

/// The plugin's own tick.
pub(super) const TICK: Duration = Duration::from_millis(10);

const FIRST_PORT: u16 = 8000;

/// The pod is in the port: no request is ever sent there.
pub(super) fn address_of(pod: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], FIRST_PORT + pod as u16))
}

/// The same the other way around.
pub(super) fn pod_at(address: SocketAddr) -> usize {
    usize::from(address.port() - FIRST_PORT)
}
