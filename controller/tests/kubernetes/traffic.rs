//! What clients of a gateway see: resources are applied, the controller and istiod make configuration of them, and requests go
//! where the resources say.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread::sleep;
use std::time::{Duration, Instant};

use envoy_test::envoy::{Client, Envoy, Protocol, Request, binary};
use envoy_test::load::{Load, Seen};
use envoy_test::model_server::{ModelServers, ServerSettings};
use serde_json::json;

use crate::cluster::{Cluster, OUTAGE, Running, prepared, until};
use crate::istiod::{Istiod, gateway};

const GATEWAY: &str = "inference-gateway";
const GATEWAY_POD: (&str, &str) = ("gateway", "10.244.0.9");
const HOST: &str = "models.example.com";
/// Where each model server listens.
const SERVER_PORT: u16 = 8000;
/// Servers 0 to 2 are the first pool's, the last of them not at first; 3 and 4 the second's.
const SERVERS: u8 = 5;
const BASE_MODEL: &str = "tiny";
const ADAPTERS: [&str; 3] = ["food-v1", "food-v2", "qwen-v1"];
/// Clients that send while something changes, and how long they wait for an answer.
const CLIENTS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(20);
/// Requests by which weights are counted.
const SAMPLE: u64 = 100;
/// So many answers of one target in a row are no accident where it has had a tenth or a third of them.
const ROW: usize = 30;

/// A pool of the pods with this label. Istio wants an endpoint picker named; nobody is there.
fn pool(name: &str) -> String {
    json!({"apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": name}}, "targetPorts": [{"number": SERVER_PORT}],
            "endpointPickerRef": {"name": "endpoint-picker", "port": {"number": 9002}, "failureMode": "FailOpen"}}})
    .to_string()
}

/// A published model, and what is sent in its place.
fn rewrite(model: &str, pool: &str, targets: &[(&str, u32)]) -> String {
    let target = |(name, weight): &(&str, u32)| json!({"modelRewrite": name, "weight": weight});
    let targets: Vec<_> = targets.iter().map(target).collect();
    json!({"apiVersion": "inference.networking.x-k8s.io/v1alpha2", "kind": "InferenceModelRewrite",
        "metadata": {"name": model, "namespace": "default"},
        "spec": {"poolRef": {"name": pool}, "rules": [
            {"matches": [{"model": {"type": "Exact", "value": model}}], "targets": targets}]}})
    .to_string()
}

/// The API server takes no weight of 0: what gets nothing is left out.
fn food(first: u32, second: u32) -> String {
    let targets = [("food-v1", first), ("food-v2", second)];
    let targets: Vec<_> = targets.into_iter().filter(|(_, weight)| *weight > 0).collect();
    rewrite("food", "llama", &targets)
}

/// The Gateway, its Service, the route to both pools and the Service of the picker that is not there.
fn front(port: u16) -> String {
    let reference =
        |pool: &str| json!([{"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": pool}]);
    let of_qwen = json!([{"headers": [{"name": "x-gateway-model-name", "value": "qwen"}]}]);
    let labels = json!({"gateway.networking.k8s.io/gateway-name": GATEWAY});
    let resources = [
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": GATEWAY, "namespace": "istio-system"},
            "spec": {"gatewayClassName": "istio", "listeners": [{"name": "http", "port": port, "protocol": "HTTP",
                "allowedRoutes": {"namespaces": {"from": "All"}}}]}}),
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "models", "namespace": "default"},
            "spec": {"parentRefs": [{"name": GATEWAY, "namespace": "istio-system"}], "rules": [
                {"matches": of_qwen, "backendRefs": reference("qwen")}, {"backendRefs": reference("llama")}]}}),
        json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": format!("{GATEWAY}-istio"), "namespace": "istio-system", "labels": labels},
            "spec": {"selector": labels, "ports": [{"name": "http", "port": port, "targetPort": port}]}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "endpoint-picker", "namespace": "default"},
            "spec": {"selector": {"app": "none"}, "ports": [{"name": "grpc", "port": 9002, "targetPort": 9002}]}}),
    ];
    resources.map(|resource| resource.to_string()).join("\n---\n")
}

/// All that runs.
struct Site {
    cluster: Cluster,
    servers: ModelServers,
    _istiod: Istiod,
    _envoy: Envoy,
    address: SocketAddr,
    controller: Option<Running>,
}

impl Site {
    fn start() -> Site {
        let at = |number: u8| SocketAddr::from(([10, 244, 1, number + 1], SERVER_PORT));
        let lora_adapters = ADAPTERS.map(str::to_owned).to_vec();
        let settings = (0..SERVERS).map(|number| ServerSettings {
            lora_adapters: lora_adapters.clone(),
            ..ServerSettings::at(at(number))
        });
        let servers = ModelServers::start(settings.collect()).unwrap();
        let cluster = prepared();
        let port = crate::cluster::free_port();
        cluster.apply(&front(port));
        pod(
            &cluster,
            "istio-system",
            GATEWAY_POD,
            &json!({"gateway.networking.k8s.io/gateway-name": GATEWAY}),
        );
        let port_of_gateway = [("http", port)];
        slice(&cluster, "istio-system", &format!("{GATEWAY}-istio"), &port_of_gateway, &[GATEWAY_POD]);
        for number in 0..SERVERS {
            let app = if number < 3 { "llama" } else { "qwen" };
            let (name, ip) = (pod_name(number), at(number).ip().to_string());
            pod(&cluster, "default", (&name, &ip), &json!({"app": app}));
        }
        cluster.apply(
            &[pool("llama"), pool("qwen"), food(90, 10), rewrite("qwen", "qwen", &[("qwen-v1", 1)])]
                .join("\n---\n"),
        );
        let istiod = Istiod::start(&cluster);
        let envoy = gateway(&istiod, GATEWAY_POD.0, GATEWAY_POD.1, GATEWAY);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut site = Site { cluster, servers, _istiod: istiod, _envoy: envoy, address, controller: None };
        site.start_controller("one");
        site.serve("llama", &[0, 1]);
        site.serve("qwen", &[3, 4]);
        site
    }

    fn start_controller(&mut self, name: &str) {
        let url = format!("file://{}", binary::plugin_file().display());
        let arguments = ["--gateway", GATEWAY, "--gateway-namespace", "istio-system", "--plugin-url", &url];
        self.controller = Some(self.cluster.controller(name, &arguments));
    }

    /// Has these servers be the pool's, as Kubernetes' controller of EndpointSlices would.
    fn serve(&self, pool: &str, servers: &[u8]) {
        let label = format!("istio.io/inferencepool-name={pool}");
        let mut service = String::new();
        until("istiod has made the pool's Service", || {
            let (is_there, name) = self
                .cluster
                .kubectl(&["get", "services", "-l", &label, "-o", "jsonpath={.items[0].metadata.name}"], "");
            service = name;
            is_there && !service.is_empty()
        });
        let pods: Vec<(String, String)> = servers
            .iter()
            .map(|server| {
                (pod_name(*server), self.servers.server((*server).into()).address().ip().to_string())
            })
            .collect();
        let pods: Vec<(&str, &str)> = pods.iter().map(|(name, ip)| (name.as_str(), ip.as_str())).collect();
        slice(&self.cluster, "default", &service, &[("http-0", SERVER_PORT)], &pods);
    }

    fn client(&self) -> Client {
        Client::new(self.address, Protocol::Http1)
    }

    /// How many requests for this model each server has had.
    fn had(&self, model: &str) -> Vec<u64> {
        self.servers.servers().map(|server| server.counters().requests_for(model)).collect()
    }

    fn all_had(&self, model: &str) -> u64 {
        self.had(model).iter().sum()
    }

    /// Waits until several requests for this model are answered by this target, one after the other.
    fn until_answered(&self, model: &str, target: &str, times: usize) {
        let started_at = Instant::now();
        let is_answered = || {
            let answer = self.client().send_blocking(chat(model));
            answer.is_ok_and(|answer| answer.status == 200 && answer.json().unwrap()["model"] == target)
        };
        until(&format!("{target} answers for {model}"), || (0..times).all(|_| is_answered()));
        println!(
            "{target} answers for {model}, {} ms after it was applied",
            started_at.elapsed().as_millis()
        );
    }

    /// How many of the next requests for `food` each of its targets has.
    fn shares(&self) -> [u64; 2] {
        let before = ["food-v1", "food-v2"].map(|target| self.all_had(target));
        for _ in 0..SAMPLE {
            assert_eq!(self.client().send_blocking(chat("food")).unwrap().status, 200);
        }
        let after = ["food-v1", "food-v2"].map(|target| self.all_had(target));
        [after[0] - before[0], after[1] - before[1]]
    }

    /// Has clients ask for a model meanwhile. Each gets its answer.
    #[track_caller]
    fn under_load(&self, what: &str, model: &str, act: impl FnOnce()) {
        let request = || chat(model);
        let load = Load { client: self.client(), clients: CLIENTS, patience: PATIENCE, request: &request };
        // Clients stop when it returns, also where it does because something was not so.
        let mut outcome = Ok(());
        let seen: Seen = load.during(|_| outcome = catch_unwind(AssertUnwindSafe(act)));
        outcome.unwrap_or_else(|panic| resume_unwind(panic));
        assert_eq!(seen.complaints(), Vec::<String>::new(), "{what}");
        println!("{what}: {} requests, none failed", seen.good);
    }
}

fn pod_name(server: u8) -> String {
    format!("server-{server}")
}

fn chat(model: &str) -> Request {
    let messages = json!([{"role": "user", "content": "Which pod will this be?"}]);
    let body = json!({"model": model, "max_tokens": 4, "messages": messages});
    Request::post("/v1/chat/completions").header("host", HOST).json(&body)
}

/// A pod that is ready, of this name and address.
fn pod(cluster: &Cluster, namespace: &str, (name, ip): (&str, &str), labels: &serde_json::Value) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"nodeName": "node", "containers": [{"name": "server", "image": "server"}]}});
    cluster.apply(&pod.to_string());
    let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
        "conditions": [{"type": "Ready", "status": "True"}]}});
    let patch = ["patch", "pod", name, "-n", namespace, "--subresource=status", "--type=merge", "-p"];
    let (is_done, said) = cluster.kubectl(&[&patch[..], &[&status.to_string()]].concat(), "");
    assert!(is_done, "{said}");
}

/// The pods behind a Service.
fn slice(cluster: &Cluster, namespace: &str, service: &str, ports: &[(&str, u16)], pods: &[(&str, &str)]) {
    let ports: Vec<_> =
        ports.iter().map(|(name, port)| json!({"name": name, "protocol": "TCP", "port": port})).collect();
    let endpoint = |(name, ip): &(&str, &str)| {
        json!({"addresses": [ip], "conditions": {"ready": true},
            "targetRef": {"kind": "Pod", "name": name, "namespace": namespace}})
    };
    let endpoints: Vec<_> = pods.iter().map(endpoint).collect();
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": service, "namespace": namespace, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints});
    cluster.apply(&slice.to_string());
}

#[test]
#[ignore = "starts a real kube-apiserver and istiod: make test-kubernetes"]
fn requests_follow_the_resources_whatever_happens_to_what_follows_them() {
    let mut site = Site::start();
    site.until_answered("food", "food-v1", 1);
    site.until_answered("qwen", "qwen-v1", 1);

    // Each model in its own pool, targets by weight.
    assert_eq!(site.shares(), [90, 10]);
    assert_eq!(site.had("food-v1")[2..], [0, 0, 0]);
    assert_eq!(site.had("qwen-v1")[..3], [0, 0, 0]);

    site.under_load("weights changed", "food", || {
        site.cluster.apply(&food(0, 100));
        site.until_answered("food", "food-v2", ROW);
        site.cluster.apply(&food(30, 70));
        site.until_answered("food", "food-v1", 1);
    });
    assert_eq!(site.shares(), [30, 70]);

    site.under_load("a pod added, and removed", BASE_MODEL, || {
        site.serve("llama", &[0, 1, 2]);
        until("the new pod has requests", || site.had(BASE_MODEL)[2] > 0);
        site.serve("llama", &[0, 1]);
        until("it has no more", || {
            let before = site.had(BASE_MODEL)[2];
            sleep(Duration::from_millis(500));
            site.had(BASE_MODEL)[2] == before
        });
    });

    site.under_load("a wrong rewrite, and the controller killed and started anew", "food", || {
        site.cluster.apply(&rewrite("food", "nowhere", &[("food-v1", 1)]));
        until("it is refused", || {
            let rewrite = site.cluster.get("inferencemodelrewrite", "default", "food").unwrap();
            rewrite["status"]["conditions"][0]["status"] == "False"
        });
    });
    site.controller = None;
    site.start_controller("two");
    until("it works", || site.cluster.log("two").contains("\"written\""));
    sleep(Duration::from_secs(1));
    assert_eq!(site.shares(), [30, 70]);

    // The API server is gone for a while.
    let server = site.cluster.server.take();
    site.under_load("the API server gone", "food", || {
        drop(server);
        sleep(OUTAGE);
    });
    site.cluster.start_server();
    site.under_load("the API server back", "food", || {
        site.cluster.apply(&food(100, 0));
        let started_at = Instant::now();
        until("the plugin's configuration has it", || {
            let plugin = site.cluster.get("wasmplugin", "istio-system", "inference-picker").unwrap();
            let models = plugin["spec"]["pluginConfig"]["models"].as_array().unwrap();
            models.iter().any(|model| model["targetModels"] == json!([{"name": "food-v1", "weight": 100}]))
        });
        println!("it is in the plugin's configuration after {} ms", started_at.elapsed().as_millis());
        site.until_answered("food", "food-v1", ROW);
    });
    assert_eq!(site.shares(), [100, 0]);

    site.under_load("the other pool deleted", "food", || {
        let (is_done, said) = site.cluster.kubectl(&["delete", "inferencepool", "qwen"], "");
        assert!(is_done, "{said}");
        until("the plugin's configuration has one pool", || {
            let plugin = site.cluster.get("wasmplugin", "istio-system", "inference-picker").unwrap();
            plugin["spec"]["pluginConfig"]["pools"].as_array().unwrap().len() == 1
        });
        sleep(Duration::from_secs(2));
    });
    assert!(!site.cluster.log("one").contains("orbidden"), "{}", site.cluster.log("one"));
}
