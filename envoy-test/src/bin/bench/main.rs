//! Measures what the plugin costs a real Envoy: processor time a request and a scrape, and memory.
//!
//! The machine may be shared and noisy, so times of one run are compared with each other only: rounds of the
//! configurations compared take turns, and each is set against plain Envoy's of the same turn. Model servers answer
//! at once, so what is measured is Envoy's work and not the time a client waits.
//!
//! It prints tables and writes the same, with every round, to `target/bench/envoy.json`. Every round checks its
//! answers and that the plugin picked (or, for plain Envoy, that nobody did).

mod clients;
mod gateway;
mod message;
mod model_servers;
mod report;
mod requests;
mod rounds;
mod scraping;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use report::Report;

/// Measures the processor time and the memory that the plugin costs Envoy.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure; everything if nothing is named.
    parts: Vec<Part>,
    /// How often each configuration has its turn.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Requests of several sizes, in each mode; and the memory after them.
    Requests,
    /// A streamed answer, in each mode.
    Streams,
    /// Requests to pools of 10 to 1,000 endpoints.
    Endpoints,
    /// Reading metrics without any request.
    Scraping,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let wanted = |part| arguments.parts.is_empty() || arguments.parts.contains(&part);
    // One thread for the clients and the model servers leaves the other core of a small machine to Envoy.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut report = Report::default();
    if wanted(Part::Requests) {
        (report.requests, report.memory) = requests::by_size(&runtime, arguments.rounds)?;
    }
    if wanted(Part::Streams) {
        report.streams = requests::streamed(&runtime, arguments.rounds)?;
    }
    if wanted(Part::Endpoints) {
        report.endpoints = requests::by_number_of_endpoints(&runtime, arguments.rounds)?;
    }
    if wanted(Part::Scraping) {
        report.scraping = scraping::by_number_of_endpoints(&runtime, arguments.rounds)?;
    }
    report.print();
    let file = report.write()?;
    println!("\nevery round: {}", file.display());
    Ok(())
}
