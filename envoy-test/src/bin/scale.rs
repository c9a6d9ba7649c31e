//! `make bench-scale`: plays large pools in virtual time, prints what came of it, and with `--write` puts it into
//! `docs/scale.md`.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use clap::Parser;
use envoy_test::document::{grouped, write_section};
use envoy_test::envoy::binary::project_root;
use envoy_test::simulation::picker::{Gateways, PickerKind};
use envoy_test::simulation::scale::{LargeOutcome, LargeScenario, Traffic, measure};
use envoy_test::table::Table;
use rayon::prelude::*;

/// Plays large pools in virtual time.
#[derive(Debug, Parser)]
struct Arguments {
    /// Puts the tables into docs/scale.md.
    #[arg(long)]
    write: bool,
    /// Only sections whose name has this in it.
    #[arg(long, default_value = "")]
    only: String,
    /// Leaves out pools of more pods.
    #[arg(long, default_value_t = usize::MAX)]
    pods_max: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Pods of the pool in which workers and gateways are compared.
const PODS: usize = 200;
const SECTIONS: [&str; 4] = ["pods", "workers", "gateways", "scraping"];
/// How often endpoints are scraped by default, and under `scrapeBudget` about those of pools of 100 and of 1,000 busy ones
/// (docs/benchmarks.md).
const SCRAPE_INTERVALS_MS: [Option<u64>; 3] = [None, Some(300), Some(2_000)];

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut jobs = Vec::new();
    for (section, scenarios) in sections(arguments.seed) {
        let wanted = section.contains(&arguments.only);
        let scenarios = scenarios.into_iter().filter(|one| wanted && one.pods <= arguments.pods_max);
        jobs.extend(scenarios.map(|scenario| (section, scenario)));
    }
    let outcomes = play_all(&jobs)?;
    for section in SECTIONS {
        let lines = jobs.iter().zip(&outcomes).filter(|((of, _), _)| *of == section);
        let table = table(lines.map(|((_, scenario), outcome)| (scenario, outcome)));
        println!("## {section}\n\n{table}");
        if arguments.write {
            write_section(&project_root().join("docs/scale.md"), section, "make bench-scale", &table)?;
        }
    }
    let requests: usize = outcomes.iter().map(|outcome| outcome.requests).sum();
    println!("{requests} requests");
    Ok(())
}

/// On all cores, the longest first, so that none is left to one core at the end.
fn play_all(jobs: &[(&str, LargeScenario)]) -> Result<Vec<LargeOutcome>> {
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by_key(|&place| std::cmp::Reverse(jobs[place].1.pods * jobs[place].1.requests_a_pod));
    let done = AtomicUsize::new(0);
    let played = order.into_iter().par_bridge().map(|place| {
        let outcome = measure(&jobs[place].1)?;
        eprintln!("{} of {}", done.fetch_add(1, Ordering::Relaxed) + 1, jobs.len());
        Ok((place, outcome))
    });
    let mut outcomes = played.collect::<Result<Vec<_>>>()?;
    outcomes.sort_by_key(|(place, _)| *place);
    Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
}

fn sections(seed: u64) -> [(&'static str, Vec<LargeScenario>); 4] {
    let one = Gateways::default();
    let pools = [10, 50, 200, 1_000, 2_000].map(|pods| (pods, one));
    let workers = [1, 4, 16, 64].map(|workers| (PODS, Gateways { workers, ..one }));
    let alone = [1, 2, 5, 20].map(|gateways| (PODS, Gateways { gateways, ..one }));
    let exchanging = [2, 5, 20]
        .map(|gateways| (PODS, Gateways { gateways, peers_ms: Some(Gateways::LATENESS_MS), ..one }));
    let kinds = [
        (Traffic::Random, PickerKind::LeastRequest),
        (Traffic::Random, PickerKind::Default),
        (Traffic::Documents, PickerKind::PrefixCache),
    ];
    let all = |kinds: &[(Traffic, PickerKind)], settings: &[(usize, Gateways)]| {
        let pairs = kinds.iter().flat_map(|kind| settings.iter().map(move |setting| (*kind, *setting)));
        let scenario =
            |((traffic, picker), (pods, gateways))| scenario(traffic, picker, pods, gateways, seed);
        pairs.map(scenario).collect()
    };
    let scraped = [1, 5].into_iter().flat_map(|gateways| {
        SCRAPE_INTERVALS_MS.map(|scrape_interval_ms| (PODS, Gateways { gateways, scrape_interval_ms, ..one }))
    });
    let scraped: Vec<_> = scraped.collect();
    let [of_pods, of_workers, of_gateways, of_scraping] = SECTIONS;
    [
        (of_pods, all(&kinds, &pools)),
        (of_workers, all(&kinds[1..], &workers)),
        (of_gateways, all(&kinds[1..], &[&alone[..], &exchanging].concat())),
        (of_scraping, all(&kinds[1..], &scraped)),
    ]
}

/// Questions about documents are as many that most documents have been asked about.
fn scenario(
    traffic: Traffic,
    picker: PickerKind,
    pods: usize,
    gateways: Gateways,
    seed: u64,
) -> LargeScenario {
    let requests_a_pod = match traffic {
        Traffic::Random => 100,
        Traffic::Documents => 200,
    };
    LargeScenario { traffic, picker, pods, gateways, requests_a_pod, seed }
}

fn table<'a>(lines: impl Iterator<Item = (&'a LargeScenario, &'a LargeOutcome)>) -> String {
    const HEAD: &str = "\
        | traffic, picker | pods | gateways × workers | requests | first token: mean ms | p90 | cache hits \
        | busiest pod: in flight | by tokens | a pick, µs | index: blocks | MB | publishes, KB | reads, KB |\n\
        |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n";
    let mut table = Table::with_head(HEAD);
    for (scenario, outcome) in lines {
        let name = format!("{}, {}", scenario.traffic.name(), scenario.picker.name());
        let pool = [grouped(scenario.pods as u64), gateways(scenario.gateways)];
        table.row(&name, pool.into_iter().chain(cells(outcome)));
    }
    table.to_string()
}

fn gateways(Gateways { gateways, workers, peers_ms, scrape_interval_ms }: Gateways) -> String {
    let exchanging = if peers_ms.is_some() { ", exchanging" } else { "" };
    let scraped = scrape_interval_ms.map(|ms| format!(", scraped every {} ms", grouped(ms)));
    format!("{gateways} × {workers}{exchanging}{}", scraped.unwrap_or_default())
}

fn cells(outcome: &LargeOutcome) -> [String; 11] {
    let LargeOutcome { requests, measures, busiest_in_flight, seen } = outcome;
    let kilobytes = |bytes: usize| format!("{:.1}", bytes as f64 / 1e3);
    [
        grouped(*requests as u64),
        format!("{:.0}", measures.first_token_ms.mean),
        format!("{:.0}", measures.first_token_ms.p90),
        format!("{:.0} %", measures.cache_hit_share * 100.0),
        format!("{busiest_in_flight:.2}"),
        format!("{:.2}", measures.busiest_by_tokens),
        format!("{:.0}", seen.pick.as_secs_f64() * 1e6),
        grouped(seen.most.index_blocks as u64),
        format!("{:.1}", seen.most.index_bytes as f64 / 1e6),
        kilobytes(seen.most.published_bytes),
        kilobytes(seen.most.read_bytes + seen.most.snapshot_bytes),
    ]
}
