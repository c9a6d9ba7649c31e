//! What there should be, from what there is: functions of their arguments, without the API server.
//!
//! A resource that is refused counts as it was when it was last right ([`LastGood`]), so that a mistake changes nothing but its
//! own status.

use crate::arguments::{Deployment, Gateway, Options};
use crate::findings::{Finding, Findings};
use crate::resources::{Resource, in_document};
use crate::settings::Settings;
use crate::tolerant;
use clap::ValueEnum;
use serde_json::Value;

use crate::last_good::LastGood;

/// The annotation of a Gateway that says how the plugin gets into it.
pub const DEPLOYMENT_ANNOTATION: &str = "inference-picker/deployment";

/// What resources are called in messages.
const SOURCE: &str = "cluster";

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
    for target in targets {
        let options = Options { deployment: target.deployment, ..options.clone() };
        let before = |resource: &Resource| last_good.of(resource);
        let outcome = tolerant::istio_resources(resources, &before, &options, settings, &target.gateway)?;
        plan.is_whole &= outcome.yaml.is_some() || !has_pools;
        plan.texts.extend(outcome.yaml);
        plan.findings.extend(outcome.findings);
    }
    if !targets.is_empty() {
        last_good.learn(resources, &plan.findings);
    }
    Ok(plan)
}
