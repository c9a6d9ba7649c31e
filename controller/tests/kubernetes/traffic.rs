//! What clients of a gateway see: resources are applied, the controller and istiod make configuration of them, and requests go
//! where the resources say.

use std::fs;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread::sleep;
use std::time::{Duration, Instant};

use envoy_test::envoy::{Client, Envoy, Protocol, Request, Response, binary};
use envoy_test::load::{Load, Seen};
use envoy_test::model_server::{FixedGauges, ModelServer, ModelServers, ServerSettings};
use serde_json::{Value, json};

use crate::cluster::{Cluster, OUTAGE, Running, prepared, until};
use crate::istiod::{Istiod, gateway};
use crate::kubernetes;

const GATEWAY: &str = "inference-gateway";
const GATEWAY_POD: (&str, &str) = ("gateway", "10.244.0.9");
const HOST: &str = "models.example.com";
/// Where each model server listens.
const SERVER_PORT: u16 = 8000;
/// Servers 0 to 2 are the first pool's, the last of them not at first; 3 and 4 the second's.
const SERVERS: u8 = 5;
const BASE_MODEL: &str = "tiny";
const ADAPTERS: [&str; 2] = ["food-v1", "food-v2"];
/// What the second pool's servers call the base model too. Requests for an adapter would stay where it is loaded.
const SECOND_NAME: &str = "qwen-v1";
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

/// The Gateway, the route to both pools and the Service of the picker that is not there.
fn front(port: u16) -> String {
    let reference =
        |pool: &str| json!([{"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": pool}]);
    let of_qwen = json!([{"headers": [{"name": "x-gateway-model-name", "value": "qwen"}]}]);
    let resources = [
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": GATEWAY, "namespace": "istio-system"},
            "spec": {"gatewayClassName": "istio", "listeners": [{"name": "http", "port": port, "protocol": "HTTP",
                "allowedRoutes": {"namespaces": {"from": "All"}}}]}}),
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "models", "namespace": "default"},
            "spec": {"parentRefs": [{"name": GATEWAY, "namespace": "istio-system"}], "rules": [
                {"matches": of_qwen, "backendRefs": reference("qwen")}, {"backendRefs": reference("llama")}]}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "endpoint-picker", "namespace": "default"},
            "spec": {"selector": {"app": "none"}, "ports": [{"name": "grpc", "port": 9002, "targetPort": 9002}]}}),
    ];
    resources.map(|resource| resource.to_string()).join("\n---\n")
}

/// What no resource tells: whom the headers come from, when a pool is full, and who waits then. On a machine that stands still
/// for a moment, servers stay as full as they are set.
fn settings() -> Value {
    json!({"trustHeaders": true, "metricsStaleAfter": "10s", "queue": {"maxWait": "20s"},
        "pools": [{"name": "llama", "saturation": {}}]})
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
        let settings = (0..SERVERS).map(|number| {
            let names = if number < 3 { &[BASE_MODEL][..] } else { &[SECOND_NAME, BASE_MODEL] };
            ServerSettings {
                served_models: names.iter().copied().map(str::to_owned).collect(),
                lora_adapters: ADAPTERS.map(str::to_owned).to_vec(),
                ..ServerSettings::at(at(number))
            }
        });
        let servers = ModelServers::start(settings.collect()).unwrap();
        let cluster = prepared();
        let port = crate::cluster::free_port();
        cluster.apply(&front(port));
        kubernetes::gateway(&cluster, "istio-system", GATEWAY, GATEWAY_POD, port);
        cluster.apply(
            &[pool("llama"), pool("qwen"), food(90, 10), rewrite("qwen", "qwen", &[(SECOND_NAME, 1)])]
                .join("\n---\n"),
        );
        let istiod = Istiod::start(&cluster);
        let envoy = gateway(&istiod, "istio-system", GATEWAY, GATEWAY_POD);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut site = Site { cluster, servers, _istiod: istiod, _envoy: envoy, address, controller: None };
        site.start_controller("one");
        for (number, app) in [(0, "llama"), (1, "llama"), (3, "qwen"), (4, "qwen")] {
            site.add_pod(number, app);
        }
        for pool in ["llama", "qwen"] {
            site.until_service("istio.io/inferencepool-name", pool);
        }
        site.update_endpoints();
        site
    }

    fn start_controller(&mut self, name: &str) {
        let url = format!("file://{}", binary::plugin_file().display());
        let file = self.cluster.folder.path().join("settings.json");
        fs::write(&file, settings().to_string()).unwrap();
        let gateway = ["--gateway", GATEWAY, "--gateway-namespace", "istio-system"];
        let more = ["--plugin-url", &url, "--settings", file.to_str().unwrap()];
        self.controller = Some(self.cluster.controller(name, &[gateway, more].concat()));
    }

    fn add_pod(&self, number: u8, app: &str) {
        let ip = self.servers.server(number.into()).address().ip().to_string();
        kubernetes::pod(&self.cluster, "default", (&pod_name(number), &ip), &json!({"app": app}));
    }

    /// Changes a label of a pod, and with it the endpoints of Services.
    fn label(&self, number: u8, label: &str) {
        self.cluster.succeed(&["label", "pod", &pod_name(number), label, "--overwrite"]);
        self.update_endpoints();
    }

    fn update_endpoints(&self) {
        kubernetes::update_endpoints(&self.cluster, "default");
    }

    fn services(&self, label: &str, value: &str) -> usize {
        self.cluster.list("services", "default", &format!("{label}={value}")).len()
    }

    fn until_service(&self, label: &str, value: &str) {
        until(&format!("there is a Service with {label}={value}"), || self.services(label, value) > 0);
    }

    /// Waits until a server has no more of the requests for this model that clients send.
    fn until_left(&self, number: usize, model: &str) {
        until(&format!("server {number} has no more requests for {model}"), || {
            let (own, all) = (self.had(model)[number], self.all_had(model));
            sleep(Duration::from_millis(500));
            self.had(model)[number] == own && self.all_had(model) > all
        });
    }

    /// Waits until a server has further requests for this model.
    fn until_joined(&self, number: usize, model: &str) {
        let before = self.had(model)[number];
        until(&format!("server {number} has requests for {model}"), || self.had(model)[number] > before);
    }

    /// What the plugin in the gateway is configured with.
    fn configuration(&self) -> Value {
        let plugin = self.cluster.get("wasmplugin", "istio-system", "inference-picker").unwrap();
        plugin["spec"]["pluginConfig"].clone()
    }

    /// How often requests have named a server to compute their prompts.
    fn named(&self, number: usize) -> u64 {
        let address = self.servers.server(number).address().to_string();
        let of = |server: ModelServer| server.counters().requests_by_prefiller.get(&address).copied();
        self.servers.servers().filter_map(of).sum()
    }

    /// Has the first pool's servers say that so many requests are queued there.
    fn set_queues(&self, waiting: Option<f64>) {
        for number in 0..2 {
            let gauges = FixedGauges { waiting, ..FixedGauges::default() };
            self.servers.server(number).set(|knobs| knobs.gauges = gauges);
        }
        let scrapes = || [0, 1].map(|number| self.servers.server(number).counters().metrics_scrapes);
        let before = scrapes();
        // The second scrape from now on began after now.
        until("they are scraped", || (0..2).all(|number| scrapes()[number] >= before[number] + 2));
    }

    /// Sends a request for the first pool's model, of this objective.
    fn send_of(&self, objective: &str) -> Response {
        let request = chat(BASE_MODEL).header("x-llm-d-inference-objective", objective);
        self.client().send_blocking(request).unwrap()
    }

    /// Applies an objective, and waits until the plugin's configuration has it, and Envoy that.
    fn set_objective(&self, name: &str, priority: i32) {
        let objective = json!({"apiVersion": "inference.networking.x-k8s.io/v1alpha2", "kind": "InferenceObjective",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"priority": priority, "poolRef": {"group": "inference.networking.k8s.io", "name": "llama"}}});
        self.cluster.apply(&objective.to_string());
        until(&format!("the plugin's configuration has {name} with priority {priority}"), || {
            let objectives = self.configuration()["objectives"].as_array().cloned().unwrap_or_default();
            objectives.iter().any(|one| one["name"] == name && one["priority"] == priority)
        });
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

/// A prompt of some 2,000 tokens that begins like no other of another number.
fn long(number: u64) -> Request {
    let prompt = format!("{number} {}", "and so on. ".repeat(720));
    let body = json!({"model": BASE_MODEL, "max_tokens": 2, "prompt": prompt});
    Request::post("/v1/completions").header("host", HOST).json(&body)
}

fn pod_name(server: u8) -> String {
    format!("server-{server}")
}

fn chat(model: &str) -> Request {
    let messages = json!([{"role": "user", "content": "Which pod will this be?"}]);
    let body = json!({"model": model, "max_tokens": 4, "messages": messages});
    Request::post("/v1/chat/completions").header("host", HOST).json(&body)
}

/// A pod whose label changes leaves one pool and joins another, or takes another role.
fn labels_are_followed(site: &Site) {
    site.under_load("a pod moved to another pool by its label, as its old pool sees it", "qwen", || {
        site.under_load("and as its new pool does", BASE_MODEL, || {
            site.label(3, "app=llama");
            site.until_joined(3, BASE_MODEL);
            site.until_left(3, SECOND_NAME);
            site.label(3, "app=qwen");
            site.until_joined(3, SECOND_NAME);
            site.until_left(3, BASE_MODEL);
        });
    });

    let annotate = |annotation| site.cluster.succeed(&["annotate", "inferencepool", "llama", annotation]);
    annotate("inference-picker/prefill=by-role");
    site.until_service("inference-picker/pool", "llama");
    site.under_load("a pod's role changed by its label", BASE_MODEL, || {
        site.label(1, "llm-d.ai/role=prefill");
        site.until_left(1, BASE_MODEL);
        until("it computes the prompts of the others", || {
            let answer = site.client().send_blocking(long(site.named(1))).unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
            site.named(1) > 0
        });
        site.label(1, "llm-d.ai/role=decode");
        site.until_joined(1, BASE_MODEL);
    });
    annotate("inference-picker/prefill-");
    until("the Service of prefill pods is gone", || site.services("inference-picker/pool", "llama") == 0);
}

/// Objectives give requests their priorities: who waits in a full pool, who is sent and who is refused.
fn priorities_are_followed(site: &Site) {
    site.set_objective("urgent", 100);
    site.set_objective("batch", -1);
    until("Envoy has the objectives", || {
        // More than the five by which a server is full.
        site.set_queues(Some(9.0));
        let answer = site.send_of("batch");
        site.set_queues(None);
        let reason = answer.header("x-llm-d-request-dropped-reason");
        (answer.status, reason) == (429, Some("rejected-saturated"))
    });
    assert_eq!(site.send_of("batch").status, 200, "the pool has room again");

    site.set_queues(Some(9.0));
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| site.send_of("none").status);
        // It came before the urgent one, which is sent all the same.
        sleep(Duration::from_millis(500));
        assert_eq!(site.send_of("urgent").status, 200);
        assert!(!waits.is_finished());
        site.set_queues(None);
        assert_eq!(waits.join().unwrap(), 200);
    });

    site.set_queues(Some(9.0));
    site.set_objective("batch", 100);
    until("Envoy has the changed priority", || site.send_of("batch").status == 200);
    site.set_queues(None);
}

#[test]
#[ignore = "starts a real kube-apiserver and istiod: make test-kubernetes"]
fn requests_follow_the_resources_whatever_happens_to_what_follows_them() {
    let mut site = Site::start();
    site.until_answered("food", "food-v1", 1);
    site.until_answered("qwen", SECOND_NAME, 1);

    // Each model in its own pool, targets by weight.
    assert_eq!(site.shares(), [90, 10]);
    assert_eq!(site.had("food-v1")[2..], [0, 0, 0]);
    assert_eq!(site.had(SECOND_NAME)[..3], [0, 0, 0]);

    site.under_load("weights changed", "food", || {
        site.cluster.apply(&food(0, 100));
        site.until_answered("food", "food-v2", ROW);
        site.cluster.apply(&food(30, 70));
        site.until_answered("food", "food-v1", 1);
    });
    assert_eq!(site.shares(), [30, 70]);

    site.under_load("a pod added, and removed", BASE_MODEL, || {
        site.add_pod(2, "llama");
        site.update_endpoints();
        site.until_joined(2, BASE_MODEL);
        site.cluster.succeed(&["delete", "pod", &pod_name(2), "--force"]);
        site.update_endpoints();
        site.until_left(2, BASE_MODEL);
    });
    labels_are_followed(&site);
    priorities_are_followed(&site);

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
            let configuration = site.configuration();
            let models = configuration["models"].as_array().unwrap();
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
            site.configuration()["pools"].as_array().unwrap().len() == 1
        });
        sleep(Duration::from_secs(2));
    });
    assert!(!site.cluster.log("one").contains("orbidden"), "{}", site.cluster.log("one"));
}
