//! InferencePool: the pods that serve the same base model, in the experimental and in the stable version.
//!
//! Carried over: name, ports, the selector's labels, and the annotations that name the routing strategy and say that pods have
//! roles. The endpoint picker is what the plugin takes the place of; of references to one it counts only whether there is one, because Istio makes no
//! Service for a pool without.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{Identity, Resource};
use crate::findings::Findings;

/// The annotation of Alibaba Cloud's Gateway with Inference Extension that names a pool's routing strategy.
pub const STRATEGY_ANNOTATION: &str = "inference.networking.x-k8s.io/routing-strategy";

/// The annotation by which pods of a pool that have the role `prefill` compute the prompts of the others.
pub const PREFILL_ANNOTATION: &str = "inference-picker/prefill";
/// Its only value.
const BY_ROLE: &str = "by-role";
/// The label that llm-d's pods have, and its value on those that only compute prompts.
const ROLE_LABEL: &str = "llm-d.ai/role";
const PREFILL_ROLE: &str = "prefill";

/// The annotations that are looked at.
pub const ANNOTATIONS: [&str; 2] = [STRATEGY_ANNOTATION, PREFILL_ANNOTATION];

/// The label by which ASM finds the Service of a pool's pods: it has to bear the Service's name.
const SERVICE_LABEL: &str = "app";

/// The most ports that a pool of the stable version has, by its schema.
const MAX_PORTS: usize = 8;

#[derive(Debug)]
pub struct Pool {
    pub identity: Identity,
    /// The annotation's value, which the plugin's own parser checks.
    pub strategy: Option<Value>,
    /// The pods' ports, at least one; each port of each pod is an endpoint.
    pub ports: Vec<u16>,
    /// What its pods have.
    pub labels: BTreeMap<String, String>,
    /// What those of its pods have that only compute prompts, where there are such.
    pub prefill_labels: Option<BTreeMap<String, String>>,
    /// Whether Istio itself makes a Service of it: a pool of the stable version that names an endpoint picker.
    pub is_istios: bool,
    /// Whether it is of the stable version.
    pub is_stable: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Experimental {
    selector: BTreeMap<String, String>,
    target_port_number: u16,
    #[serde(rename = "extensionRef")]
    _extension_ref: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stable {
    selector: Selector,
    target_ports: Vec<Port>,
    #[serde(rename = "appProtocol")]
    _app_protocol: Option<Value>,
    endpoint_picker_ref: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Selector {
    match_labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct Port {
    number: u16,
}

impl Pool {
    /// Reads `inference.networking.x-k8s.io/v1alpha1` and `v1alpha2`.
    pub fn experimental(resource: &Resource, findings: &mut Findings) -> Option<Pool> {
        let spec: Experimental = resource.spec(findings)?;
        let pool = Pool::new(resource, spec.selector, vec![spec.target_port_number], findings)?;
        pool.with_valid_ports(|_| "spec.targetPortNumber".to_owned(), findings)
    }

    /// Reads `inference.networking.k8s.io/v1`.
    pub fn stable(resource: &Resource, findings: &mut Findings) -> Option<Pool> {
        let spec: Stable = resource.spec(findings)?;
        if !(1..=MAX_PORTS).contains(&spec.target_ports.len()) {
            let problem = match spec.target_ports.len() {
                0 => "has no port".to_owned(),
                count => format!("has {count} ports; at most {MAX_PORTS} are allowed"),
            };
            findings.refuse(&resource.identity, "spec.targetPorts", problem);
            return None;
        }
        let ports = spec.target_ports.iter().map(|port| port.number).collect();
        let mut pool = Pool::new(resource, spec.selector.match_labels, ports, findings)?;
        (pool.is_stable, pool.is_istios) = (true, spec.endpoint_picker_ref.is_some());
        pool.with_valid_ports(|index| format!("spec.targetPorts[{index}].number"), findings)
    }

    fn new(
        resource: &Resource,
        labels: BTreeMap<String, String>,
        ports: Vec<u16>,
        findings: &mut Findings,
    ) -> Option<Pool> {
        let has_roles = match resource.annotations.get(PREFILL_ANNOTATION) {
            None => false,
            Some(Value::String(value)) if value == BY_ROLE => true,
            Some(value) => {
                let path = format!("metadata.annotations['{PREFILL_ANNOTATION}']");
                findings.refuse(&resource.identity, &path, format!("{value} is not \"{BY_ROLE}\""));
                return None;
            }
        };
        let prefill_labels = has_roles.then(|| {
            let role = (ROLE_LABEL.to_owned(), PREFILL_ROLE.to_owned());
            labels.clone().into_iter().chain([role]).collect()
        });
        Some(Pool {
            identity: resource.identity.clone(),
            strategy: resource.annotations.get(STRATEGY_ANNOTATION).cloned(),
            ports,
            labels,
            prefill_labels,
            is_istios: false,
            is_stable: false,
        })
    }

    /// The first port, by which Istio names the pool's cluster.
    pub fn port(&self) -> u16 {
        self.ports.first().copied().unwrap_or_default()
    }

    /// The Service of its pods by ASM's rule.
    pub fn app(&self) -> Option<&str> {
        self.labels.get(SERVICE_LABEL).map(String::as_str)
    }

    fn with_valid_ports(self, path: impl Fn(usize) -> String, findings: &mut Findings) -> Option<Pool> {
        if let Some(index) = self.ports.iter().position(|port| *port == 0) {
            findings.refuse(&self.identity, &path(index), "0 is not a port");
            return None;
        }
        if self.labels.is_empty() {
            findings.refuse(
                &self.identity,
                "spec.selector",
                "has no label, so that it would select every pod",
            );
            return None;
        }
        Some(self)
    }
}
