//! The Services of pools that have none: headless, with the pool's labels and a port for each of its own, as Istio makes
//! them for pools of the stable version that name an endpoint picker.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::arguments::Deployment;
use crate::pools::{INFERENCE_LABEL, PlannedPool, made_port};
use crate::resources::Identity;

/// The label by which a Service is known to be a pool's: the pool's name, or what of it fits into a label.
pub const POOL_LABEL: &str = "inference-picker/pool";
/// The longest value of a label.
const MAX_LABEL_BYTES: usize = 63;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Service<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata<'a>,
    spec: Spec<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    name: &'a str,
    namespace: &'a str,
    labels: BTreeMap<&'static str, &'a str>,
    /// So that it goes when the pool goes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    owner_references: Vec<Owner<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Owner<'a> {
    api_version: &'a str,
    kind: &'a str,
    name: &'a str,
    uid: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    #[serde(rename = "clusterIP")]
    cluster_ip: &'static str,
    selector: &'a BTreeMap<String, String>,
    ports: Vec<Port>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    name: String,
    port: u16,
    target_port: u16,
}

/// The Service of a pool, as YAML.
pub fn made(planned: &PlannedPool<'_>, deployment: Deployment) -> anyhow::Result<String> {
    let identity = &planned.pool.identity;
    let mut labels = BTreeMap::from([(POOL_LABEL, label(&identity.name))]);
    // The other deployments need the cluster of an ordinary Service.
    labels.extend((deployment == Deployment::WasmPlugin).then_some(INFERENCE_LABEL));
    let owner = identity.uid.as_deref().map(|uid| Owner {
        api_version: &identity.api_version,
        kind: &identity.kind,
        name: &identity.name,
        uid,
    });
    let ports = planned.pool.ports.iter().enumerate();
    let service = Service {
        api_version: "v1",
        kind: "Service",
        metadata: Metadata {
            name: planned.made.as_deref().unwrap_or_default(),
            namespace: &identity.namespace,
            labels,
            owner_references: owner.into_iter().collect(),
        },
        spec: Spec {
            cluster_ip: "None",
            selector: planned.selector,
            ports: ports
                .map(|(index, port)| Port {
                    name: format!("http-{index}"),
                    port: made_port(index),
                    target_port: *port,
                })
                .collect(),
        },
    };
    let yaml = serde_saphyr::to_string(&service)?;
    let which = if planned.selector == &planned.pool.labels { "" } else { "those that compute prompts of " };
    let Identity { namespace, name, .. } = identity;
    Ok(format!("# The Service of {which}the pool {namespace}/{name}, which has none.\n{yaml}"))
}

/// As much of a name as a label may have, which ends in a letter or digit.
fn label(name: &str) -> &str {
    name.get(..MAX_LABEL_BYTES).unwrap_or(name).trim_end_matches(['-', '.'])
}
