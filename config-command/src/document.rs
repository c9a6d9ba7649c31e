//! The plugin's configuration, put together: the fields in the order in which they are printed.
//!
//! Under Istio the endpoints are discovered from Envoy's admin, so none are listed, and a worker reads the metrics,
//! because nothing can put the companion service into every gateway.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::arguments::{Deployment, Options};
use crate::findings::Findings;
use crate::models::{Default, Models, Objective};
use crate::pools::{self, PlannedPool};
use crate::resources::{Inventory, Model, Target};
use crate::routes;
use crate::settings::Settings;
use crate::share;

/// The cluster of Envoy's own admin in every proxy of Istio.
const ADMIN_CLUSTER: &str = "prometheus_stats";

/// The configuration document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    pub pick_to: &'static str,
    pub scrape_by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scrape_cluster: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_cluster: Option<&'static str>,
    #[serde(flatten)]
    pub settings: Map<String, Value>,
    pub pools: Vec<Pool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown_models: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<Model>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub objectives: Vec<Objective>,
}

/// An entry of `pools`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pool {
    pub name: String,
    pub cluster: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routing_strategy: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_targets: Option<Vec<Target>>,
    #[serde(flatten)]
    pub settings: Map<String, Value>,
}

/// The document, and what its parts come from, in the same order.
#[derive(Debug)]
pub struct Draft<'a> {
    pub document: Document,
    pub pools: Vec<PlannedPool<'a>>,
    pub models: Models,
}

impl<'a> Draft<'a> {
    /// Puts it together from all that was read. `makes_services`: for pools that have none.
    pub fn new(
        inventory: &'a Inventory,
        options: &Options,
        makes_services: bool,
        settings: &Settings,
        findings: &mut Findings,
    ) -> Draft<'a> {
        if inventory.is_without_pools() {
            findings.refuse(&"resources", "InferencePool", "there is none; the plugin needs at least one");
        }
        let pools = pools::plan(inventory, options, makes_services, findings);
        let models = Models::new(inventory, &pools, findings);
        routes::check(inventory, findings);
        refuse_settings_of_no_pool(settings, &pools, findings);
        let mut document = head(options, settings);
        document.unknown_models = unknown_models(inventory, &models, settings);
        document.pools = pools.iter().map(|planned| pool(planned, &models.defaults, settings)).collect();
        document.models = models.published.iter().map(|published| published.model.clone()).collect();
        document.objectives = models.objectives.iter().map(|named| named.objective.clone()).collect();
        let draft = Draft { document, pools, models };
        share::refuse_surplus(&draft, findings);
        draft
    }
}

/// The document without pools and models.
pub fn head(options: &Options, settings: &Settings) -> Document {
    let pick_to = match options.deployment {
        Deployment::WasmPlugin | Deployment::WasmPluginEnvoyFilter => "filterState",
        Deployment::EnvoyFilter => "header",
    };
    Document {
        pick_to,
        scrape_by: "worker",
        scrape_cluster: (!options.no_scraping).then(|| options.scrape_cluster.clone()),
        admin_cluster: (!settings.fields.contains_key("adminCluster")).then_some(ADMIN_CLUSTER),
        settings: settings.fields.clone(),
        pools: Vec::new(),
        unknown_models: None,
        models: Vec::new(),
        objectives: Vec::new(),
    }
}

fn pool(planned: &PlannedPool<'_>, defaults: &[Default], settings: &Settings) -> Pool {
    let name = &planned.name;
    Pool {
        name: name.clone(),
        cluster: planned.service.cluster(),
        routing_strategy: planned.pool.strategy.clone(),
        default_targets: defaults.iter().find(|of| of.pool == *name).map(|of| of.targets.clone()),
        settings: settings.pool(name).map(|(_, pool)| pool.fields.clone()).unwrap_or_default(),
    }
}

/// Only an InferenceModel says which models there are; the other kinds leave what they do not name as it is.
fn unknown_models(inventory: &Inventory, models: &Models, settings: &Settings) -> Option<&'static str> {
    let is_said = settings.fields.contains_key("unknownModels");
    (!is_said && !models.published.is_empty() && inventory.models.is_empty()).then_some("passthrough")
}

fn refuse_settings_of_no_pool(settings: &Settings, pools: &[PlannedPool<'_>], findings: &mut Findings) {
    for (index, pool) in settings.pools.iter().enumerate() {
        if !pools.iter().any(|planned| planned.name == pool.name) {
            let problem = format!("there is no InferencePool `{}`", pool.name);
            findings.refuse(&settings.source, &format!("pools[{index}].name"), problem);
        }
    }
}
