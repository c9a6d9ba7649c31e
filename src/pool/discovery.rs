//! The endpoints of a cluster as Envoy's admin lists them (`GET /clusters?format=json`).
//!
//! The form is Envoy's `envoy.admin.v3.Clusters` message in JSON. Only what tells an endpoint's address and health
//! is read. Envoy 1.36 lists every cluster whatever filter it was asked for; so the cluster is found by name.

use std::collections::HashSet;
use std::net::SocketAddr;

use serde::Deserialize;

use crate::config::MAX_ENDPOINTS;

/// Why an answer of the admin was of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiscoveryError {
    /// It is not the message expected.
    NotClusters(String),
    /// It has no cluster of this name.
    NoCluster,
    /// The cluster has more endpoints than [`MAX_ENDPOINTS`].
    TooMany(usize),
}

impl std::fmt::Display for DiscoveryError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DiscoveryError::NotClusters(problem) => write!(formatter, "not a list of clusters: {problem}"),
            DiscoveryError::NoCluster => write!(formatter, "the cluster is not in the list"),
            DiscoveryError::TooMany(count) => {
                write!(formatter, "{count} endpoints, at most {MAX_ENDPOINTS} are followed")
            }
        }
    }
}

/// An endpoint as Envoy knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiscoveredEndpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether Envoy would send requests there.
    pub healthy: bool,
}

#[derive(Deserialize)]
struct Clusters {
    #[serde(default)]
    cluster_statuses: Vec<Cluster>,
}

#[derive(Deserialize)]
struct Cluster {
    name: String,
    #[serde(default)]
    host_statuses: Vec<Host>,
}

#[derive(Deserialize)]
struct Host {
    #[serde(default)]
    address: Address,
    #[serde(default)]
    health_status: Health,
}

#[derive(Deserialize, Default)]
struct Address {
    socket_address: Option<SocketAddress>,
}

#[derive(Deserialize)]
struct SocketAddress {
    address: String,
    port_value: u16,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Health {
    eds_health_status: EdsHealth,
    failed_active_health_check: bool,
    failed_outlier_check: bool,
    pending_dynamic_removal: bool,
    pending_active_hc: bool,
    excluded_via_immediate_hc_fail: bool,
}

#[derive(Deserialize, Default, PartialEq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum EdsHealth {
    Unhealthy,
    Draining,
    Timeout,
    /// HEALTHY, DEGRADED or not known.
    #[default]
    #[serde(other)]
    Usable,
}

impl Health {
    fn is_healthy(&self) -> bool {
        self.eds_health_status == EdsHealth::Usable
            && !self.failed_active_health_check
            && !self.failed_outlier_check
            && !self.pending_dynamic_removal
            && !self.pending_active_hc
            && !self.excluded_via_immediate_hc_fail
    }
}

/// Reads the endpoints of `cluster` from an answer of Envoy's admin. Hosts that are not ip:port are passed over, and so
/// is one that is listed again.
///
/// # Errors
/// When the answer is not a list of clusters, lacks the cluster, or lists too many endpoints.
pub fn read_clusters(answer: &[u8], cluster: &str) -> Result<Vec<DiscoveredEndpoint>, DiscoveryError> {
    let clusters: Clusters =
        serde_json::from_slice(answer).map_err(|error| DiscoveryError::NotClusters(error.to_string()))?;
    let found = clusters.cluster_statuses.into_iter().find(|candidate| candidate.name == cluster);
    let hosts = found.ok_or(DiscoveryError::NoCluster)?.host_statuses;
    if hosts.len() > MAX_ENDPOINTS {
        return Err(DiscoveryError::TooMany(hosts.len()));
    }
    let mut listed = HashSet::with_capacity(hosts.len());
    Ok(hosts.into_iter().filter_map(discovered).filter(|endpoint| listed.insert(endpoint.address)).collect())
}

fn discovered(host: Host) -> Option<DiscoveredEndpoint> {
    let socket = host.address.socket_address?;
    let address = SocketAddr::new(socket.address.parse().ok()?, socket.port_value);
    Some(DiscoveredEndpoint { address, healthy: host.health_status.is_healthy() })
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// An answer with one cluster `pool` of one host.
    fn answer(address: &str, health: &str) -> String {
        format!(
            r#"{{"cluster_statuses":[{{"name":"other","host_statuses":[]}},{{"name":"pool","added_via_api":true,
            "host_statuses":[{{"address":{address},"stats":[{{"name":"rq_active","type":"GAUGE","value":"3"}}],
            "health_status":{health},"weight":1}}]}}]}}"#
        )
    }

    const SOCKET: &str = r#"{"socket_address":{"address":"127.0.0.2","port_value":8000}}"#;

    fn check_health(health: &str, healthy: bool) {
        let endpoints = read_clusters(answer(SOCKET, health).as_bytes(), "pool").unwrap();
        let address = "127.0.0.2:8000".parse().unwrap();
        assert_eq!(endpoints, [DiscoveredEndpoint { address, healthy }], "{health}");
    }

    #[test]
    fn health_is_what_envoy_would_go_by() {
        check_health(r#"{"eds_health_status":"HEALTHY"}"#, true);
        check_health(r#"{"eds_health_status":"DEGRADED"}"#, true);
        check_health(r#"{}"#, true);
        check_health(r#"{"eds_health_status":"UNHEALTHY"}"#, false);
        check_health(r#"{"eds_health_status":"DRAINING"}"#, false);
        check_health(r#"{"eds_health_status":"HEALTHY","failed_active_health_check":true}"#, false);
        check_health(r#"{"eds_health_status":"HEALTHY","failed_outlier_check":true}"#, false);
    }

    #[test]
    fn hosts_that_are_no_sockets_are_passed_over() {
        let pipe = answer(r#"{"pipe":{"path":"/run/model.sock"}}"#, "{}");
        assert_eq!(read_clusters(pipe.as_bytes(), "pool"), Ok(vec![]));
        let six = answer(r#"{"socket_address":{"address":"::1","port_value":1}}"#, "{}");
        assert_eq!(read_clusters(six.as_bytes(), "pool").unwrap()[0].address.to_string(), "[::1]:1");
    }

    #[test]
    fn an_answer_of_no_use_says_why() {
        assert_eq!(read_clusters(b"{}", "pool"), Err(DiscoveryError::NoCluster));
        assert_eq!(read_clusters(answer(SOCKET, "{}").as_bytes(), "poo"), Err(DiscoveryError::NoCluster));
        assert!(matches!(read_clusters(b"<html>", "pool"), Err(DiscoveryError::NotClusters(_))));
    }
}
