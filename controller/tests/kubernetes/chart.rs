//! Helm's chart is the kustomize folders, and a real API server takes what either renders.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::cluster::{prepared, root};

/// The folders of `istio/` that are for Envoy Gateway, whose resources the API server does not know.
const NOT_FOR_ISTIO: &str = "envoy-gateway";

/// Runs Helm on the chart; what it printed, or what it refused.
fn helm(verb: &[&str], values: &[&str]) -> Result<String, String> {
    let program = root().join(".build/helm/bin/helm");
    let chart = root().join("istio/chart");
    let mut command = Command::new(program);
    command.args(verb).arg(chart).args(values.iter().flat_map(|value| ["--set-json", value]));
    let output = command.output().unwrap();
    let [printed, said] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    if output.status.success() { Ok(printed) } else { Err(said) }
}

fn template(values: &[&str]) -> Result<String, String> {
    helm(&["template", "inference-picker"], values)
}

/// What `kubectl apply -k istio/NAME` applies.
fn kustomized(name: &str) -> String {
    let program = root().join(".build/kubernetes/bin/kubectl");
    let output =
        Command::new(program).arg("kustomize").arg(root().join("istio").join(name)).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The resources in an order that says nothing.
fn resources(text: &str) -> Vec<Value> {
    let mut resources: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    resources.sort_by_key(|resource| format!("{}{}{}", resource["kind"], resource["metadata"], resource));
    resources
}

#[test]
#[ignore = "needs Helm and kubectl: make test-kubernetes"]
fn the_chart_as_it_is_installs_what_the_folder_of_the_controller_does() {
    assert_eq!(resources(&template(&[]).unwrap()), resources(&kustomized("controller")));
    let chart = fs::read_to_string(root().join("istio/chart/Chart.yaml")).unwrap();
    assert!(chart.contains(&format!("appVersion: {}\n", env!("CARGO_PKG_VERSION"))), "{chart}");
    let said = helm(&["lint"], &[]).unwrap();
    assert!(said.contains("0 chart(s) failed"), "{said}");
}

#[test]
#[ignore = "needs Helm and kubectl: make test-kubernetes"]
fn the_chart_without_the_controller_installs_what_the_folder_of_the_deployment_does() {
    let by_name = r#"{"namespace": "default", "name": "inference-gateway"}"#;
    let by_label = r#"{"namespace": "default"}"#;
    for (name, deployment, gateway) in [
        ("wasm-plugin-with-metrics", "wasm-plugin", by_name),
        ("wasm-plugin-envoy-filter", "wasm-plugin-envoy-filter", by_label),
        ("envoy-filter", "envoy-filter", by_label),
    ] {
        let mut folder = resources(&kustomized(name));
        for resource in &mut folder {
            resource["metadata"]["namespace"] = json!("default");
        }
        let folder = with_parsed_configuration(resources(&json_documents(&folder)));
        let configuration = folder.iter().find_map(configuration).unwrap();
        let values = [
            "controller.enabled=false".to_owned(),
            format!("deployment=\"{deployment}\""),
            format!("gateway={gateway}"),
            format!("configuration={configuration}"),
        ];
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let installed = with_parsed_configuration(resources(&template(&values).unwrap()));
        assert_eq!(installed, folder, "{name}");
    }
}

/// Where an EnvoyFilter has the plugin's configuration, as text.
const CONFIGURATION_IN_FILTER: &str =
    "/spec/configPatches/0/patch/value/typed_config/config/configuration/value";

/// The plugin's configuration, if it is in this resource.
fn configuration(resource: &Value) -> Option<&Value> {
    resource.pointer("/spec/pluginConfig").or_else(|| resource.pointer(CONFIGURATION_IN_FILTER))
}

/// Texts of JSON differ in spaces and in the order of fields.
fn with_parsed_configuration(mut resources: Vec<Value>) -> Vec<Value> {
    for text in resources.iter_mut().filter_map(|resource| resource.pointer_mut(CONFIGURATION_IN_FILTER)) {
        *text = serde_json::from_str(text.as_str().unwrap()).unwrap();
    }
    resources
}

fn json_documents(resources: &[Value]) -> String {
    resources.iter().map(Value::to_string).collect::<Vec<_>>().join("\n---\n")
}

#[test]
#[ignore = "needs Helm and kubectl: make test-kubernetes"]
fn values_that_are_not_right_are_refused_by_field() {
    let off = "controller.enabled=false";
    for (values, field) in [
        (&[r#"deployment="sidecar""#][..], "'/deployment'"),
        (&["controller.replicas=0"], "'/controller/replicas'"),
        (&[r#"controller.arguments=["no-scraping"]"#], "'/controller/arguments/0'"),
        (&[r#"plugin.url="registry.example.com/x""#], "'/plugin/url'"),
        (&[r#"gateway.namespace="A b""#], "'/gateway/namespace'"),
        (&["controler.enabled=false"], "'controler' not allowed"),
        (&[off], "missing property 'pools'"),
        (
            &[off, r#"configuration.pools=[{"cluster": "p"}]"#, r#"deployment="envoy-filter""#],
            "'/configuration/pools/0/cluster'",
        ),
        (&["configuration.pools=[]"], "'/configuration'"),
    ] {
        let refusal = template(values).unwrap_err();
        assert!(refusal.contains(field), "{values:?}: {refusal}");
    }
}

/// Every value is in the file with its meaning, and in the schema: one that is not is refused.
#[test]
#[ignore = "needs Helm and kubectl: make test-kubernetes"]
fn values_go_where_they_belong() {
    let text = template(&[
        r#"plugin.url="https://example.com/plugin.wasm""#,
        r#"deployment="envoy-filter""#,
        r#"gateway={"namespace": "edge", "name": "llm"}"#,
        r#"controller={"namespace": "picker", "image": "example.com/c:1", "replicas": 3, "onlyAnnotatedGateways": true,
            "arguments": ["--no-scraping"]}"#,
    ])
    .unwrap();
    let all = resources(&text);
    let deployment = all.iter().find(|resource| resource["kind"] == "Deployment").unwrap();
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let arguments = json!([
        "--deployment=envoy-filter",
        "--gateway-namespace=edge",
        "--gateway=llm",
        "--plugin-url=https://example.com/plugin.wasm",
        "--only-annotated-gateways",
        "--no-scraping"
    ]);
    assert_eq!((&container["args"], &container["image"]), (&arguments, &json!("example.com/c:1")));
    assert_eq!(deployment["spec"]["replicas"], 3);
    for resource in all.iter().filter(|resource| resource["metadata"].get("namespace").is_some()) {
        let is_gateways = resource["metadata"]["namespace"] == "edge";
        assert!(is_gateways || resource["metadata"]["namespace"] == "picker", "{resource}");
    }
}

#[test]
#[ignore = "starts a real kube-apiserver: make test-kubernetes"]
fn an_api_server_takes_every_resource_that_ships() {
    let cluster = prepared();
    let takes = |what: &str, text: &str| {
        let (is_taken, said) =
            cluster.kubectl(&["apply", "--dry-run=server", "--validate=strict", "-f", "-"], text);
        assert!(is_taken, "{what}: {said}");
    };
    let entries = fs::read_dir(root().join("istio")).unwrap().map(|entry| entry.unwrap().path());
    let mut count = 0;
    for folder in entries.filter(|path| path.join("kustomization.yaml").is_file()) {
        let name = folder.file_name().unwrap().to_str().unwrap();
        if name != NOT_FOR_ISTIO {
            takes(name, &kustomized(name));
            count += 1;
        }
    }
    assert!(count >= 7, "{count} folders");
    takes("the chart", &template(&[]).unwrap());
    for deployment in ["wasm-plugin", "wasm-plugin-envoy-filter", "envoy-filter"] {
        let pools =
            r#"configuration.pools=[{"name": "p", "cluster": "outbound|8000||p.default.svc.cluster.local"}]"#;
        let deployment = format!("deployment=\"{deployment}\"");
        let text = template(&["controller.enabled=false", pools, &deployment]).unwrap();
        takes("the chart without the controller", &text);
    }
}
