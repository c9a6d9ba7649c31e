//! llama.cpp's server with a tiny model of random weights, as `envoy-test/real-llama-cpp/setup.sh` has built it.

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
/// How many requests a server works on at once; further ones wait. Each has its share of the context.
pub const SLOTS: usize = 2;
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
    let installed = project_root().join(".build/real-llama-cpp");
    let program = installed.join("server/llama-server");
    ensure!(program.exists(), "llama.cpp is not installed; run envoy-test/real-llama-cpp/setup.sh");
    let mut command = command(&program);
    command.arg("--model").arg(installed.join("model/tiny.gguf"));
    add_arguments(&mut command, address);
    RealServer::start(address, command, installed.join(format!("server-{address}.log")))
}

/// One thread of the processor each, without the page for people and without asking anybody outside.
fn add_arguments(command: &mut Command, address: SocketAddr) {
    command
        .args(["--alias", MODEL, "--host", &address.ip().to_string(), "--port", &address.port().to_string()])
        .args(["--metrics", "--no-webui", "--offline", "--threads", "1"])
        .args(["--parallel", &SLOTS.to_string(), "--ctx-size", &CONTEXT_TOKENS.to_string()]);
}
