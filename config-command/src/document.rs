//! The plugin's configuration, put together: the fields in the order in which they are printed.
//!
//! Under Istio the endpoints are discovered from Envoy's admin, so none are listed, and a worker reads the metrics,
//! because nothing can put the companion service into every gateway.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::arguments::{Deployment, Inputs};
use crate::findings::Findings;
use crate::models::{self, Published};
use crate::pools::{self, PlannedPool};
use crate::resources::{Inventory, Model};
use crate::routes;
use crate::settings::Settings;

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
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pool {
    pub name: String,
    pub cluster: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routing_strategy: Option<Value>,
    #[serde(flatten)]
    pub settings: Map<String, Value>,
}

/// The document, and what its parts come from, in the same order.
#[derive(Debug)]
pub struct Draft<'a> {
    pub document: Document,
    pub pools: Vec<PlannedPool<'a>>,
    pub models: Vec<Published>,
}

impl<'a> Draft<'a> {
    pub fn new(
        inventory: &'a Inventory,
        inputs: &Inputs,
        settings: &Settings,
        findings: &mut Findings,
    ) -> Draft<'a> {
        if inventory.is_without_pools() {
            findings.refuse(&"resources", "InferencePool", "there is none; the plugin needs at least one");
        }
        let pools = pools::plan(inventory, inputs, findings);
        let models = models::published(inventory, findings);
        routes::check(inventory, findings);
        refuse_settings_of_no_pool(settings, &pools, findings);
        let mut document = head(inputs, settings);
        document.unknown_models = unknown_models(inventory, &models, settings);
        document.pools = pools.iter().map(|planned| pool(planned, settings)).collect();
        document.models = models.iter().map(|published| published.model.clone()).collect();
        Draft { document, pools, models }
    }
}

/// The document without pools and models.
pub fn head(inputs: &Inputs, settings: &Settings) -> Document {
    let pick_to = match inputs.deployment {
        Deployment::WasmPlugin | Deployment::WasmPluginEnvoyFilter => "filterState",
        Deployment::EnvoyFilter => "header",
    };
    Document {
        pick_to,
        scrape_by: "worker",
        scrape_cluster: (!inputs.no_scraping).then(|| inputs.scrape_cluster.clone()),
        admin_cluster: (!settings.fields.contains_key("adminCluster")).then_some(ADMIN_CLUSTER),
        settings: settings.fields.clone(),
        pools: Vec::new(),
        unknown_models: None,
        models: Vec::new(),
    }
}

fn pool(planned: &PlannedPool<'_>, settings: &Settings) -> Pool {
    let name = &planned.pool.identity.name;
    Pool {
        name: name.clone(),
        cluster: planned.service.cluster(),
        routing_strategy: planned.pool.strategy.clone(),
        settings: settings.pool(name).map(|(_, pool)| pool.fields.clone()).unwrap_or_default(),
    }
}

/// Only an InferenceModel says which models there are; the other kinds leave what they do not name as it is.
fn unknown_models(inventory: &Inventory, models: &[Published], settings: &Settings) -> Option<&'static str> {
    let is_said = settings.fields.contains_key("unknownModels");
    (!is_said && !models.is_empty() && inventory.models.is_empty()).then_some("passthrough")
}

fn refuse_settings_of_no_pool(settings: &Settings, pools: &[PlannedPool<'_>], findings: &mut Findings) {
    for (index, pool) in settings.pools.iter().enumerate() {
        if !pools.iter().any(|planned| planned.pool.identity.name == pool.name) {
            let problem = format!("there is no InferencePool `{}`", pool.name);
            findings.refuse(&settings.source, &format!("pools[{index}].name"), problem);
        }
    }
}
