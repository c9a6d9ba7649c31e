//! The Istio resources: which templates make a deployment, and what is put into them.
//!
//! Every value goes into a template as a YAML scalar, quoted where it has to be; only text that is YAML already is
//! marked `safe`.

use std::collections::BTreeMap;

use anyhow::Context;
use inference_picker::config::Config;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, Value};
use serde::Serialize;

use crate::arguments::{Deployment, Gateway, Options};
use crate::draft::Draft;
use crate::resources::Route;
use crate::{routes, services};

/// The label that Istio puts on the pods of a Gateway of the Gateway API.
const GATEWAY_LABEL: &str = "gateway.networking.k8s.io/gateway-name";

/// A template's name, for messages, and its text.
type Template = (&'static str, &'static str);

const WASM_PLUGIN: Template = ("wasm_plugin.yaml", include_str!("templates/wasm_plugin.yaml"));
const TRAFFIC_EXTENSION: Template =
    ("traffic_extension.yaml", include_str!("templates/traffic_extension.yaml"));
const ENVOY_FILTER: Template = ("envoy_filter.yaml", include_str!("templates/envoy_filter.yaml"));

/// What the templates name.
#[derive(Debug, Serialize)]
struct Values<'a> {
    deployment: Deployment,
    namespace: &'a str,
    resource_name: &'a str,
    gateway: Option<&'a str>,
    labels: BTreeMap<&'a str, &'a str>,
    plugin_url: &'a str,
    plugin_file: Option<&'a str>,
    configuration_yaml: String,
    configuration_json: String,
    max_body_bytes: usize,
    scrape_cluster: Option<&'a str>,
    services: Vec<Service<'a>>,
}

#[derive(Debug, Serialize)]
struct Service<'a> {
    host: &'a str,
    port: u16,
}

/// The resources as one YAML text.
pub fn resources(
    draft: &Draft<'_>,
    llm_routes: &[Route],
    config: &Config,
    options: &Options,
    gateway: &Gateway,
) -> anyhow::Result<String> {
    let values = values(draft, config, options.deployment, gateway)?;
    let templates = match options.deployment {
        Deployment::WasmPlugin if values.scrape_cluster.is_none() => vec![WASM_PLUGIN, TRAFFIC_EXTENSION],
        Deployment::WasmPlugin => vec![WASM_PLUGIN, TRAFFIC_EXTENSION, ENVOY_FILTER],
        Deployment::WasmPluginEnvoyFilter => vec![WASM_PLUGIN, ENVOY_FILTER],
        Deployment::EnvoyFilter => vec![ENVOY_FILTER],
    };
    let (environment, values) = (environment()?, Value::from(Serde(&values)));
    let mut texts = Vec::new();
    for (name, template) in templates {
        texts.push(environment.render_named_str(name, template, values.clone()).context(name)?);
    }
    for planned in draft.pools.iter().filter(|planned| planned.made.is_some()) {
        texts.push(services::made(planned, options.deployment)?);
    }
    for route in llm_routes {
        texts.push(routes::virtual_service(route, &draft.pools)?);
    }
    Ok(texts.join("---\n"))
}

fn values<'a>(
    draft: &'a Draft<'_>,
    config: &Config,
    deployment: Deployment,
    gateway: &'a Gateway,
) -> anyhow::Result<Values<'a>> {
    Ok(Values {
        deployment,
        namespace: &gateway.gateway_namespace,
        resource_name: &gateway.resource_name,
        gateway: gateway.gateway.as_deref(),
        labels: labels(gateway),
        plugin_url: &gateway.plugin_url,
        plugin_file: gateway.plugin_url.strip_prefix("file://"),
        configuration_yaml: serde_saphyr::to_string(&draft.document)?,
        configuration_json: serde_json::to_string_pretty(&draft.document)?,
        max_body_bytes: config.max_body_bytes,
        scrape_cluster: draft.document.scrape_cluster.as_deref(),
        services: draft
            .pools
            .iter()
            .map(|pool| Service { host: &pool.service.host, port: pool.service.port })
            .collect(),
    })
}

/// What selects the gateway's pods.
fn labels(gateway: &Gateway) -> BTreeMap<&str, &str> {
    match &gateway.gateway {
        Some(name) => BTreeMap::from([(GATEWAY_LABEL, name.as_str())]),
        None => gateway.workload.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
    }
}

fn environment() -> anyhow::Result<Environment<'static>> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(blocks_on_lines_of_their_own()?);
    environment.set_formatter(|output, _, value| {
        let text = if value.is_safe() { value.to_string() } else { scalar(value)? };
        output.write_str(&text).map_err(Into::into)
    });
    Ok(environment)
}

fn blocks_on_lines_of_their_own() -> Result<SyntaxConfig, minijinja::Error> {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build()
}

/// One value on one line.
fn scalar(value: &Value) -> Result<String, minijinja::Error> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(value, options)
        .map(|text| text.trim_end_matches('\n').to_owned())
        .map_err(|error| minijinja::Error::new(minijinja::ErrorKind::BadSerialization, error.to_string()))
}
