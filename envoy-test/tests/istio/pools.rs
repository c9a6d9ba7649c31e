//! Two pools behind one gateway: the model decides.

use serde_json::{Value, json};

use crate::cluster::{Backend, Front, MODEL_OF_SECOND_SERVICE, SECOND_SERVICE, SERVICE, host};
use crate::gateway::chat;
use crate::resources::Resources;
use crate::setup::{Deployment, Setup};

/// Envoy's name of a Service's cluster.
pub fn cluster(service: &str) -> String {
    format!("outbound|8000||{}", host(service))
}

/// A pool in front of each Service, and a model in each.
fn two_pools(plugin: &mut Value) {
    let pool = |service: &str| json!({"name": service, "cluster": cluster(service)});
    let model = |name: &str, service: &str| json!({"modelName": name, "poolRef": {"name": service}, "targetModels": [{"name": "sql-lora"}]});
    plugin["pools"] = json!([pool(SERVICE), pool(SECOND_SERVICE)]);
    plugin["models"] = json!([model("llama", SERVICE), model(MODEL_OF_SECOND_SERVICE, SECOND_SERVICE)]);
}

/// Where the cluster's load balancing is an EnvoyFilter's: the same for the second one.
fn patch_second_cluster(resources: &mut Resources) {
    patch_cluster(resources, SECOND_SERVICE);
}

/// Where the cluster's load balancing is an EnvoyFilter's: the same for this Service's.
pub fn patch_cluster(resources: &mut Resources, service: &str) {
    let patches = resources.the("EnvoyFilter")["spec"]["configPatches"].as_array_mut().unwrap();
    let first = patches.iter().find(|patch| patch["match"].get("cluster").is_some()).unwrap();
    let mut second = first.clone();
    second["match"]["cluster"]["service"] = host(service).into();
    patches.push(second);
}

fn check(setup: Setup, what: &str) {
    let labels = "/extensionProviders/0/envoyFileAccessLog/logFormat/labels";
    let log_cluster =
        |mesh: &mut Value| mesh.pointer_mut(labels).unwrap()["cluster"] = "%UPSTREAM_CLUSTER_RAW%".into();
    let gateway = setup.plugin(two_pools).mesh(log_cluster).start();
    for _ in 0..5 {
        for model in ["llama", MODEL_OF_SECOND_SERVICE] {
            let answer = gateway.send(chat(model));
            assert_eq!(answer.json().unwrap()["model"], "sql-lora", "{what}");
        }
    }
    for line in gateway.log(10) {
        let service = if line["model"] == MODEL_OF_SECOND_SERVICE { SECOND_SERVICE } else { SERVICE };
        assert_eq!(line["cluster"], cluster(service), "{what}: {line}");
        assert!(
            line["picked"].as_str().unwrap().starts_with(line["upstream"].as_str().unwrap()),
            "{what}: {line}"
        );
    }
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn a_model_is_served_by_its_own_pool_whatever_the_first_route() {
    for deployment in [Deployment::EnvoyFilter, Deployment::WasmPluginEnvoyFilter] {
        check(Setup::new(deployment).resources(patch_second_cluster), &format!("{deployment:?}"));
    }
    for deployment in [Deployment::WasmPlugin, Deployment::WasmPluginWithMetrics] {
        let setup = Setup::new(deployment).moved_to(Front::IngressGateway, Backend::MarkedService);
        check(setup, &format!("{deployment:?}"));
    }
}
