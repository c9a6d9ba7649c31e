//! The resources of the guides that people start with: applied as they are to a cluster with the controller, a Gateway gets the
//! annotation, and requests go where the guide has them go.

use std::net::SocketAddr;

use envoy_test::envoy::{Client, Envoy, Protocol, Request, Response, binary};
use envoy_test::model_server::{ModelServer, ModelServers, ServerSettings};
use serde_json::{Value, json};

use crate::cluster::{Cluster, prepared, root, until};
use crate::istiod::{Istiod, gateway};
use crate::kubernetes;

/// As in both guides.
const GATEWAY_PORT: u16 = 80;
const SERVER_PORT: u16 = 8000;

/// A guide's resources, and what its model servers serve.
struct Guide {
    /// The file's name.
    name: &'static str,
    /// Where they are applied.
    namespace: &'static str,
    gateway: &'static str,
    gateway_pod: (&'static str, &'static str),
    /// By Deployment: the base model, and adapters.
    models: &'static [(&'static str, &'static str, &'static [&'static str])],
    /// The third part of its pods' addresses.
    network: u8,
    /// What is claimed of requests.
    check_requests: fn(&Followed),
}

const GIE: Guide = Guide {
    name: "gie",
    namespace: "default",
    gateway: "inference-gateway",
    gateway_pod: ("inference-gateway", "10.244.0.9"),
    models: &[
        ("vllm-qwen3-32b", "Qwen/Qwen3-32B", &["food-review-1", "food-review-2"]),
        ("vllm-deepseek-r1", "deepseek/DeepSeek-r1", &["ski-resorts"]),
    ],
    network: 2,
    check_requests: requests_follow_gie,
};

const LLM_D: Guide = Guide {
    name: "llm-d",
    namespace: "llm-d",
    gateway: "llm-d-inference-gateway",
    gateway_pod: ("llm-d-inference-gateway", "10.244.0.10"),
    models: &[("decode", "openai/gpt-oss-120b", &[]), ("prefill", "openai/gpt-oss-120b", &[])],
    network: 3,
    check_requests: requests_follow_llm_d,
};

/// A guide that was followed.
struct Followed {
    servers: ModelServers,
    /// The Deployment of each server.
    deployments: Vec<String>,
    envoy: Envoy,
}

impl Guide {
    fn follow(&self, cluster: &Cluster, istiod: &Istiod) -> Followed {
        // It may be there.
        let _ = cluster.kubectl(&["create", "namespace", self.namespace], "");
        let rights = std::fs::read_to_string(root().join("istio/controller/gateway-namespace.yaml")).unwrap();
        cluster.apply(&rights.replace("namespace: istio-system", &format!("namespace: {}", self.namespace)));
        let manifest = root().join(format!("config-command/tests/fixtures/quick-starts/{}.yaml", self.name));
        let file = manifest.to_str().unwrap();
        cluster.succeed(&["apply", "-n", self.namespace, "-f", file]);
        cluster.succeed(&[
            "annotate",
            "gateway",
            self.gateway,
            "-n",
            self.namespace,
            "inference-picker/deployment=wasm-plugin",
        ]);

        kubernetes::gateway(cluster, self.namespace, self.gateway, self.gateway_pod, GATEWAY_PORT);
        let (servers, deployments) = self.start_pods(cluster);
        self.until_services(cluster);
        kubernetes::update_endpoints(cluster, self.namespace);
        let envoy = gateway(istiod, self.namespace, self.gateway, self.gateway_pod);
        Followed { servers, deployments, envoy }
    }

    /// The pods of each Deployment, and the servers in them.
    fn start_pods(&self, cluster: &Cluster) -> (ModelServers, Vec<String>) {
        let (mut settings, mut deployments) = (Vec::new(), Vec::new());
        for deployment in cluster.list("deployments", self.namespace, "") {
            let name = deployment["metadata"]["name"].as_str().unwrap();
            let (_, model, adapters) = self.models.iter().find(|(of, ..)| *of == name).unwrap();
            for replica in 0..deployment["spec"]["replicas"].as_u64().unwrap() {
                let address =
                    SocketAddr::from(([10, 244, self.network, settings.len() as u8 + 1], SERVER_PORT));
                let pod = (&*format!("{name}-{replica}"), &*address.ip().to_string());
                let labels = &deployment["spec"]["template"]["metadata"]["labels"];
                kubernetes::pod(cluster, self.namespace, pod, labels);
                settings.push(ServerSettings {
                    served_models: vec![(*model).to_owned()],
                    lora_adapters: adapters.iter().map(|adapter| (*adapter).to_owned()).collect(),
                    ..ServerSettings::at(address)
                });
                deployments.push(name.to_owned());
            }
        }
        (ModelServers::start(settings).unwrap(), deployments)
    }

    /// Istio's Service for each pool, and the controller's for each pool's prefill pods.
    fn until_services(&self, cluster: &Cluster) {
        for pool in cluster.list("inferencepools", self.namespace, "") {
            let name = pool["metadata"]["name"].as_str().unwrap();
            let has_roles = pool["metadata"]["annotations"].get("inference-picker/prefill").is_some();
            let labels = ["istio.io/inferencepool-name", "inference-picker/pool"];
            for label in labels.into_iter().take(if has_roles { 2 } else { 1 }) {
                let label = format!("{label}={name}");
                until(&format!("there is a Service with {label}"), || {
                    !cluster.list("services", self.namespace, &label).is_empty()
                });
            }
        }
    }

    /// Whether nothing in the guide is refused by the controller.
    fn is_accepted(&self, cluster: &Cluster) -> bool {
        let kinds = ["inferencepools", "inferenceobjectives.llm-d.ai", "inferencemodelrewrites.llm-d.ai"];
        let older = ["inferenceobjectives", "inferencemodelrewrites"]
            .map(|kind| format!("{kind}.inference.networking.x-k8s.io"));
        let kinds = kinds.map(str::to_owned).into_iter().chain(older);
        kinds.flat_map(|kind| cluster.list(&kind, self.namespace, "")).all(|resource| {
            let own = resource["status"]["conditions"].as_array().cloned();
            let parents = resource["status"]["parents"].as_array().cloned().unwrap_or_default();
            let ours = parents
                .into_iter()
                .find(|parent| parent["parentRef"]["name"] == "inference-picker-controller");
            let conditions = own.or(ours.and_then(|parent| parent["conditions"].as_array().cloned()));
            conditions.is_some_and(|all| all.iter().all(|condition| condition["status"] == "True"))
        })
    }
}

impl Followed {
    fn send(&self, path: &str, body: &Value) -> Response {
        let address = SocketAddr::from(([127, 0, 0, 1], GATEWAY_PORT));
        let request = Request::post(path).header("host", "models.example.com").json(body);
        Client::new(address, Protocol::Http1).send_blocking(request).unwrap()
    }

    fn chat(&self, model: &str) -> u16 {
        let messages = json!([{"role": "user", "content": "Which pod will this be?"}]);
        self.send("/v1/chat/completions", &json!({"model": model, "max_tokens": 4, "messages": messages}))
            .status
    }

    /// Sends requests for a model until one is answered, then so many more.
    fn serve(&self, model: &str, requests: usize) {
        until(&format!("{model} is served"), || self.chat(model) == 200);
        for _ in 0..requests {
            assert_eq!(self.chat(model), 200, "{model}");
        }
    }

    /// The requests for a model that a Deployment's servers had.
    fn had(&self, deployment: &str, model: &str) -> u64 {
        let servers = self.servers.servers().zip(&self.deployments).filter(|(_, of)| *of == deployment);
        servers.map(|(server, _)| server.counters().requests_for(model)).sum()
    }
}

#[test]
#[ignore = "starts a real kube-apiserver and istiod: make test-kubernetes"]
fn what_the_guides_apply_is_served_by_an_annotated_gateway() {
    let cluster = prepared();
    cluster.apply(include_str!("llm-d.yaml"));
    let istiod = Istiod::start(&cluster);
    let url = format!("file://{}", binary::plugin_file().display());
    let _controller = cluster.controller("one", &["--only-annotated-gateways", "--plugin-url", &url]);
    for guide in [&GIE, &LLM_D] {
        let followed = guide.follow(&cluster, &istiod);
        (guide.check_requests)(&followed);
        until(&format!("all of {} is accepted", guide.name), || guide.is_accepted(&cluster));
        // Both gateways have the same port.
        drop(followed.envoy);
    }
    assert!(!cluster.log("one").contains("orbidden"), "{}", cluster.log("one"));
}

/// Each model in its own pool, an adapter's versions by weight.
fn requests_follow_gie(followed: &Followed) {
    for model in ["Qwen/Qwen3-32B", "deepseek/DeepSeek-r1", "ski-resorts"] {
        followed.serve(model, 20);
    }
    followed.serve("food-review", 99);
    let [qwen, deepseek] = ["vllm-qwen3-32b", "vllm-deepseek-r1"];
    assert!(followed.had(qwen, "Qwen/Qwen3-32B") > 20);
    assert_eq!(["deepseek/DeepSeek-r1", "ski-resorts"].map(|model| followed.had(qwen, model)), [0, 0]);
    assert!(["deepseek/DeepSeek-r1", "ski-resorts"].iter().all(|model| followed.had(deepseek, model) > 20));
    assert_eq!(followed.had(deepseek, "Qwen/Qwen3-32B"), 0);
    assert_eq!(["food-review-1", "food-review-2"].map(|target| followed.had(qwen, target)), [90, 10]);
}

/// Prefill pods get no requests, and compute long prompts.
fn requests_follow_llm_d(followed: &Followed) {
    const MODEL: &str = "openai/gpt-oss-120b";
    followed.serve("assistant", 20);
    let mut number = 0;
    until("a prefill pod computes a long prompt", || {
        number += 1;
        let prompt = format!("{number} {}", "and so on. ".repeat(720));
        let answer =
            followed.send("/v1/completions", &json!({"model": MODEL, "max_tokens": 2, "prompt": prompt}));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let named = followed.servers.servers().flat_map(|server| server.counters().requests_by_prefiller);
        let named: Vec<String> = named.map(|(address, _)| address).collect();
        let prefill =
            |(server, of): (ModelServer, &String)| (of == "prefill").then(|| server.address().to_string());
        let prefill: Vec<String> =
            followed.servers.servers().zip(&followed.deployments).filter_map(prefill).collect();
        assert!(named.iter().all(|address| prefill.contains(address)), "{named:?}");
        !named.is_empty()
    });
    assert!(followed.had("decode", MODEL) > 20);
}
