//! An Envoy to measure: plain, or with the plugin, on a configuration that the project ships.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use envoy_test::envoy::binary::{plugin_file, project_root};
use envoy_test::envoy::{Configuration, Envoy, EnvoySettings};
use serde::Serialize;
use serde_json::{Value, json};

const CLUSTER: &str = "vllm-llama2-7b";
const FILTER: &str = "inference-picker";
const CONNECTION_MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// The stop-iteration configuration without the plugin: neither the filter nor the companion service.
    Plain,
    StopIteration,
    /// As stop-iteration, with the strategy that goes by prefixes.
    PrefixCache,
    Deferred,
}

impl Variant {
    pub fn name(self) -> &'static str {
        match self {
            Variant::Plain => "plain",
            Variant::StopIteration => "stop-iteration",
            Variant::PrefixCache => "PREFIX_CACHE",
            Variant::Deferred => "deferred",
        }
    }

    /// The folder of its configuration.
    fn configuration(self) -> &'static str {
        match self {
            Variant::Plain | Variant::StopIteration | Variant::PrefixCache => "stop-iteration",
            Variant::Deferred => "deferred",
        }
    }
}

/// How often the plugin reads each endpoint's metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scraping {
    Never,
    /// So rarely that it costs next to nothing, and yet decisions go by metrics.
    Rarely,
    /// As often as it does by default.
    ByDefault,
}

pub struct Gateway {
    pub envoy: Envoy,
    pub variant: Variant,
    process_id: u32,
}

impl Gateway {
    /// Starts an Envoy with one worker thread and no access log in front of these endpoints.
    pub fn start(variant: Variant, endpoints: &[SocketAddr], scraping: Scraping) -> Result<Gateway> {
        let mut configuration = load(variant)?;
        configuration.set_endpoints(CLUSTER, endpoints);
        if variant == Variant::Plain {
            remove_plugin(&mut configuration);
        } else {
            configuration.set_plugin_file(&plugin_file());
            configuration.edit_plugin(|plugin| set_up_plugin(plugin, endpoints, scraping));
            if variant == Variant::PrefixCache {
                configuration.edit_plugin(|plugin| {
                    plugin["pools"][0]["routingStrategy"] = "PREFIX_CACHE".into();
                });
            }
        }
        let settings = EnvoySettings { concurrency: 1, ..EnvoySettings::new(configuration) };
        Ok(Gateway { envoy: Envoy::start(settings)?, variant, process_id: newest_child()? })
    }

    /// The memory that Envoy's process holds now, in KB.
    pub fn resident_kb(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.process_id);
        let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|value| value.trim().strip_suffix(" kB"));
        Ok(number.with_context(|| format!("{path} is not in the known form"))?.parse()?)
    }
}

fn load(variant: Variant) -> Result<Configuration> {
    let file = project_root().join("filter-config").join(variant.configuration()).join("envoy.yaml");
    let mut configuration = Configuration::load(&file)?;
    configuration.at(CONNECTION_MANAGER)["access_log"] = json!([]);
    Ok(configuration)
}

fn remove_plugin(configuration: &mut Configuration) {
    *configuration.at("/bootstrap_extensions") = json!([]);
    let filters = configuration.at(&format!("{CONNECTION_MANAGER}/http_filters"));
    if let Some(filters) = filters.as_array_mut() {
        filters.retain(|filter| filter["name"] != FILTER);
    }
}

fn set_up_plugin(plugin: &mut Value, endpoints: &[SocketAddr], scraping: Scraping) {
    plugin["pools"][0]["endpoints"] = endpoints.iter().map(SocketAddr::to_string).collect();
    match (scraping, plugin.as_object_mut()) {
        (Scraping::Never, Some(fields)) => {
            fields.remove("scrapeCluster");
        }
        (Scraping::Rarely, Some(fields)) => {
            fields.insert("scrapeInterval".into(), "1s".into());
            fields.insert("metricsStaleAfter".into(), "1m".into());
        }
        _ => {}
    }
}

/// The process that this thread started last.
fn newest_child() -> Result<u32> {
    let children =
        fs::read_to_string("/proc/thread-self/children").context("reading this thread's children")?;
    let newest = children.split_ascii_whitespace().last();
    Ok(newest.context("this thread has started no process")?.parse()?)
}
