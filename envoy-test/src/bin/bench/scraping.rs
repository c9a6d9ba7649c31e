//! What reading metrics costs: an Envoy with no requests at all, and more and more endpoints to scrape.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::gateway::{Gateway, Scraping, Variant};
use crate::model_servers::ModelServers;
use crate::rounds::median;

const ENDPOINTS: [u32; 3] = [4, 32, 100];
/// Until V8 has optimized the code.
const WARM_UP: Duration = Duration::from_secs(3);
const ROUND: Duration = Duration::from_secs(4);

/// The cost of scraping so many endpoints; medians of all rounds.
#[derive(Debug, Serialize)]
pub struct ScrapingCost {
    pub endpoints: u32,
    pub scrapes_per_second: f64,
    /// Processor time of Envoy in a second, without what it uses where nothing is scraped.
    pub cpu_us_per_second: f64,
    pub cpu_us_per_scrape: f64,
    pub rounds_cpu_us_per_scrape: Vec<f64>,
}

pub fn by_number_of_endpoints(runtime: &Runtime, rounds: usize) -> Result<Vec<ScrapingCost>> {
    let mut results = Vec::new();
    for count in ENDPOINTS {
        eprintln!("measuring the scraping of {count} endpoints, {rounds} rounds ...");
        let servers = ModelServers::start(runtime, count)?;
        let idle = start(&servers, Scraping::Never)?;
        let scraping = start(&servers, Scraping::ByDefault)?;
        sleep(WARM_UP);
        let rounds = (0..rounds).map(|_| Round::measure(&servers, &idle, &scraping));
        let rounds = rounds.collect::<Result<Vec<Round>>>()?;
        let log = scraping.envoy.log_text();
        ensure!(!log.contains("metrics cannot be read"), "a scrape failed:\n{log}");
        results.push(ScrapingCost::new(count, &rounds));
    }
    Ok(results)
}

fn start(servers: &ModelServers, scraping: Scraping) -> Result<Gateway> {
    Gateway::start(Variant::StopIteration, &servers.addresses, scraping)
}

struct Round {
    seconds: f64,
    scrapes: u64,
    cpu_us: u64,
}

impl Round {
    /// Looks at both Envoys before and after the same time.
    fn measure(servers: &ModelServers, idle: &Gateway, scraping: &Gateway) -> Result<Round> {
        let now = || Ok::<_, anyhow::Error>((idle.envoy.cpu_time_us()?, scraping.envoy.cpu_time_us()?));
        let (counts, start, started_at) = (servers.counts(), now()?, Instant::now());
        sleep(ROUND);
        let (end, seconds) = (now()?, started_at.elapsed().as_secs_f64());
        let scrapes = servers.counts().since(counts).scrapes;
        ensure!(scrapes > 0, "nothing was scraped");
        Ok(Round { seconds, scrapes, cpu_us: (end.1 - start.1).saturating_sub(end.0 - start.0) })
    }
}

impl ScrapingCost {
    fn new(endpoints: u32, rounds: &[Round]) -> ScrapingCost {
        let each = |value: fn(&Round) -> f64| rounds.iter().map(value).collect::<Vec<f64>>();
        let per_scrape = each(|round| round.cpu_us as f64 / round.scrapes as f64);
        ScrapingCost {
            endpoints,
            scrapes_per_second: median(&each(|round| round.scrapes as f64 / round.seconds)),
            cpu_us_per_second: median(&each(|round| round.cpu_us as f64 / round.seconds)),
            cpu_us_per_scrape: median(&per_scrape),
            rounds_cpu_us_per_scrape: per_scrape,
        }
    }
}
