//! The deployments under Istio's own agent: the plugin from a registry, the companion service, and the statistics.

use std::process::Command;

use envoy_test::envoy::binary::{plugin_file, project_root};
use serde_json::json;

use crate::gateway::{Gateway, chat, until};
use crate::programs::run;
use crate::registry::Registry;
use crate::resources::Resources;
use crate::setup::{Deployment, Setup};

/// A burst is picked for, and spread.
fn check(gateway: &Gateway) {
    gateway.check_burst_is_spread(&format!("{:?}", gateway.deployment));
}

/// What `make image` makes, pushed.
fn push_image(registry: &Registry) -> String {
    let scratch = tempfile::tempdir().unwrap();
    let layout = scratch.path().join("image");
    let mut make = Command::new(env!("CARGO"));
    make.current_dir(project_root()).args(["run", "--locked", "--quiet", "--package", "plugin-image", "--"]);
    run(make.arg(plugin_file()).arg(&layout));
    registry.push(&layout, "inference-picker:0.2.0")
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn the_agent_pulls_the_plugin_from_a_registry() {
    let registry = Registry::start();
    let image = push_image(&registry);
    for deployment in Deployment::ALL {
        let gateway = Setup::new(deployment)
            .resources(|resources| resources.load_plugin_from(&format!("oci://{image}")))
            .under_the_agent()
            .start();
        check(&gateway);
        let said = gateway.proxy.log_text();
        assert!(said.contains("fetching image inference-picker"), "{deployment:?}: {said}");
    }
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn the_companion_service_comes_with_the_bootstrap_and_reads_the_metrics() {
    let mut folder = Resources::of("envoy-filter-with-companion-service");
    let bootstrap = folder.the("ConfigMap")["data"]["custom_bootstrap.json"].as_str().unwrap();
    let bootstrap = bootstrap.replace("/etc/inference-picker/plugin.wasm", plugin_file().to_str().unwrap());
    let plugin = folder.the("EnvoyFilter").clone();
    let gateway = Setup::new(Deployment::EnvoyFilter)
        .resources(|resources| {
            *resources.the("EnvoyFilter") = plugin;
            resources.load_plugin_from_file();
        })
        .bootstrap_override(bootstrap)
        .start();
    check(&gateway);
    assert!(gateway.pods.servers().all(|pod| pod.counters().metrics_scrapes > 0));
    // A bound that this histogram alone has: by the annotation it would end elsewhere.
    let statistics = || gateway.proxy.admin_get("/stats/prometheus");
    let is_last = |line: &str| {
        line.contains("inference_picker_request_duration_ms_bucket") && line.contains(r#"le="1200000""#)
    };
    until("the bootstrap's buckets are printed", || statistics().lines().any(is_last));
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn the_plugins_statistics_are_among_envoys_with_their_labels() {
    for deployment in Deployment::ALL {
        let models = json!([{"modelName": "tiny", "poolRef": {"name": "vllm-llama2-7b-pool"}}]);
        let gateway =
            Setup::new(deployment).plugin(|plugin| plugin["models"] = models).under_the_agent().start();
        let usage = gateway.send(chat("tiny")).json().unwrap()["usage"].clone();
        let (prompt, completion) = (&usage["prompt_tokens"], &usage["completion_tokens"]);
        // Istio looks for `model=` anywhere in a name, so it finds that label in `llmproxy_model=`, too.
        let lines = [
            r#"inference_picker_requests_sent{model="tiny",target_model="tiny"} 1"#.to_owned(),
            format!(r#"asm_llm_proxy_prompt_tokens{{model="tiny",llmproxy_model="tiny"}} {prompt}"#),
            format!(r#"asm_llm_proxy_completion_tokens{{model="tiny",llmproxy_model="tiny"}} {completion}"#),
        ];
        let statistics = || gateway.proxy.admin_get("/stats/prometheus");
        for line in lines {
            until(&line, || statistics().lines().any(|said| said == line));
        }
        // A label that is not taken out stays in the name, and Prometheus' text has `=.=` as `___`.
        let unread: Vec<String> =
            statistics().lines().filter(|line| line.contains("___")).map(str::to_owned).collect();
        assert_eq!(unread, Vec::<String>::new(), "{deployment:?}");
        // A bound of the annotation's that Envoy itself would not have.
        let bucket = r#"inference_picker_request_duration_ms_bucket{model="tiny",le="235"}"#;
        until(bucket, || statistics().contains(bucket));
    }
}
