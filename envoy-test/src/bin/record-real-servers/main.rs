//! Records what real model servers make of open-loop traffic, for the replay in the simulation.
//!
//! It starts one server on the processor, sends it requests at random times without anything in between, and prints the
//! figures of its answers. With `--write` they become the trace in `envoy-test/traces` that the simulation replays.

mod sending;
mod traffic;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use envoy_test::document::put;
use envoy_test::envoy::binary::project_root;
use envoy_test::envoy::{Client, Protocol, free_address};
use envoy_test::real_server::{RealServer, llama_cpp, vllm, wait_until_ready};
use envoy_test::simulation::replay::comparison::Figures;
use envoy_test::simulation::replay::server::RecordedServer;
use envoy_test::simulation::replay::trace::{self, ServedRequest};

/// What both servers call their model.
const MODEL: &str = "small";
/// Sent before the recording, so that what a server only does at its start is done.
const WARM_UP_REQUESTS: usize = 12;
const WARM_UP_RATE_PER_S: f64 = 4.0;
const WARM_UP_SEED: u64 = u64::MAX;
/// The prompts of the warm-up are none of the recording's.
const WARM_UP_PLACE: usize = 1_000_000;

/// Records what a real model server makes of open-loop traffic.
#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long)]
    server: RecordedServer,
    /// Requests a second, in the mean; otherwise about two thirds of what the server carried on the machine of the traces.
    #[arg(long)]
    rate: Option<f64>,
    #[arg(long, default_value_t = 400)]
    requests: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Writes the trace.
    #[arg(long)]
    write: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut server = start(arguments.server, free_address()?)?;
    wait_until_ready(std::slice::from_mut(&mut server))?;
    let client = Client::new(server.address(), Protocol::Http1);
    let mut warm_up = traffic::draw(WARM_UP_REQUESTS, WARM_UP_RATE_PER_S, WARM_UP_SEED);
    for request in &mut warm_up {
        request.prefix = None;
    }
    sending::play(client, MODEL, warm_up, WARM_UP_PLACE).await?;
    let rate_per_s = arguments.rate.unwrap_or_else(|| usual_rate_per_s(arguments.server));
    let requests = traffic::draw(arguments.requests, rate_per_s, arguments.seed);
    let trace = sending::play(client, MODEL, requests, 0).await?;
    print(&trace);
    if !arguments.write {
        return Ok(());
    }
    let file = project_root().join("envoy-test/traces").join(arguments.server.file());
    put(&file, &trace::write(&trace))
}

fn usual_rate_per_s(server: RecordedServer) -> f64 {
    match server {
        RecordedServer::Vllm => 1.4,
        RecordedServer::LlamaCpp => 1.3,
    }
}

fn start(server: RecordedServer, address: SocketAddr) -> Result<RealServer> {
    let settings = server.settings();
    match server {
        RecordedServer::Vllm => {
            let numbers =
                [settings.step_tokens_max, settings.sequences_max, settings.block_tokens, settings.blocks];
            let [step_tokens, sequences, block_tokens, blocks] = numbers.map(|number| number.to_string());
            let arguments = [
                ["--enable-prefix-caching", "--enable-chunked-prefill", "--enable-prompt-tokens-details"]
                    .as_slice(),
                &["--max-num-batched-tokens", &step_tokens, "--max-num-seqs", &sequences],
                &["--block-size", &block_tokens, "--num-gpu-blocks-override", &blocks],
            ];
            vllm::start(address, MODEL, &arguments.concat())
        }
        RecordedServer::LlamaCpp => {
            let batch_tokens = settings.step_tokens_max.to_string();
            let arguments = ["--batch-size", &batch_tokens];
            let context_tokens = settings.kv_cache_tokens();
            llama_cpp::start_one(address, MODEL, settings.sequences_max, context_tokens, &arguments)
        }
    }
}

fn print(trace: &[ServedRequest]) {
    let last = trace.last().map_or(Duration::ZERO, |served| served.sent.arrival);
    println!("{} requests in {:.1} s", trace.len(), last.as_secs_f64());
    println!("{:#?}", Figures::of(trace));
}
