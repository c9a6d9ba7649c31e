//! The Envoy cluster of each pool: that of a Service, which no field of the pool names.
//!
//! In this order: the Service given on the command line; the one that Istio itself makes for a stable pool, where the
//! deployment can use its cluster; one that was read and selects the same pods by the same labels; the one that the label
//! `app` of the pool's selector names, which is ASM's rule. If Services are to be made, a pool without any of these gets one,
//! under the name and the port that Istio would give it.
//!
//! A pool whose pods have roles is two of the plugin's: of its own cluster, and of the Service that selects those of its pods
//! which compute prompts. Whoever is in both is the second's alone, which the plugin sees to.
//!
//! No resource can name a Service of another namespace: only options may.

use std::collections::{BTreeMap, HashMap, HashSet};

use sha2::{Digest, Sha256};

use crate::arguments::{Deployment, Options};
use crate::findings::Findings;
use crate::resources::{Inventory, PREFILL_ANNOTATION, Pool, Service as Resource};

/// The port of the Service that Istio makes for a pool, whatever the pool's own.
const ISTIO_SERVICE_PORT: u16 = 54321;
/// What that Service's name has between the pool's name and the hash.
const ISTIO_SERVICE_INFIX: &str = "-ip-";
/// Bytes of the SHA-256 that the name has, two digits each.
const ISTIO_SERVICE_HASH_BYTES: usize = 4;
/// The longest name of a Service; a pool's longer name is cut.
const MAX_SERVICE_NAME_BYTES: usize = 63;
/// What the names of a pool's pods that compute prompts have behind the pool's.
const PREFILL_SUFFIX: &str = "-prefill";

/// The label that has Istio make a cluster with `override_host` of a Service. It is Istio's internal one.
pub const INFERENCE_LABEL: (&str, &str) = ("internal.istio.io/service-semantics", "inferencepool");

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
    /// The pool.
    pub pool: &'a Pool,
    /// The name by which the plugin knows it: its own, or, if an older pool in another namespace has that, with its
    /// namespace.
    pub name: String,
    /// The Service whose cluster is the pool's.
    pub service: Service,
    /// The name of the Service, if it is to be made.
    pub made: Option<String>,
    /// What the Service selects.
    pub selector: &'a BTreeMap<String, String>,
    /// The plugin's pool of those of its pods that compute prompts.
    pub prefill: Option<String>,
}

/// Finds every pool's Service; pools without one, and those that the plugin could not distinguish, are refused.
pub fn plan<'a>(
    inventory: &'a Inventory,
    options: &Options,
    makes_services: bool,
    findings: &mut Findings,
) -> Vec<PlannedPool<'a>> {
    for given in &options.services {
        if !inventory.pools.iter().any(|pool| pool.identity.name == given.pool) {
            findings.refuse(&"--service", &given.pool, "there is no InferencePool of this name");
        }
    }
    let mut names = HashSet::new();
    let mut finder = Finder { inventory, options, makes_services, findings };
    let mut pools = Vec::new();
    for pool in &inventory.pools {
        if let Some((service, made)) = finder.service(pool) {
            let name = name(pool, &mut names, finder.findings);
            pools.push(PlannedPool { pool, name, service, made, selector: &pool.labels, prefill: None });
        }
    }
    refuse_same_clusters(&pools, finder.findings);
    // Behind all others, so that who looks for an InferencePool's finds its own first.
    let mut prefills = Vec::new();
    for own in &mut pools {
        let prefill = finder.prefill(own.pool, &own.name, &mut names);
        own.prefill = prefill.as_ref().map(|prefill| prefill.name.clone());
        prefills.extend(prefill);
    }
    pools.extend(prefills);
    pools
}

/// The plugin's pools have no namespace, so the younger one of two with the same name has it in its name.
fn name(pool: &Pool, names: &mut HashSet<String>, findings: &mut Findings) -> String {
    let Pool { identity, .. } = pool;
    if names.insert(identity.name.clone()) {
        return identity.name.clone();
    }
    let name = format!("{}/{}", identity.namespace, identity.name);
    let problem =
        format!("an older pool in another namespace has this name, so the plugin knows it as `{name}`");
    findings.warn(identity, "metadata.name", problem);
    names.insert(name.clone());
    name
}

/// What a pool's Service is looked for in.
struct Finder<'a, 'f> {
    inventory: &'a Inventory,
    options: &'a Options,
    makes_services: bool,
    findings: &'f mut Findings,
}

impl Finder<'_, '_> {
    /// The pool's Service, and its name, if it is to be made.
    fn service(&mut self, pool: &Pool) -> Option<(Service, Option<String>)> {
        if let Some(given) = self.options.services.iter().find(|given| given.pool == pool.identity.name) {
            self.remind_of_label(pool, "--service", &given.service);
            let host = match given.service.contains('.') {
                // A name with dots is a whole host name already.
                true => given.service.clone(),
                false => self.host(pool, &given.service),
            };
            return Some((Service { host, port: given.port }, None));
        }
        let is_deferred = self.options.deployment == Deployment::WasmPlugin;
        let istios = istio_service_name(&pool.identity.name);
        if pool.is_istios && is_deferred {
            return Some((self.at(pool, &istios, ISTIO_SERVICE_PORT), None));
        }
        if let Some((name, port)) = self.read(pool) {
            self.remind_of_label(pool, "spec.selector", &name);
            self.warn_of_ports(pool);
            return Some((self.at(pool, &name, port), None));
        }
        if self.makes_services {
            self.warn_of_ports(pool);
            return Some((self.at(pool, &istios, ISTIO_SERVICE_PORT), Some(istios)));
        }
        if pool.is_stable && is_deferred {
            let problem =
                "is missing, so that Istio up to 1.31 makes no Service for the pool; --make-services does";
            self.findings.warn(&pool.identity, "spec.endpointPickerRef", problem);
            return Some((self.at(pool, &istios, ISTIO_SERVICE_PORT), None));
        }
        Some((self.guessed(pool)?, None))
    }

    /// The plugin's pool of those of a pool's pods that compute prompts, where they have roles. `name`: the pool's own.
    fn prefill<'p>(
        &mut self,
        pool: &'p Pool,
        name: &str,
        names: &mut HashSet<String>,
    ) -> Option<PlannedPool<'p>> {
        let labels = pool.prefill_labels.as_ref()?;
        let path = format!("metadata.annotations['{PREFILL_ANNOTATION}']");
        let name = format!("{name}{PREFILL_SUFFIX}");
        if !names.insert(name.clone()) {
            let problem = format!("needs the name `{name}`, which is another InferencePool's");
            self.findings.refuse(&pool.identity, &path, problem);
            return None;
        }
        let made = istio_service_name(&format!("{}{PREFILL_SUFFIX}", pool.identity.name));
        let read = self.read_near(pool, &made).find(|(service, _)| service.selector == *labels);
        let read = read.map(|(service, port)| self.at(pool, &service.identity.name, port));
        let (service, made) = match read {
            Some(read) => (read, None),
            None if self.makes_services => (self.at(pool, &made, ISTIO_SERVICE_PORT), Some(made)),
            None => {
                let problem = "needs a Service that selects the pool's labels and llm-d.ai/role: prefill; none was read, and \
                               --make-services makes one";
                self.findings.refuse(&pool.identity, &path, problem);
                return None;
            }
        };
        Some(PlannedPool { pool, name, service, made, selector: labels, prefill: None })
    }

    /// The Services that were read in a pool's namespace, with the port that leads to the pool's, but for the one that is made
    /// under this name.
    fn read_near<'s>(&'s self, pool: &'s Pool, made: &'s str) -> impl Iterator<Item = (&'s Resource, u16)> {
        let is_near = move |service: &&Resource| {
            service.identity.namespace == pool.identity.namespace && service.identity.name != made
        };
        let near = self.inventory.services.iter().filter(is_near);
        near.filter_map(|service| Some((service, service.port_to(pool.port())?)))
    }

    /// Among the Services that were read, the one that selects the same pods, or the one that the label `app` names.
    fn read(&self, pool: &Pool) -> Option<(String, u16)> {
        let own = istio_service_name(&pool.identity.name);
        let mut all: Vec<_> = self.read_near(pool, &own).collect();
        all.sort_by_key(|(service, _)| {
            (Some(service.identity.name.as_str()) != pool.app(), &service.identity.name)
        });
        let fits = |service: &Resource| {
            service.selector == pool.labels || Some(service.identity.name.as_str()) == pool.app()
        };
        let (service, port) = all.into_iter().find(|(service, _)| fits(service))?;
        Some((service.identity.name.clone(), port))
    }

    fn guessed(&mut self, pool: &Pool) -> Option<Service> {
        let Some(app) = pool.app().filter(|app| is_service_name(app)) else {
            self.findings.refuse(
                &pool.identity,
                "spec.selector",
                "names no Service: none was read that selects the same pods, and there is no label `app`; say which it is: \
                 --service POOL=SERVICE:PORT",
            );
            return None;
        };
        self.remind_of_label(pool, "spec.selector", app);
        self.warn_of_ports(pool);
        if pool.is_stable {
            let problem =
                format!("the pool's Service is taken to be `{app}`, by the label `app`; else give --service");
            self.findings.warn(&pool.identity, "spec.selector", problem);
        }
        Some(self.at(pool, app, pool.port()))
    }

    fn at(&self, pool: &Pool, name: &str, port: u16) -> Service {
        Service { host: self.host(pool, name), port }
    }

    fn host(&self, pool: &Pool, service: &str) -> String {
        format!("{service}.{}.svc.{}", pool.identity.namespace, self.options.cluster_domain)
    }

    /// A WasmPlugin's pick reaches clusters of pools only, and this Service is not one that Istio made for a pool.
    fn remind_of_label(&mut self, pool: &Pool, path: &str, service: &str) {
        if self.options.deployment == Deployment::WasmPlugin {
            let (label, value) = INFERENCE_LABEL;
            let problem = format!(
                "Istio makes a pool's cluster of the Service `{service}` if it has the label {label}={value}"
            );
            self.findings.warn(&pool.identity, path, problem);
        }
    }

    /// The cluster of an ordinary Service is one port's.
    fn warn_of_ports(&mut self, pool: &Pool) {
        let is_deferred = self.options.deployment == Deployment::WasmPlugin;
        for index in 1..if is_deferred { 1 } else { pool.ports.len() } {
            let problem = "counts for nothing: the cluster of a Service is one port's, but with --deployment wasm-plugin";
            self.findings.warn(&pool.identity, &format!("spec.targetPorts[{index}]"), problem);
        }
    }
}

/// A label may have dots and capitals, and a Service's name may not: else a pool could name another namespace's.
fn is_service_name(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.len() <= MAX_SERVICE_NAME_BYTES
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && !text.ends_with('-')
        && text.bytes().all(is_part)
}

/// The port of a Service that is made for the target port at `index`, as Istio numbers them.
pub fn made_port(index: usize) -> u16 {
    ISTIO_SERVICE_PORT.saturating_add(index as u16)
}

fn istio_service_name(pool: &str) -> String {
    let digest = Sha256::digest(pool.as_bytes());
    let hash: String =
        digest.iter().take(ISTIO_SERVICE_HASH_BYTES).map(|byte| format!("{byte:02x}")).collect();
    let longest = MAX_SERVICE_NAME_BYTES - ISTIO_SERVICE_INFIX.len() - hash.len();
    format!("{}{ISTIO_SERVICE_INFIX}{hash}", pool.get(..longest).unwrap_or(pool))
}

fn refuse_same_clusters(pools: &[PlannedPool<'_>], findings: &mut Findings) {
    let mut first = HashMap::new();
    for PlannedPool { pool: Pool { identity, .. }, service, .. } in pools {
        let before = *first.entry(service).or_insert(identity);
        if before.key() != identity.key() {
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
