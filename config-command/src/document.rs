//! The plugin's configuration, put together: the fields in the order in which they are printed.
//!
//! Under Istio the endpoints are discovered from Envoy's admin, so none are listed, and a worker reads the metrics,
//! because nothing can put the companion service into every gateway.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::arguments::{Deployment, Options};
use crate::models::{Default, Objective};
use crate::pools::PlannedPool;
use crate::resources::{Model, Target};
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

/// One pool of it.
pub fn pool(planned: &PlannedPool<'_>, defaults: &[Default], settings: &Settings) -> Pool {
    let name = &planned.name;
    Pool {
        name: name.clone(),
        cluster: planned.service.cluster(),
        routing_strategy: planned.pool.strategy.clone(),
        default_targets: defaults.iter().find(|of| of.pool == *name).map(|of| of.targets.clone()),
        settings: with_prefill(
            planned,
            settings.pool(name).map(|(_, pool)| pool.fields.clone()).unwrap_or_default(),
        ),
    }
}

/// The settings of a pool, of which who computes its prompts is not theirs to say where its pods have roles.
fn with_prefill(planned: &PlannedPool<'_>, mut settings: Map<String, Value>) -> Map<String, Value> {
    if let Some(prefill) = &planned.prefill {
        let mut rule = match settings.remove("prefill") {
            Some(Value::Object(rule)) => rule,
            _ => Map::new(),
        };
        rule.insert("pool".to_owned(), prefill.clone().into());
        settings.insert("prefill".to_owned(), rule.into());
    }
    settings
}
