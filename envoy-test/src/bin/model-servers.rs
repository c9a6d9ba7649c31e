//! Runs simulated model servers until it is told to stop.

use std::io;
use std::net::{IpAddr, SocketAddr};

use clap::Parser;
use envoy_test::model_server::engine::EngineSettings;
use envoy_test::model_server::{ModelServers, ServerSettings};
use tokio::signal::unix::{SignalKind, signal};

/// Simulated model servers on neighbouring addresses, all on the same port.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many servers.
    #[arg(long, default_value_t = 3)]
    count: u32,
    /// Address of the first; each other one has the next IP address.
    #[arg(long, default_value = "127.0.0.11:8000")]
    first: SocketAddr,
    /// A name of the base model; may be given several times.
    #[arg(long, default_value = "tiny")]
    model: Vec<String>,
    /// A LoRA adapter; may be given several times.
    #[arg(long)]
    adapter: Vec<String>,
    /// How many times faster than by default.
    #[arg(long, default_value_t = 1.0, value_parser = parse_speed)]
    speed: f64,
    /// Tokens in each event of a stream.
    #[arg(long, default_value_t = 1)]
    stream_interval: usize,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let settings: Option<Vec<_>> = (0..arguments.count).map(|index| settings(&arguments, index)).collect();
    let servers = ModelServers::start(settings.ok_or("not enough addresses after --first")?)?;
    for address in servers.addresses() {
        println!("ready http://{address}");
    }
    wait_for_signal()?;
    servers.stop();
    Ok(())
}

fn settings(arguments: &Arguments, index: u32) -> Option<ServerSettings> {
    let IpAddr::V4(first) = arguments.first.ip() else {
        return None;
    };
    let ip = u32::from(first).checked_add(index)?;
    Some(ServerSettings {
        address: SocketAddr::new(IpAddr::V4(ip.into()), arguments.first.port()),
        served_models: arguments.model.clone(),
        lora_adapters: arguments.adapter.clone(),
        engine: EngineSettings { speed: arguments.speed, ..EngineSettings::default() },
        stream_interval: arguments.stream_interval,
        ..ServerSettings::default()
    })
}

fn wait_for_signal() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(())
    })
}

fn parse_speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text.parse().map_err(|_| "expected a number")?;
    (speed.is_finite() && speed > 0.0).then_some(speed).ok_or("expected a number above zero".to_owned())
}
