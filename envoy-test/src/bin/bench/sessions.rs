//! What it costs that a request names its session.
//!
//! The difference is a small part of a request, and two Envoys differ by more. So one Envoy takes short turns with the same
//! request, which names a session and does not, and each turn is compared with the one before it.

use std::sync::Arc;

use anyhow::{Result, ensure};
use envoy_test::table::Table;
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::clients::{CLIENT, Clients};
use crate::gateway::{Gateway, GatewaySettings, Variant};
use crate::model_servers::ModelServers;
use crate::requests::{ENDPOINTS, chat_with_headers};
use crate::rounds::{check_picks, median};

/// Requests in a turn: enough for a tenth of a second or less.
const TURN: u64 = 512;
/// Turns of each kind in a round.
const TURNS: usize = 100;
/// Turns before the first one that counts: by then V8 has optimized the code.
const WARM_UP_TURNS: usize = 40;

/// The header that is looked at for a session by default, and one of the same length that is not.
const HEADERS: [&str; 2] = ["x-nothing-id", "x-session-id"];

/// What a chat of 1 KB costs one Envoy.
#[derive(Debug, Serialize)]
pub struct SessionCost {
    variant: Variant,
    /// Processor time of a request in each turn, in microseconds, without the name of a session and with one.
    turns_cpu_us: [Vec<f64>; HEADERS.len()],
}

/// Measures each strategy.
pub fn measure(runtime: &Runtime, rounds: usize) -> Result<Vec<SessionCost>> {
    let servers = ModelServers::start(runtime, ENDPOINTS)?;
    [Variant::Default, Variant::PrefixCache]
        .into_iter()
        .map(|variant| measure_one(runtime, &servers, variant, rounds))
        .collect()
}

fn measure_one(
    runtime: &Runtime,
    servers: &ModelServers,
    variant: Variant,
    rounds: usize,
) -> Result<SessionCost> {
    let gateway = Gateway::start(variant, &servers.addresses, GatewaySettings::default())?;
    let requests = HEADERS.map(chat_with);
    let mut clients = runtime.block_on(Clients::connect(gateway.envoy.address(), &requests[0]))?;
    let mut turn = |request: &Arc<[u8]>| {
        let (counts, start_ns) = (servers.counts(), gateway.envoy.cpu_time_ns()?);
        let sent = runtime.block_on(clients.send(request, TURN))?;
        let used_ns = gateway.envoy.cpu_time_ns()? - start_ns;
        check_picks(variant, servers.counts().since(counts), sent)?;
        Ok::<_, anyhow::Error>(used_ns as f64 / 1_000.0 / sent as f64)
    };
    for request in requests.iter().cycle().take(WARM_UP_TURNS) {
        turn(request)?;
    }
    let mut turns_cpu_us = [const { Vec::new() }; HEADERS.len()];
    for _ in 0..rounds * TURNS {
        for (request, turns) in requests.iter().zip(&mut turns_cpu_us) {
            turns.push(turn(request)?);
        }
    }
    gateway.check_that_it_runs()?;
    let counts = gateway.envoy.stats("wasmcustom.")?;
    let kept = counts.iter().find(|(name, _)| name.ends_with("inference_picker_sessions_kept"));
    ensure!(kept.is_some_and(|(_, kept)| *kept > 0), "no session was kept");
    Ok(SessionCost { variant, turns_cpu_us })
}

/// A chat of 1 KB with a header that names something for each client.
fn chat_with(header: &str) -> Arc<[u8]> {
    chat_with_headers(&format!("\r\n{header}: 2f1c9a52-5c0b-4a6e-9b1d-{CLIENT}"), 1)
}

/// A line a strategy, with the medians of all turns.
pub fn table(costs: &[SessionCost]) -> Table {
    let mut table = Table::new("", ["no session", "a session", "more", "half of the turns"]);
    for SessionCost { variant, turns_cpu_us: [without, with] } in costs {
        let mut more: Vec<f64> = with.iter().zip(without).map(|(with, without)| with - without).collect();
        more.sort_by(f64::total_cmp);
        let quartile = |quarters: usize| more.get(more.len() * quarters / 4).copied().unwrap_or(f64::NAN);
        let between = format!("{:+.2} to {:+.2} µs", quartile(1), quartile(3));
        let medians = [median(without), median(with)].map(|us| format!("{us:.1} µs"));
        let cells = medians.into_iter().chain([format!("{:+.2} µs", quartile(2)), between]);
        table.row(variant.name(), cells);
    }
    table
}
