//! Compares picks in virtual time: every picker on every kind of traffic, or those that are named.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::Result;
use clap::Parser;
use envoy_test::simulation::picker::{Gateways, PickerKind};
use envoy_test::simulation::pool::PoolSettings;
use envoy_test::simulation::report::Measures;
use envoy_test::simulation::workload::{Workload, find_capacity};
use envoy_test::simulation::{Scenario, simulate};

/// Compares picks in virtual time.
#[derive(Debug, Parser)]
struct Arguments {
    /// Traffic; all kinds if none is named.
    #[arg(long)]
    workload: Vec<Workload>,
    /// Who picks; everybody if nobody is named.
    #[arg(long)]
    picker: Vec<PickerKind>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Share of the pool's capacity that arrives; may be given several times.
    #[arg(long, default_values_t = [0.7, 0.9])]
    load: Vec<f64>,
    /// Requests a second, in place of a load.
    #[arg(long)]
    rate: Option<f64>,
    #[arg(long, default_value_t = 4000)]
    requests: usize,
    #[arg(long, default_value_t = 4)]
    pods: usize,
    /// Has the first pod three times slower than the others.
    #[arg(long)]
    slow_pod: bool,
    /// Part of the usual KV cache that each pod has.
    #[arg(long, default_value_t = 1.0)]
    kv_share: f64,
    #[arg(long, default_value_t = 1)]
    workers: usize,
    #[arg(long, default_value_t = 1)]
    gateways: usize,
    /// Searches the capacity for each kind of traffic instead.
    #[arg(long)]
    find_capacity: bool,
}

impl Arguments {
    fn pool(&self) -> PoolSettings {
        PoolSettings { pods: self.pods, slow_pod: self.slow_pod, kv_share: self.kv_share }
    }

    fn rates(&self, workload: Workload) -> Vec<f64> {
        let capacity_per_s =
            workload.capacity_per_s() * self.pool().speed() / PoolSettings::default().speed();
        match self.rate {
            Some(rate) => vec![rate],
            None => self.load.iter().map(|load| load * capacity_per_s).collect(),
        }
    }

    fn scenarios(&self) -> Vec<Scenario> {
        let workloads = if self.workload.is_empty() { &Workload::ALL[..] } else { &self.workload };
        let pickers = if self.picker.is_empty() { &PickerKind::ALL[..] } else { &self.picker };
        let mut scenarios = Vec::new();
        for &workload in workloads {
            for rate_per_s in self.rates(workload) {
                scenarios.extend(pickers.iter().map(|&picker| self.scenario(workload, rate_per_s, picker)));
            }
        }
        scenarios
    }

    fn scenario(&self, workload: Workload, rate_per_s: f64, picker: PickerKind) -> Scenario {
        Scenario {
            workload,
            picker,
            rate_per_s,
            requests: self.requests,
            seed: self.seed,
            pool: self.pool(),
            gateways: Gateways { gateways: self.gateways, workers: self.workers },
        }
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let scenarios = arguments.scenarios();
    if arguments.find_capacity {
        return print_capacities(scenarios);
    }
    println!(
        "| workload | req/s | picker | TTFT mean | p50 | p90 | p99 | E2E mean | p90 | out tok/s | hits | max/mean tokens | max/mean requests |"
    );
    println!("|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for (scenario, measures) in
        scenarios.iter().zip(in_parallel(&scenarios, |s| Ok(Measures::of(&simulate(s)?)))?)
    {
        let (ttft, end) = (measures.first_token_ms, measures.end_to_end_ms);
        println!(
            "| {} | {:.1} | {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} | {:.2} | {:.2} |",
            scenario.workload.name(),
            scenario.rate_per_s,
            scenario.picker.name(),
            ttft.mean,
            ttft.p50,
            ttft.p90,
            ttft.p99,
            end.mean,
            end.p90,
            measures.output_tokens_per_s,
            measures.cache_hit_share,
            measures.busiest_by_tokens,
            measures.busiest_by_requests
        );
    }
    Ok(())
}

fn print_capacities(mut scenarios: Vec<Scenario>) -> Result<()> {
    scenarios.dedup_by_key(|scenario| scenario.workload);
    for (scenario, capacity) in scenarios.iter().zip(in_parallel(&scenarios, find_capacity)?) {
        println!("{:16} {capacity:6.1} requests/s", scenario.workload.name());
    }
    Ok(())
}

/// Does the work for each scenario, on all cores; results in the order of the scenarios.
fn in_parallel<R: Send>(
    scenarios: &[Scenario],
    work: impl Fn(&Scenario) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = work(scenario);
                    let mut results = results.lock().unwrap();
                    let place = scenarios.iter().position(|other| std::ptr::eq(other, scenario));
                    results.push((place, result));
                    eprint!("\r{}/{} ", results.len(), scenarios.len());
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap();
    eprintln!();
    results.sort_by_key(|(place, _)| *place);
    results.into_iter().map(|(_, result)| result).collect()
}
