//! The endpoints of a cluster as Envoy's admin lists them (`GET /clusters?format=json`).
//!
//! The form is Envoy's `envoy.admin.v3.Clusters` message in JSON. Only what holds an endpoint's address, health and priority
//! is read. Envoy 1.36 lists every cluster whatever filter it was asked for; so the cluster is found by name.
//!
//! A host can be named in a pick if it is an `ip:port`, or an address inside Envoy (an internal listener's, as ambient
//! Istio makes them) whose endpoint id is one. Of others, as Unix sockets, nothing is known but that they are there.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::config::{MAX_ENDPOINTS, MAX_NAME_BYTES};

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

/// What Envoy's health checks, outlier detection and control plane say of a host.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostHealth {
    /// It is sent requests.
    #[default]
    Healthy,
    /// It is, where there are not enough healthy ones.
    Degraded,
    /// It is not: it fails health checks, is ejected, draining, or about to go.
    Unhealthy,
    /// It is not, and does not count among the hosts of its priority: it has not been checked yet, or asked for that.
    Excluded,
}

/// How Envoy knows a host.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvoyHost {
    /// Whether Envoy would send requests there.
    pub health: HostHealth,
    /// 0 is the first to be used.
    pub priority: u32,
    /// What Envoy calls it, where that is not its `ip:port`: `envoy://LISTENER/ip:port`.
    pub name: Option<String>,
}

/// An endpoint as Envoy lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveredEndpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// How Envoy knows it.
    pub host: EnvoyHost,
}

impl DiscoveredEndpoint {
    /// One of which nothing but the address is known.
    pub fn new(address: SocketAddr) -> DiscoveredEndpoint {
        DiscoveredEndpoint { address, host: EnvoyHost::default() }
    }
}

/// The hosts of a cluster.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Discovered {
    /// Those that can be named, each once.
    pub endpoints: Vec<DiscoveredEndpoint>,
    /// How many cannot.
    pub unnamed: usize,
}

impl Discovered {
    /// Hosts of which nothing but the addresses is known.
    pub fn at(addresses: impl IntoIterator<Item = SocketAddr>) -> Discovered {
        Discovered { endpoints: addresses.into_iter().map(DiscoveredEndpoint::new).collect(), unnamed: 0 }
    }

    /// Of a pool's configured endpoints, what Envoy says of each. One that it does not list is none of its cluster's hosts:
    /// a pick of it would be nobody's.
    pub fn of_configured(self, configured: &[SocketAddr]) -> Discovered {
        let mut listed: HashMap<SocketAddr, EnvoyHost> =
            self.endpoints.into_iter().map(|endpoint| (endpoint.address, endpoint.host)).collect();
        let unlisted = EnvoyHost { health: HostHealth::Unhealthy, ..EnvoyHost::default() };
        let endpoints = configured.iter().map(|address| {
            let host = listed.remove(address).unwrap_or_else(|| unlisted.clone());
            DiscoveredEndpoint { address: *address, host }
        });
        Discovered { endpoints: endpoints.collect(), unnamed: 0 }
    }

    /// Without those that are also in `prefill`, the cluster of the pool that computes its prompts: they are not to be picked for
    /// answers. `serve_both`: where none of the others takes requests, all of them stay, so that they do both.
    pub fn without_prefill(mut self, prefill: &Discovered, serve_both: bool) -> Discovered {
        let computes: HashSet<SocketAddr> = prefill.endpoints.iter().map(|host| host.address).collect();
        let is_left = |host: &DiscoveredEndpoint| !computes.contains(&host.address);
        let takes_requests = |host: &DiscoveredEndpoint| {
            is_left(host) && matches!(host.host.health, HostHealth::Healthy | HostHealth::Degraded)
        };
        if !serve_both || self.endpoints.iter().any(takes_requests) {
            self.endpoints.retain(is_left);
        }
        self
    }
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
    #[serde(default)]
    priority: u32,
}

#[derive(Deserialize, Default)]
struct Address {
    socket_address: Option<SocketAddress>,
    envoy_internal_address: Option<InternalAddress>,
}

#[derive(Deserialize)]
struct SocketAddress {
    address: String,
    port_value: u16,
}

#[derive(Deserialize)]
struct InternalAddress {
    #[serde(default)]
    server_listener_name: String,
    #[serde(default)]
    endpoint_id: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Health {
    eds_health_status: EdsHealth,
    failed_active_health_check: bool,
    failed_outlier_check: bool,
    failed_active_degraded_check: bool,
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
    Degraded,
    /// HEALTHY or not known.
    #[default]
    #[serde(other)]
    Usable,
}

impl Health {
    /// As Envoy sorts its hosts; but one that its control plane has removed, and that Envoy keeps for as long as it passes
    /// health checks, is about to go.
    fn of_host(&self) -> HostHealth {
        let control_plane = &self.eds_health_status;
        let is_unhealthy =
            matches!(control_plane, EdsHealth::Unhealthy | EdsHealth::Draining | EdsHealth::Timeout);
        if self.pending_active_hc || self.excluded_via_immediate_hc_fail {
            HostHealth::Excluded
        } else if is_unhealthy
            || self.failed_active_health_check
            || self.failed_outlier_check
            || self.pending_dynamic_removal
        {
            HostHealth::Unhealthy
        } else if self.failed_active_degraded_check || *control_plane == EdsHealth::Degraded {
            HostHealth::Degraded
        } else {
            HostHealth::Healthy
        }
    }
}

impl Address {
    /// Where the host listens, and what Envoy calls it if that is something else.
    fn named(self) -> Option<(SocketAddr, Option<String>)> {
        if let Some(socket) = self.socket_address {
            return Some((SocketAddr::new(socket.address.parse().ok()?, socket.port_value), None));
        }
        let InternalAddress { server_listener_name, endpoint_id } = self.envoy_internal_address?;
        let name = format!("envoy://{server_listener_name}/{endpoint_id}");
        // A pick is a list between commas, in a header.
        let is_one_word = name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',');
        let address = endpoint_id.parse().ok()?;
        (is_one_word && name.len() <= MAX_NAME_BYTES).then_some((address, Some(name)))
    }
}

/// Reads the hosts of `cluster` from an answer of Envoy's admin. One that is listed again is passed over.
///
/// # Errors
/// When the answer is not a list of clusters, lacks the cluster, or lists too many endpoints.
pub fn read_clusters(answer: &[u8], cluster: &str) -> Result<Discovered, DiscoveryError> {
    let clusters: Clusters =
        serde_json::from_slice(answer).map_err(|error| DiscoveryError::NotClusters(error.to_string()))?;
    let found = clusters.cluster_statuses.into_iter().find(|candidate| candidate.name == cluster);
    let hosts = found.ok_or(DiscoveryError::NoCluster)?.host_statuses;
    if hosts.len() > MAX_ENDPOINTS {
        return Err(DiscoveryError::TooMany(hosts.len()));
    }
    let mut listed = HashSet::with_capacity(hosts.len());
    let mut discovered = Discovered::default();
    for host in hosts {
        match host.address.named() {
            Some((address, name)) if listed.insert(address) => {
                let host = EnvoyHost { health: host.health_status.of_host(), priority: host.priority, name };
                discovered.endpoints.push(DiscoveredEndpoint { address, host });
            }
            Some(_) => {}
            None => discovered.unnamed += 1,
        }
    }
    Ok(discovered)
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
            "health_status":{health},"weight":1,"priority":2}}]}}]}}"#
        )
    }

    const SOCKET: &str = r#"{"socket_address":{"address":"127.0.0.2","port_value":8000}}"#;

    #[track_caller]
    fn check_health(health: &str, expected: HostHealth) {
        let discovered = read_clusters(answer(SOCKET, health).as_bytes(), "pool").unwrap();
        let host = EnvoyHost { health: expected, priority: 2, name: None };
        let address = "127.0.0.2:8000".parse().unwrap();
        let expected = Discovered { endpoints: vec![DiscoveredEndpoint { address, host }], unnamed: 0 };
        assert_eq!(discovered, expected, "{health}");
    }

    #[test]
    fn health_is_what_envoy_would_go_by() {
        check_health(r#"{"eds_health_status":"HEALTHY"}"#, HostHealth::Healthy);
        check_health(r#"{}"#, HostHealth::Healthy);
        check_health(r#"{"eds_health_status":"DEGRADED"}"#, HostHealth::Degraded);
        check_health(
            r#"{"eds_health_status":"HEALTHY","failed_active_degraded_check":true}"#,
            HostHealth::Degraded,
        );
        check_health(r#"{"eds_health_status":"UNHEALTHY"}"#, HostHealth::Unhealthy);
        check_health(r#"{"eds_health_status":"DRAINING"}"#, HostHealth::Unhealthy);
        check_health(r#"{"eds_health_status":"TIMEOUT"}"#, HostHealth::Unhealthy);
        check_health(
            r#"{"eds_health_status":"DEGRADED","failed_outlier_check":true}"#,
            HostHealth::Unhealthy,
        );
        check_health(
            r#"{"eds_health_status":"HEALTHY","failed_active_health_check":true}"#,
            HostHealth::Unhealthy,
        );
        check_health(r#"{"eds_health_status":"HEALTHY","failed_outlier_check":true}"#, HostHealth::Unhealthy);
        check_health(r#"{"pending_dynamic_removal":true}"#, HostHealth::Unhealthy);
        check_health(r#"{"failed_active_health_check":true,"pending_active_hc":true}"#, HostHealth::Excluded);
        check_health(r#"{"excluded_via_immediate_hc_fail":true}"#, HostHealth::Excluded);
    }

    /// What a host of this address is called; `None`: it cannot be named.
    #[track_caller]
    fn check_name(address: &str, expected: Option<(&str, Option<&str>)>) {
        let discovered = read_clusters(answer(address, "{}").as_bytes(), "pool").unwrap();
        assert_eq!(discovered.unnamed, usize::from(expected.is_none()), "{address}");
        let endpoints = discovered.endpoints.iter();
        let named: Vec<_> =
            endpoints.map(|found| (found.address.to_string(), found.host.name.as_deref())).collect();
        let expected = expected.map(|(address, name)| (address.to_owned(), name));
        assert_eq!(named, Vec::from_iter(expected), "{address}");
    }

    #[test]
    fn hosts_that_have_an_ip_and_a_port_can_be_named() {
        check_name(r#"{"socket_address":{"address":"::1","port_value":1}}"#, Some(("[::1]:1", None)));
        let internal = |listener: &str, id: &str| {
            format!(
                r#"{{"envoy_internal_address":{{"server_listener_name":"{listener}","endpoint_id":"{id}"}}}}"#
            )
        };
        let name = Some(("10.0.0.7:8000", Some("envoy://connect_originate/10.0.0.7:8000")));
        check_name(&internal("connect_originate", "10.0.0.7:8000"), name);
        check_name(&internal("l", "[fd00::7]:80"), Some(("[fd00::7]:80", Some("envoy://l/[fd00::7]:80"))));
        check_name(&internal("connect_originate", "model-server"), None);
        check_name(&internal("one,two", "10.0.0.7:8000"), None);
        check_name(&internal("one\\r\\nx: y", "10.0.0.7:8000"), None);
        check_name(r#"{"envoy_internal_address":{"server_listener_name":"inner"}}"#, None);
        check_name(r#"{"pipe":{"path":"/run/model.sock"}}"#, None);
        check_name("{}", None);
    }

    /// Of the hosts 1 to 3, of which these have this health, those that are left beside a cluster of the hosts 2, 3 and 9.
    #[track_caller]
    fn check_without_prefill(serve_both: bool, health: [HostHealth; 3], expected: &[u8]) {
        let at = |last: u8| SocketAddr::from(([10, 0, 0, last], 8000));
        let hosts = health.into_iter().zip(1..).map(|(health, last)| DiscoveredEndpoint {
            address: at(last),
            host: EnvoyHost { health, ..EnvoyHost::default() },
        });
        let discovered = Discovered { endpoints: hosts.collect(), unnamed: 0 };
        let left = discovered.without_prefill(&Discovered::at([2, 3, 9].map(at)), serve_both);
        let left: Vec<SocketAddr> = left.endpoints.into_iter().map(|host| host.address).collect();
        let expected: Vec<SocketAddr> = expected.iter().map(|last| at(*last)).collect();
        assert_eq!(left, expected, "{health:?}");
    }

    #[test]
    fn who_computes_the_prompts_answers_only_where_nobody_else_can_and_may() {
        use HostHealth::{Degraded, Excluded, Healthy, Unhealthy};
        for serve_both in [true, false] {
            check_without_prefill(serve_both, [Healthy, Healthy, Healthy], &[1]);
            check_without_prefill(serve_both, [Degraded, Healthy, Unhealthy], &[1]);
        }
        check_without_prefill(true, [Unhealthy, Healthy, Healthy], &[1, 2, 3]);
        check_without_prefill(true, [Excluded, Healthy, Unhealthy], &[1, 2, 3]);
        check_without_prefill(false, [Unhealthy, Healthy, Healthy], &[1]);
    }

    #[test]
    fn of_configured_endpoints_those_that_envoy_does_not_list_are_not_healthy() {
        let at = |last: u8| SocketAddr::from(([10, 0, 0, last], 8000));
        let degraded = EnvoyHost { health: HostHealth::Degraded, ..EnvoyHost::default() };
        let listed = DiscoveredEndpoint { address: at(2), host: degraded };
        let discovered = Discovered { endpoints: vec![DiscoveredEndpoint::new(at(9)), listed], unnamed: 3 };
        let configured = discovered.of_configured(&[at(1), at(2)]);
        let found: Vec<_> =
            configured.endpoints.iter().map(|endpoint| (endpoint.address, endpoint.host.health)).collect();
        assert_eq!(found, [(at(1), HostHealth::Unhealthy), (at(2), HostHealth::Degraded)]);
        assert_eq!(configured.unnamed, 0);
    }

    #[test]
    fn an_answer_of_no_use_says_why() {
        assert_eq!(read_clusters(b"{}", "pool"), Err(DiscoveryError::NoCluster));
        assert_eq!(read_clusters(answer(SOCKET, "{}").as_bytes(), "poo"), Err(DiscoveryError::NoCluster));
        assert!(matches!(read_clusters(b"<html>", "pool"), Err(DiscoveryError::NotClusters(_))));
    }
}
