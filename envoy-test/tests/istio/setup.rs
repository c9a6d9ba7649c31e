//! What to start: a deployment of `istio/`, as it is or edited, and where.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use envoy_test::envoy::{Configuration, Envoy, EnvoySettings, NEWEST, free_address};
use envoy_test::model_server::{ModelServers, ServerSettings};
use serde_json::Value;

use crate::agent::Agent;
use crate::cluster::{self, Backend, Front, HOST, SERVICE_PORT};
use crate::control_plane::ControlPlane;
use crate::gateway::{Gateway, Proxy};
use crate::resources::{Resources, mesh, replace};

/// The adapters that every pod serves if no others are wanted, besides the base model `tiny`.
const ADAPTERS: [&str; 2] = ["sql-lora", "tweet-summary"];
const POD_COUNT: u8 = 4;
/// The name of the proxy's pod, and its namespace.
pub const PROXY: &str = "gateway.default";

/// A folder of `istio/` that deploys the plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deployment {
    EnvoyFilter,
    WasmPlugin,
    WasmPluginWithMetrics,
    WasmPluginEnvoyFilter,
}

impl Deployment {
    pub const ALL: [Deployment; 4] = [
        Deployment::EnvoyFilter,
        Deployment::WasmPlugin,
        Deployment::WasmPluginWithMetrics,
        Deployment::WasmPluginEnvoyFilter,
    ];

    pub fn folder(self) -> &'static str {
        match self {
            Deployment::EnvoyFilter => "envoy-filter",
            Deployment::WasmPlugin => "wasm-plugin",
            Deployment::WasmPluginWithMetrics => "wasm-plugin-with-metrics",
            Deployment::WasmPluginEnvoyFilter => "wasm-plugin-envoy-filter",
        }
    }

    pub fn reads_metrics(self) -> bool {
        self != Deployment::WasmPlugin
    }

    /// What the folder is for as it is.
    fn place(self) -> (Front, Backend) {
        match self {
            Deployment::EnvoyFilter | Deployment::WasmPluginEnvoyFilter => {
                (Front::IngressGateway, Backend::Service)
            }
            Deployment::WasmPlugin | Deployment::WasmPluginWithMetrics => {
                (Front::GatewayApi, Backend::InferencePool(cluster::POOL))
            }
        }
    }
}

/// What to start.
pub struct Setup {
    deployment: Deployment,
    front: Front,
    backend: Backend,
    resources: Resources,
    kubernetes: Vec<Value>,
    lora_adapters: Vec<String>,
    pods: Option<Arc<ModelServers>>,
    mesh: Value,
    concurrency: u32,
    version: &'static str,
    is_under_the_agent: bool,
    bootstrap_override: Option<String>,
}

impl Setup {
    /// The deployment as it is in the repository, but that the plugin is loaded from a file.
    pub fn new(deployment: Deployment) -> Setup {
        let mut resources = Resources::of(deployment.folder());
        resources.load_plugin_from_file();
        let (front, backend) = deployment.place();
        Setup::of(deployment, resources, front, backend)
    }

    /// These resources, which deploy the plugin in the same way, and the access log of `istio/telemetry`. What that
    /// folder says of Istio's metrics needs Istio's own build of Envoy.
    pub fn of(deployment: Deployment, mut resources: Resources, front: Front, backend: Backend) -> Setup {
        let mut telemetry = Resources::of("telemetry");
        telemetry.the("Telemetry")["spec"].as_object_mut().unwrap().remove("metrics");
        telemetry.select(front);
        resources.0.extend(telemetry.0);
        Setup {
            deployment,
            front,
            backend,
            resources,
            kubernetes: Vec::new(),
            lora_adapters: ADAPTERS.map(str::to_owned).to_vec(),
            pods: None,
            mesh: mesh(),
            concurrency: 2,
            version: NEWEST,
            is_under_the_agent: false,
            bootstrap_override: None,
        }
    }

    /// Changes what `istio/README.md` says has to be changed for another kind of proxy, or of backend.
    pub fn moved_to(mut self, front: Front, backend: Backend) -> Setup {
        self.resources.select(front);
        (self.front, self.backend) = (front, backend);
        self
    }

    /// Edits Istio's resources.
    pub fn resources(mut self, edit: impl FnOnce(&mut Resources)) -> Setup {
        edit(&mut self.resources);
        self
    }

    /// Edits the plugin's configuration.
    pub fn plugin(self, edit: impl FnOnce(&mut Value)) -> Setup {
        self.resources(|resources| resources.edit_plugin(edit))
    }

    /// Adds to what Kubernetes holds.
    pub fn kubernetes(mut self, resources: Vec<Value>) -> Setup {
        self.kubernetes.extend(resources);
        self
    }

    /// In front of these pods, in place of ones of its own.
    pub fn pods(mut self, pods: &Arc<ModelServers>) -> Setup {
        self.pods = Some(Arc::clone(pods));
        self
    }

    /// Edits the mesh's configuration.
    pub fn mesh(mut self, edit: impl FnOnce(&mut Value)) -> Setup {
        edit(&mut self.mesh);
        self
    }

    /// The adapters that every pod serves.
    pub fn lora_adapters(mut self, names: Vec<String>) -> Setup {
        self.lora_adapters = names;
        self
    }

    pub fn concurrency(mut self, workers: u32) -> Setup {
        self.concurrency = workers;
        self
    }

    /// The version of Envoy, if it does not run under Istio's agent.
    pub fn version(mut self, version: &'static str) -> Setup {
        self.version = version;
        self
    }

    /// Runs Envoy under Istio's agent.
    pub fn under_the_agent(mut self) -> Setup {
        self.is_under_the_agent = true;
        self
    }

    /// Adds to the bootstrap that the agent makes.
    pub fn bootstrap_override(mut self, text: String) -> Setup {
        self.bootstrap_override = Some(text);
        self.under_the_agent()
    }

    /// Returns when the plugin knows the pods, and their metrics if it reads them.
    pub fn start(mut self) -> Gateway {
        let pods = self.pods.take();
        let pods =
            pods.unwrap_or_else(|| Arc::new(ModelServers::start(settings(&self.lora_adapters)).unwrap()));
        let address = free_address().unwrap();
        let kubernetes = self.cluster(address.port(), &pods.addresses());
        let control_plane = ControlPlane::start(&self.mesh, &kubernetes, &self.resources.0);
        let proxy = self.start_proxy(control_plane.xds);
        let Setup { deployment, resources, .. } = self;
        let gateway = Gateway { proxy, pods, deployment, resources, control_plane, address };
        gateway.wait_until_informed();
        gateway
    }

    fn start_proxy(&self, xds: SocketAddr) -> Proxy {
        if self.is_under_the_agent {
            let bootstrap_override = self.bootstrap_override.as_deref();
            return Proxy::Agent(Agent::start(xds, self.front, &self.mesh, bootstrap_override));
        }
        let mut settings = EnvoySettings::new(bootstrap(xds, self.front));
        settings.concurrency = self.concurrency;
        settings.version = self.version;
        Proxy::Envoy(Envoy::start(settings).unwrap())
    }

    /// What Kubernetes holds; routes that are Istio's resources are added to those.
    fn cluster(&mut self, port: u16, pods: &[SocketAddr]) -> Vec<Value> {
        let mut service_port = SERVICE_PORT;
        let mut routes = Vec::new();
        match self.front {
            Front::IngressGateway => self.resources.0.extend(cluster::ingress_gateway(port)),
            Front::GatewayApi => routes = cluster::gateway_api(port, self.backend, pods),
            Front::Sidecar => {
                service_port = port;
                let at = |port| format!("outbound|{port}||{HOST}");
                self.resources.edit_plugin(|plugin| replace(plugin, &at(SERVICE_PORT), &at(port)));
            }
        }
        [
            cluster::model_servers(self.backend, service_port, pods),
            routes,
            std::mem::take(&mut self.kubernetes),
        ]
        .concat()
    }
}

/// Pods with addresses of their own and one port, as in a cluster.
fn settings(lora_adapters: &[String]) -> Vec<ServerSettings> {
    let port = free_address().unwrap().port();
    let at = |number| SocketAddr::from((Ipv4Addr::new(127, 0, 1, number), port));
    (1..=POD_COUNT)
        .map(|pod| ServerSettings { lora_adapters: lora_adapters.to_vec(), ..ServerSettings::at(at(pod)) })
        .collect()
}

/// The bootstrap of a proxy of this kind.
pub fn bootstrap(xds: SocketAddr, front: Front) -> Configuration {
    let mut bootstrap = Configuration::parse(include_str!("bootstrap.yaml")).unwrap();
    bootstrap.set_endpoints("xds-grpc", &[xds]);
    let (kind, metadata) = front.node();
    for (name, value) in metadata.as_object().unwrap() {
        bootstrap.at("/node/metadata")[name] = value.clone();
    }
    *bootstrap.at("/node/id") = format!("{kind}~127.0.0.1~{PROXY}~default.svc.cluster.local").into();
    bootstrap
}
