//! The deployments behind other proxies, and in front of other backends, than they are for as they are.

use crate::cluster::{Backend, Front};
use crate::setup::{Deployment, Setup};

/// A burst is picked for, and goes where it was picked to go.
fn check(deployment: Deployment, front: Front, backend: Backend) {
    let mut setup = Setup::new(deployment).moved_to(front, backend);
    if backend == Backend::MarkedService {
        let cluster = "outbound|8000||vllm-llama2-7b.default.svc.cluster.local";
        setup = setup.plugin(|plugin| plugin["pools"][0]["cluster"] = cluster.into());
    }
    let gateway = setup.start();
    let what = format!("{deployment:?}, {front:?}, {backend:?}");
    gateway.check_burst_is_spread(&what);
    for line in gateway.log(32) {
        assert!(
            line["picked"].as_str().unwrap().starts_with(line["upstream"].as_str().unwrap()),
            "{what}: {line}"
        );
    }
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn both_deployments_for_ingress_gateways_serve_gateways_of_the_gateway_api() {
    for deployment in [Deployment::EnvoyFilter, Deployment::WasmPluginEnvoyFilter] {
        check(deployment, Front::GatewayApi, Backend::Service);
    }
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn both_deployments_for_ingress_gateways_serve_sidecars() {
    for deployment in [Deployment::EnvoyFilter, Deployment::WasmPluginEnvoyFilter] {
        check(deployment, Front::Sidecar, Backend::Service);
    }
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn both_deployments_for_inference_pools_serve_ingress_gateways_in_front_of_a_service_that_is_marked() {
    for deployment in [Deployment::WasmPlugin, Deployment::WasmPluginWithMetrics] {
        check(deployment, Front::IngressGateway, Backend::MarkedService);
        check(deployment, Front::GatewayApi, Backend::MarkedService);
    }
}
