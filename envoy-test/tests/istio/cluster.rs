//! What a Kubernetes cluster would hold besides Istio's resources: pods, services and routes, and what controllers make
//! of them.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};

/// The Service that the deployments name, its host, and its port.
pub const SERVICE: &str = "vllm-llama2-7b";
pub const HOST: &str = "vllm-llama2-7b.default.svc.cluster.local";
pub const SERVICE_PORT: u16 = 8000;
/// Another one in front of the same servers, and the published model that is served there.
pub const SECOND_SERVICE: &str = "vllm-qwen";
pub const MODEL_OF_SECOND_SERVICE: &str = "qwen";
/// The InferencePool that the deployments name.
pub const POOL: Pool = Pool { name: "vllm-llama2-7b-pool", service: "vllm-llama2-7b-pool-ip-ae496019" };
const POOL_SERVICE_PORT: u16 = 54321;
/// The Gateway that the deployments name.
pub const GATEWAY: &str = "inference-gateway";
/// By this label of a Service, istiod knows which pool it has made it for.
const POOL_LABEL: &str = "istio.io/inferencepool-name";

/// An InferencePool, and the Service that istiod makes for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    pub name: &'static str,
    pub service: &'static str,
}

/// Where requests come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front {
    IngressGateway,
    /// A gateway of the Gateway API.
    GatewayApi,
    /// A client's sidecar. It listens at the Service's port, as there are no rules that redirect what clients send.
    Sidecar,
}

/// What the route leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Service,
    /// One that has Istio's own mark of an InferencePool.
    MarkedService,
    InferencePool(Pool),
}

impl Front {
    /// The labels of the proxy's pod.
    pub fn labels(self) -> Value {
        match self {
            Front::IngressGateway => json!({"istio": "ingressgateway"}),
            Front::GatewayApi => json!({"gateway.networking.k8s.io/gateway-name": GATEWAY}),
            Front::Sidecar => json!({"app": "client"}),
        }
    }

    /// What a proxy of this kind sends Istio about itself.
    pub fn node(self) -> (&'static str, Value) {
        match self {
            Front::Sidecar => ("sidecar", json!({"LABELS": self.labels(), "INTERCEPTION_MODE": "NONE"})),
            _ => ("router", json!({"LABELS": self.labels()})),
        }
    }
}

impl Backend {
    /// The labels of the Service.
    fn labels(self) -> Value {
        match self {
            Backend::MarkedService => json!({"internal.istio.io/service-semantics": "inferencepool"}),
            _ => json!({}),
        }
    }
}

/// The model servers, and the Services in front of them.
pub fn model_servers(backend: Backend, service_port: u16, servers: &[SocketAddr]) -> Vec<Value> {
    let labels = backend.labels();
    let selector = json!({"app": "vllm"});
    let mut resources = service(SERVICE, labels.clone(), selector.clone(), service_port, servers);
    resources.extend(service(SECOND_SERVICE, labels, selector.clone(), SERVICE_PORT, servers));
    resources.extend(servers.iter().map(|server| pod(server.ip().to_string(), selector.clone())));
    resources
}

/// More model servers, behind a Service of their own.
pub fn more_model_servers(name: &str, backend: Backend, servers: &[SocketAddr]) -> Vec<Value> {
    let selector = json!({"app": name});
    let mut resources = service(name, backend.labels(), selector.clone(), SERVICE_PORT, servers);
    resources.extend(servers.iter().map(|server| pod(server.ip().to_string(), selector.clone())));
    resources
}

/// A route to a Service, of Istio's Gateway or of sidecars, for requests that are for the pool of this name.
pub fn route_by_pool(front: Front, pool: &str, service: &str) -> Value {
    let destination = json!({"host": host(service), "port": {"number": SERVICE_PORT}});
    let is_for_pool = json!([{"headers": {"x-gateway-pool-name": {"exact": pool}}}]);
    let by_pool = json!({"match": is_for_pool, "route": [{"destination": destination}]});
    let spec = match front {
        // What is sent to the first Service, at whatever port.
        Front::Sidecar => {
            json!({"hosts": [HOST], "http": [by_pool, {"route": [{"destination": {"host": HOST}}]}]})
        }
        _ => json!({"hosts": ["*"], "gateways": ["gateway"], "http": [by_pool]}),
    };
    json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": metadata(pool, json!({})), "spec": spec})
}

/// The host of a Service.
pub fn host(service: &str) -> String {
    format!("{service}.default.svc.cluster.local")
}

/// Istio's Gateway on this port, a route from there to the Service, and one to the second for what it serves.
pub fn ingress_gateway(port: u16) -> Vec<Value> {
    let destination =
        |service: &str| json!([{"destination": {"host": host(service), "port": {"number": SERVICE_PORT}}}]);
    let of_second = json!([{"headers": {"x-gateway-model-name": {"exact": MODEL_OF_SECOND_SERVICE}}}]);
    vec![
        json!({"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": metadata("gateway", json!({})),
            "spec": {"selector": Front::IngressGateway.labels(), "servers": [{"hosts": ["*"],
                "port": {"number": port, "name": "http", "protocol": "HTTP"}}]}}),
        json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": metadata("models", json!({})), "spec": {"hosts": ["*"], "gateways": ["gateway"],
            "http": [{"match": of_second, "route": destination(SECOND_SERVICE)}, {"route": destination(SERVICE)}]}}),
    ]
}

/// A Gateway of the Gateway API on this port, and a route from there to the Service or to an InferencePool.
pub fn gateway_api(port: u16, backend: Backend, servers: &[SocketAddr]) -> Vec<Value> {
    let gateway = [SocketAddr::from((Ipv4Addr::LOCALHOST, port))];
    let labels = Front::GatewayApi.labels();
    let reference = match backend {
        Backend::InferencePool(pool) => {
            json!({"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": pool.name})
        }
        _ => json!({"name": SERVICE, "port": SERVICE_PORT}),
    };
    let mut resources = vec![
        json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "default", "labels": {"kubernetes.io/metadata.name": "default"}}}),
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "istio"},
            "spec": {"controllerName": "istio.io/gateway-controller"}}),
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": metadata(GATEWAY, json!({})), "spec": {"gatewayClassName": "istio",
                "listeners": [{"name": "http", "port": port, "protocol": "HTTP"}]}}),
        http_route(reference),
        pod("127.0.0.1".into(), labels.clone()),
    ];
    resources.extend(service(&format!("{GATEWAY}-istio"), labels.clone(), labels, port, &gateway));
    if let Backend::InferencePool(pool) = backend {
        resources.extend(inference_pool(pool, servers));
    }
    resources
}

/// A route that its gateway has accepted.
fn http_route(backend: Value) -> Value {
    let parent = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": GATEWAY});
    let accepted = json!({"type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": metadata("models", json!({})),
        "spec": {"parentRefs": [parent], "rules": [{"backendRefs": [backend]}]},
        "status": {"parents": [{"parentRef": parent, "controllerName": "istio.io/gateway-controller",
            "conditions": [accepted]}]}})
}

/// An InferencePool, and the Service that istiod makes for it. The pool's endpoint picker, which the resource must name,
/// has a Service and not one pod.
fn inference_pool(pool: Pool, servers: &[SocketAddr]) -> Vec<Value> {
    let picker = json!({"kind": "Service", "name": "endpoint-picker", "port": {"number": 9002},
        "failureMode": "FailOpen"});
    let mut resources = vec![json!({"apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool",
        "metadata": metadata(pool.name, json!({})), "spec": {"selector": {"matchLabels": {"app": "vllm"}},
            "targetPorts": [{"number": servers[0].port()}], "endpointPickerRef": picker}})];
    resources.extend(service("endpoint-picker", json!({}), json!({"app": "none"}), 9002, &[]));
    resources.extend(service(
        pool.service,
        pool_labels(pool),
        json!({"app": "vllm"}),
        POOL_SERVICE_PORT,
        servers,
    ));
    resources
}

/// How istiod labels the Service that it makes for an InferencePool.
fn pool_labels(pool: Pool) -> Value {
    json!({"internal.istio.io/service-semantics": "inferencepool",
        POOL_LABEL: pool.name,
        "istio.io/inferencepool-extension-service": "endpoint-picker",
        "istio.io/inferencepool-extension-port": "9002",
        "istio.io/inferencepool-extension-failure-mode": "FailOpen"})
}

/// A Service with one endpoint, as the folders name it.
pub fn a_service() -> Vec<Value> {
    service(SERVICE, json!({}), json!({}), SERVICE_PORT, &[([127, 0, 1, 1], SERVICE_PORT).into()])
}

/// A Service and its EndpointSlice. Istio makes those for InferencePools without an address, and only those: a sidecar
/// does not balance what goes to a Service that has none.
fn service(name: &str, labels: Value, selector: Value, port: u16, pods: &[SocketAddr]) -> Vec<Value> {
    let target_port = pods.first().map_or(port, SocketAddr::port);
    let address = if labels.get(POOL_LABEL).is_some() { "None" } else { "10.96.0.1" };
    vec![
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata(name, labels),
            "spec": {"clusterIP": address, "selector": selector,
                "ports": [{"name": "http", "protocol": "TCP", "port": port, "targetPort": target_port}]}}),
        endpoint_slice(name, "http", target_port, pods),
    ]
}

/// The pods behind a Service's port.
pub fn endpoint_slice(service: &str, port_name: &str, port: u16, pods: &[SocketAddr]) -> Value {
    let endpoints: Vec<Value> = pods.iter().map(|pod| endpoint(pod.ip().to_string())).collect();
    let labels = json!({"kubernetes.io/service-name": service});
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata(service, labels),
        "addressType": "IPv4", "ports": [{"name": port_name, "protocol": "TCP", "port": port}],
        "endpoints": endpoints})
}

fn endpoint(ip: String) -> Value {
    let pod = json!({"kind": "Pod", "name": pod_name(&ip), "namespace": "default"});
    json!({"addresses": [ip], "conditions": {"ready": true}, "targetRef": pod})
}

/// A pod that is ready.
pub fn pod(ip: String, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata(&pod_name(&ip), labels),
        "spec": {"nodeName": "node", "containers": [{"name": "server", "image": "server"}]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True"}]}})
}

fn pod_name(ip: &str) -> String {
    format!("pod-{}", ip.replace('.', "-"))
}

fn metadata(name: &str, labels: Value) -> Value {
    json!({"name": name, "namespace": "default", "labels": labels})
}
