//! Whatever one resource says, the others count: what is refused is left out, and the rest is put together without it.

use std::collections::HashSet;

use crate::arguments::{Gateway, Options};
use crate::document::Draft;
use crate::findings::{Finding, Findings, Severity};
use crate::resources::{Inventory, Key, Resource};
use crate::settings::Settings;
use crate::{istio, validation};

/// Times that resources are left out. Leaving out one may leave others without what they refer to: a pool, its rewrites.
const MAX_ROUNDS: usize = 8;

/// What a set of resources gives.
#[derive(Debug)]
pub struct Outcome {
    /// Istio's resources, as YAML; `None` where nothing is left, or what is wrong is nobody's resource.
    pub yaml: Option<String>,
    /// What there was to say.
    pub findings: Vec<Finding>,
}

/// Istio's resources for all that is right.
///
/// # Errors
/// Where they cannot be written at all.
pub fn istio_resources(
    resources: &[Resource],
    options: &Options,
    settings: &Settings,
    gateway: &Gateway,
) -> anyhow::Result<Outcome> {
    let mut refused: HashSet<Key> = HashSet::new();
    let mut said = Vec::new();
    for _ in 0..MAX_ROUNDS {
        let left: Vec<Resource> = resources
            .iter()
            .filter(|resource| !refused.contains(&resource.identity.key()))
            .cloned()
            .collect();
        let mut findings = Findings::default();
        let inventory = Inventory::new(left, &mut findings);
        if inventory.is_without_pools() {
            break;
        }
        let draft = Draft::new(&inventory, options, true, settings, &mut findings);
        let config = validation::validate(&draft, settings, &mut findings)?;
        findings.be_strict();
        if let Some(config) = config.filter(|_| !findings.has_errors()) {
            let yaml = istio::resources(&draft, &inventory.routes, &config, options, gateway)?;
            said.extend(findings.all().cloned());
            return Ok(Outcome { yaml: Some(yaml), findings: said });
        }
        let errors = findings.all().filter(|finding| finding.severity == Severity::Error);
        let errors: Vec<Finding> = errors.cloned().collect();
        let before = refused.len();
        refused.extend(errors.iter().filter_map(|finding| finding.resource.clone()));
        said.extend(errors);
        if refused.len() == before {
            break;
        }
    }
    Ok(Outcome { yaml: None, findings: said })
}
