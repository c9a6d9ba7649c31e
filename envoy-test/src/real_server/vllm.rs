//! vLLM on the processor, as `envoy-test/real-vllm/setup.sh` has installed it: models of random weights, made up anew.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::{RealServer, command};
use crate::envoy::binary::project_root;

/// On the processor, one thread each, loopback only, and without asking anybody outside.
pub const ENVIRONMENT: [(&str, &str); 8] = [
    ("VLLM_HOST_IP", "127.0.0.1"),
    ("VLLM_LOOPBACK_IP", "127.0.0.1"),
    ("VLLM_CPU_KVCACHE_SPACE", "1"),
    ("VLLM_CPU_OMP_THREADS_BIND", "nobind"),
    ("OMP_NUM_THREADS", "1"),
    ("VLLM_NO_USAGE_STATS", "1"),
    ("DO_NOT_TRACK", "1"),
    ("HF_HUB_OFFLINE", "1"),
];

/// Where it is installed, its models in `models`.
pub fn installed() -> PathBuf {
    project_root().join(".build/real-vllm")
}

/// Starts one with this model at `address`, with `arguments` besides, and does not wait until it answers.
///
/// # Errors
/// It is not installed, or cannot be started.
pub fn start(address: SocketAddr, model: &str, arguments: &[&str]) -> Result<RealServer> {
    let installed = installed();
    let mut command = command(&installed.join("python/bin/python"));
    add_arguments(&mut command, address, model);
    command.args(arguments).envs(ENVIRONMENT).current_dir(&installed);
    RealServer::start(address, command, installed.join(format!("server-{}.log", address.ip())))
}

fn add_arguments(command: &mut Command, address: SocketAddr, model: &str) {
    command
        .args(["-m", "vllm.entrypoints.openai.api_server"])
        .args(["--host", &address.ip().to_string(), "--port", &address.port().to_string()])
        .arg("--model")
        .arg(installed().join("models").join(model))
        .args(["--served-model-name", model, "--load-format", "dummy", "--enforce-eager"]);
}
