//! A pool that fails, and another one that serves in its place: `istio/fallback` beside the folders that install the plugin.

use std::net::{Ipv4Addr, SocketAddr};

use envoy_test::envoy::{NEWEST, OLDEST, free_address};
use envoy_test::model_server::{ModelServers, ServerSettings};
use serde_json::{Value, json};

use crate::cluster::{Backend, Front, SERVICE, more_model_servers, route_by_pool};
use crate::gateway::chat;
use crate::pools::{cluster, patch_cluster};
use crate::resources::Resources;
use crate::setup::{Deployment, Setup};

/// The pool that serves in the first one's place, its Service, and its name for the model.
const SECOND: &str = "second";
const SECOND_SERVICE: &str = "vllm-second";
const SECOND_MODEL: &str = "tiny-second";

fn second_pods() -> ModelServers {
    let port = free_address().unwrap().port();
    let served_models = vec![SECOND_MODEL.to_owned()];
    let at = |last: u8| ServerSettings {
        served_models: served_models.clone(),
        ..ServerSettings::at(SocketAddr::from((Ipv4Addr::new(127, 0, 2, last), port)))
    };
    ModelServers::start(vec![at(1), at(2)]).unwrap()
}

/// What `istio/README.md` has the plugin's configuration be.
fn two_pools(plugin: &mut Value) {
    plugin["pools"] = json!([
        {"name": "first", "cluster": cluster(SERVICE), "fallback": [SECOND]},
        {"name": SECOND, "cluster": cluster(SECOND_SERVICE)},
    ]);
    plugin["models"] = json!([
        {"modelName": "tiny", "poolRef": {"name": "first"}},
        {"modelName": "tiny", "poolRef": {"name": SECOND}, "targetModels": [{"name": SECOND_MODEL}]},
    ]);
}

fn check(deployment: Deployment, front: Front, backend: Backend, version: &'static str) {
    let (what, second) = (format!("{deployment:?}, {front:?}, {version}"), second_pods());
    let setup = Setup::new(deployment).version(version).plugin(two_pools);
    let setup = setup.kubernetes(more_model_servers(SECOND_SERVICE, backend, &second.addresses()));
    let setup = setup.resources(|resources| {
        if backend == Backend::Service {
            patch_cluster(resources, SECOND_SERVICE);
        }
        resources.0.extend(Resources::of("fallback").0);
    });
    let setup = setup.moved_to(front, backend);
    let setup = setup.resources(|resources| resources.0.push(route_by_pool(front, SECOND, SECOND_SERVICE)));
    let gateway = setup.start();
    assert_eq!(gateway.send(chat("tiny")).json().unwrap()["model"], "tiny", "{what}");
    let first_fails = |status| {
        (0..gateway.pods.addresses().len())
            .for_each(|place| gateway.pods.server(place).set(|knobs| knobs.fail_status = status));
    };
    first_fails(Some(503));
    let answer = gateway.send(chat("tiny"));
    let served_by = answer.header("x-served-by").map(str::to_owned);
    let names: Vec<String> = second.addresses().iter().map(SocketAddr::to_string).collect();
    assert_eq!(answer.status, 200, "{what}: {}", answer.text());
    assert!(served_by.is_some_and(|name| names.contains(&name)), "{what}");
    (0..names.len()).for_each(|place| second.server(place).set(|knobs| knobs.fail_status = Some(400)));
    assert_eq!(gateway.send(chat("tiny")).status, 400, "{what}: the second answer has its own status");
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn what_its_pool_fails_to_answer_the_next_one_serves_under_its_own_name_for_the_model() {
    check(Deployment::EnvoyFilter, Front::IngressGateway, Backend::Service, NEWEST);
    check(Deployment::WasmPluginEnvoyFilter, Front::IngressGateway, Backend::Service, OLDEST);
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn a_script_behind_the_plugin_leads_to_the_next_pool_too() {
    for deployment in [Deployment::WasmPlugin, Deployment::WasmPluginWithMetrics] {
        check(deployment, Front::IngressGateway, Backend::MarkedService, NEWEST);
    }
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn sidecars_fall_back_too() {
    check(Deployment::EnvoyFilter, Front::Sidecar, Backend::Service, NEWEST);
    check(Deployment::WasmPluginEnvoyFilter, Front::Sidecar, Backend::Service, OLDEST);
}
