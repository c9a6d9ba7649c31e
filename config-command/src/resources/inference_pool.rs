//! InferencePool: the pods that serve the same base model, in the experimental and in the stable version.
//!
//! Carried over: name, port, the selector's label `app`, and the annotation that names the routing strategy. The
//! endpoint picker is what the plugin takes the place of; references to one are read and not looked at.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::{Identity, Resource};
use crate::findings::Findings;

/// The annotation of Alibaba Cloud's Gateway with Inference Extension that names a pool's routing strategy.
pub const STRATEGY_ANNOTATION: &str = "inference.networking.x-k8s.io/routing-strategy";

/// The label by which ASM finds the Service of a pool's pods: it has to bear the Service's name.
const SERVICE_LABEL: &str = "app";

#[derive(Debug)]
pub struct Pool {
    pub identity: Identity,
    /// The annotation's value, which the plugin's own parser judges.
    pub strategy: Option<Value>,
    /// The pods' port; the first if there are several.
    pub port: u16,
    /// The value of the selector's label `app`.
    pub app: Option<String>,
    /// Whether it is of the version that Istio itself turns into a Service.
    pub is_stable: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Experimental {
    selector: BTreeMap<String, String>,
    target_port_number: u16,
    #[serde(rename = "extensionRef")]
    _extension_ref: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Stable {
    selector: Selector,
    target_ports: Vec<Port>,
    #[serde(rename = "appProtocol")]
    _app_protocol: Option<IgnoredAny>,
    #[serde(rename = "endpointPickerRef")]
    _endpoint_picker_ref: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Selector {
    match_labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Port {
    number: u16,
}

impl Pool {
    /// Reads `inference.networking.x-k8s.io/v1alpha1` and `v1alpha2`.
    pub fn experimental(resource: &Resource, findings: &mut Findings) -> Option<Pool> {
        let spec: Experimental = resource.spec(findings)?;
        let pool = Pool::new(resource, &spec.selector, spec.target_port_number, false);
        pool.with_valid_port("spec.targetPortNumber", findings)
    }

    /// Reads `inference.networking.k8s.io/v1`.
    pub fn stable(resource: &Resource, findings: &mut Findings) -> Option<Pool> {
        let spec: Stable = resource.spec(findings)?;
        let Some(first) = spec.target_ports.first() else {
            findings.refuse(&resource.identity, "spec.targetPorts", "has no port");
            return None;
        };
        let pool = Pool::new(resource, &spec.selector.match_labels, first.number, true);
        pool.with_valid_port("spec.targetPorts[0].number", findings)
    }

    fn new(resource: &Resource, labels: &BTreeMap<String, String>, port: u16, is_stable: bool) -> Pool {
        Pool {
            identity: resource.identity.clone(),
            strategy: resource.annotations.get(STRATEGY_ANNOTATION).cloned(),
            port,
            app: labels.get(SERVICE_LABEL).cloned(),
            is_stable,
        }
    }

    fn with_valid_port(self, path: &str, findings: &mut Findings) -> Option<Pool> {
        if self.port == 0 {
            findings.refuse(&self.identity, path, "0 is not a port");
            return None;
        }
        Some(self)
    }
}
