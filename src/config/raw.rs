//! The document as it is written: the only place that knows its field names.

use std::collections::HashMap;

use serde::Deserialize;

use super::{ConfigError, Criticality, DataParallel, RoutingStrategy, SessionAffinity, WhenGone};
use crate::metrics::ModelServer;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Config {
    #[serde(default)]
    pub role: Role,
    #[serde(default)]
    pub pick_to: PickTo,
    #[serde(default)]
    pub scrape_by: ScrapeBy,
    pub scrape_cluster: Option<String>,
    pub admin_cluster: Option<String>,
    pub scrape_interval: Option<String>,
    pub scrape_budget: Option<f64>,
    pub scrape_timeout: Option<String>,
    pub metrics_stale_after: Option<String>,
    pub discovery_interval: Option<String>,
    pub max_consecutive_failures: Option<u32>,
    pub max_body_bytes: Option<usize>,
    pub pools: Vec<Pool>,
    #[serde(default)]
    pub models: Vec<Model>,
    #[serde(default)]
    pub unknown_models: UnknownModels,
    #[serde(default)]
    pub answer_models: bool,
    #[serde(default)]
    pub response_model: ResponseModel,
    pub include_usage: Option<bool>,
    pub publish: Option<Vec<String>>,
    pub sticky_by: Option<String>,
    pub session_by: Option<Vec<String>>,
    pub session_token_key: Option<String>,
    #[serde(default)]
    pub sessions: Retention,
    #[serde(default)]
    pub stored_responses: Retention,
    pub queue: Option<Queue>,
    #[serde(default)]
    pub objectives: Vec<Objective>,
    #[serde(default)]
    pub trust_headers: bool,
    pub fairness: Option<Fairness>,
    pub peers: Option<Peers>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Peers {
    pub cluster: String,
    pub interval: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Retention {
    pub max: Option<usize>,
    pub expire_after: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum UnknownModels {
    #[default]
    Reject,
    Passthrough,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum ResponseModel {
    #[default]
    Target,
    Requested,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Objective {
    pub name: String,
    pub priority: Option<i64>,
    pub pool_ref: Option<PoolRef>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Fairness {
    pub by: Option<String>,
    #[serde(default)]
    pub tenants: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Queue {
    pub max_wait: Option<String>,
    pub max_requests: Option<usize>,
    pub max_bytes: Option<usize>,
    pub while_empty: Option<String>,
    pub fallback_after: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Saturation {
    pub queue_depth: Option<u32>,
    pub kv_cache_utilization: Option<f32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Role {
    #[default]
    Filter,
    Service,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum PickTo {
    #[default]
    Header,
    FilterState,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum ScrapeBy {
    #[default]
    Service,
    Worker,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Pool {
    pub name: String,
    pub cluster: String,
    pub endpoints: Option<Vec<String>>,
    pub routing_strategy: Option<RoutingStrategy>,
    #[serde(default)]
    pub model_server: ModelServer,
    #[serde(default)]
    pub metrics: Metrics,
    #[serde(default)]
    pub answers_tell_load: bool,
    #[serde(default)]
    pub data_parallel: DataParallel,
    #[serde(default)]
    pub saturation: Saturation,
    #[serde(default)]
    pub prefix_cache: PrefixCache,
    pub default_targets: Option<Vec<Target>>,
    pub session_affinity: Option<SessionAffinity>,
    pub prefill: Option<Prefill>,
    #[serde(default)]
    pub external: bool,
    #[serde(default)]
    pub fallback: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Prefill {
    pub pool: String,
    pub min_uncached_tokens: Option<u32>,
    #[serde(default)]
    pub when_gone: WhenGone,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Metrics {
    pub cluster: Option<String>,
    pub port: Option<u16>,
    pub path: Option<String>,
    pub headers: Option<HashMap<String, String>>,
    pub interval: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PrefixCache {
    pub max_blocks: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Model {
    pub model_name: String,
    pub criticality: Option<Criticality>,
    pub pool_ref: PoolRef,
    pub target_models: Option<Vec<Target>>,
    pub promise: Option<Promise>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Promise {
    pub first_token: Option<String>,
    pub per_token: Option<String>,
}

/// A reference to a pool. `group` and `kind` come with the resource and say nothing here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PoolRef {
    pub name: String,
    #[serde(rename = "group")]
    pub _group: Option<String>,
    #[serde(rename = "kind")]
    pub _kind: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Target {
    pub name: String,
    pub weight: Option<i64>,
}

/// Reads the document's form; what its values mean is for `validate`.
pub(super) fn parse(document: &[u8]) -> Result<Config, ConfigError> {
    if document.iter().all(u8::is_ascii_whitespace) {
        return Err(whole("the configuration is empty; it needs at least `pools`"));
    }
    if document.trim_ascii_start().first() != Some(&b'{') {
        return Err(whole(
            "is not a JSON object; Envoy hands it over as written in a google.protobuf.StringValue only",
        ));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(document);
    let config: Config = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        ConfigError {
            path: if matches!(path.as_str(), "." | "?" | "") { WHOLE.to_owned() } else { path },
            problem: error.inner().to_string(),
        }
    })?;
    deserializer.end().map_err(|error| whole(&error.to_string()))?;
    Ok(config)
}

/// The path that stands for the document itself.
const WHOLE: &str = "configuration";

fn whole(problem: &str) -> ConfigError {
    ConfigError { path: WHOLE.to_owned(), problem: problem.to_owned() }
}
