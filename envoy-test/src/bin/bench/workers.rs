//! What workers add: a gateway starts one for each core, and what the plugin costs must not grow with them. A request, an idle
//! gateway and its memory with 1 to 32 workers, beside plain Envoy, a plugin that does nothing and, where its folder is given,
//! another build of the plugin.

use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use envoy_test::envoy::Instructions;
use envoy_test::table::Table;
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::builds::Build;
use crate::clients::Clients;
use crate::gateway::{Gateway, GatewaySettings, Scraping, Variant};
use crate::model_servers::ModelServers;
use crate::requests::{ENDPOINTS, TYPICAL_KILOBYTES, chat};
use crate::rounds::{check_picks, median};

const WORKERS: [u32; 4] = [1, 4, 16, 32];
/// So many that hardly a worker has none.
const CLIENTS: u64 = 128;
/// Until V8 has optimized the code in every worker.
const WARM_UP_CPU_US: u64 = 3_000_000;
const ROUND_CPU_US: u64 = 400_000;
const BATCH: u64 = 1_024;
/// Until what was in flight is over, and nothing is known to change.
const REST: Duration = Duration::from_secs(2);
const IDLE_ROUND: Duration = Duration::from_secs(3);

/// What one Envoy costs; a value for each round.
#[derive(Debug, Serialize)]
pub struct WorkersCost {
    workers: u32,
    build: Build,
    variant: Variant,
    cpu_us: Vec<f64>,
    instructions: Vec<f64>,
    /// Of one core, while there are no requests.
    idle_share: Vec<f64>,
    memory_bytes: u64,
}

struct Contender {
    gateway: Gateway,
    clients: Clients,
    instructions: Option<Instructions>,
    cost: WorkersCost,
}

/// `other` is a checkout of the project with another build of the plugin.
pub fn measure(runtime: &Runtime, rounds: usize, other: Option<&Path>) -> Result<Vec<WorkersCost>> {
    let servers = ModelServers::start(runtime, ENDPOINTS)?;
    let request = chat(TYPICAL_KILOBYTES, false);
    let mut contenders = Vec::new();
    for workers in WORKERS {
        for case in cases(other) {
            contenders.push(Contender::start(runtime, &servers, &request, workers, case)?);
        }
    }
    for _ in 0..rounds {
        for contender in &mut contenders {
            contender.spend(runtime, &servers, &request)?;
        }
    }
    sleep(REST);
    for _ in 0..rounds {
        idle_round(&mut contenders)?;
    }
    for contender in &mut contenders {
        contender.cost.memory_bytes = contender.gateway.envoy.memory_bytes()?;
    }
    Ok(contenders.into_iter().map(|contender| contender.cost).collect())
}

/// Plain Envoy and a plugin that does nothing, and each build of the plugin that picks.
fn cases(other: Option<&Path>) -> impl Iterator<Item = (Variant, Build, Option<&Path>)> {
    let floor = [Variant::Plain, Variant::DoesNothing].map(|variant| (variant, Build::Own, None));
    let picking = Build::measured(other).flat_map(|(build, checkout)| {
        [Variant::Default, Variant::PrefixCache].map(|variant| (variant, build, checkout))
    });
    floor.into_iter().chain(picking)
}

/// Nobody sends anything to any of them.
fn idle_round(contenders: &mut [Contender]) -> Result<()> {
    let used = |contenders: &[Contender]| {
        contenders.iter().map(|contender| contender.gateway.envoy.cpu_time_us()).collect::<Result<Vec<u64>>>()
    };
    let (before, started) = (used(contenders)?, Instant::now());
    sleep(IDLE_ROUND);
    let seconds = started.elapsed().as_secs_f64();
    let after = used(contenders)?;
    for ((contender, before), after) in contenders.iter_mut().zip(before).zip(after) {
        contender.cost.idle_share.push((after - before) as f64 / 1e6 / seconds);
    }
    Ok(())
}

impl Contender {
    fn start(
        runtime: &Runtime,
        servers: &ModelServers,
        request: &Arc<[u8]>,
        workers: u32,
        (variant, build, checkout): (Variant, Build, Option<&Path>),
    ) -> Result<Contender> {
        let settings =
            GatewaySettings { scraping: Scraping::EveryMs(50), workers, ..GatewaySettings::default() };
        let gateway = Gateway::start_with(variant, &servers.addresses, settings, checkout)?;
        let clients = runtime.block_on(Clients::connect_many(gateway.envoy.address(), CLIENTS))?;
        let cost = WorkersCost {
            workers,
            build,
            variant,
            cpu_us: Vec::new(),
            instructions: Vec::new(),
            idle_share: Vec::new(),
            memory_bytes: 0,
        };
        let mut contender = Contender { gateway, clients, instructions: None, cost };
        contender.send(runtime, servers, request, WARM_UP_CPU_US)?;
        contender.instructions = contender.gateway.envoy.count_instructions().ok();
        Ok(contender)
    }

    /// Sends until Envoy has used so much processor time; how many were sent, and the time.
    fn send(
        &mut self,
        runtime: &Runtime,
        servers: &ModelServers,
        request: &Arc<[u8]>,
        least_cpu_us: u64,
    ) -> Result<(u64, u64)> {
        let (counts, start_us) = (servers.counts(), self.gateway.envoy.cpu_time_us()?);
        let mut sent = 0;
        loop {
            sent += runtime.block_on(self.clients.send(request, BATCH))?;
            let used_us = self.gateway.envoy.cpu_time_us()? - start_us;
            if used_us >= least_cpu_us {
                check_picks(self.cost.variant, servers.counts().since(counts), sent)?;
                return Ok((sent, used_us));
            }
        }
    }

    fn spend(&mut self, runtime: &Runtime, servers: &ModelServers, request: &Arc<[u8]>) -> Result<()> {
        let start = self.instructions.as_mut().map(Instructions::count).transpose()?;
        let (sent, used_us) = self.send(runtime, servers, request, ROUND_CPU_US)?;
        ensure!(sent > 0, "nothing was sent");
        let end = self.instructions.as_mut().map(Instructions::count).transpose()?;
        self.cost.cpu_us.push(used_us as f64 / sent as f64);
        self.cost.instructions.extend(end.zip(start).map(|(end, start)| (end - start) as f64 / sent as f64));
        Ok(())
    }
}

/// A line a build, strategy and number of workers.
pub fn table(costs: &[WorkersCost]) -> Table {
    let columns =
        ["a request", "added", "of that with 1 worker", "idle, of one core", "memory", "31 workers more"];
    let mut table = Table::new("workers", columns);
    for cost in costs {
        let plain = plain(costs, cost.workers);
        let first = costs.iter().find(|other| cost.is_like(other) && other.workers == 1);
        let added = plain.map_or(0.0, |plain| cost.added(plain));
        let growth =
            first.zip(self::plain(costs, 1)).map_or(1.0, |(first, plain)| added / first.added(plain));
        let more = first.filter(|_| Some(&cost.workers) == WORKERS.last());
        let is_plain = cost.variant == Variant::Plain;
        let unless_plain = |text: String| if is_plain { String::new() } else { text };
        let cells = [
            cost.request(),
            unless_plain(cost.unit(added)),
            unless_plain(format!("×{growth:.2}")),
            format!("{:.1} %", median(&cost.idle_share) * 100.0),
            format!("{:.0} MB", cost.memory_bytes as f64 / 1e6),
            more.map_or(String::new(), |first| {
                format!("{:+.0} MB", (cost.memory_bytes as f64 - first.memory_bytes as f64) / 1e6)
            }),
        ];
        table.row(&format!("{}, {}", cost.workers, cost.name()), cells);
    }
    table
}

fn plain(costs: &[WorkersCost], workers: u32) -> Option<&WorkersCost> {
    costs.iter().find(|cost| cost.variant == Variant::Plain && cost.workers == workers)
}

impl WorkersCost {
    fn is_like(&self, other: &WorkersCost) -> bool {
        (self.build, self.variant) == (other.build, other.variant)
    }

    fn name(&self) -> String {
        format!("{}{}", self.variant.name(), self.build.suffix())
    }

    /// Instructions where they were counted, else processor time.
    fn values(&self) -> &[f64] {
        if self.instructions.is_empty() { &self.cpu_us } else { &self.instructions }
    }

    fn request(&self) -> String {
        self.unit(median(self.values()))
    }

    fn unit(&self, value: f64) -> String {
        if self.instructions.is_empty() {
            format!("{value:.0} µs")
        } else {
            format!("{:.0},000", value / 1e3)
        }
    }

    /// More than plain Envoy, round by round.
    fn added(&self, plain: &WorkersCost) -> f64 {
        let rounds = self.values().iter().zip(plain.values());
        median(&rounds.map(|(own, plain)| own - plain).collect::<Vec<f64>>())
    }
}
