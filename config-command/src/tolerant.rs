//! Whatever one resource says, the others count: what is refused counts as it was when it was last right, or else is left
//! out, and the rest is put together.

use std::collections::HashSet;

use crate::arguments::{Gateway, Options};
use crate::draft::Draft;
use crate::findings::{Finding, Findings, Severity};
use crate::resources::{Inventory, Key, Resource};
use crate::settings::Settings;
use crate::{istio, validation};

/// Times that resources are replaced or left out. Leaving out one may leave others without what they refer to: a pool, its
/// rewrites.
const MAX_ROUNDS: usize = 8;

/// What a set of resources gives.
#[derive(Debug)]
pub struct Outcome {
    /// Istio's resources, as YAML; `None` where nothing is left, or what is wrong is nobody's resource.
    pub yaml: Option<String>,
    /// What there was to say.
    pub findings: Vec<Finding>,
}

/// Istio's resources for all that is right. `last_good`: a resource as it was when it was last right.
///
/// # Errors
/// Where they cannot be written at all.
pub fn istio_resources(
    resources: &[Resource],
    last_good: &dyn Fn(&Resource) -> Option<Resource>,
    options: &Options,
    settings: &Settings,
    gateway: &Gateway,
) -> anyhow::Result<Outcome> {
    let (mut current, mut replaced) = (resources.to_vec(), HashSet::new());
    let mut said = Vec::new();
    for _ in 0..MAX_ROUNDS {
        let mut findings = Findings::default();
        let inventory = Inventory::new(current.clone(), &mut findings);
        let draft = Draft::new(&inventory, options, true, settings, &mut findings);
        let config = validation::validate(&draft, settings, &mut findings)?;
        findings.be_strict();
        if let Some(config) = config.filter(|_| !findings.has_errors()) {
            let yaml = istio::resources(&draft, &inventory.routes, &config, options, gateway)?;
            warn_of_replaced(&current, &replaced, &mut findings);
            said.extend(findings.all().cloned());
            return Ok(Outcome { yaml: Some(yaml), findings: said });
        }
        let errors = findings.all().filter(|finding| finding.severity == Severity::Error);
        let errors: Vec<Finding> = errors.cloned().collect();
        let refused: HashSet<Key> = errors.iter().filter_map(|finding| finding.resource.clone()).collect();
        said.extend(errors);
        if !current.iter().any(|resource| refused.contains(&resource.identity.key())) {
            break;
        }
        current = mended(current, &refused, &mut replaced, last_good);
    }
    Ok(Outcome { yaml: None, findings: said })
}

/// The resources without those that are refused, or with those as they were, if that has not been tried.
fn mended(
    resources: Vec<Resource>,
    refused: &HashSet<Key>,
    replaced: &mut HashSet<Key>,
    last_good: &dyn Fn(&Resource) -> Option<Resource>,
) -> Vec<Resource> {
    let mend = |resource: Resource| {
        let key = resource.identity.key();
        if !refused.contains(&key) {
            return Some(resource);
        }
        if !replaced.insert(key) {
            return None;
        }
        last_good(&resource)
    };
    resources.into_iter().filter_map(mend).collect()
}

fn warn_of_replaced(resources: &[Resource], replaced: &HashSet<Key>, findings: &mut Findings) {
    let replaced = resources.iter().filter(|resource| replaced.contains(&resource.identity.key()));
    replaced.for_each(|resource| {
        findings.warn(&resource.identity, "spec", "counts as it was when it was last right");
    });
}
