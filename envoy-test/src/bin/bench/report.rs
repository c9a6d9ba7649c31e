//! The results, for people and for programs.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use envoy_test::envoy::binary::project_root;
use serde::Serialize;

use crate::gateway::Variant;
use crate::model_servers::STREAM_EVENTS;
use crate::requests::{Memory, RequestCost};
use crate::rounds::Cost;
use crate::scraping::ScrapingCost;

#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub requests: Vec<RequestCost>,
    pub memory: Vec<Memory>,
    pub streams: Vec<RequestCost>,
    pub endpoints: Vec<RequestCost>,
    pub scraping: Vec<ScrapingCost>,
}

impl Report {
    pub fn print(&self) {
        print_part("Processor time of Envoy a request, in µs", &self.requests, print_request);
        print_part("The same where the answer is streamed", &self.streams, print_stream);
        print_part("The same for a chat of 7 KB, by number of endpoints", &self.endpoints, print_request);
        print_part("Processor time of Envoy for reading pages of 66 KB", &self.scraping, print_scraping);
        print_part("Memory of Envoy after these requests", &self.memory, |memory| self.print_memory(memory));
        println!("\n× : times plain Envoy's, the median of all rounds (lowest to highest)");
    }

    pub fn write(&self) -> Result<PathBuf> {
        let folder = project_root().join("target/bench");
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let file = folder.join("envoy.json");
        fs::write(&file, serde_json::to_string_pretty(self)?)
            .with_context(|| format!("writing {}", file.display()))?;
        Ok(file)
    }

    fn print_memory(&self, memory: &Memory) {
        let plain_kb = self.memory.first().map_or(0, |plain| plain.resident_kb);
        let more_mb = (memory.resident_kb as f64 - plain_kb as f64) / 1024.0;
        println!(
            "  {:15} {:6.1} MB  {more_mb:+6.1} MB",
            memory.variant.name(),
            memory.resident_kb as f64 / 1024.0
        );
    }
}

fn print_part<T>(title: &str, lines: &[T], print: impl FnMut(&T)) {
    if !lines.is_empty() {
        println!("\n{title}");
        lines.iter().for_each(print);
    }
}

fn print_request(line: &RequestCost) {
    let costs: Vec<String> = line.costs.iter().map(cell).collect();
    println!("  {:16} {}", line.name, costs.join("   "));
}

fn print_stream(line: &RequestCost) {
    print_request(line);
    let plain_us = line.costs.first().map_or(0.0, |plain| plain.cpu_us);
    for cost in line.costs.iter().skip(1) {
        let more_us = (cost.cpu_us - plain_us) / STREAM_EVENTS as f64;
        println!("  {:16} {more_us:+5.2} an event in {}", "", cost.variant.name());
    }
}

fn cell(cost: &Cost) -> String {
    let Cost { variant, cpu_us, ratio, ratio_lowest, ratio_highest, .. } = cost;
    let name = variant.name();
    match variant {
        Variant::Plain => format!("{name} {cpu_us:5.1}"),
        _ => format!("{name} {cpu_us:5.1} ×{ratio:.2} ({ratio_lowest:.2} to {ratio_highest:.2})"),
    }
}

fn print_scraping(cost: &ScrapingCost) {
    println!(
        "  {:4} endpoints  {:6.0} scrapes/s  {:5.1} % of a core  {:6.1} µs a scrape",
        cost.endpoints,
        cost.scrapes_per_second,
        cost.cpu_us_per_second / 10_000.0,
        cost.cpu_us_per_scrape
    );
}
