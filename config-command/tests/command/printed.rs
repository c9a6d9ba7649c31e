//! What is printed for the fixtures, text by text. After a change that is meant, renew the texts with
//! `UPDATE_EXPECT=1 cargo test --package inference-picker-config`, and read the difference.

use expect_test::expect_file;

use super::run;

/// Compares what is printed, and what is said besides, with the files of this name.
fn check(name: &str, ending: &str, arguments: &str) {
    let run = run(arguments);
    assert!(run.succeeded, "{arguments}: {}", run.messages);
    let file = format!("{}/tests/expected/{name}", env!("CARGO_MANIFEST_DIR"));
    expect_file![format!("{file}.{ending}")].assert_eq(&run.printed);
    expect_file![format!("{file}.messages")].assert_eq(&run.messages);
}

const ASM: &str = "alibaba/asm-model-servers.yaml alibaba/asm-gateway.yaml alibaba/asm-virtual-service.yaml \
                   alibaba/asm-pool.yaml alibaba/asm-route.yaml";
const ACK: &str = "alibaba/ack-model-servers.yaml alibaba/ack-inference.yaml alibaba/ack-gateway.yaml \
                   alibaba/ack-benchmark.yaml";
const GIE: &str = "gie/pool-v1.yaml gie/rewrites-and-objectives.yaml";

#[test]
fn what_asm_has_becomes_the_plugins_configuration() {
    check("asm-plugin", "json", &format!("plugin {ASM} alibaba/asm-model.yaml"));
}

#[test]
fn what_asm_has_for_ten_adapters_becomes_weighted_targets() {
    check("asm-plugin-ten-adapters", "json", &format!("plugin {ASM} alibaba/asm-model-ten-adapters.yaml"));
    check("asm-plugin-canary", "json", &format!("plugin {ASM} alibaba/asm-model-canary.yaml"));
}

#[test]
fn what_asm_has_becomes_istios_resources() {
    check("asm-istio", "yaml", &format!("istio {ASM} alibaba/asm-model.yaml"));
}

#[test]
fn what_ack_has_becomes_the_plugins_configuration() {
    check("ack-plugin", "json", &format!("plugin {ACK}"));
}

#[test]
fn the_annotation_names_the_routing_strategy() {
    check("ack-plugin-strategy", "json", "plugin alibaba/ack-strategy-default.yaml");
    check("ack-plugin-strategy-prefix-cache", "json", "plugin alibaba/ack-strategy-prefix-cache.yaml");
}

#[test]
fn what_ack_has_becomes_istios_resources_for_each_deployment() {
    check("ack-istio-wasm-plugin", "yaml", &format!("istio {ACK}"));
    let deployments = ["wasm-plugin-envoy-filter", "envoy-filter"];
    for deployment in deployments {
        check(
            &format!("ack-istio-{deployment}"),
            "yaml",
            &format!(
                "istio {ACK} --deployment {deployment} --plugin-url oci://registry.example.com/picker:0.1.0"
            ),
        );
    }
}

#[test]
fn rewrites_and_objectives_become_models() {
    check("gie-plugin", "json", &format!("plugin {GIE}"));
}

#[test]
fn what_the_quick_starts_apply_becomes_the_plugins_configuration() {
    check("quick-start-gie", "json", "plugin quick-starts/gie.yaml");
    check("quick-start-llm-d", "json", "plugin quick-starts/llm-d.yaml --make-services");
}

#[test]
fn a_stable_pool_behind_a_gateway_of_the_gateway_api_gets_istios_own_cluster() {
    check(
        "gie-istio",
        "yaml",
        &format!("istio {GIE} --gateway inference-gateway --gateway-namespace models --no-scraping"),
    );
}

#[test]
fn a_list_is_read_as_kubectl_prints_it() {
    check("gie-plugin-kubectl-list", "json", "plugin gie/kubectl-list.yaml");
}

#[test]
fn a_pool_of_several_ports_is_one_cluster() {
    check("gie-plugin-two-ports", "json", "plugin gie/pool-v1-two-ports.yaml");
}

#[test]
fn a_model_of_two_pools_is_one_of_each() {
    check("gie-plugin-two-pools", "json", "plugin gie/two-pools-one-model.yaml");
}

#[test]
fn settings_and_options_add_what_resources_do_not_hold() {
    check(
        "asm-plugin-settings",
        "json",
        "plugin alibaba/asm-pool.yaml --settings settings.yaml --namespace ai --cluster-domain mesh.internal \
         --scrape-cluster metrics",
    );
    check(
        "ack-plugin-service",
        "json",
        "plugin alibaba/ack-inference.yaml alibaba/asm-pool.yaml --service vllm-qwen-pool=inference:80 \
         --service vllm-llama2-7b-pool=llama.models.example:8080",
    );
}
