//! What an Envoy can take, how long requests take at half of what the slowest can, when all have the same load and none
//! has too much, and what one costs where there are few: Envoy then wakes up for each.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use envoy_test::document::grouped;
use envoy_test::table::Table;
use envoy_test::times::Times;
use fastrand::Rng;
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::clients::Clients;
use crate::gateway::{Gateway, Scraping, Variant};
use crate::model_servers::ModelServers;
use crate::open_loop::OpenLoop;
use crate::requests::{ENDPOINTS, TYPICAL_KILOBYTES, chat, start};
use crate::rounds::{check_picks, median};

const VARIANTS: [Variant; 4] = [Variant::Plain, Variant::DoesNothing, Variant::Default, Variant::PrefixCache];
const ROUND: Duration = Duration::from_secs(2);
/// Requests sent between two looks at the clock.
const BATCH: u64 = 512;
/// Of few requests.
const FEW_PER_S: f64 = 1_000.0;
/// Until V8 has optimized the code.
const WARM_UP_REQUESTS: u64 = 60_000;
/// The arrivals at half load are drawn from it.
const SEED: u64 = 1;

/// What was seen of one variant in all rounds.
#[derive(Debug, Serialize)]
pub struct Capacity {
    pub variant: Variant,
    pub saturated: Vec<Saturated>,
    pub half: Vec<Latency>,
    /// Envoy's processor time a request in rounds with few requests, what else it does included.
    pub few_cpu_us: Vec<f64>,
}

/// A round with as many requests as are answered.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Saturated {
    pub requests_per_s: f64,
    /// Of one core, used by Envoy.
    pub core_share: f64,
    pub cpu_us: f64,
}

/// A round at half load.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    pub p50_us: f64,
    pub p99_us: f64,
}

pub fn measure(runtime: &Runtime, rounds: usize) -> Result<Vec<Capacity>> {
    let servers = ModelServers::start(runtime, ENDPOINTS)?;
    let gateways = start(&VARIANTS, &servers, Scraping::Rarely)?;
    let request = chat(TYPICAL_KILOBYTES, false);
    let mut contenders = Vec::new();
    for gateway in &gateways {
        let clients = runtime.block_on(Clients::connect(gateway.envoy.address(), &request))?;
        let mut contender = Contender { runtime, servers: &servers, gateway, clients, request: &request };
        contender.send(WARM_UP_REQUESTS)?;
        gateway.check_that_it_runs()?;
        contenders.push(contender);
    }
    let mut results: Vec<_> = VARIANTS.map(Capacity::new).into();
    for _ in 0..rounds {
        for (contender, result) in contenders.iter_mut().zip(&mut results) {
            result.saturated.push(contender.saturate()?);
        }
    }
    let half_per_s = half_load_per_s(&results);
    let mut rng = Rng::with_seed(SEED);
    for _ in 0..rounds {
        for (contender, result) in contenders.iter().zip(&mut results) {
            result.half.push(contender.wait_at(half_per_s, &mut rng)?);
        }
    }
    for _ in 0..rounds {
        for (contender, result) in contenders.iter().zip(&mut results) {
            result.few_cpu_us.push(contender.cpu_us_at(FEW_PER_S, &mut rng)?);
        }
    }
    Ok(results)
}

struct Contender<'a> {
    runtime: &'a Runtime,
    servers: &'a ModelServers,
    gateway: &'a Gateway,
    clients: Clients,
    request: &'a std::sync::Arc<[u8]>,
}

impl Contender<'_> {
    fn send(&mut self, count: u64) -> Result<u64> {
        self.runtime.block_on(self.clients.send(self.request, count))
    }

    /// Sends as fast as answers come.
    fn saturate(&mut self) -> Result<Saturated> {
        let (counts, cpu_us) = (self.servers.counts(), self.gateway.envoy.cpu_time_us()?);
        let (started, mut sent) = (Instant::now(), 0);
        while started.elapsed() < ROUND {
            sent += self.send(BATCH)?;
        }
        let seconds = started.elapsed().as_secs_f64();
        let cpu_us = (self.gateway.envoy.cpu_time_us()? - cpu_us) as f64;
        check_picks(self.gateway.variant, self.servers.counts().since(counts), sent)?;
        Ok(Saturated {
            requests_per_s: sent as f64 / seconds,
            core_share: cpu_us / 1e6 / seconds,
            cpu_us: cpu_us / sent as f64,
        })
    }

    /// Envoy's processor time a request at this rate.
    fn cpu_us_at(&self, rate_per_s: f64, rng: &mut Rng) -> Result<f64> {
        let mut client = OpenLoop::new(self.gateway.envoy.address())?;
        client.send(self.request, rate_per_s, ROUND / 4, rng)?;
        let cpu_us = self.gateway.envoy.cpu_time_us()?;
        let answered = client.send(self.request, rate_per_s, ROUND, rng)?.len();
        ensure!(answered > 0, "nothing was sent");
        Ok((self.gateway.envoy.cpu_time_us()? - cpu_us) as f64 / answered as f64)
    }

    /// Sends at this rate, whatever comes back.
    fn wait_at(&self, rate_per_s: f64, rng: &mut Rng) -> Result<Latency> {
        let mut client = OpenLoop::new(self.gateway.envoy.address())?;
        // Opens the connections.
        client.send(self.request, rate_per_s, ROUND / 4, rng)?;
        let counts = self.servers.counts();
        let took = client.send(self.request, rate_per_s, ROUND, rng)?;
        check_picks(self.gateway.variant, self.servers.counts().since(counts), took.len() as u64)?;
        ensure!(!took.is_empty(), "nothing was sent");
        let took = Times::of(took.into_iter());
        Ok(Latency { p50_us: took.p50 * 1e3, p99_us: took.p99 * 1e3 })
    }
}

impl Capacity {
    fn new(variant: Variant) -> Capacity {
        Capacity { variant, saturated: Vec::new(), half: Vec::new(), few_cpu_us: Vec::new() }
    }

    fn requests_per_s(&self) -> f64 {
        self.of_saturated(|round| round.requests_per_s)
    }

    fn of_saturated(&self, value: fn(&Saturated) -> f64) -> f64 {
        median(&self.saturated.iter().map(value).collect::<Vec<_>>())
    }

    fn of_half(&self, value: fn(&Latency) -> f64) -> f64 {
        median(&self.half.iter().map(value).collect::<Vec<_>>())
    }
}

/// The requests a second that all get in the second half of the measurement.
fn half_load_per_s(results: &[Capacity]) -> f64 {
    results.iter().map(Capacity::requests_per_s).fold(f64::INFINITY, f64::min) / 2.0
}

pub fn table(results: &[Capacity]) -> Table {
    let at_half = format!("at {} a second: p50", grouped(half_load_per_s(results) as u64));
    let at_few = format!("at {} a second: a request", grouped(FEW_PER_S as u64));
    let columns =
        ["saturated: requests a second", "Envoy's share of a core", "a request", &at_few, &at_half, "p99"];
    let mut table = Table::new("chat of 7 KB", columns);
    for result in results {
        let (p50_us, p99_us) = (result.of_half(|half| half.p50_us), result.of_half(|half| half.p99_us));
        let plain = &results[0];
        let more = |own: f64, plain: f64| match result.variant {
            Variant::Plain => format!("{own:.0} µs"),
            _ => format!("{own:.0} µs, {:+.0}", own - plain),
        };
        let cells = [
            grouped(result.requests_per_s() as u64),
            format!("{:.0} %", result.of_saturated(|round| round.core_share) * 100.0),
            format!("{:.1} µs", result.of_saturated(|round| round.cpu_us)),
            times(&result.few_cpu_us, &plain.few_cpu_us),
            more(p50_us, plain.of_half(|half| half.p50_us)),
            more(p99_us, plain.of_half(|half| half.p99_us)),
        ];
        table.row(result.variant.name(), cells);
    }
    table
}

/// The median, and how many times that of plain Envoy it is.
fn times(own: &[f64], plain: &[f64]) -> String {
    format!("{:.0} µs, ×{:.2}", median(own), median(own) / median(plain))
}
