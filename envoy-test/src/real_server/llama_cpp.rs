//! llama.cpp's server with a model of random weights, as `envoy-test/real-llama-cpp/setup.sh` has built it.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use anyhow::{Result, ensure};

use super::{RealServer, command, wait_until_ready};
use crate::envoy::binary::project_root;
use crate::envoy::free_address;

/// Other addresses than those of the simulated servers of `make run`, so both can run.
const ADDRESSES: [&str; 3] = ["127.0.0.31:8000", "127.0.0.32:8000", "127.0.0.33:8000"];
/// What the model is called.
pub const MODEL: &str = "tiny";
/// How many requests a server works on at once; further ones wait.
pub const SLOTS: usize = 2;
/// Each slot has its share of it.
const CONTEXT_TOKENS: usize = 16_384;

/// Starts three servers, and returns when they answer: where they always are if nothing else is there, else where there is
/// room.
///
/// # Errors
/// They are not installed, or do not start.
pub fn start() -> Result<Vec<RealServer>> {
    let known = ADDRESSES.iter().filter_map(|text| text.parse().ok()).collect::<Vec<SocketAddr>>();
    let is_free = known.iter().all(|address| TcpListener::bind(address).is_ok());
    let place = |address| if is_free { Ok(address) } else { free_address() };
    let started = known.into_iter().map(|address| start_at(place(address)?));
    let mut servers = started.collect::<Result<Vec<RealServer>>>()?;
    wait_until_ready(&mut servers)?;
    Ok(servers)
}

fn start_at(address: SocketAddr) -> Result<RealServer> {
    start_one(address, MODEL, SLOTS, CONTEXT_TOKENS, &[])
}

/// Starts one with this model at `address`, with so many slots that share so much context, with `arguments` besides, and
/// does not wait until it answers.
///
/// # Errors
/// It is not installed, or cannot be started.
pub fn start_one(
    address: SocketAddr,
    model: &str,
    slots: usize,
    context_tokens: usize,
    arguments: &[&str],
) -> Result<RealServer> {
    let installed = project_root().join(".build/real-llama-cpp");
    let program = installed.join("server/llama-server");
    ensure!(program.exists(), "llama.cpp is not installed; run envoy-test/real-llama-cpp/setup.sh");
    let mut command = command(&program);
    command.arg("--model").arg(installed.join(format!("model/{model}.gguf")));
    add_arguments(&mut command, address, model);
    command.args(["--parallel", &slots.to_string(), "--ctx-size", &context_tokens.to_string()]);
    command.args(arguments);
    RealServer::start(address, command, installed.join(format!("server-{address}.log")))
}

/// One thread of the processor, without the page for people and without asking anybody outside.
fn add_arguments(command: &mut Command, address: SocketAddr, model: &str) {
    command
        .args(["--alias", model, "--host", &address.ip().to_string(), "--port", &address.port().to_string()])
        .args(["--metrics", "--no-webui", "--offline", "--threads", "1"]);
}
