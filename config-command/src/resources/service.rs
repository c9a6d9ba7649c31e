//! Service: which pods it selects, on which ports. Only what finds a pool's Service is read.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{Identity, Resource};
use crate::findings::Findings;

/// A Service of the core API.
#[derive(Debug)]
pub struct Service {
    /// Which one it is.
    pub identity: Identity,
    /// What its pods have.
    pub selector: BTreeMap<String, String>,
    ports: Vec<Port>,
}

#[derive(Debug, Default, Deserialize)]
struct Spec {
    #[serde(default)]
    selector: BTreeMap<String, String>,
    #[serde(default)]
    ports: Vec<Port>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    port: u16,
    target_port: Option<Value>,
}

impl Service {
    /// Reads it; one that cannot be read is nobody's, whatever is wrong with it.
    pub fn read(resource: &Resource) -> Option<Service> {
        let Spec { selector, ports } = resource.spec(&mut Findings::default())?;
        Some(Service { identity: resource.identity.clone(), selector, ports })
    }

    /// Its port that leads to this one of its pods. A port by name may lead to any.
    pub fn port_to(&self, pod_port: u16) -> Option<u16> {
        let leads_there = |port: &&Port| match &port.target_port {
            None => port.port == pod_port,
            Some(Value::String(name)) => name.parse().is_ok_and(|number: u16| number == pod_port),
            Some(number) => number.as_u64() == Some(pod_port.into()),
        };
        let by_name = |port: &&Port| port.target_port.as_ref().is_some_and(|port| port.is_string());
        let found = self.ports.iter().find(leads_there);
        found.or_else(|| self.ports.iter().find(by_name)).map(|port| port.port)
    }
}
