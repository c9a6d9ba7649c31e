//! Istio's own checks of what the folders hold.

use std::fs;

use envoy_test::envoy::binary::project_root;

use crate::programs::{program, rendered, run};

/// What Istio says of every EnvoyFilter.
const SAID_OF_EVERY_ENVOY_FILTER: &str = "EnvoyFilter exposes internal implementation details";

/// Every folder that `kubectl apply -k` takes.
fn folders() -> Vec<String> {
    let entries = fs::read_dir(project_root().join("istio")).unwrap().map(|entry| entry.unwrap().path());
    let folders = entries.filter(|path| path.join("kustomization.yaml").is_file());
    folders.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

/// An unknown field is only a warning to Istio, so there may be no warning besides that one.
#[track_caller]
fn check(what: &str, said: &str) {
    let objections: Vec<&str> = said
        .lines()
        .filter(|line| {
            line.contains("Warning [") || line.contains("Error [") || line.trim_start().starts_with('*')
        })
        .filter(|line| !line.contains(SAID_OF_EVERY_ENVOY_FILTER))
        .collect();
    assert_eq!(objections, Vec::<&str>::new(), "{what}");
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn istio_finds_nothing_wrong_with_the_resources() {
    let scratch = tempfile::tempdir().unwrap();
    for folder in folders() {
        let file = scratch.path().join(format!("{folder}.yaml"));
        fs::write(&file, rendered(&folder)).unwrap();
        check(&folder, &run(program("istioctl").arg("validate").arg("--filename").arg(&file)));
        check(&folder, &run(program("istioctl").args(["analyze", "--use-kube=false"]).arg(&file)));
    }
}

/// So the test above would see one.
#[test]
#[ignore = "needs Istio: make test-istio"]
fn a_misspelt_field_would_be_found() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("misspelt.yaml");
    let resources = rendered("envoy-filter");
    assert!(resources.contains("allow_on_headers_stop_iteration"));
    fs::write(&file, resources.replace("allow_on_headers_stop_iteration", "allow_on_header_stop")).unwrap();
    let said = run(program("istioctl").arg("validate").arg("--filename").arg(&file));
    assert!(said.contains(r#"unknown field "allow_on_header_stop""#), "{said}");
    assert!(std::panic::catch_unwind(|| check("misspelt", &said)).is_err());
}
