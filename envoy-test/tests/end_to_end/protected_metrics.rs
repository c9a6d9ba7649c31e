//! Metrics that not everybody may read, as `filter-config/protected-metrics` reads them: behind a real Envoy beside each pod,
//! with TLS, a port and a path of its own, for a key, and compressed.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::gateway::{Gateway, PROTECTED_METRICS, Setup, chat, pod, until};
use envoy_test::envoy::{Configuration, Envoy, EnvoySettings, NEWEST, OLDEST, free_address};
use envoy_test::model_server::ServerSettings;
use serde_json::{Value, json};
use tempfile::TempDir;

const KEY: &str = "Bearer a-key-of-the-tests";
const HTTP: &str = "type.googleapis.com/envoy.extensions.filters.http";

/// A pod on an address of its own, so that all have their metrics at one port.
fn pod_at(last: u8) -> ServerSettings {
    ServerSettings { address: SocketAddr::from((Ipv4Addr::new(127, 0, 8, last), 0)), ..pod() }
}

fn tls(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/tls").join(file)
}

/// The Envoys beside the pods, as one.
fn sidecars(version: &'static str, pods: &[SocketAddr], port: u16) -> Envoy {
    let mut configuration = Configuration::parse(include_str!("metrics_sidecar.yaml")).unwrap();
    *configuration.at("/static_resources/listeners") = pods.iter().map(|pod| sidecar(*pod, port)).collect();
    *configuration.at("/static_resources/clusters") = pods.iter().map(|pod| cluster(*pod)).collect();
    configuration.set_admin_address(free_address().unwrap());
    // Envoys of this version are to be started on the addresses that are written there.
    Envoy::start(EnvoySettings { version, keep_addresses: true, ..EnvoySettings::new(configuration) })
        .unwrap()
}

fn cluster(pod: SocketAddr) -> Value {
    let address = json!({"socket_address": {"address": pod.ip(), "port_value": pod.port()}});
    let endpoints = json!([{"lb_endpoints": [{"endpoint": {"address": address}}]}]);
    json!({
        "name": pod.to_string(), "type": "STATIC",
        "load_assignment": {"cluster_name": pod.to_string(), "endpoints": endpoints},
    })
}

fn sidecar(pod: SocketAddr, port: u16) -> Value {
    let file = |name: &str| json!({"filename": tls(name)});
    let certificate = json!({"certificate_chain": file("server.pem"), "private_key": file("server-key.pem")});
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "metrics",
        "route_config": {"virtual_hosts": [{"name": "metrics", "domains": ["*"], "routes": routes(pod)}]},
        "http_filters": [wants_gzip(), compressor(), {
            "name": "router",
            "typed_config": {"@type": format!("{HTTP}.router.v3.Router")},
        }],
    });
    json!({
        "name": pod.to_string(),
        "address": {"socket_address": {"address": pod.ip(), "port_value": port}},
        "filter_chains": [{
            "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {"tls_certificates": [certificate]},
            }},
            "filters": [{"name": "http", "typed_config": manager}],
        }],
    })
}

fn routes(pod: SocketAddr) -> Value {
    let has = |name: &str, value: &str| json!({"name": name, "string_match": {"exact": value}});
    let allowed = json!({"path": "/inference/metrics", "headers": [has("authorization", KEY), has("x-scrape", "gateway")]});
    let refused = json!({"match": {"prefix": "/"}, "direct_response": {"status": 401}});
    json!([{"match": allowed, "route": {"cluster": pod.to_string(), "prefix_rewrite": "/metrics"}}, refused])
}

fn wants_gzip() -> Value {
    let set = json!({"header": {"key": "accept-encoding", "value": "gzip"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"});
    json!({"name": "wants-gzip", "typed_config": {
        "@type": format!("{HTTP}.header_mutation.v3.HeaderMutation"),
        "mutations": {"request_mutations": [{"append": set}]},
    }})
}

fn compressor() -> Value {
    let gzip = "type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip";
    json!({"name": "compressor", "typed_config": {
        "@type": format!("{HTTP}.compressor.v3.Compressor"),
        "compressor_library": {"name": "gzip", "typed_config": {"@type": gzip}},
    }})
}

/// A file with the key, as Envoy reads it.
fn key_file(folder: &TempDir, key: &str) -> PathBuf {
    let secret = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        "name": "metrics-key",
        "generic_secret": {"secret": {"inline_string": key}},
    });
    let (file, new) = (folder.path().join("key.json"), folder.path().join("new.json"));
    fs::write(&new, json!({"resources": [secret]}).to_string()).unwrap();
    // Envoy watches for a file that is moved there.
    fs::rename(new, &file).unwrap();
    file
}

/// Puts the tests' CA and key in place of the example's.
fn set_secrets(configuration: &mut Configuration, key: &Path) {
    let scrape = configuration.cluster("scrape");
    let context = "/transport_socket/typed_config/common_tls_context/validation_context/trusted_ca/filename";
    *scrape.pointer_mut(context).unwrap() = json!(tls("ca.pem"));
    let injector = "/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\
                    /http_filters/0/typed_config/credential/typed_config/credential/sds_config/path_config_source/path";
    *scrape.pointer_mut(injector).unwrap() = json!(key);
}

/// Four pods, the sidecars before their metrics, and a gateway that knows this key, not yet scraped.
fn start(version: &'static str, key: &Path) -> (Gateway, Envoy) {
    let port = free_address().unwrap().port();
    let metrics_port = |plugin: &mut Value| {
        plugin["pools"][0]["metrics"]["port"] = port.into();
        plugin["pools"][0]["metrics"]["headers"] = json!({"X-Scrape": "gateway"});
    };
    let setup = Setup::new(PROTECTED_METRICS).version(version).plugin(metrics_port).unscraped();
    let mut sidecar = None;
    let gateway = setup.pods((1..=4).map(pod_at).collect()).start_with(|configuration, pods| {
        set_secrets(configuration, key);
        sidecar = Some(sidecars(version, pods, port));
    });
    (gateway, sidecar.unwrap())
}

fn last_decision(gateway: &Gateway) -> String {
    let before = gateway.envoy.access_log().unwrap().len();
    assert_eq!(gateway.send(chat("tiny")).status, 200);
    gateway.envoy.access_log_until(before + 1).unwrap()[before]["decision"].as_str().unwrap().to_owned()
}

#[test]
fn metrics_behind_tls_a_key_and_compression_are_read() {
    for version in [OLDEST, NEWEST] {
        let folder = tempfile::tempdir().unwrap();
        let (gateway, _sidecars) = start(version, &key_file(&folder, KEY));
        gateway.wait_until_scraped();
        gateway.check_burst_is_spread(version);
        // Others' requests are known by the metrics alone.
        (1..4).for_each(|pod| gateway.pods.server(pod).set(|knobs| knobs.gauges.waiting = Some(9.0)));
        until("the one without a queue gets all", || {
            gateway.shares(&gateway.burst(vec![chat("tiny"); 4])) == [4, 0, 0, 0]
        });
    }
}

#[test]
fn without_the_right_key_there_are_no_metrics_until_it_is_put_in_place() {
    for version in [OLDEST, NEWEST] {
        let folder = tempfile::tempdir().unwrap();
        let (gateway, _sidecars) = start(version, &key_file(&folder, "Bearer another"));
        until("scrapes are refused", || {
            gateway.envoy.log_text().contains("metrics cannot be read: status 401")
        });
        assert!(last_decision(&gateway).ends_with("metrics=none"), "{version}");
        assert!(gateway.pods.servers().all(|pod| pod.counters().metrics_scrapes == 0), "{version}");
        key_file(&folder, KEY);
        until("metrics are read", || !last_decision(&gateway).ends_with("metrics=none"));
        let dump = gateway.envoy.admin_get("/config_dump").unwrap();
        assert!(!dump.contains("a-key-of-the-tests"), "{version}");
    }
}
