//! What Envoy Gateway makes of `istio/envoy-gateway`, by its own command, and the script in a real Envoy.
//!
//! The plugin is not in what is translated here: that takes a running Envoy Gateway, which serves the image to Envoy.

use std::fs;

use envoy_test::envoy::binary::{plugin_file, project_root};
use envoy_test::envoy::configuration::FilterPosition;
use envoy_test::envoy::{Client, Configuration, Envoy, EnvoySettings, Protocol, Request};
use envoy_test::model_server::{ModelServers, ServerSettings};
use serde_json::{Value, json};

use crate::cluster::a_service;
use crate::gateway::{chat, until};
use crate::programs::{program, rendered, run};
use crate::resources::Resources;

const FOLDER: &str = "envoy-gateway";
/// The filters of the first listener.
const HTTP_FILTERS: &str =
    "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters";

/// What the command says of these resources, in the namespace `default`.
fn translated(mut resources: Vec<Value>, to: &str) -> Value {
    for resource in &mut resources {
        resource["metadata"]["namespace"] = "default".into();
    }
    resources.extend(a_service());
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("resources.yaml");
    let documents: Vec<String> = resources.iter().map(Value::to_string).collect();
    fs::write(&file, documents.join("\n---\n")).unwrap();
    let mut command = program("egctl");
    command.args(["x", "translate", "--from", "gateway-api", "--to", to, "--output", "json", "--file"]);
    serde_json::from_str(&run(command.arg(file))).unwrap()
}

/// The objects in a tree that have this field, with its value.
fn all<'a>(tree: &'a Value, field: &str, found: &mut Vec<&'a Value>) {
    match tree {
        Value::Object(object) => {
            found.extend(object.get(field));
            object.values().for_each(|value| all(value, field, found));
        }
        Value::Array(values) => values.iter().for_each(|value| all(value, field, found)),
        _ => {}
    }
}

/// By the published schemas, with their rules.
#[test]
#[ignore = "needs Istio: make test-istio"]
fn envoy_gateway_finds_nothing_wrong_with_the_resources() {
    let scratch = tempfile::tempdir().unwrap();
    let validate = |text: &str| {
        let file = scratch.path().join("resources.yaml");
        fs::write(&file, text).unwrap();
        run(program("egctl").args(["x", "validate", "--file"]).arg(file))
    };
    let text = rendered(FOLDER);
    let said = validate(&text);
    assert!(said.contains("OK") && !said.contains("error"), "{said}");
    let said = validate(&text.replace("endpointOverride", "endpointOveride"));
    assert!(said.contains("unknown field"), "{said}");
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn envoy_gateway_accepts_the_resources_and_tries_the_script() {
    let translated = translated(Resources::of(FOLDER).0, "gateway-api");
    let mut conditions = Vec::new();
    all(&translated, "conditions", &mut conditions);
    let conditions = conditions.into_iter().flat_map(|list| list.as_array().unwrap());
    let refused: Vec<&Value> = conditions
        .filter(|condition| condition["status"] == "False")
        .map(|condition| &condition["message"])
        .collect();
    // The command fetches no images, and says so of every plugin; of the script it would complain in the same sentence.
    assert_eq!(refused, ["Wasm: wasm cache is not initialized."]);
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn the_plugins_cluster_is_the_one_that_takes_the_pick_from_the_header() {
    let mut resources = Resources::of(FOLDER);
    let policy = resources.the("EnvoyExtensionPolicy")["spec"].as_object_mut().unwrap();
    let plugin = policy.remove("wasm").unwrap();
    let translated = translated(resources.0, "xds");
    let mut clusters = Vec::new();
    all(&translated, "cluster", &mut clusters);
    let named = &plugin[0]["config"]["pools"][0]["cluster"];
    let cluster = clusters.into_iter().find(|cluster| &cluster["name"] == named);
    let policy =
        &cluster.unwrap()["loadBalancingPolicy"]["policies"][0]["typedExtensionConfig"]["typedConfig"];
    assert_eq!(policy["overrideHostSources"], json!([{"header": "x-gateway-destination-endpoint"}]));
}

/// Behind the plugin in deferred mode, in place of the two filters that otherwise stand there.
#[test]
#[ignore = "needs Istio: make test-istio"]
fn the_script_hands_over_the_pick_and_who_computes_the_prompt() {
    let mut resources = Resources::of(FOLDER);
    let script = resources.the("EnvoyExtensionPolicy")["spec"]["lua"][0]["inline"].take();
    let mut configuration =
        Configuration::load(&project_root().join("filter-config/deferred/envoy.yaml")).unwrap();
    configuration.set_plugin_file(&plugin_file());
    let filters = configuration.at(HTTP_FILTERS).as_array_mut().unwrap();
    filters.retain(|filter| {
        filter["name"] == "inference-picker" || filter["name"] == "envoy.filters.http.router"
    });
    let lua = json!({"name": "lua", "typed_config": {"default_source_code": {"inline_string": script},
        "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"}});
    configuration.insert_filter(FilterPosition::After("inference-picker"), lua);
    let pods = ModelServers::start(vec![ServerSettings::default(); 4]).unwrap();
    configuration.place_endpoints(&pods.addresses());
    let prefill = ModelServers::start(vec![ServerSettings::default()]).unwrap();
    let computes = prefill.addresses()[0].to_string();
    configuration.edit_plugin(|plugin| {
        plugin["pools"][0]["prefill"] = json!({"pool": "prefill"});
        let pool = json!({"name": "prefill", "cluster": "prefill", "endpoints": [computes]});
        plugin["pools"].as_array_mut().unwrap().push(pool);
    });
    let envoy = Envoy::start(EnvoySettings::new(configuration)).unwrap();
    let scraped = |pods: &ModelServers| pods.servers().all(|pod| pod.counters().metrics_scrapes > 1);
    until("the pods are scraped", || scraped(&pods) && scraped(&prefill));
    let answers =
        Client::new(envoy.address(), Protocol::Http1).burst_blocking(vec![chat("tiny"); 32]).unwrap();
    assert!(answers.into_iter().all(|answer| answer.unwrap().status == 200));
    let long = json!({"model": "tiny", "max_tokens": 2, "prompt": "and so on ".repeat(720)});
    let client = Client::new(envoy.address(), Protocol::Http1);
    until("a long prompt is computed elsewhere", || {
        assert_eq!(client.send_blocking(Request::post("/v1/completions").json(&long)).unwrap().status, 200);
        pods.servers().any(|pod| pod.counters().requests_by_prefiller.contains_key(&computes))
    });
    for line in envoy.access_log_until(32).unwrap() {
        assert!(line["picked"].as_str().unwrap().starts_with(line["upstream"].as_str().unwrap()), "{line}");
    }
}
