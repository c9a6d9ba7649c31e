//! What there should be, from what there is: functions of their arguments, without the API server.
//!
//! A resource that is refused counts as it was when it was last right, for as long as it is there, so that a mistake changes
//! nothing but its own status.

use std::collections::{BTreeMap, HashSet};

use clap::ValueEnum;
use inference_picker_config::arguments::{Deployment, Gateway, Options};
use inference_picker_config::findings::{Finding, Findings, Severity};
use inference_picker_config::resources::{Key, Resource, in_document};
use inference_picker_config::settings::Settings;
use inference_picker_config::tolerant::{self, Outcome};
use serde_json::Value;

/// The annotation of a Gateway that says how the plugin gets into it.
pub const DEPLOYMENT_ANNOTATION: &str = "inference-picker/deployment";

/// What resources are called in messages.
const SOURCE: &str = "cluster";

/// Resources as they were when they were last right.
#[derive(Debug, Default)]
pub struct LastGood(BTreeMap<Key, Resource>);

/// What there should be.
#[derive(Debug, Default)]
pub struct Plan {
    /// Istio's resources for each gateway, as YAML.
    pub texts: Vec<String>,
    /// Whether the texts are all there should be: else what was made before stays.
    pub is_whole: bool,
    /// What there is to say about the resources.
    pub findings: Vec<Finding>,
}

/// A gateway, and how the plugin gets into it.
#[derive(Debug, Clone)]
pub struct Target {
    /// The gateway.
    pub gateway: Gateway,
    /// The way in.
    pub deployment: Deployment,
}

/// The gateways that are to be configured: that of the arguments, and those with the annotation.
pub fn targets(own: Option<&Gateway>, options: &Options, objects: &[Value]) -> Vec<Target> {
    let own = own.map(|gateway| Target { gateway: gateway.clone(), deployment: options.deployment });
    let annotated = objects.iter().filter(|object| text(object, "kind") == Some("Gateway"));
    let annotated = annotated.filter_map(|object| {
        let metadata = object.get("metadata")?;
        let deployment = text(metadata.get("annotations")?, DEPLOYMENT_ANNOTATION)?;
        let (name, namespace) = (text(metadata, "name")?.to_owned(), text(metadata, "namespace")?.to_owned());
        let is_own = |target: &Target| {
            target.gateway.gateway.as_deref() == Some(&name) && target.gateway.gateway_namespace == namespace
        };
        let plugin_url = own.as_ref().map_or(String::new(), |own| own.gateway.plugin_url.clone());
        let gateway = Gateway {
            resource_name: format!("inference-picker-{name}"),
            gateway: Some(name.clone()),
            gateway_namespace: namespace.clone(),
            workload: Vec::new(),
            plugin_url,
        };
        let deployment = Deployment::from_str(deployment, false).ok()?;
        (!own.as_ref().is_some_and(is_own)).then_some(Target { gateway, deployment })
    });
    own.clone().into_iter().chain(annotated).collect()
}

fn text<'a>(object: &'a Value, field: &str) -> Option<&'a str> {
    object.get(field)?.as_str()
}

/// The inference resources and Services among the objects of the API server. Those that are about to go are gone.
pub fn resources(objects: &[Value]) -> Vec<Resource> {
    let mut findings = Findings::default();
    let left = objects.iter().filter(|object| {
        let is_going = object.get("metadata").is_some_and(|of| of.get("deletionTimestamp").is_some());
        text(object, "kind") != Some("Gateway") && !is_going
    });
    left.flat_map(|object| in_document(object.clone(), SOURCE, "default", &mut findings)).collect()
}

/// What there should be for these resources.
///
/// # Errors
/// Where it cannot be written at all.
pub fn plan(
    resources: &[Resource],
    last_good: &mut LastGood,
    options: &Options,
    settings: &Settings,
    targets: &[Target],
) -> anyhow::Result<Plan> {
    let has_pools = resources.iter().any(|resource| resource.identity.kind == "InferencePool");
    let mut plan = Plan { is_whole: true, ..Plan::default() };
    for target in targets.iter().filter(|_| has_pools) {
        let options = Options { deployment: target.deployment, ..options.clone() };
        let render = |resources: &[Resource]| {
            tolerant::istio_resources(resources, &options, settings, &target.gateway)
        };
        let mut outcome = render(resources)?;
        if let Some(mended) = last_good.in_place_of_refused(resources, &outcome) {
            outcome.yaml = render(&mended)?.yaml;
        }
        plan.is_whole &= outcome.yaml.is_some();
        plan.texts.extend(outcome.yaml);
        plan.findings.extend(outcome.findings);
    }
    last_good.learn(resources, &plan.findings);
    Ok(plan)
}

fn refused(findings: &[Finding]) -> HashSet<&Key> {
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
    errors.filter_map(|finding| finding.resource.as_ref()).collect()
}

impl LastGood {
    /// The resources with those that are refused as they were; `None` if that changes nothing.
    fn in_place_of_refused(&self, resources: &[Resource], outcome: &Outcome) -> Option<Vec<Resource>> {
        let refused = refused(&outcome.findings);
        let known = |resource: &Resource| {
            let key = resource.identity.key();
            self.0.get(&key).filter(|_| refused.contains(&key)).cloned()
        };
        let changes = resources.iter().any(|resource| known(resource).is_some());
        let mend = |resource: &Resource| known(resource).unwrap_or_else(|| resource.clone());
        changes.then(|| resources.iter().map(mend).collect())
    }

    fn learn(&mut self, resources: &[Resource], findings: &[Finding]) {
        let refused = refused(findings);
        let keys: HashSet<Key> = resources.iter().map(|resource| resource.identity.key()).collect();
        self.0.retain(|key, _| keys.contains(key));
        let good = resources.iter().map(|resource| (resource.identity.key(), resource));
        let good = good.filter(|(key, _)| !refused.contains(key));
        self.0.extend(good.map(|(key, resource)| (key, resource.clone())));
    }
}
