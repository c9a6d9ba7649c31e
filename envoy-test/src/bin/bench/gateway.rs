//! An Envoy to measure: plain, with a plugin that does nothing, or with the real one, on a configuration that the project
//! ships.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use envoy_test::envoy::binary::{plugin_file, project_root};
use envoy_test::envoy::{Configuration, Envoy, EnvoySettings};
use serde::Serialize;
use serde_json::{Value, json};
use tempfile::TempDir;

const CLUSTER: &str = "vllm-llama2-7b";
const CONNECTION_MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
/// A plugin in WebAssembly's text format, and what it logs with its first stream.
const DOES_NOTHING: &str = include_str!("does_nothing.wat");
const DOES_NOTHING_SAYS: &str = "a stream passes through the plugin that does nothing";

/// What stands in a request's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// The stop-iteration configuration without the plugin: neither the filter nor the companion service.
    Plain,
    /// The same with a plugin that is entered as often as ours, and does nothing.
    DoesNothing,
    Default,
    PrefixCache,
    DefaultDeferred,
    PrefixCacheDeferred,
}

impl Variant {
    pub const ALL: [Variant; 6] = [
        Variant::Plain,
        Variant::DoesNothing,
        Variant::Default,
        Variant::PrefixCache,
        Variant::DefaultDeferred,
        Variant::PrefixCacheDeferred,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Variant::Plain => "plain Envoy",
            Variant::DoesNothing => "a plugin that does nothing",
            Variant::Default => "DEFAULT",
            Variant::PrefixCache => "PREFIX_CACHE",
            Variant::DefaultDeferred => "DEFAULT, deferred",
            Variant::PrefixCacheDeferred => "PREFIX_CACHE, deferred",
        }
    }

    /// Whether it is the real plugin, which picks.
    pub fn picks(self) -> bool {
        !matches!(self, Variant::Plain | Variant::DoesNothing)
    }

    /// The folder of its configuration.
    fn configuration(self) -> &'static str {
        match self {
            Variant::DefaultDeferred | Variant::PrefixCacheDeferred => "deferred",
            _ => "stop-iteration",
        }
    }

    fn strategy(self) -> &'static str {
        match self {
            Variant::PrefixCache | Variant::PrefixCacheDeferred => "PREFIX_CACHE",
            _ => "DEFAULT",
        }
    }
}

/// How often the plugin reads each endpoint's metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scraping {
    Never,
    /// So rarely that it costs next to nothing, and yet decisions go by metrics.
    Rarely,
    EveryMs(u64),
}

/// What to start besides the variant; the default is what most parts measure.
#[derive(Debug, Clone)]
pub struct GatewaySettings {
    pub scraping: Scraping,
    pub workers: u32,
    /// `prefixCache.maxBlocks`; `None` is the plugin's own.
    pub prefix_blocks_max: Option<u64>,
    /// What Envoy has in its environment besides ours.
    pub environment: Vec<(&'static str, PathBuf)>,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self { scraping: Scraping::Rarely, workers: 1, prefix_blocks_max: None, environment: Vec::new() }
    }
}

pub struct Gateway {
    pub envoy: Envoy,
    pub variant: Variant,
    /// The plugin that does nothing is here, for as long as Envoy may load it.
    _folder: TempDir,
}

impl Gateway {
    /// Starts an Envoy without access log in front of these endpoints.
    pub fn start(variant: Variant, endpoints: &[SocketAddr], settings: GatewaySettings) -> Result<Gateway> {
        Gateway::start_with(variant, endpoints, settings, None)
    }

    /// The same with the plugin and the configuration of another checkout of the project, which has been built.
    pub fn start_with(
        variant: Variant,
        endpoints: &[SocketAddr],
        settings: GatewaySettings,
        checkout: Option<&Path>,
    ) -> Result<Gateway> {
        let root = checkout.unwrap_or_else(|| project_root());
        let folder = tempfile::tempdir()?;
        let mut configuration = load(variant, root)?;
        configuration.set_endpoints(CLUSTER, endpoints);
        match variant {
            Variant::Plain => configuration.remove_plugin(),
            Variant::DoesNothing => put_nothing(&mut configuration, &folder)?,
            _ => {
                let built =
                    checkout.map(|root| root.join("target/wasm32-wasip1/release/inference_picker.wasm"));
                configuration.set_plugin_file(&built.unwrap_or_else(plugin_file));
                configuration.edit_plugin(|plugin| set_up_plugin(plugin, variant, endpoints, &settings));
            }
        }
        let GatewaySettings { workers, environment, .. } = settings;
        let settings =
            EnvoySettings { concurrency: workers, environment, ..EnvoySettings::new(configuration) };
        Ok(Gateway { envoy: Envoy::start(settings)?, variant, _folder: folder })
    }

    /// After the first requests: fails unless the plugin that does nothing had them, where it is to be measured.
    pub fn check_that_it_runs(&self) -> Result<()> {
        let runs = self.variant != Variant::DoesNothing || self.envoy.log_text().contains(DOES_NOTHING_SAYS);
        ensure!(runs, "the plugin that does nothing has had no request");
        Ok(())
    }
}

fn load(variant: Variant, root: &Path) -> Result<Configuration> {
    let mut configuration = Configuration::shipped_in(root, variant.configuration())?;
    configuration.at(CONNECTION_MANAGER)["access_log"] = json!([]);
    Ok(configuration)
}

fn remove_service(configuration: &mut Configuration) {
    *configuration.at("/bootstrap_extensions") = json!([]);
}

fn put_nothing(configuration: &mut Configuration, folder: &TempDir) -> Result<()> {
    let file = folder.path().join("does_nothing.wasm");
    fs::write(&file, wat::parse_str(DOES_NOTHING)?).with_context(|| format!("writing {}", file.display()))?;
    remove_service(configuration);
    configuration.set_plugin_file(&file);
    Ok(())
}

fn set_up_plugin(plugin: &mut Value, variant: Variant, endpoints: &[SocketAddr], settings: &GatewaySettings) {
    let pool = &mut plugin["pools"][0];
    pool["endpoints"] = endpoints.iter().map(SocketAddr::to_string).collect();
    pool["routingStrategy"] = variant.strategy().into();
    if let Some(blocks_max) = settings.prefix_blocks_max {
        pool["prefixCache"] = json!({"maxBlocks": blocks_max});
    }
    match (settings.scraping, plugin.as_object_mut()) {
        (Scraping::Never, Some(fields)) => {
            fields.remove("scrapeCluster");
        }
        (Scraping::Rarely, Some(fields)) => {
            fields.insert("scrapeInterval".into(), "1s".into());
            fields.insert("metricsStaleAfter".into(), "1m".into());
        }
        (Scraping::EveryMs(interval_ms), Some(fields)) => {
            fields.insert("scrapeInterval".into(), format!("{interval_ms}ms").into());
            fields.insert("metricsStaleAfter".into(), format!("{}ms", interval_ms * 10).into());
        }
        (_, None) => {}
    }
}
