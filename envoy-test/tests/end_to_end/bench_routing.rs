//! `make bench-routing GATEWAY=…`: the bench's requests through a gateway that runs already. How long anything takes is not
//! looked at.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::gateway::{STOP_ITERATION, Setup, texts};
use envoy_test::model_server::ServerSettings;
use envoy_test::model_server::engine::EngineSettings;
use serde_json::Value;

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bench-routing")).args(arguments).output().unwrap()
}

/// So fast that answers of hundreds of tokens do not keep the test waiting.
fn quick_pods() -> Vec<ServerSettings> {
    let engine = EngineSettings { speed: 20.0, ..EngineSettings::default() };
    vec![ServerSettings { engine, ..ServerSettings::default() }; 4]
}

fn cells(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("routing-live.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_gateway_is_sent_every_kind_of_traffic_and_its_pods_are_watched() {
    let strategy = |plugin: &mut Value| plugin["pools"][0]["routingStrategy"] = "PREFIX_CACHE".into();
    let gateway = Setup::new(STOP_ITERATION).pods(quick_pods()).plugin(strategy).start();
    let (url, folder) = (format!("http://{}", gateway.envoy.address()), tempfile::tempdir().unwrap());
    let endpoints = texts(&gateway.pods.addresses()).join(",");
    let folder_name = folder.path().to_str().unwrap();
    let arguments = ["--gateway", &url, "--endpoints", &endpoints, "--seconds", "1", "--rate", "12"];
    let output = bench(&[&arguments[..], &["--folder", folder_name]].concat());
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{complaints}");
    let cells = cells(folder.path());
    let traffics: Vec<&str> = cells.iter().filter_map(|cell| cell["traffic"].as_str()).collect();
    assert_eq!(traffics, ["original", "conversation", "azure", "multi-turn", "hot-prompt", "bursts"]);
    for cell in &cells {
        let (traffic, measures) = (&cell["traffic"], &cell["measures"]);
        assert_eq!(measures["failed"], 0, "{traffic}: {complaints}");
        assert!(measures["requests"].as_u64() >= Some(12), "{traffic}: {measures}");
        assert!(measures["cache_hit_share"].is_number(), "{traffic}: {measures}");
        assert!(measures["end_to_end_ms"]["p50"].as_f64() >= measures["first_token_ms"]["p50"].as_f64());
        let looks = cell["kv_cache_by_pod"].as_array().unwrap();
        assert_eq!(looks.len(), gateway.pods.addresses().len(), "{traffic}");
        assert!(looks.iter().all(|pod| !pod.as_array().unwrap().is_empty()), "{traffic}");
    }
    let sent: u64 = cells.iter().filter_map(|cell| cell["measures"]["requests"].as_u64()).sum();
    let answered: u64 = gateway.pods.servers().map(|pod| pod.counters().completed).sum();
    assert!(answered >= sent, "{answered} of {sent}");
    for picture in ["routing-live-first-token.svg", "routing-live-kv-original.svg"] {
        assert!(fs::read_to_string(folder.path().join(picture)).unwrap().contains("<svg"), "{picture}");
    }
}

#[test]
fn a_gateway_that_does_not_answer_well_is_measured_as_failing() {
    let gateway = Setup::new(STOP_ITERATION).start();
    for pod in gateway.pods.servers() {
        pod.set(|knobs| knobs.fail_status = Some(500));
    }
    let (url, folder) = (format!("http://{}", gateway.envoy.address()), tempfile::tempdir().unwrap());
    let folder_name = folder.path().to_str().unwrap();
    let arguments = ["--gateway", &url, "--model", "tiny", "--traffic", "bursts", "--seconds", "1"];
    let output = bench(&[&arguments[..], &["--folder", folder_name]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let measures = &cells(folder.path())[0]["measures"];
    assert_eq!(measures["failed"], measures["requests"], "{measures}");
    assert_eq!(measures["goodput_share"], 0.0, "{measures}");
}

#[test]
fn what_is_no_gateway_is_said() {
    for (url, complaint) in
        [("nowhere", "is not http://HOST"), ("http://127.0.0.1:1", "asking for the models")]
    {
        let output = bench(&["--gateway", url]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(complaint), "{url}: {said}");
    }
}
