//! vLLM's own benchmark, `vllm bench serve`, sends its requests through the gateway as it sends them to a server.

use std::net::SocketAddr;
use std::process::Command;

use envoy_test::envoy::binary::project_root;
use envoy_test::real_server::vllm::{ENVIRONMENT, installed};
use serde_json::Value;

use crate::gateway::Gateway;
use crate::servers::MODEL;

const REQUESTS: usize = 12;
/// What it reports of a run that does not depend on how fast anything was.
const COUNTS: [&str; 4] = ["completed", "failed", "total_input_tokens", "total_output_tokens"];

pub fn vllms_own_benchmark_counts_the_same_with_and_without_the_gateway(gateway: &Gateway) {
    let before = gateway.servers.generated_tokens();
    let through = bench(gateway.address());
    let served = gateway.servers.generated_tokens();
    let direct = bench(gateway.servers.addresses()[0]);
    for count in COUNTS {
        assert_eq!(through[count], direct[count], "{count}: {through:#} {direct:#}");
    }
    assert_eq!(through["completed"], REQUESTS, "{through:#}");
    assert!(served.iter().zip(before).all(|(served, before)| *served > before), "one server got nothing");
}

/// What the benchmark saved of its run. It sends one request before those that count, to see whether anybody is there.
fn bench(address: SocketAddr) -> Value {
    let installed = installed();
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(installed.join("python/bin/python"))
        .arg(project_root().join("envoy-test/real-vllm/bench_serve.py"))
        .args([
            "--backend",
            "openai",
            "--base-url",
            &format!("http://{address}"),
            "--model",
            MODEL,
            "--tokenizer",
        ])
        .arg(installed.join("models").join(MODEL))
        .args(["--dataset-name", "random", "--random-input-len", "64", "--random-output-len", "16"])
        .args(["--random-range-ratio", "0.2", "--ignore-eos", "--seed", "1", "--max-concurrency", "4"])
        .args(["--num-prompts", &REQUESTS.to_string(), "--disable-tqdm", "--save-result"])
        .args(["--result-filename", "result.json", "--result-dir"])
        .arg(folder.path())
        .envs(ENVIRONMENT)
        .current_dir(&installed)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "vllm bench serve failed:\n{said}");
    serde_json::from_slice(&std::fs::read(folder.path().join("result.json")).unwrap()).unwrap()
}
