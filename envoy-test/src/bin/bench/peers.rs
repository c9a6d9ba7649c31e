//! What a request costs the gateways that people would take instead, beside plain Envoy and the plugin: processor time of the
//! whole process, its memory, and how long a client waits that sends one request after the other.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use envoy_test::endpoint_picker::{EndpointPicker, RunningPicker, Surroundings};
use envoy_test::peer::{Peer, RunningPeer};
use envoy_test::table::Table;
use envoy_test::times::Times;
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::clients::{Clients, is_streaming};
use crate::gateway::{Gateway, GatewaySettings, Scraping, Variant};
use crate::model_servers::{ModelServers, STREAM_EVENTS};
use crate::requests::{ENDPOINTS, chat};
use crate::rounds::median;

const VARIANTS: [Variant; 3] = [Variant::Plain, Variant::Default, Variant::PrefixCache];
/// Of Envoy, as many as peers have threads on a machine of two cores.
const WORKERS: u32 = 2;
const BODY_KILOBYTES: [usize; 3] = [1, 7, 100];
const WARM_UP_CPU_US: u64 = 2_000_000;
/// With another request: by then connections are open.
const NEXT_WARM_UP_CPU_US: u64 = 300_000;
const ROUND_CPU_US: u64 = 500_000;
/// Requests between two looks at the clock: fewer of large ones.
const BATCH: u64 = 256;
const BATCH_OF_LARGE: u64 = 64;
/// At once. With twice as many, an endpoint picker has nothing left of two cores, and events come joined.
const STREAMS: u64 = 32;
/// Sent one after the other, each round.
const WAITS: usize = 300;

/// What one gateway costs, by request; a value for each round.
#[derive(Debug, Serialize)]
pub struct PeerCost {
    name: &'static str,
    cpu_us: [Vec<f64>; 3],
    /// Of a whole stream, with its request.
    stream_cpu_us: Vec<f64>,
    /// Of the request of 7 KB, sent one after the other.
    waits_ms: Vec<Times>,
    memory_bytes: u64,
}

enum Running {
    Envoy(Box<Gateway>),
    Peer(Box<RunningPeer>),
    EndpointPicker(Box<RunningPicker>),
}

struct Contender {
    running: Running,
    cost: PeerCost,
}

pub fn measure(runtime: &Runtime, rounds: usize, epp: Option<&Path>) -> Result<Vec<PeerCost>> {
    let servers = ModelServers::start(runtime, ENDPOINTS)?;
    let mut contenders = start(&servers.addresses, epp)?;
    for (place, kilobytes) in BODY_KILOBYTES.into_iter().enumerate() {
        let warm_up = if place == 0 { WARM_UP_CPU_US } else { NEXT_WARM_UP_CPU_US };
        take_turns(&mut contenders, runtime, &chat(kilobytes, false), warm_up, rounds, |cost, cpu_us| {
            cost.cpu_us[place].push(cpu_us);
        })?;
    }
    take_turns(
        &mut contenders,
        runtime,
        &chat(BODY_KILOBYTES[0], true),
        NEXT_WARM_UP_CPU_US,
        rounds,
        |cost, cpu_us| cost.stream_cpu_us.push(cpu_us),
    )?;
    for _ in 0..rounds {
        for contender in &mut contenders {
            let waits =
                runtime.block_on(wait(contender.running.address(), &chat(BODY_KILOBYTES[1], false)))?;
            contender.cost.waits_ms.push(waits);
        }
    }
    for contender in &mut contenders {
        contender.cost.memory_bytes = contender.running.memory_bytes()?;
    }
    Ok(contenders.into_iter().map(|contender| contender.cost).collect())
}

fn start(servers: &[SocketAddr], epp: Option<&Path>) -> Result<Vec<Contender>> {
    let settings =
        GatewaySettings { scraping: Scraping::EveryMs(50), workers: WORKERS, ..GatewaySettings::default() };
    let mut contenders = Vec::new();
    for variant in VARIANTS {
        let gateway = Gateway::start(variant, servers, settings.clone())?;
        contenders.push(Contender::new(variant.name(), Running::Envoy(Box::new(gateway))));
    }
    for peer in Peer::ALL {
        contenders.push(Contender::new(peer.name, Running::Peer(Box::new(peer.start(servers)?))));
    }
    let surroundings = Surroundings { speed: 1.0, workers: WORKERS, readiness_interval: None };
    for picker in epp.map(EndpointPicker::all).transpose()?.into_iter().flatten() {
        let running = picker.start(servers, surroundings)?;
        contenders.push(Contender::new(picker.schedule.name(), Running::EndpointPicker(Box::new(running))));
    }
    Ok(contenders)
}

/// Each has a turn in each round; what a request took it is noted.
fn take_turns(
    contenders: &mut [Contender],
    runtime: &Runtime,
    request: &Arc<[u8]>,
    warm_up_cpu_us: u64,
    rounds: usize,
    note: impl Fn(&mut PeerCost, f64),
) -> Result<()> {
    for contender in contenders.iter_mut() {
        contender.spend(runtime, request, warm_up_cpu_us)?;
    }
    for _ in 0..rounds {
        for contender in contenders.iter_mut() {
            let cpu_us = contender.spend(runtime, request, ROUND_CPU_US)?;
            note(&mut contender.cost, cpu_us);
        }
    }
    Ok(())
}

async fn wait(address: SocketAddr, request: &Arc<[u8]>) -> Result<Times> {
    let mut client = Clients::connect_many(address, 1).await?;
    let mut waits = Vec::new();
    for _ in 0..WAITS {
        let sent = Instant::now();
        client.send(request, 1).await?;
        waits.push(sent.elapsed());
    }
    Ok(Times::of(waits.into_iter()))
}

impl Contender {
    fn new(name: &'static str, running: Running) -> Contender {
        let cost = PeerCost {
            name,
            cpu_us: [const { Vec::new() }; 3],
            stream_cpu_us: Vec::new(),
            waits_ms: Vec::new(),
            memory_bytes: 0,
        };
        Contender { running, cost }
    }

    /// Sends requests until it has used so much processor time; what each took.
    fn spend(&mut self, runtime: &Runtime, request: &Arc<[u8]>, least_cpu_us: u64) -> Result<f64> {
        let batch = if request.len() > 50_000 { BATCH_OF_LARGE } else { BATCH };
        let address = self.running.address();
        let mut clients = runtime.block_on(async {
            match is_streaming(request) {
                true => Clients::connect_many(address, STREAMS).await,
                false => Clients::connect(address, request).await,
            }
        })?;
        let (start_us, mut sent) = (self.running.cpu_time_us()?, 0);
        loop {
            sent += runtime.block_on(clients.send(request, batch))?;
            let used_us = self.running.cpu_time_us()? - start_us;
            if used_us >= least_cpu_us {
                return Ok(used_us as f64 / sent as f64);
            }
        }
    }
}

impl Running {
    fn address(&self) -> SocketAddr {
        match self {
            Running::Envoy(gateway) => gateway.envoy.address(),
            Running::Peer(peer) => peer.address(),
            Running::EndpointPicker(picker) => picker.address(),
        }
    }

    fn cpu_time_us(&self) -> Result<u64> {
        match self {
            Running::Envoy(gateway) => gateway.envoy.cpu_time_us(),
            Running::Peer(peer) => peer.cpu_time_us(),
            Running::EndpointPicker(picker) => picker.cpu_time_us(),
        }
    }

    fn memory_bytes(&self) -> Result<u64> {
        match self {
            Running::Envoy(gateway) => gateway.envoy.memory_bytes(),
            Running::Peer(peer) => peer.memory_bytes(),
            Running::EndpointPicker(picker) => picker.memory_bytes(),
        }
    }
}

/// A line for each of them.
pub fn table(costs: &[PeerCost]) -> Table {
    let columns = ["1 KB", "7 KB", "100 KB", "an event of a stream", "waits: p50", "p99", "memory"];
    let mut table = Table::new("", columns);
    for cost in costs {
        let wait = |figure: fn(&Times) -> f64| {
            let values: Vec<f64> = cost.waits_ms.iter().map(figure).collect();
            format!("{:.2} ms", median(&values))
        };
        let requests = cost.cpu_us.iter().map(|cpu_us| format!("{:.0} µs", median(cpu_us)));
        let event_us = (median(&cost.stream_cpu_us) - median(&cost.cpu_us[0])) / STREAM_EVENTS as f64;
        let others = [
            format!("{event_us:.1} µs"),
            wait(|times| times.p50),
            wait(|times| times.p99),
            format!("{:.0} MB", cost.memory_bytes as f64 / 1e6),
        ];
        table.row(cost.name, requests.chain(others));
    }
    table
}
