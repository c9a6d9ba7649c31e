//! Lets several Envoys take turns with the same request, and says what each turn cost.

use std::sync::Arc;

use anyhow::{Result, ensure};
use envoy_test::envoy::Instructions;
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::clients::{Clients, is_streaming};
use crate::gateway::{Gateway, Variant};
use crate::model_servers::{Counts, ModelServers};

/// Processor time of one round, in microseconds: fifty times the step in which Linux counts it.
const ROUND_CPU_US: u64 = 500_000;
/// Processor time before the first round of an Envoy: by then V8 has optimized the code.
pub const WARM_UP_CPU_US: u64 = 2_000_000;
/// The same for one that has had other requests: by then connections are open.
pub const NEXT_WARM_UP_CPU_US: u64 = 200_000;
/// Requests sent between two looks at the clock: of large ones fewer, and of streams, which take a while.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 32 << 20;
const STREAMING_BATCH: u64 = 128;

/// What a request costs Envoy, with one value for each round.
#[derive(Debug, Serialize)]
pub struct Cost {
    pub variant: Variant,
    /// Processor time in microseconds.
    pub cpu_us: f64,
    pub rounds_cpu_us: Vec<f64>,
    /// Compared with the first variant, round by round.
    pub ratio: f64,
    pub ratio_lowest: f64,
    pub ratio_highest: f64,
    /// Instructions in user mode; none where the machine does not let them be counted.
    pub instructions: Option<f64>,
    pub rounds_instructions: Vec<f64>,
}

/// Measures one request on each of the Envoys, in turns.
pub fn measure(
    runtime: &Runtime,
    servers: &ModelServers,
    gateways: &[Gateway],
    request: &Arc<[u8]>,
    warm_up_cpu_us: u64,
    rounds: usize,
) -> Result<Vec<Cost>> {
    let costs = measure_pools(runtime, &[(servers, gateways)], request, warm_up_cpu_us, rounds)?;
    Ok(costs.into_iter().flatten().collect())
}

/// The same on several pools of servers, each with its own Envoys; the pools take turns, too.
pub fn measure_pools(
    runtime: &Runtime,
    pools: &[(&ModelServers, &[Gateway])],
    request: &Arc<[u8]>,
    warm_up_cpu_us: u64,
    rounds: usize,
) -> Result<Vec<Vec<Cost>>> {
    let prepared =
        pools.iter().map(|(servers, gateways)| prepare(runtime, servers, gateways, request, warm_up_cpu_us));
    let mut contenders: Vec<_> = prepared.collect::<Result<_>>()?;
    for _ in 0..rounds {
        for contender in contenders.iter_mut().flatten() {
            let round = contender.spend(runtime, request, ROUND_CPU_US)?;
            contender.rounds.push(round);
        }
    }
    Ok(contenders.into_iter().map(costs).collect())
}

fn prepare<'a>(
    runtime: &Runtime,
    servers: &'a ModelServers,
    gateways: &'a [Gateway],
    request: &Arc<[u8]>,
    warm_up_cpu_us: u64,
) -> Result<Vec<Contender<'a>>> {
    let warmed_up = |gateway: &'a Gateway| {
        let clients = runtime.block_on(Clients::connect(gateway.envoy.address(), request))?;
        let mut contender = Contender { gateway, servers, clients, instructions: None, rounds: Vec::new() };
        contender.spend(runtime, request, warm_up_cpu_us)?;
        gateway.check_that_it_runs()?;
        // From then on: by now V8 has its threads.
        contender.instructions = gateway.envoy.count_instructions().ok();
        Ok(contender)
    };
    gateways.iter().map(warmed_up).collect()
}

struct Contender<'a> {
    gateway: &'a Gateway,
    servers: &'a ModelServers,
    clients: Clients,
    instructions: Option<Instructions>,
    rounds: Vec<Round>,
}

/// What a request took in one round.
struct Round {
    cpu_us: f64,
    instructions: Option<f64>,
}

impl Contender<'_> {
    /// Sends requests until Envoy has used so much processor time; returns what each took.
    fn spend(&mut self, runtime: &Runtime, request: &Arc<[u8]>, least_cpu_us: u64) -> Result<Round> {
        let (counts, start_us) = (self.servers.counts(), self.gateway.envoy.cpu_time_us()?);
        let start_instructions = self.instructions()?;
        let mut sent = 0;
        let used_us = loop {
            sent += runtime.block_on(self.clients.send(request, batch(request)))?;
            let used_us = self.gateway.envoy.cpu_time_us()? - start_us;
            if used_us >= least_cpu_us {
                break used_us;
            }
        };
        let instructions = self.instructions()?.zip(start_instructions).map(|(now, start)| now - start);
        check_picks(self.gateway.variant, self.servers.counts().since(counts), sent)?;
        let each = |used: u64| used as f64 / sent as f64;
        Ok(Round { cpu_us: each(used_us), instructions: instructions.map(each) })
    }

    /// Those of Envoy so far.
    fn instructions(&mut self) -> Result<Option<u64>> {
        Ok(self.instructions.as_mut().map(Instructions::count).transpose()?)
    }

    fn rounds_cpu_us(&self) -> Vec<f64> {
        self.rounds.iter().map(|round| round.cpu_us).collect()
    }
}

fn batch(request: &[u8]) -> u64 {
    if is_streaming(request) { STREAMING_BATCH } else { (BATCH_BYTES / request.len()).clamp(1, BATCH) as u64 }
}

/// Fails unless the servers had all requests that were sent, each where it was picked for, or without a pick where
/// nobody picks.
pub fn check_picks(variant: Variant, counts: Counts, sent: u64) -> Result<()> {
    let picked = if variant.picks() { sent } else { 0 };
    ensure!(
        (counts.requests, counts.picked_requests) == (sent, picked),
        "{variant:?}: {sent} requests were sent and {picked} picks expected, but there were {counts:?}"
    );
    Ok(())
}

fn costs(contenders: Vec<Contender<'_>>) -> Vec<Cost> {
    let Some(first) = contenders.first() else { return Vec::new() };
    let first_cpu_us = first.rounds_cpu_us();
    contenders.iter().map(|contender| Cost::new(contender, &first_cpu_us)).collect()
}

impl Cost {
    fn new(contender: &Contender<'_>, first_cpu_us: &[f64]) -> Cost {
        let rounds_cpu_us = contender.rounds_cpu_us();
        let rounds_instructions: Vec<f64> =
            contender.rounds.iter().filter_map(|round| round.instructions).collect();
        let (ratio, ratio_lowest, ratio_highest) = compare(&rounds_cpu_us, first_cpu_us);
        Cost {
            variant: contender.gateway.variant,
            cpu_us: median(&rounds_cpu_us),
            rounds_cpu_us,
            ratio,
            ratio_lowest,
            ratio_highest,
            instructions: contender.instructions.is_some().then(|| median(&rounds_instructions)),
            rounds_instructions,
        }
    }
}

/// How many times as much as others the rounds took, round by round: the median, the lowest and the highest.
pub fn compare(rounds_cpu_us: &[f64], others_cpu_us: &[f64]) -> (f64, f64, f64) {
    let ratios: Vec<f64> = rounds_cpu_us.iter().zip(others_cpu_us).map(|(own, other)| own / other).collect();
    let lowest = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    (median(&ratios), lowest, ratios.iter().copied().fold(0.0, f64::max))
}

/// The value in the middle; of an even number of values the higher of the two.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
