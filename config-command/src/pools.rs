//! The Envoy cluster of each pool: that of a Service, which no field of the pool names.
//!
//! In this order: the Service given on the command line; the one that Istio itself makes for a stable pool, where the
//! deployment can use its cluster; the one that the label `app` of the pool's selector names, which is ASM's rule.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::arguments::{Deployment, Inputs};
use crate::findings::Findings;
use crate::resources::{Inventory, Pool};

/// The port of the Service that Istio makes for a pool, whatever the pool's own.
const ISTIO_SERVICE_PORT: u16 = 54321;
/// What that Service's name has between the pool's name and the hash.
const ISTIO_SERVICE_INFIX: &str = "-ip-";
/// Bytes of the SHA-256 that the name has, two digits each.
const ISTIO_SERVICE_HASH_BYTES: usize = 4;
/// The longest name of a Service; a pool's longer name is cut.
const MAX_SERVICE_NAME_BYTES: usize = 63;

/// The label that has Istio make a cluster with `override_host` of a Service. It is Istio's internal one.
const INFERENCE_LABEL: &str = "internal.istio.io/service-semantics=inferencepool";

/// A host and a port, as Istio's routes name them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Service {
    pub host: String,
    pub port: u16,
}

impl Service {
    /// The name that Istio gives its cluster.
    pub fn cluster(&self) -> String {
        format!("outbound|{}||{}", self.port, self.host)
    }
}

/// A pool whose Service is known.
#[derive(Debug)]
pub struct PlannedPool<'a> {
    pub pool: &'a Pool,
    pub service: Service,
}

/// Finds every pool's Service; pools without one, and those that the plugin could not tell apart, are refused.
pub fn plan<'a>(inventory: &'a Inventory, inputs: &Inputs, findings: &mut Findings) -> Vec<PlannedPool<'a>> {
    for given in &inputs.services {
        if !inventory.pools.iter().any(|pool| pool.identity.name == given.pool) {
            findings.refuse(&"--service", &given.pool, "there is no InferencePool of this name");
        }
    }
    let find = |pool| Some(PlannedPool { pool, service: service(pool, inputs, findings)? });
    let pools: Vec<_> = inventory.pools.iter().filter_map(find).collect();
    refuse_same_names(&pools, findings);
    refuse_same_clusters(&pools, findings);
    pools
}

fn service(pool: &Pool, inputs: &Inputs, findings: &mut Findings) -> Option<Service> {
    if let Some(given) = inputs.services.iter().find(|given| given.pool == pool.identity.name) {
        remind_of_label(pool, "--service", &given.service, inputs, findings);
        return Some(Service { host: host(&given.service, pool, inputs), port: given.port });
    }
    if pool.is_stable && inputs.deployment == Deployment::WasmPlugin {
        let name = istio_service_name(&pool.identity.name);
        return Some(Service { host: host(&name, pool, inputs), port: ISTIO_SERVICE_PORT });
    }
    let Some(app) = &pool.app else {
        findings.refuse(
            &pool.identity,
            "spec.selector",
            "has no label `app`, which would name the pool's Service; say which it is: --service POOL=SERVICE:PORT",
        );
        return None;
    };
    remind_of_label(pool, "spec.selector", app, inputs, findings);
    if pool.is_stable {
        let problem =
            format!("the pool's Service is taken to be `{app}`, by the label `app`; else give --service");
        findings.warn(&pool.identity, "spec.selector", problem);
    }
    Some(Service { host: host(app, pool, inputs), port: pool.port })
}

/// A WasmPlugin's pick reaches clusters of pools only, and this Service is not one that Istio made for a pool.
fn remind_of_label(pool: &Pool, path: &str, service: &str, inputs: &Inputs, findings: &mut Findings) {
    if inputs.deployment == Deployment::WasmPlugin {
        let problem = format!(
            "Istio makes a pool's cluster of the Service `{service}` if it has the label {INFERENCE_LABEL}"
        );
        findings.warn(&pool.identity, path, problem);
    }
}

/// A name with dots is a whole host name already.
fn host(service: &str, pool: &Pool, inputs: &Inputs) -> String {
    if service.contains('.') {
        return service.to_owned();
    }
    format!("{service}.{}.svc.{}", pool.identity.namespace, inputs.cluster_domain)
}

fn istio_service_name(pool: &str) -> String {
    let digest = Sha256::digest(pool.as_bytes());
    let hash: String =
        digest.iter().take(ISTIO_SERVICE_HASH_BYTES).map(|byte| format!("{byte:02x}")).collect();
    let longest = MAX_SERVICE_NAME_BYTES - ISTIO_SERVICE_INFIX.len() - hash.len();
    format!("{}{ISTIO_SERVICE_INFIX}{hash}", pool.get(..longest).unwrap_or(pool))
}

/// Pools of one name in two namespaces.
fn refuse_same_names(pools: &[PlannedPool<'_>], findings: &mut Findings) {
    let mut first = HashMap::new();
    for PlannedPool { pool: Pool { identity, .. }, .. } in pools {
        if let Some(before) = first.insert(&identity.name, identity) {
            let problem = format!("the plugin's pools have no namespace, and {before} has the same name");
            findings.refuse(identity, "metadata.name", problem);
        }
    }
}

fn refuse_same_clusters(pools: &[PlannedPool<'_>], findings: &mut Findings) {
    let mut first = HashMap::new();
    for PlannedPool { pool: Pool { identity, .. }, service } in pools {
        if let Some(before) = first.insert(service, identity) {
            let problem = format!("leads to the cluster `{}`, as that of {before} does", service.cluster());
            findings.refuse(identity, "spec.selector", problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn istio_services_are_named_by_the_pool_and_a_hash_of_its_name() {
        // Seen in the Service that istiod 1.31 expects for a pool of this name.
        assert_eq!(istio_service_name("pool"), "pool-ip-27cac550");
        let long = istio_service_name(&"p".repeat(80));
        assert_eq!(long.len(), MAX_SERVICE_NAME_BYTES);
        assert!(long.starts_with("pppp") && long.contains("p-ip-"), "{long}");
    }
}
