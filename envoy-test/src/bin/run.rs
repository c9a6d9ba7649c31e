//! `make run`: the plugin in a real Envoy, in front of simulated model servers or the user's own. Sends a mixed
//! burst, prints one line a request, and stays up until Ctrl-C.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use envoy_test::envoy::binary::{plugin_file, project_root};
use envoy_test::envoy::blocking::wait_for;
use envoy_test::envoy::{Client, Configuration, Envoy, EnvoySettings, Protocol, Request};
use envoy_test::model_server::{ModelServers, ServerSettings};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

/// Where the simulated servers are, if nothing else is there: as in the configurations.
const SIMULATED: [&str; 4] = ["127.0.0.11:8000", "127.0.0.12:8000", "127.0.0.13:8000", "127.0.0.14:8000"];
const SIMULATED_ADAPTERS: [&str; 2] = ["sql-lora", "tweet-summary"];
/// Requests in the burst.
const BURST: usize = 24;
/// How often the access log is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The first scrape of every endpoint takes less; without it the first picks would be by what is in flight alone.
const WARM_UP: Duration = Duration::from_millis(700);

/// Runs the plugin in a real Envoy and shows what it picks.
#[derive(Debug, Parser)]
struct Arguments {
    /// Model servers to use in place of simulated ones: ip:port,ip:port
    #[arg(long, value_delimiter = ',')]
    endpoints: Vec<SocketAddr>,
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

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let simulated = if arguments.endpoints.is_empty() { Some(simulated_servers()?) } else { None };
    let endpoints = simulated.as_ref().map_or(arguments.endpoints.clone(), ModelServers::addresses);
    println!("model servers  {}", if simulated.is_some() { "simulated" } else { "yours" });
    endpoints.iter().for_each(|endpoint| println!("               http://{endpoint}"));
    let envoy = start_envoy(&arguments, &endpoints)?;
    println!("gateway        http://{}", envoy.address());
    sleep(WARM_UP);
    let client = Client::new(envoy.address(), Protocol::Http1);
    let models = models(&client)?;
    println!("models         {}\n", models.join(", "));
    let before = envoy.access_log_until(1)?.len();
    print_header();
    let answers = client.burst_blocking((0..BURST).map(|index| request(index, &models)).collect())?;
    let failed: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
    let printed = print_lines(&envoy, before, BURST - failed.len())?;
    failed.iter().for_each(|error| println!("no answer: {error:#}"));
    print_addresses(&envoy, &models);
    if !arguments.once {
        follow(&envoy, printed)?;
        println!("\nEnded.");
    }
    Ok(())
}

fn simulated_servers() -> Result<ModelServers> {
    let servers = |addresses: Vec<SocketAddr>| {
        let settings = addresses.into_iter().map(|address| ServerSettings {
            lora_adapters: SIMULATED_ADAPTERS.map(str::to_owned).to_vec(),
            ..ServerSettings::at(address)
        });
        ModelServers::start(settings.collect())
    };
    let known = SIMULATED.iter().filter_map(|text| text.parse().ok()).collect();
    let free = || servers(vec![SocketAddr::from(([127, 0, 0, 1], 0)); SIMULATED.len()]);
    servers(known).or_else(|_| free()).context("starting simulated model servers")
}

/// What there is to ask for, as the gateway says.
fn models(client: &Client) -> Result<Vec<String>> {
    let answer = client.send_blocking(Request::get("/v1/models")).context("asking for the models")?;
    let body = answer.json()?;
    let ids = body["data"].as_array().into_iter().flatten().filter_map(|model| model["id"].as_str());
    let models: Vec<String> = ids.map(str::to_owned).collect();
    if models.is_empty() {
        bail!("no models; are the model servers up? GET /v1/models was answered with {body}");
    }
    Ok(models)
}

fn start_envoy(arguments: &Arguments, endpoints: &[SocketAddr]) -> Result<Envoy> {
    let file = project_root().join("filter-config").join(&arguments.configuration).join("envoy.yaml");
    let mut configuration = Configuration::load(&file)?;
    configuration.set_plugin_file(&plugin_file());
    configuration.place_endpoints(endpoints);
    let mut settings = EnvoySettings::new(configuration);
    settings.keep_addresses = !arguments.free_ports;
    Envoy::start(settings)
}

/// The request number `index` of the burst: chats and completions, short and long, streamed and not, for every model
/// in turn.
fn request(index: usize, models: &[String]) -> Request {
    let model = &models[index % models.len()];
    let prompt = "Tell me about load balancing. ".repeat(1 + 40 * (index % 3));
    let stream = index % 2 == 1;
    if index % 4 < 2 {
        let messages = json!([{"role": "user", "content": prompt}]);
        let body = json!({"model": model, "messages": messages, "max_tokens": 16, "stream": stream});
        Request::post("/v1/chat/completions").json(&body)
    } else {
        let body = json!({"model": model, "prompt": prompt, "max_tokens": 16, "stream": stream});
        Request::post("/v1/completions").json(&body)
    }
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
