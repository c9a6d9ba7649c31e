//! Endpoints that Envoy learns of while it runs are followed.

use std::net::SocketAddr;
use std::path::Path;

use crate::gateway::{CLUSTER, Gateway, Setup, WORKER_SCRAPING, chat, four_pods, until};
use envoy_test::envoy::{Configuration, NEWEST, OLDEST};
use envoy_test::model_server::{ModelServers, ServerSettings};
use serde_json::{Value, json};

/// Writes the list of endpoints, with their health, where Envoy watches for it: a file moved into place.
pub fn write_endpoints(folder: &Path, endpoints: &[(SocketAddr, &str)]) {
    let hosts: Vec<Value> = endpoints
        .iter()
        .map(|(address, health)| {
            let socket = json!({"address": address.ip().to_string(), "port_value": address.port()});
            json!({"endpoint": {"address": {"socket_address": socket}}, "health_status": health})
        })
        .collect();
    let assignment = json!({"@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": CLUSTER, "endpoints": [{"lb_endpoints": hosts}]});
    let next = folder.join("next.json");
    std::fs::write(&next, json!({"resources": [assignment]}).to_string()).unwrap();
    std::fs::rename(next, folder.join("endpoints.json")).unwrap();
}

/// Has the pool's endpoints read from the folder's file.
pub fn read_endpoints_from(envoy: &mut Configuration, folder: &Path) {
    let file = folder.join("endpoints.json");
    let cluster = envoy.cluster(CLUSTER).as_object_mut().unwrap();
    cluster.remove("load_assignment");
    cluster.insert("type".into(), "EDS".into());
    let watched =
        json!({"path": file.to_string_lossy(), "watched_directory": {"path": folder.to_string_lossy()}});
    let source = json!({"eds_config": {"path_config_source": watched, "resource_api_version": "V3"}});
    cluster.insert("eds_cluster_config".into(), source);
    // Envoy asks for endpoints only under a name of its own.
    envoy.at("")["node"] = json!({"id": "gateway", "cluster": "gateway"});
}

fn start(version: &'static str, folder: &Path, live: &[(SocketAddr, &str)]) -> Gateway {
    write_endpoints(folder, live);
    let setup = Setup::new(WORKER_SCRAPING).version(version).pods(vec![]).unscraped();
    setup.start_with(|envoy, _| read_endpoints_from(envoy, folder))
}

/// Sends bursts until just these pods serve them.
fn until_served_by(gateway: &Gateway, expected: &[SocketAddr]) {
    let mut expected: Vec<String> = expected.iter().map(SocketAddr::to_string).collect();
    expected.sort();
    until(&format!("served by {expected:?}"), || {
        let answers = gateway.burst(vec![chat("tiny"); 24]);
        let mut names: Vec<String> =
            answers.iter().filter_map(|a| a.header("x-served-by").map(str::to_owned)).collect();
        names.sort();
        names.dedup();
        names == expected
    });
}

#[test]
fn endpoints_that_come_go_or_turn_unhealthy_are_followed() {
    for version in [OLDEST, NEWEST] {
        let folder = tempfile::tempdir().unwrap();
        let pods = ModelServers::start(four_pods()).unwrap();
        let at = pods.addresses();
        let gateway = start(version, folder.path(), &[(at[0], "HEALTHY"), (at[1], "HEALTHY")]);
        until_served_by(&gateway, &at[..2]);
        write_endpoints(
            folder.path(),
            &[(at[0], "HEALTHY"), (at[1], "HEALTHY"), (at[2], "HEALTHY"), (at[3], "HEALTHY")],
        );
        until_served_by(&gateway, &at);
        write_endpoints(folder.path(), &[(at[0], "HEALTHY"), (at[2], "UNHEALTHY"), (at[3], "HEALTHY")]);
        until_served_by(&gateway, &[at[0], at[3]]);
        write_endpoints(folder.path(), &[(at[2], "HEALTHY")]);
        until_served_by(&gateway, &at[2..3]);
    }
}

#[test]
fn when_the_admin_cannot_be_asked_envoy_balances() {
    let silent = |plugin: &mut Value| plugin["adminCluster"] = "scrape".into();
    let gateway = Setup::new(WORKER_SCRAPING)
        .pods(vec![ServerSettings::default(); 2])
        .plugin(silent)
        .unscraped()
        .start();
    let answers = gateway.burst(vec![chat("tiny"); 20]);
    assert!(answers.iter().all(|answer| answer.status == 200));
    let lines = gateway.envoy.access_log_until(20).unwrap();
    assert!(lines.iter().all(|line| line["decision"] == "endpoints not discovered yet"), "{}", lines[0]);
    assert!(gateway.envoy.log_text().contains("discovery of cluster vllm-llama2-7b failed"));
}
