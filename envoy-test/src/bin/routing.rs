//! Compares picks in virtual time: every picker on every kind of traffic, or those that are named.
//!
//! It prints the figures of what the arguments name. With `--write` it plays the whole comparison instead and writes
//! `docs/routing.md`, its plots and `docs/routing.json`; with `--objective --write` it writes what everybody carries.

use std::io::Write;

use anyhow::Result;
use clap::Parser;
use envoy_test::document::write_section;
use envoy_test::envoy::binary::project_root;
use envoy_test::simulation::comparison::{Case, Repetition, compare};
use envoy_test::simulation::objective::{Objective, search};
use envoy_test::simulation::picker::{Gateways, PickerKind};
use envoy_test::simulation::pool::PoolSettings;
use envoy_test::simulation::promises;
use envoy_test::simulation::replay::report::{Held, tables};
use envoy_test::simulation::replay::server::RecordedServer;
use envoy_test::simulation::report::{self, Capacity, Section, Timeline};
use envoy_test::simulation::simulate;
use envoy_test::simulation::workload::{Workload, find_capacity};

/// Compares picks in virtual time.
#[derive(Debug, Parser)]
struct Arguments {
    /// Traffic, several times for several kinds; all kinds if none is named.
    #[arg(long)]
    workload: Vec<Workload>,
    /// Who picks; everybody if nobody is named.
    #[arg(long)]
    picker: Vec<PickerKind>,
    /// Share of the pool's capacity that arrives.
    #[arg(long, default_values_t = [0.7, 0.9])]
    load: Vec<f64>,
    /// Requests a second, in place of a load.
    #[arg(long)]
    rate: Option<f64>,
    /// Requests in each run.
    #[arg(long, default_value_t = 4000)]
    requests: usize,
    /// Seed of the first run; the next has the next one.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs of which the mean is taken.
    #[arg(long, default_value_t = 3)]
    runs: u64,
    /// Model servers.
    #[arg(long, default_value_t = 4)]
    pods: usize,
    /// Has the first pod three times slower than the others.
    #[arg(long)]
    slow_pod: bool,
    /// How fast the pods are, in place of the traffic's usual pool.
    #[arg(long)]
    engine_speed: Option<f64>,
    /// Part of the KV cache of 60,000 tokens that each pod has, in place of the traffic's usual pool.
    #[arg(long)]
    kv_share: Option<f64>,
    /// Engines that cache as SGLang's do, and print its page.
    #[arg(long)]
    radix_cache: bool,
    /// Workers in each gateway.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Gateways in front of the pool.
    #[arg(long, default_value_t = 1)]
    gateways: usize,
    /// Has the gateways exchange what they have in flight and what they sent where, so many milliseconds late.
    #[arg(long)]
    peers_ms: Option<u64>,
    /// Plays the whole comparison and writes docs/routing.md, its plots and docs/routing.json.
    #[arg(long)]
    write: bool,
    /// Searches the pool's capacity for each kind of traffic instead.
    #[arg(long)]
    find_capacity: bool,
    /// Searches the highest rate and the fewest pods at which everybody keeps the objective instead; with `--write` these
    /// tables alone are written.
    #[arg(long)]
    objective: bool,
    /// Plays requests that are promised something instead, with and without picking by that; with `--write` into docs/promises.md.
    #[arg(long)]
    promises: bool,
    /// Replays traces of real servers instead, and says how far off the simulated ones are; with `--write` into
    /// docs/simulated-servers.md.
    #[arg(long)]
    replay: bool,
    /// Of the objective: the 90th percentile of the time to first token, at most.
    #[arg(long, default_value_t = 1_000.0)]
    first_token_ms: f64,
    /// Of the objective: the 90th percentile of the time for each further token, at most.
    #[arg(long, default_value_t = 50.0)]
    per_token_ms: f64,
}

/// Runs in which the objective must be kept: each search takes a dozen of them.
const OBJECTIVE_RUNS: u64 = 2;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if arguments.find_capacity {
        return print_capacities(&arguments);
    }
    if arguments.objective {
        let capacity = arguments.capacity()?;
        let outcomes = &capacity.outcomes;
        println!("{}\n{}", report::highest_rates(outcomes), report::fewest_pods(outcomes));
        return if arguments.write { report::write_capacity(project_root(), &capacity) } else { Ok(()) };
    }
    if arguments.promises {
        return compare_promises(&arguments);
    }
    if arguments.replay {
        return replay_real_servers(&arguments);
    }
    if arguments.write {
        return write_comparison(&arguments);
    }
    let outcomes = compare(&arguments.cases(), arguments.repetition(), show_progress)?;
    println!("{}", report::details(&outcomes));
    Ok(())
}

impl Arguments {
    fn repetition(&self) -> Repetition {
        Repetition { requests: self.requests, first_seed: self.seed, runs: self.runs }
    }

    /// The oracle is left out: nobody can have it, and it takes as long as all others.
    fn capacity(&self) -> Result<Capacity> {
        let objective = Objective { first_token_ms: self.first_token_ms, per_token_ms: self.per_token_ms };
        let pickers: Vec<_> = match self.picker.as_slice() {
            [] => PickerKind::ALL.into_iter().filter(|&picker| picker != PickerKind::Oracle).collect(),
            named => named.to_vec(),
        };
        let seeds = self.seed..self.seed + OBJECTIVE_RUNS;
        let outcomes = search(self.workloads(), &pickers, objective, seeds, show_progress)?;
        Ok(Capacity { objective, outcomes })
    }

    fn workloads(&self) -> &[Workload] {
        if self.workload.is_empty() { &Workload::ALL } else { &self.workload }
    }

    fn cases(&self) -> Vec<Case> {
        let loads = if self.rate.is_some() { &[1.0][..] } else { &self.load };
        let workloads = self.workloads().iter();
        workloads.flat_map(|&workload| loads.iter().map(move |&load| self.case(workload, load))).collect()
    }

    fn case(&self, workload: Workload, load: f64) -> Case {
        let Arguments { pods, slow_pod, radix_cache, .. } = *self;
        let usual = workload.pool();
        let engine_speed = self.engine_speed.unwrap_or(usual.engine_speed);
        let kv_share = self.kv_share.unwrap_or(usual.kv_share);
        let pool = PoolSettings { pods, slow_pod, engine_speed, kv_share, radix_cache };
        let usual = Case::with_pool(workload, load, pool);
        Case {
            rate_per_s: self.rate.unwrap_or(usual.rate_per_s),
            gateways: Gateways {
                gateways: self.gateways,
                workers: self.workers,
                peers_ms: self.peers_ms,
                ..Gateways::default()
            },
            pickers: if self.picker.is_empty() { usual.pickers } else { self.picker.clone() },
            ..usual
        }
    }
}

/// Who writes the table of docs/promises.md.
const PROMISES_COMMAND: &str = "make simulate-promises";

fn compare_promises(arguments: &Arguments) -> Result<()> {
    let table = promises::compare(arguments.repetition())?;
    println!("{table}");
    let page = project_root().join("docs/promises.md");
    if arguments.write { write_section(&page, "kept", PROMISES_COMMAND, &table) } else { Ok(()) }
}

/// Who writes the tables of docs/simulated-servers.md.
const REPLAY_COMMAND: &str = "make simulate-real-servers";

fn replay_real_servers(arguments: &Arguments) -> Result<()> {
    let held = RecordedServer::ALL.into_iter().map(Held::against).collect::<Result<Vec<_>>>()?;
    let tables = tables(&held);
    println!("{tables}");
    let page = project_root().join("docs/simulated-servers.md");
    if arguments.write { write_section(&page, "error", REPLAY_COMMAND, &tables) } else { Ok(()) }
}

fn print_capacities(arguments: &Arguments) -> Result<()> {
    for &workload in arguments.workloads() {
        let scenario =
            arguments.case(workload, 1.0).scenario(PickerKind::Oracle, arguments.requests, arguments.seed);
        println!("{:16} {:6.1} requests/s", workload.name(), find_capacity(&scenario)?);
    }
    Ok(())
}

fn write_comparison(arguments: &Arguments) -> Result<()> {
    let repetition = arguments.repetition();
    let mut sections = Vec::new();
    for (title, cases) in comparison(&arguments.load) {
        eprintln!("{title}");
        // Caches are full only when many agents have come far.
        let longer = if title == AGENTS { AGENTS_LONGER } else { 1 };
        let repetition = Repetition { requests: repetition.requests * longer, ..repetition };
        sections.push(Section { title, outcomes: compare(&cases, repetition, show_progress)? });
    }
    let hot_prompt = Case::usual(Workload::HotPrompt, 0.7);
    let timeline = |picker: PickerKind| {
        let record = simulate(&hot_prompt.scenario(picker, repetition.requests, repetition.first_seed))?;
        Ok(Timeline::new(picker.name(), &record))
    };
    let timelines = [PickerKind::DefaultWeights, PickerKind::PrefixCache].map(timeline);
    let timelines = timelines.into_iter().collect::<Result<Vec<_>>>()?;
    report::write(project_root(), &sections, &timelines)
}

/// What `docs/routing.md` shows.
fn comparison(loads: &[f64]) -> Vec<(String, Vec<Case>)> {
    let alike = Workload::ALL.into_iter().filter(|&workload| workload != Workload::Agents);
    let alike: Vec<_> = alike.collect();
    let all_at = |load: f64| {
        let cases = alike.iter().map(|&workload| Case::usual(workload, load)).collect();
        (format!("At {:.0} % of the capacity", load * 100.0), cases)
    };
    let usual = PoolSettings::default();
    let other_pools = [
        PoolSettings { slow_pod: true, ..usual.clone() },
        PoolSettings { kv_share: 1.0 / 6.0, ..usual.clone() },
        PoolSettings { pods: 16, ..usual },
    ];
    let slow_and_unshared = Case::with_pool(Workload::Random, 0.7, other_pools[0].clone());
    let other_pools = other_pools.map(|pool| Case::with_pool(Workload::Conversation, 0.7, pool));
    // Slower and faster than the plugin assumes of servers that it has not seen.
    let other_speeds = [0.25, 4.0].map(|engine_speed| Case {
        gateways: Gateways { workers: 4, ..Gateways::default() },
        ..Case::with_pool(Workload::Azure, 0.7, PoolSettings { engine_speed, ..PoolSettings::default() })
    });
    let other_pools = other_pools.into_iter().chain([slow_and_unshared]).chain(other_speeds);
    let others = [
        (AGENTS.to_owned(), agents(loads)),
        ("Other pools, at 70 % of their speed".to_owned(), other_pools.collect()),
        (report::SEVERAL_WORKERS.to_owned(), several(&IN_SEVERAL, &[1, 4, 16, 64].map(of_workers))),
        ("Several gateways, at 70 %".to_owned(), several_gateways()),
    ];
    loads.iter().copied().map(all_at).chain(others).collect()
}

const AGENTS: &str = "Agents";
/// How many times as many requests agents send.
const AGENTS_LONGER: usize = 3;

/// In the usual pool, and in one of which a pod is slow.
fn agents(loads: &[f64]) -> Vec<Case> {
    let slow = PoolSettings { slow_pod: true, ..Workload::Agents.pool() };
    let usual = loads.iter().map(|&load| Case::usual(Workload::Agents, load));
    usual.chain([Case::with_pool(Workload::Agents, 0.7, slow)]).collect()
}

/// Gateways in front of a pool at 70 %, each in front of each kind of traffic.
fn several(workloads: &[Workload], settings: &[Gateways]) -> Vec<Case> {
    let case = |workload, gateways| Case {
        gateways,
        pickers: vec![PickerKind::Default, PickerKind::PrefixCache],
        ..Case::usual(workload, 0.7)
    };
    workloads
        .iter()
        .flat_map(|&workload| settings.iter().map(move |&setting| case(workload, setting)))
        .collect()
}

/// What is played before several workers or gateways.
const IN_SEVERAL: [Workload; 5] = [
    Workload::Conversation,
    Workload::MultiTurn,
    Workload::SharedPrefixes,
    Workload::HotPrompt,
    Workload::Random,
];

fn of_workers(workers: usize) -> Gateways {
    Gateways { workers, ..Gateways::default() }
}

fn several_gateways() -> Vec<Case> {
    let exchanged = Some(Gateways::LATENESS_MS);
    let settings = [(1, None), (4, None), (4, exchanged), (20, None), (20, exchanged)];
    let settings =
        settings.map(|(gateways, peers_ms)| Gateways { gateways, peers_ms, ..Gateways::default() });
    several(&IN_SEVERAL, &settings)
}

fn show_progress(done: usize, all: usize) {
    // That nobody sees it is no failure.
    let _ = write!(std::io::stderr(), "\r{done} of {all}{}", if done == all { "\n" } else { "" });
}
