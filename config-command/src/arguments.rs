//! The command line, and the facts that resources do not hold: each has a default and says here what it is.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;

/// Prints the configuration of the Inference Picker plugin, and the Istio resources that carry it, from
/// InferencePool, InferenceModel, InferenceObjective, InferenceModelRewrite and LLMRoute resources.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Prints the plugin's configuration: a JSON document
    Plugin(Inputs),
    /// Prints the Istio resources, with the plugin's configuration in them: YAML for kubectl
    Istio {
        #[command(flatten)]
        inputs: Inputs,
        #[command(flatten)]
        gateway: Gateway,
    },
    /// Only says what is wrong with the resources; the exit code is 1 if anything is
    Check(Inputs),
}

/// What is read, and what decides the plugin's configuration.
#[derive(Debug, Args)]
pub struct Inputs {
    /// Files of YAML or JSON, folders (of which the .yaml, .yml and .json files are read, not the folders inside), or
    /// - for standard input
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// The namespace of resources that name none
    #[arg(long, default_value = "default")]
    pub namespace: String,
    /// What decides the plugin's configuration.
    #[command(flatten)]
    pub options: Options,
    /// Prints a Service for each pool that has none among what is read, and for which Istio makes none
    #[arg(long)]
    pub make_services: bool,
}

/// What decides the plugin's configuration, besides the resources.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How the plugin gets into Istio's gateway
    #[arg(long, value_enum, default_value_t = Deployment::WasmPlugin)]
    pub deployment: Deployment,
    /// The domain of the cluster's Services
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
    /// The Service whose Envoy cluster is a pool's, where it is not the one that the pool names: Istio's own for a
    /// pool that Istio knows, otherwise one that selects the same pods, or the one named by the label `app`
    #[arg(long = "service", value_name = "POOL=SERVICE:PORT", value_parser = pool_service)]
    pub services: Vec<PoolService>,
    /// The name of the Envoy cluster through which metrics are read; `istio` prints the EnvoyFilter that adds it
    #[arg(long, default_value = "inference-picker-scrape")]
    pub scrape_cluster: String,
    /// Reads no metrics: picks go by what the gateway has in flight
    #[arg(long, conflicts_with = "scrape_cluster")]
    pub no_scraping: bool,
    /// A YAML or JSON file with further fields of the plugin's configuration, such as `queue`; its `pools` are joined
    /// to the resources by name, to say for example a pool's `modelServer`
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
}

/// Where Istio's resources go, and where the gateway finds the plugin.
#[derive(Debug, Clone, Args)]
pub struct Gateway {
    /// The name of a Gateway of the Kubernetes Gateway API, as which Istio runs the gateway
    #[arg(long, value_name = "NAME", conflicts_with = "workload")]
    pub gateway: Option<String>,
    /// A label of the gateway's pods; may be given several times
    #[arg(long, value_name = "KEY=VALUE", default_value = "istio=ingressgateway", value_parser = label)]
    pub workload: Vec<(String, String)>,
    /// The name of Istio's resources, of which a namespace may have several gateways'
    #[arg(long, value_name = "NAME", default_value = "inference-picker")]
    pub resource_name: String,
    /// The namespace in which the gateway's pods run
    #[arg(long, value_name = "NAMESPACE", default_value = "istio-system")]
    pub gateway_namespace: String,
    /// Where the gateway finds the plugin: file:// in its pods, or oci:// or https://, from where Istio's agent gets it
    #[arg(long, value_name = "URL", default_value = "file:///etc/inference-picker/inference_picker.wasm")]
    pub plugin_url: String,
}

/// The three ways into Istio's gateway. The names are those of the command line, and of the controller's annotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deployment {
    /// WasmPlugin and a Lua TrafficExtension (Istio 1.30 or newer); an EnvoyFilter only adds the cluster for metrics
    WasmPlugin,
    /// WasmPlugin, and an EnvoyFilter for what hands over the pick
    WasmPluginEnvoyFilter,
    /// An EnvoyFilter alone: the plugin holds the headers until it has the body
    EnvoyFilter,
}

/// The Service of one pool, as given on the command line.
#[derive(Debug, Clone)]
pub struct PoolService {
    pub pool: String,
    /// A name in the pool's namespace, or, with dots, a whole host name.
    pub service: String,
    pub port: u16,
}

fn pool_service(text: &str) -> Result<PoolService, String> {
    let parts = text.split_once('=').and_then(|(pool, rest)| Some((pool, rest.rsplit_once(':')?)));
    let Some((pool, (service, port))) =
        parts.filter(|(pool, (service, _))| !pool.is_empty() && !service.is_empty())
    else {
        return Err("is not POOL=SERVICE:PORT, as in vllm-qwen-pool=qwen:8000".to_owned());
    };
    match port.parse() {
        Ok(port) if port > 0 => Ok(PoolService { pool: pool.to_owned(), service: service.to_owned(), port }),
        _ => Err(format!("`{port}` is not a port")),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("is not KEY=VALUE, as in istio=ingressgateway".to_owned()),
    }
}
