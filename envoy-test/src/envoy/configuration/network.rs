//! Edits of where Envoy listens, where it connects to, and where it logs.

use super::Configuration;
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

const FILE_ACCESS_LOG: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";

impl Configuration {
    pub fn listener_count(&mut self) -> usize {
        self.listeners().count()
    }

    /// Moves the listener number `index` to `address`.
    #[track_caller]
    pub fn set_listener_address(&mut self, index: usize, address: SocketAddr) {
        match self.listeners().nth(index) {
            Some(listener) => *listener = address_value(address),
            None => panic!("the configuration has no listener number {index}"),
        }
    }

    /// The address of the listener number `index`.
    pub fn listener_address(&mut self, index: usize) -> Result<SocketAddr> {
        let listener = self.listeners().nth(index).with_context(|| format!("no listener number {index}"))?;
        socket_address(listener)
    }

    /// The address of the administration interface.
    pub fn admin_address(&self) -> Result<SocketAddr> {
        let address =
            self.document.pointer("/admin/address").context("the configuration has no /admin/address")?;
        socket_address(address)
    }

    /// Moves the administration interface, and with it every cluster that points to it.
    pub fn set_admin_address(&mut self, address: SocketAddr) {
        if let Some(old) = self.document.pointer("/admin/address").cloned() {
            self.edit_objects(|object| replace(object, "address", &old, address));
        }
        self.document["admin"]["address"] = address_value(address);
    }

    /// Replaces the endpoints of the cluster `name`.
    #[track_caller]
    pub fn set_endpoints(&mut self, name: &str, endpoints: &[SocketAddr]) {
        let hosts: Vec<Value> = endpoints
            .iter()
            .map(|endpoint| json!({"endpoint": {"address": address_value(*endpoint)}}))
            .collect();
        self.cluster(name)["load_assignment"] =
            json!({"cluster_name": name, "endpoints": [{"lb_endpoints": hosts}]});
    }

    /// The cluster `name`, to read or edit.
    #[track_caller]
    pub fn cluster(&mut self, name: &str) -> &mut Value {
        let found = self.list("/static_resources/clusters").find(|cluster| cluster["name"] == name);
        match found {
            Some(cluster) => cluster,
            None => panic!("the configuration has no cluster {name}"),
        }
    }

    /// Sends every access log that goes to a file, to standard output or to standard error to the file `path`
    /// instead; its format stays.
    pub fn set_access_log_file(&mut self, path: &Path) {
        self.edit_objects(|object| {
            let is_file = object.get("@type").and_then(Value::as_str).is_some_and(names_file_access_log);
            if is_file {
                object.insert("@type".into(), FILE_ACCESS_LOG.into());
                object.insert("path".into(), path.to_string_lossy().into());
            }
            is_file
        });
    }

    /// How often Envoy moves what its workers have counted into the histograms that the administration interface prints.
    pub fn set_statistics_interval(&mut self, interval: Duration) {
        self.document["stats_flush_interval"] = format!("{}s", interval.as_secs_f64()).into();
    }

    fn listeners(&mut self) -> impl Iterator<Item = &mut Value> {
        self.list("/static_resources/listeners").filter_map(|listener| listener.get_mut("address"))
    }
}

fn replace(object: &mut Map<String, Value>, field: &str, old: &Value, new: SocketAddr) -> bool {
    let is_old = object.get(field).is_some_and(|value| is_same_address(value, old));
    if is_old {
        object.insert(field.into(), address_value(new));
    }
    is_old
}

fn is_same_address(left: &Value, right: &Value) -> bool {
    match (socket_address(left), socket_address(right)) {
        (Ok(left), Ok(right)) => left == right,
        _ => false,
    }
}

fn names_file_access_log(type_url: &str) -> bool {
    [".FileAccessLog", ".StdoutAccessLog", ".StderrAccessLog"].iter().any(|name| type_url.ends_with(name))
}

/// Reads Envoy's `{socket_address: {address, port_value}}`.
fn socket_address(value: &Value) -> Result<SocketAddr> {
    let socket = &value["socket_address"];
    let host = socket["address"].as_str().context("an address has no socket_address.address")?;
    let port = socket["port_value"].as_u64().context("an address has no socket_address.port_value")?;
    Ok(SocketAddr::new(host.parse()?, u16::try_from(port)?))
}

fn address_value(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}
