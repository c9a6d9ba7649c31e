//! Measures what the plugin costs a real Envoy: processor time a request and a scrape, throughput, waits, and memory.
//!
//! The machine may be shared and noisy, so times of one run are compared with each other only: rounds of the
//! configurations compared take turns, and each is set against plain Envoy's of the same turn. Model servers answer
//! at once, so what is measured is Envoy's work and not the time a client waits.
//!
//! It prints a table for each part and writes every round to `target/bench/`; with `--write` the tables go into
//! `docs/benchmarks.md`. Every round checks its answers and that the plugin picked (or that nobody did).

mod builds;
mod clients;
mod gateway;
mod locks;
mod memory;
mod message;
mod model_servers;
mod natively;
mod open_loop;
mod peers;
mod requests;
mod rounds;
mod saturation;
mod scraping;
mod sessions;
mod workers;

use std::fmt::Display;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use envoy_test::document::{put, write_section};
use envoy_test::envoy::binary::project_root;
use serde::Serialize;
use tokio::runtime::Runtime;

/// Measures what the plugin costs Envoy.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure; everything but peers if nothing is named.
    parts: Vec<Part>,
    /// How often each configuration has its turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Another checkout of the project, whose built plugin is measured beside this one's in the parts on workers, scraping and
    /// memory.
    #[arg(long)]
    other: Option<PathBuf>,
    /// The program of an endpoint picker, which is measured beside the peers.
    #[arg(long)]
    epp: Option<PathBuf>,
    /// Puts the tables into docs/benchmarks.md.
    #[arg(long)]
    write: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Requests of several sizes, in every mode.
    Requests,
    /// A streamed answer.
    Streams,
    /// Requests to pools of 10 to 1,000 endpoints.
    Endpoints,
    /// A request that names its session.
    Sessions,
    /// Throughput, and the times of requests at half of plain Envoy's.
    Saturation,
    /// Reading metrics without any request.
    Scraping,
    /// 1 to 32 worker threads.
    Workers,
    /// How long 16 workers wait for each other.
    Locks,
    /// Memory with 1,000 endpoints and a full index of prefixes.
    Memory,
    /// What `cargo bench` has left; measures nothing.
    Natively,
    /// Other gateways, which `envoy-test/setup/peers.sh` installs; only where it is named.
    Peers,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // One thread for the clients and the model servers leaves the other core of a small machine to Envoy.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let parts = if arguments.parts.is_empty() { &Part::of_envoy() } else { &arguments.parts };
    let mut failed = Vec::new();
    for &part in parts {
        eprintln!("measuring {} ...", part.name());
        // A machine that is too busy for one part may do for the others.
        if let Err(error) = part.show(&runtime, &arguments) {
            eprintln!("{error:#}");
            failed.push(part.name());
        }
    }
    ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
    Ok(())
}

impl Part {
    /// All that need nothing but Envoy.
    fn of_envoy() -> Vec<Part> {
        Part::value_variants().iter().copied().filter(|part| *part != Part::Peers).collect()
    }

    /// The page that its table is in, and what writes it.
    fn page(self) -> (&'static str, &'static str) {
        match self {
            Part::Peers => ("docs/peers.md", "make bench-peers"),
            _ => ("docs/benchmarks.md", "make bench"),
        }
    }

    /// As on the command line.
    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// Measures it, and shows the table where it is wanted.
    fn show(self, runtime: &Runtime, arguments: &Arguments) -> Result<()> {
        let table = self.measure(runtime, arguments)?;
        println!("\n## {}\n\n{table}", self.name());
        if arguments.write {
            let (page, command) = self.page();
            write_section(&project_root().join(page), &self.name(), command, &table)?;
        }
        Ok(())
    }

    /// The tables, in Markdown.
    fn measure(self, runtime: &Runtime, arguments: &Arguments) -> Result<String> {
        let (rounds, other) = (arguments.rounds, arguments.other.as_deref());
        match self {
            Part::Requests => self.kept(requests::by_size(runtime, rounds)?, requests::tables),
            Part::Streams => self.kept(requests::streamed(runtime, rounds)?, requests::streams_tables),
            Part::Endpoints => {
                self.kept(requests::by_number_of_endpoints(runtime, rounds)?, requests::growth_tables)
            }
            Part::Sessions => self.kept(sessions::measure(runtime, rounds)?, sessions::table),
            Part::Saturation => self.kept(saturation::measure(runtime, rounds)?, saturation::table),
            Part::Scraping => self.kept(scraping::measure(runtime, rounds, other)?, scraping::table),
            Part::Workers => self.kept(workers::measure(runtime, rounds, other)?, workers::table),
            Part::Locks => self.kept(locks::measure(runtime)?, locks::table),
            Part::Memory => self.kept(memory::measure(runtime, other)?, memory::table),
            Part::Peers => {
                self.kept(peers::measure(runtime, rounds, arguments.epp.as_deref())?, peers::table)
            }
            Part::Natively => Ok(natively::table()?.to_string()),
        }
    }

    /// Keeps every round in a file; the tables of what was measured.
    fn kept<Line: Serialize, Tables: Display>(
        self,
        lines: Vec<Line>,
        tables: fn(&[Line]) -> Tables,
    ) -> Result<String> {
        let folder = project_root().join("target/bench");
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let file = folder.join(self.name()).with_extension("json");
        put(&file, &serde_json::to_string_pretty(&lines)?)?;
        Ok(tables(&lines).to_string())
    }
}
