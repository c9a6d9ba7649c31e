//! Compares picks in virtual time.

use anyhow::Result;
use clap::Parser;
use envoy_test::simulation::picker::{Gateways, PickerKind};
use envoy_test::simulation::pool::PoolSettings;
use envoy_test::simulation::report::Measures;
use envoy_test::simulation::workload::Workload;
use envoy_test::simulation::{Scenario, simulate};

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
    /// Requests a second.
    #[arg(long, default_value_t = 24.0)]
    rate: f64,
    #[arg(long, default_value_t = 4000)]
    requests: usize,
    #[arg(long, default_value_t = 4)]
    pods: usize,
    #[arg(long)]
    slow_pod: bool,
    #[arg(long, default_value_t = 1.0)]
    kv_share: f64,
    #[arg(long, default_value_t = 1)]
    workers: usize,
    #[arg(long, default_value_t = 1)]
    gateways: usize,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let workloads =
        if arguments.workload.is_empty() { Workload::ALL.to_vec() } else { arguments.workload.clone() };
    let pickers =
        if arguments.picker.is_empty() { PickerKind::ALL.to_vec() } else { arguments.picker.clone() };
    for &workload in &workloads {
        for &picker in &pickers {
            let scenario = Scenario {
                workload,
                picker,
                rate_per_s: arguments.rate,
                requests: arguments.requests,
                seed: arguments.seed,
                pool: PoolSettings {
                    pods: arguments.pods,
                    slow_pod: arguments.slow_pod,
                    kv_share: arguments.kv_share,
                },
                gateways: Gateways { gateways: arguments.gateways, workers: arguments.workers },
            };
            let m = Measures::of(&simulate(&scenario)?);
            println!(
                "| {} | {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} | {:.2} | {:.2} |",
                workload.name(),
                picker.name(),
                m.first_token_ms.mean,
                m.first_token_ms.p50,
                m.first_token_ms.p90,
                m.first_token_ms.p99,
                m.end_to_end_ms.mean,
                m.output_tokens_per_s,
                m.cache_hit_share,
                m.busiest_by_tokens,
                m.busiest_by_requests
            );
        }
    }
    Ok(())
}
