//! What `inference-picker-config` prints, in the place of the folders of `istio/`: it serves.
//!
//! The fixtures are the command's own. Their Services are not there: `--service` says which one is.

use envoy_test::envoy::binary::plugin_file;
use serde_json::{Value, json};

use crate::cluster::{Backend, Front, GATEWAY, Pool, SERVICE, SERVICE_PORT};
use crate::gateway::{Gateway, chat, post};
use crate::resources::Resources;
use crate::setup::{Deployment, Setup};

/// The stable pool of the fixtures. istiod computes the same name, and finds no other Service for the pool.
const STABLE_POOL: Pool = Pool { name: "vllm-qwen3-32b", service: "vllm-qwen3-32b-ip-f27598de" };
/// Requests for a model that has no weights.
const REQUESTS_WITHOUT_WEIGHTS: u64 = 30;

/// Resources that a user has, and what the picks for them are by.
struct Case {
    files: &'static [&'static str],
    pool: &'static str,
    model: &'static str,
    strategy: &'static str,
}

impl Case {
    /// Where requests come in, and what the route leads to.
    fn place(&self, deployment: Deployment) -> (Front, Backend) {
        let is_wasm_plugin = matches!(deployment, Deployment::WasmPlugin | Deployment::WasmPluginWithMetrics);
        match (self.pool == STABLE_POOL.name, is_wasm_plugin) {
            (true, true) => (Front::GatewayApi, Backend::InferencePool(STABLE_POOL)),
            (true, false) => (Front::GatewayApi, Backend::Service),
            (false, true) => (Front::IngressGateway, Backend::MarkedService),
            (false, false) => (Front::IngressGateway, Backend::Service),
        }
    }

    /// What the command prints for a gateway at that place.
    fn printed(&self, deployment: Deployment) -> Resources {
        let plugin_url = format!("file://{}", plugin_file().display());
        let service = format!("{}={SERVICE}:{SERVICE_PORT}", self.pool);
        let mut arguments = vec!["istio", "--plugin-url", &plugin_url, "--gateway-namespace", "default"];
        arguments.extend(options(deployment));
        let (front, backend) = self.place(deployment);
        if front == Front::GatewayApi {
            arguments.extend(["--gateway", GATEWAY]);
        }
        if !matches!(backend, Backend::InferencePool(_)) {
            arguments.extend(["--service", &service]);
        }
        arguments.extend(self.files);
        Resources::printed(&arguments)
    }

    /// What is printed, running in front of pods that serve the targets of its model; and those.
    fn start(&self, deployment: Deployment) -> (Gateway, Vec<(String, u64)>) {
        let mut resources = self.printed(deployment);
        let targets = targets(&mut resources, self.model);
        let (front, backend) = self.place(deployment);
        let served = targets.iter().map(|(name, _)| name.clone()).collect();
        // Weights are kept by each worker.
        let setup = Setup::of(deployment, resources, front, backend).lora_adapters(served).concurrency(1);
        (setup.start(), targets)
    }
}

/// The options that have the command print this deployment.
fn options(deployment: Deployment) -> &'static [&'static str] {
    match deployment {
        Deployment::EnvoyFilter => &["--deployment", "envoy-filter"],
        Deployment::WasmPlugin => &["--deployment", "wasm-plugin", "--no-scraping"],
        Deployment::WasmPluginWithMetrics => &["--deployment", "wasm-plugin"],
        Deployment::WasmPluginEnvoyFilter => &["--deployment", "wasm-plugin-envoy-filter"],
    }
}

/// The targets of a model in the plugin's configuration, with their weights; a model without any is its own.
fn targets(resources: &mut Resources, model: &str) -> Vec<(String, u64)> {
    let mut plugin = Value::Null;
    resources.edit_plugin(|configuration| plugin = configuration.clone());
    let models = plugin["models"].as_array().cloned().unwrap_or_default();
    let Some(published) = models.iter().find(|published| published["modelName"] == model) else {
        return vec![(model.to_owned(), REQUESTS_WITHOUT_WEIGHTS)];
    };
    let target =
        |target: &Value| (target["name"].as_str().unwrap().to_owned(), target["weight"].as_u64().unwrap());
    published["targetModels"].as_array().unwrap().iter().map(target).collect()
}

/// Every request was answered by the pod that was picked for it, by this strategy.
fn check_log(gateway: &Gateway, count: u64, strategy: &str, what: &str) {
    let lines = gateway.log(count as usize);
    assert_eq!(lines.len() as u64, count, "{what}");
    for line in lines {
        assert_eq!(line["status"], 200, "{what}: {line}");
        assert_eq!(line["picked"].as_str().unwrap().split(',').next(), line["upstream"].as_str(), "{what}");
        assert!(line["decision"].as_str().unwrap().starts_with(strategy), "{what}: {line}");
    }
}

/// As many requests as the weights add up to are answered, and each target has had as many as its weight.
fn check(case: &Case) {
    for deployment in Deployment::ALL {
        let what = format!("{:?}, {deployment:?}", case.files);
        let (gateway, targets) = case.start(deployment);
        let count = targets.iter().map(|(_, weight)| weight).sum();
        let answers = gateway.burst(vec![chat(case.model); count as usize]);
        assert!(answers.iter().all(|answer| answer.status == 200), "{what}");
        for (name, weight) in targets {
            let received: u64 = gateway.pods.servers().map(|pod| pod.counters().requests_for(&name)).sum();
            assert_eq!(received, weight, "{what}: {name}");
        }
        check_log(&gateway, count, case.strategy, &what);
    }
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn what_is_printed_for_a_canary_of_asm_serves_it_by_weight() {
    check(&Case {
        files: &["alibaba/asm-pool.yaml", "alibaba/asm-model-canary.yaml"],
        pool: "vllm-llama2-7b-pool",
        model: "lora-request",
        strategy: "DEFAULT cost=",
    });
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn what_is_printed_for_the_pool_and_model_of_ack_serves_them() {
    check(&Case {
        files: &["alibaba/ack-inference.yaml"],
        pool: "vllm-qwen-pool",
        model: "/model/qwen",
        strategy: "DEFAULT cost=",
    });
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn what_is_printed_for_a_stable_pool_serves_its_rewrites_by_weight() {
    check(&Case {
        files: &["gie/pool-v1.yaml", "gie/rewrites-and-objectives.yaml"],
        pool: STABLE_POOL.name,
        model: "food-review",
        strategy: "DEFAULT cost=",
    });
}

const BY_PREFIXES: Case = Case {
    files: &["alibaba/ack-strategy-prefix-cache.yaml"],
    pool: "vllm-app-pool",
    model: "tiny",
    strategy: "PREFIX_CACHE cost=",
};

#[test]
#[ignore = "needs Istio: make test-istio"]
fn what_is_printed_for_a_pool_with_the_annotation_prefix_cache_picks_by_that_strategy() {
    check(&BY_PREFIXES);
}

/// Several of the blocks that prompts are remembered in.
const LONG_PROMPT_BYTES: usize = 2_000;

#[test]
#[ignore = "needs Istio: make test-istio"]
fn a_prompt_is_then_found_again_where_it_was_sent_before() {
    let prompt = "a".repeat(LONG_PROMPT_BYTES);
    let body = json!({"model": "tiny", "max_tokens": 4, "prompt": prompt});
    for deployment in Deployment::ALL {
        let (gateway, _) = BY_PREFIXES.start(deployment);
        for _ in 0..5 {
            assert_eq!(gateway.send(post("/v1/completions").json(&body)).status, 200, "{deployment:?}");
        }
        let lines = gateway.log(5);
        assert!(
            lines.iter().all(|line| line["upstream"] == lines[0]["upstream"]),
            "{deployment:?}: {lines:?}"
        );
        let matched: Vec<bool> = lines
            .iter()
            .map(|line| !line["decision"].as_str().unwrap().contains(" matched_blocks=0/"))
            .collect();
        assert_eq!(matched, [false, true, true, true, true], "{deployment:?}: {lines:?}");
    }
}
