//! Istio's resources as the folders of `istio/` hold them, or as `inference-picker-config` prints them, for a test to
//! edit.

use std::process::Command;

use envoy_test::envoy::binary::{plugin_file, project_root};
use serde_json::{Value, json};

use crate::cluster::Front;
use crate::programs::{printed, rendered};

/// The resources of one deployment.
#[derive(Clone)]
pub struct Resources(pub Vec<Value>);

impl Resources {
    /// What a folder holds, as kustomize renders it.
    pub fn of(folder: &str) -> Resources {
        Resources(serde_saphyr::from_multiple(&rendered(folder)).unwrap())
    }

    /// What `inference-picker-config` prints for these arguments; files are those of its fixtures.
    pub fn printed(arguments: &[&str]) -> Resources {
        let mut command = Command::new(env!("CARGO"));
        command.current_dir(project_root().join("config-command/tests/fixtures"));
        command.args(["run", "--locked", "--quiet", "--package", "inference-picker-config", "--"]);
        Resources(serde_saphyr::from_multiple(&printed(command.args(arguments))).unwrap())
    }

    /// The only one of this kind.
    #[track_caller]
    pub fn the(&mut self, kind: &str) -> &mut Value {
        let mut found: Vec<&mut Value> =
            self.0.iter_mut().filter(|resource| resource["kind"] == kind).collect();
        assert_eq!(found.len(), 1, "resources of kind {kind}");
        found.remove(0)
    }

    /// Takes out all of this kind.
    pub fn take(&mut self, kind: &str) -> Vec<Value> {
        self.0.extract_if(.., |resource| resource["kind"] == kind).collect()
    }

    fn has(&self, kind: &str) -> bool {
        self.0.iter().any(|resource| resource["kind"] == kind)
    }

    /// Has the plugin loaded from where `make build` leaves it.
    pub fn load_plugin_from_file(&mut self) {
        let file = plugin_file();
        let file = file.to_str().unwrap();
        if self.has("WasmPlugin") {
            self.load_plugin_from(&format!("file://{file}"));
        } else {
            self.extension()["vm_config"]["code"] = json!({"local": {"filename": file}});
        }
    }

    /// Has Istio's agent download the plugin from there.
    pub fn load_plugin_from(&mut self, url: &str) {
        if self.has("WasmPlugin") {
            self.the("WasmPlugin")["spec"]["url"] = url.into();
        } else {
            let http = json!({"uri": url, "cluster": "_", "timeout": "30s"});
            self.extension()["vm_config"]["code"] = json!({"remote": {"http_uri": http, "sha256": "nil"}});
        }
    }

    /// Edits the plugin's own configuration: a tree in a WasmPlugin, text in an EnvoyFilter.
    pub fn edit_plugin(&mut self, edit: impl FnOnce(&mut Value)) {
        if self.has("WasmPlugin") {
            return edit(&mut self.the("WasmPlugin")["spec"]["pluginConfig"]);
        }
        let text = &mut self.extension()["configuration"]["value"];
        let mut plugin = serde_json::from_str(text.as_str().unwrap()).unwrap();
        edit(&mut plugin);
        *text = plugin.to_string().into();
    }

    /// Has them apply to proxies of this kind: by the labels of their pods, and, for sidecars, to what they send.
    pub fn select(&mut self, front: Front) {
        for resource in &mut self.0 {
            let labels = front.labels();
            let kind = resource["kind"].clone();
            let spec = &mut resource["spec"];
            spec.as_object_mut().unwrap().remove("targetRefs");
            if kind == "EnvoyFilter" {
                spec["workloadSelector"] = json!({"labels": labels});
            } else {
                spec["selector"] = json!({"matchLabels": labels});
            }
            if front == Front::Sidecar && kind == "EnvoyFilter" {
                replace(spec, r#""context":"GATEWAY""#, r#""context":"SIDECAR_OUTBOUND""#);
            } else if front == Front::Sidecar && kind == "WasmPlugin" {
                spec["match"] = json!([{"mode": "CLIENT"}]);
            }
        }
    }

    /// The plugin in an EnvoyFilter.
    fn extension(&mut self) -> &mut Value {
        let filters = self.0.iter_mut().filter(|resource| resource["kind"] == "EnvoyFilter");
        let mut patches = filters.flat_map(|filter| filter["spec"]["configPatches"].as_array_mut().unwrap());
        let patch = patches.find(|patch| patch["applyTo"] == "EXTENSION_CONFIG").unwrap();
        &mut patch["patch"]["value"]["typed_config"]["config"]
    }
}

/// Replaces a part of a tree's text, as `sed` would.
#[track_caller]
pub fn replace(tree: &mut Value, old: &str, new: &str) {
    let text = tree.to_string();
    assert!(text.contains(old), "{old} is not in {text}");
    *tree = serde_json::from_str(&text.replace(old, new)).unwrap();
}

/// The mesh's configuration: what `istio/telemetry/values.yaml` sets, and nothing that needs certificates.
pub fn mesh() -> Value {
    let values = std::fs::read_to_string(project_root().join("istio/telemetry/values.yaml")).unwrap();
    let values: Value = serde_saphyr::from_str(&values).unwrap();
    let mut mesh = values["meshConfig"].clone();
    mesh["enableAutoMtls"] = false.into();
    mesh
}
