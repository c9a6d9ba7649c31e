//! `make run`: the plugin in a real Envoy, in front of simulated model servers, real ones of llama.cpp, or the user's
//! own. Sends a mixed burst, prints one line a request, and stays up until Ctrl-C.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Parser;
use envoy_test::demonstration::{
    STATISTICS_INTERVAL, WARM_UP, configuration_for, models, request, simulated_servers, start_envoy,
};
use envoy_test::envoy::blocking::wait_for;
use envoy_test::envoy::{Client, Envoy, Protocol};
use envoy_test::model_server::ModelServers;
use envoy_test::real_server::{RealServer, llama_cpp};
use envoy_test::statistics::{Overview, Page};
use inference_picker::metrics::ModelServer;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

/// Requests in the burst.
const BURST: usize = 24;
/// By how many sentences some of them are longer than others.
const SENTENCES: usize = 40;
/// The same for servers that compute on this processor, with a model to which every letter is a token.
const SENTENCES_ON_A_PROCESSOR: usize = 8;
/// How often the access log is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Runs the plugin in a real Envoy and shows what it picks.
#[derive(Debug, Parser)]
struct Arguments {
    /// Model servers of yours: ip:port,ip:port
    #[arg(long, value_delimiter = ',')]
    endpoints: Vec<SocketAddr>,
    /// What kind of model server they are. Without any, vllm is simulated, and llama.cpp started.
    #[arg(long, default_value = "vllm", value_parser = parse_server)]
    server: ModelServer,
    /// A folder of filter-config/.
    #[arg(long, default_value = "stop-iteration")]
    configuration: String,
    /// Listens on free ports, not on those that the configuration names.
    #[arg(long)]
    free_ports: bool,
    /// Ends after the burst instead of waiting for Ctrl-C.
    #[arg(long)]
    once: bool,
}

/// Its name is that of the configuration.
fn parse_server(name: &str) -> Result<ModelServer, serde_json::Error> {
    serde_json::from_value(json!(name))
}

/// The model servers behind the gateway.
enum Servers {
    Simulated(ModelServers),
    Started(Vec<RealServer>),
    Yours(Vec<SocketAddr>),
}

impl Servers {
    fn start(arguments: &Arguments) -> Result<Servers> {
        Ok(match arguments.server {
            _ if !arguments.endpoints.is_empty() => Servers::Yours(arguments.endpoints.clone()),
            ModelServer::Vllm => Servers::Simulated(simulated_servers()?),
            ModelServer::LlamaCpp => Servers::Started(llama_cpp::start()?),
            _ => {
                bail!("only vllm is simulated, and only llama.cpp started; name servers of yours (ENDPOINTS)")
            }
        })
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        match self {
            Servers::Simulated(servers) => servers.addresses(),
            Servers::Started(servers) => servers.iter().map(RealServer::address).collect(),
            Servers::Yours(addresses) => addresses.clone(),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Servers::Simulated(_) => "simulated",
            Servers::Started(_) => "llama.cpp",
            Servers::Yours(_) => "yours",
        }
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let servers = Servers::start(&arguments)?;
    let endpoints = servers.addresses();
    println!("model servers  {}", servers.kind());
    endpoints.iter().for_each(|endpoint| println!("               http://{endpoint}"));
    let configuration = configuration_for(arguments.server, &arguments.configuration, &endpoints)?;
    let envoy = start_envoy(configuration, !arguments.free_ports)?;
    println!("gateway        http://{}", envoy.address());
    sleep(WARM_UP);
    let client = Client::new(envoy.address(), Protocol::Http1);
    let models = models(&client)?;
    println!("models         {}\n", models.join(", "));
    let before = envoy.access_log_until(1)?.len();
    let statistics_before = Page::of(&envoy)?;
    print_header();
    let sentences = if matches!(servers, Servers::Started(_)) { SENTENCES_ON_A_PROCESSOR } else { SENTENCES };
    let burst = (0..BURST).map(|index| request(index, &models, sentences));
    let answers = client.burst_blocking(burst.collect())?;
    let failed: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
    let printed = print_lines(&envoy, before, BURST - failed.len())?;
    failed.iter().for_each(|error| println!("no answer: {error:#}"));
    print_statistics(&envoy, &statistics_before)?;
    print_addresses(&envoy, &models);
    if !arguments.once {
        follow(&envoy, printed)?;
        println!("\nEnded.");
    }
    Ok(())
}

fn print_header() {
    println!("{:<7}{:<22}{:<8}{:<16}{:<18}WHY", "STATUS", "REQUEST", "ANSWER", "MODEL", "POD");
}

/// Prints the access log from line `from` on, once it has `count` more lines; returns how many were printed in all.
fn print_lines(envoy: &Envoy, from: usize, count: usize) -> Result<usize> {
    let lines = envoy.access_log_until(from + count)?;
    lines[from..].iter().for_each(print_line);
    Ok(lines.len())
}

/// `200    /v1/chat/completions  stream  sql-lora        127.0.0.12:8000   DEFAULT cost=12 …`
fn print_line(line: &Value) {
    let text = |field: &str| line[field].as_str().unwrap_or("-").to_owned();
    let answer = if text("answer").starts_with("text/event-stream") { "stream" } else { "whole" };
    let (path, model, pod) = (text("path"), text("model"), text("upstream"));
    let status = line["status"].to_string();
    println!("{status:<7}{path:<22}{answer:<8}{model:<16}{pod:<18}{}", text("decision"));
}

/// `statistics     24 requests, 9840 prompt tokens (61% cached), …`: what the plugin has counted since `before`.
fn print_statistics(envoy: &Envoy, before: &Page) -> Result<()> {
    // A histogram shows what was there at the last flush but one.
    std::thread::sleep(2 * STATISTICS_INTERVAL);
    let totals = Overview::between(before, &Page::of(envoy)?, STATISTICS_INTERVAL).totals;
    let cached = totals.hit_share().unwrap_or_default() * 100.0;
    let first_token = |share: f64| {
        totals.first_token.quantile(share).map_or("-".to_owned(), |time_ms| format!("{time_ms:.0} ms"))
    };
    println!(
        "\nstatistics     {} requests, {} prompt tokens ({cached:.0}% cached), {} completion tokens, \
         time to first token p50 {}, p90 {}",
        totals.requests,
        totals.prompt_tokens,
        totals.completion_tokens,
        first_token(0.5),
        first_token(0.9),
    );
    Ok(())
}

fn print_addresses(envoy: &Envoy, models: &[String]) {
    println!("\nTry it:");
    println!(
        "  curl http://{}/v1/chat/completions -H 'content-type: application/json' \\\n    -d '{}'",
        envoy.address(),
        json!({"model": models[0], "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16}),
    );
    println!("access log     {}", envoy.access_log_file().display());
    println!("Envoy's admin  http://{}", envoy.admin_address());
}

/// Prints what comes to the access log until the user ends it.
fn follow(envoy: &Envoy, mut printed: usize) -> Result<()> {
    wait_for(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        println!("\nEvery further request is shown here. Ctrl-C ends it.\n");
        loop {
            tokio::select! {
                _ = interrupt.recv() => return Ok(()),
                _ = terminate.recv() => return Ok(()),
                () = tokio::time::sleep(POLL_INTERVAL) => {
                    let lines = envoy.access_log()?;
                    lines[printed..].iter().for_each(print_line);
                    printed = lines.len();
                }
            }
        }
    })
}
