//! istiod itself, from the API server's resources, and an Envoy that has its configuration from there.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use envoy_test::envoy::{Configuration, Envoy, EnvoySettings};
use serde_json::json;

use crate::cluster::{Cluster, Running, free_port, start, until};

/// What istiod has in its environment: the Gateway API's InferencePools are off by default, and so is here what only Istio's own
/// build of Envoy has; gateways are not started by it but by the test.
const ENVIRONMENT: [(&str, &str); 6] = [
    ("ENABLE_GATEWAY_API_INFERENCE_EXTENSION", "true"),
    ("PILOT_ENABLE_ALPN_FILTER", "false"),
    ("PILOT_ENABLE_METADATA_EXCHANGE", "false"),
    ("PILOT_ENABLE_GATEWAY_API_DEPLOYMENT_CONTROLLER", "false"),
    ("POD_NAME", "istiod"),
    ("POD_NAMESPACE", "istio-system"),
];
/// Nothing that needs certificates.
const MESH: &str = "{enableAutoMtls: false}";

/// A running istiod.
pub struct Istiod {
    /// Where proxies connect to.
    pub xds: SocketAddr,
    _running: Running,
}

impl Istiod {
    /// Returns when it is ready.
    pub fn start(cluster: &Cluster) -> Istiod {
        let [xds, http, monitoring] = [(); 3].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
        let folder = cluster.folder.path();
        fs::write(folder.join("mesh"), MESH).unwrap();
        let running = start(
            Command::new(cluster.programs.join("pilot-discovery"))
                // It keeps certificates where it runs.
                .current_dir(folder)
                .envs(ENVIRONMENT)
                .arg("discovery")
                .arg("--kubeconfig")
                .arg(folder.join("administrator"))
                .arg("--meshConfig")
                .arg(folder.join("mesh"))
                .args([format!("--grpcAddr={xds}"), format!("--httpAddr={http}")])
                .args([format!("--monitoringAddr={monitoring}"), "--ctrlz_port=0".to_owned()])
                .args(["--httpsAddr=", "--secureGRPCAddr="]),
            &folder.join("istiod.log"),
        );
        until("istiod is ready", || is_ready(http));
        Istiod { xds, _running: running }
    }
}

fn is_ready(http: SocketAddr) -> bool {
    use envoy_test::envoy::{Client, Protocol, Request};
    let answer = Client::new(http, Protocol::Http1).send_blocking(Request::get("/ready"));
    answer.is_ok_and(|answer| answer.status == 200)
}

/// Starts the gateway of this name and namespace whose pod has this name and address.
pub fn gateway(istiod: &Istiod, namespace: &str, gateway: &str, (pod, address): (&str, &str)) -> Envoy {
    let mut bootstrap =
        Configuration::parse(include_str!("../../../envoy-test/tests/istio/bootstrap.yaml")).unwrap();
    bootstrap.set_endpoints("xds-grpc", &[istiod.xds]);
    let metadata = bootstrap.at("/node/metadata");
    metadata["NAMESPACE"] = namespace.into();
    metadata["LABELS"] = json!({"gateway.networking.k8s.io/gateway-name": gateway});
    *bootstrap.at("/node/id") =
        format!("router~{address}~{pod}.{namespace}~{namespace}.svc.cluster.local").into();
    let mut settings = EnvoySettings::new(bootstrap);
    // Weights are kept by each worker.
    settings.concurrency = 1;
    Envoy::start(settings).unwrap()
}
