//! Whatever is put into a template, the YAML that comes out says that and no more.

use inference_picker::config::Config;
use serde_json::Value;

use super::{Run, run_with_input};

const DEPLOYMENTS: [&str; 3] = ["wasm-plugin", "wasm-plugin-envoy-filter", "envoy-filter"];

fn resources(run: &Run) -> Vec<Value> {
    assert!(run.succeeded, "{}", run.messages);
    serde_saphyr::from_multiple(&run.printed).unwrap()
}

/// The plugin's configuration inside the resources.
fn configuration(resources: &[Value]) -> Value {
    let inline = resources.iter().find_map(|resource| resource.pointer("/spec/pluginConfig")).cloned();
    inline.unwrap_or_else(|| {
        let text =
            resources[0].pointer("/spec/configPatches/0/patch/value/typed_config/config/configuration/value");
        serde_json::from_str(text.unwrap().as_str().unwrap()).unwrap()
    })
}

#[test]
fn the_configuration_inside_is_the_one_that_is_printed_alone() {
    let files = ["alibaba/asm-pool.yaml", "alibaba/asm-model-canary.yaml", "--settings", "settings.yaml"];
    for deployment in DEPLOYMENTS {
        let arguments = |command| [&[command, "--deployment", deployment], &files[..]].concat();
        let alone: Value = serde_json::from_str(&run_with_input(&arguments("plugin"), "").printed).unwrap();
        let inside = configuration(&resources(&run_with_input(&arguments("istio"), "")));
        assert_eq!(inside, alone, "{deployment}");
        Config::parse(inside.to_string().as_bytes()).unwrap();
    }
}

#[test]
fn the_resources_are_those_of_the_deployment() {
    let kinds = |deployment: &str, more: &[&str]| {
        let arguments = [&["istio", "alibaba/asm-pool.yaml", "--deployment", deployment], more].concat();
        let resources = resources(&run_with_input(&arguments, ""));
        resources
            .iter()
            .map(|resource| resource["kind"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(kinds("wasm-plugin", &[]), "WasmPlugin TrafficExtension EnvoyFilter");
    assert_eq!(kinds("wasm-plugin", &["--no-scraping"]), "WasmPlugin TrafficExtension");
    assert_eq!(kinds("wasm-plugin-envoy-filter", &[]), "WasmPlugin EnvoyFilter");
    assert_eq!(kinds("envoy-filter", &["alibaba/asm-route.yaml"]), "EnvoyFilter VirtualService");
}

#[test]
fn every_pool_gets_its_cluster_changed() {
    let arguments =
        ["istio", "--deployment", "envoy-filter", "alibaba/asm-pool.yaml", "alibaba/ack-inference.yaml"];
    let resources = resources(&run_with_input(&arguments, ""));
    let patches = resources[0].pointer("/spec/configPatches").unwrap().as_array().unwrap();
    let services: Vec<_> =
        patches.iter().filter_map(|patch| patch.pointer("/match/cluster/service")?.as_str()).collect();
    assert_eq!(services, ["vllm-llama2-7b-pool.default.svc.cluster.local", "qwen.default.svc.cluster.local"]);
}

#[test]
fn a_split_route_has_weights() {
    let route = "
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMRoute
metadata: {name: split}
spec:
  host: test.com
  rules:
  - name: subscribers
    matches: [{headers: {user-type: {exact: subscriber}}}]
    backendRefs:
    - {weight: 3, backendRef: {name: vllm-qwen-pool}}
    - {backendRef: {name: vllm-llama2-7b-pool}}
";
    let arguments = ["istio", "-", "alibaba/asm-pool.yaml", "alibaba/ack-inference.yaml"];
    let resources = resources(&run_with_input(&arguments, route));
    let http = resources.last().unwrap().pointer("/spec/http/0").unwrap();
    assert_eq!(http["name"], "subscribers");
    assert_eq!(http["match"][0]["headers"]["user-type"]["exact"], "subscriber");
    assert_eq!(http["route"][0]["weight"], 3);
    assert_eq!(http["route"][1]["weight"], 1);
}

#[test]
fn a_value_is_text_whatever_is_in_it() {
    let awkward = [
        "yes",
        "null",
        "12",
        "1e3",
        "a: b",
        "# x",
        "- x",
        "'",
        "\"",
        "a\nb: c",
        "{{ x }}",
        "${x}",
        "%",
        "é\u{2028}",
    ];
    for value in awkward {
        for deployment in DEPLOYMENTS {
            let url = format!("oci://{value}");
            let namespace = format!("--gateway-namespace={value}");
            let label = format!("--workload={value}={value}");
            let arguments = [
                "istio",
                "alibaba/asm-pool.yaml",
                "--deployment",
                deployment,
                "--plugin-url",
                &url,
                &namespace,
                &label,
            ];
            let resources = resources(&run_with_input(&arguments, ""));
            let text = serde_json::to_string(&resources).unwrap();
            let expected = |value: &str| serde_json::to_string(value).unwrap();
            assert!(resources.iter().all(|resource| resource["metadata"]["namespace"] == value), "{value:?}");
            assert!(text.contains(&expected(&url)), "{value:?}: {text}");
            assert!(text.contains(&format!("{0}:{0}", expected(value))), "{value:?}: {text}");
        }
    }
}

#[test]
fn a_name_in_the_configuration_is_text_whatever_is_in_it() {
    for name in ["yes", "a: b", "'", "\"", "{{ x }}", "é\u{2028}", "- x # y"] {
        let model = serde_json::json!({
            "apiVersion": "inference.networking.x-k8s.io/v1alpha2",
            "kind": "InferenceModel",
            "metadata": {"name": "m"},
            "spec": {"modelName": name, "poolRef": {"name": "vllm-llama2-7b-pool"}},
        });
        for deployment in DEPLOYMENTS {
            let arguments = ["istio", "-", "alibaba/asm-pool.yaml", "--deployment", deployment];
            let resources = resources(&run_with_input(&arguments, &model.to_string()));
            assert_eq!(configuration(&resources)["models"][0]["modelName"], name, "{deployment}");
        }
    }
}
