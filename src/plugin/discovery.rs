//! Asks Envoy's admin, now and then, which hosts a cluster has.

use super::calls::call_answer;
use super::host::{self, HostResult};
use crate::config::Config;
use crate::interval::Interval;
use crate::pool::{Discovered, read_clusters};

/// Bytes of an answer of Envoy's admin: about 1 KB an endpoint, and every cluster of the proxy on Envoy 1.36.
const MAX_CLUSTERS_BYTES: usize = 16 << 20;

/// The discovery of one cluster.
pub struct Discovery {
    pub cluster: String,
    pub admin_cluster: String,
    timeout_ms: u64,
    asking: Interval,
    fails: bool,
}

impl Discovery {
    /// `None` where there is no admin to ask.
    pub fn new(config: &Config, cluster: &str) -> Option<Discovery> {
        Some(Discovery {
            cluster: cluster.to_owned(),
            admin_cluster: config.admin_cluster.clone()?,
            timeout_ms: config.scrape_timeout_ms,
            asking: Interval::new(config.discovery_interval_ms),
            fails: false,
        })
    }

    /// Asks if it is time to; gives the call's token.
    pub fn ask(&mut self, now_ms: u64) -> Option<HostResult<u32>> {
        if !self.asking.is_due(now_ms) {
            return None;
        }
        let path = format!("/clusters?format=json&filter=^{}$", escape(&self.cluster));
        Some(host::http_get(&self.admin_cluster, &path, "admin", &[], self.timeout_ms))
    }

    /// What the call that is being reported has found.
    pub fn answered(&mut self) -> Result<Discovered, String> {
        let list = call_answer(MAX_CLUSTERS_BYTES).map_err(|failure| failure.to_string())?;
        let discovered = read_clusters(&list, &self.cluster).map_err(|error| error.to_string())?;
        self.fails = false;
        Ok(discovered)
    }

    /// It has failed, and goes on trying. Whether that is to be said: it is the first time in a row.
    pub fn failed(&mut self) -> bool {
        !std::mem::replace(&mut self.fails, true)
    }
}

/// The cluster's name as a regular expression in a URL: everything but letters, digits, `-` and `_` is escaped for
/// the one and then for the other.
fn escape(cluster: &str) -> String {
    let mut escaped = String::with_capacity(cluster.len());
    for &byte in cluster.as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%5C%{byte:02X}")),
        }
    }
    escaped
}
