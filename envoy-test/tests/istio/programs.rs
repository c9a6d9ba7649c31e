//! Istio's own programs, and those that go with them, which `make test-istio` builds from source.

use std::path::PathBuf;
use std::process::{Command, Output};

use envoy_test::envoy::binary::project_root;

/// The folder of one of the deployments, `istio/NAME`.
pub fn folder(name: &str) -> PathBuf {
    project_root().join("istio").join(name)
}

/// `.build/istio/NAME`.
pub fn built(name: &str) -> PathBuf {
    let file = project_root().join(".build/istio").join(name);
    assert!(file.is_file(), "{} is not there; run `make test-istio`", file.display());
    file
}

/// `.build/istio/bin/NAME`.
pub fn program(name: &str) -> Command {
    Command::new(built(&format!("bin/{name}")))
}

/// Runs a program to its end, which must be a success, and returns what it wrote to both outputs.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    outputs(command).concat()
}

/// The same without what it wrote to standard error.
#[track_caller]
pub fn printed(command: &mut Command) -> String {
    let [printed, _] = outputs(command);
    printed
}

#[track_caller]
fn outputs(command: &mut Command) -> [String; 2] {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let outputs = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(status.success(), "{command:?}: {status}:\n{}", outputs.concat());
    outputs
}

/// What `kubectl apply -k istio/NAME` would apply, as text.
pub fn rendered(name: &str) -> String {
    run(program("kustomize").arg("build").arg(folder(name)))
}
