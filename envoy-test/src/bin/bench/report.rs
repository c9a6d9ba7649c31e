//! The results, for people and for programs.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use envoy_test::envoy::binary::project_root;
use serde::Serialize;

use crate::requests::{Memory, RequestCost};
use crate::rounds::Cost;
use crate::scraping::ScrapingCost;

#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub requests: Vec<RequestCost>,
    pub memory: Vec<Memory>,
    pub endpoints: Vec<RequestCost>,
    pub scraping: Vec<ScrapingCost>,
}

impl Report {
    pub fn print(&self) {
        println!(
            "Processor time of Envoy a request in µs, and how many times plain Envoy's that is (lowest to highest round)"
        );
        self.requests.iter().for_each(print_request);
        println!("\nThe same for a chat of 7 KB, by number of endpoints");
        self.endpoints.iter().for_each(print_request);
        println!("\nProcessor time of Envoy for scraping pages of 66 KB, without requests");
        self.scraping.iter().for_each(print_scraping);
        println!("\nMemory of Envoy's process after these requests");
        self.memory.iter().for_each(|memory| self.print_memory(memory));
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
        let variant = format!("{:?}", memory.variant);
        println!("  {variant:15} {:6.1} MB  {more_mb:+6.1} MB", memory.resident_kb as f64 / 1024.0);
    }
}

fn print_request(line: &RequestCost) {
    let costs: Vec<String> = line.costs.iter().map(cell).collect();
    println!("  {:16} {}", line.name, costs.join("   "));
}

fn cell(cost: &Cost) -> String {
    let Cost { variant, cpu_us, ratio, ratio_lowest, ratio_highest, .. } = cost;
    format!("{variant:?} {cpu_us:6.1} ×{ratio:.2} ({ratio_lowest:.2} to {ratio_highest:.2})")
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
