//! What reading metrics costs, and how old they are: an Envoy with no requests at all, more and more endpoints to scrape, and
//! more time between two scrapes of each. Endpoints have no requests, or those of others. With the budget that is the default,
//! beside another build of the plugin where its folder is given.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use envoy_test::document::grouped;
use envoy_test::statistics::Page as StatisticsPage;
use envoy_test::table::Table;
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::builds::Build;
use crate::gateway::{Gateway, GatewaySettings, Scraping, Variant};
use crate::model_servers::{ModelServers, Page};
use crate::rounds::median;

/// Endpoints, what they say, and milliseconds between two scrapes of each.
const CASES: [(u32, Page, &[u64]); 6] = [
    (4, Page::Idle, &[50]),
    (4, Page::Busy, &[50]),
    (100, Page::Idle, &[50]),
    (100, Page::Busy, &[50, 200]),
    (1_000, Page::Idle, &[50]),
    (1_000, Page::Busy, &[50, 1_000]),
];
/// Until V8 has optimized the code, and the budget is kept.
const WARM_UP: Duration = Duration::from_secs(8);
/// Longer than the longest interval to which the budget stretches any: all endpoints may be asked at about the same time.
const ROUND: Duration = Duration::from_secs(11);
/// The gauge of the time since an endpoint's metrics were read; the plugin writes it once a second.
const AGE: &str = "inference_picker_endpoint_metrics_age_ms";

/// The cost of scraping so many endpoints so often; medians of all rounds, of the ages over all rounds and endpoints.
#[derive(Debug, Serialize)]
pub struct ScrapingCost {
    build: Build,
    pub endpoints: u32,
    page: Page,
    pub interval_ms: u64,
    pub scrapes_per_second: f64,
    /// Processor time of Envoy in a second, without what it uses where nothing is scraped.
    pub cpu_us_per_second: f64,
    /// What of it the main thread used.
    pub main_thread_cpu_us_per_second: f64,
    pub cpu_us_per_scrape: f64,
    pub rounds_cpu_us_per_scrape: Vec<f64>,
    /// Of the scrapes, because they took too long.
    pub failed_share: f64,
    pub age_p50_ms: f64,
    pub age_highest_ms: f64,
}

/// `other` is a checkout of the project with another build of the plugin.
pub fn measure(runtime: &Runtime, rounds: usize, other: Option<&Path>) -> Result<Vec<ScrapingCost>> {
    let mut results = Vec::new();
    for (endpoints, page, intervals_ms) in CASES {
        let servers = ModelServers::start_with(runtime, endpoints, page)?;
        let idle = start(&servers, Scraping::Never, None)?;
        for &interval_ms in intervals_ms {
            for (build, checkout) in Build::measured(other) {
                let scraping = start(&servers, Scraping::EveryMs(interval_ms), checkout)?;
                sleep(WARM_UP);
                let rounds = (0..rounds).map(|_| Round::measure(&idle, &scraping));
                let rounds = rounds.collect::<Result<Vec<Round>>>()?;
                let case = (build, endpoints, page, interval_ms);
                results.push(ScrapingCost::new(case, &rounds, failed_share(&scraping)?));
            }
        }
    }
    Ok(results)
}

fn start(servers: &ModelServers, scraping: Scraping, checkout: Option<&Path>) -> Result<Gateway> {
    let settings = GatewaySettings { scraping, ..GatewaySettings::default() };
    Gateway::start_with(Variant::Default, &servers.addresses, settings, checkout)
}

struct Round {
    seconds: f64,
    scrapes: f64,
    cpu: CpuTime,
    ages_ms: Vec<f64>,
}

/// In microseconds.
#[derive(Debug, Clone, Copy)]
struct CpuTime {
    process: u64,
    main_thread: u64,
}

impl CpuTime {
    fn of(gateway: &Gateway) -> Result<CpuTime> {
        let envoy = &gateway.envoy;
        Ok(CpuTime { process: envoy.cpu_time_us()?, main_thread: envoy.main_thread_cpu_time_us()? })
    }

    fn minus(self, other: CpuTime) -> CpuTime {
        CpuTime {
            process: self.process.saturating_sub(other.process),
            main_thread: self.main_thread.saturating_sub(other.main_thread),
        }
    }
}

impl Round {
    /// Looks at both Envoys before and after the same time.
    fn measure(idle: &Gateway, scraping: &Gateway) -> Result<Round> {
        let now = || Ok::<_, anyhow::Error>((CpuTime::of(idle)?, CpuTime::of(scraping)?));
        let (before, start, started_at) = (scrapes(scraping)?, now()?, Instant::now());
        sleep(ROUND);
        let (end, seconds) = (now()?, started_at.elapsed().as_secs_f64());
        let scrapes = scrapes(scraping)? - before;
        ensure!(scrapes > 0.0, "nothing was scraped");
        let cpu = end.1.minus(start.1).minus(end.0.minus(start.0));
        Ok(Round { seconds, scrapes, cpu, ages_ms: ages_ms(scraping)? })
    }
}

/// The age of every endpoint's metrics, as the plugin has them.
fn ages_ms(gateway: &Gateway) -> Result<Vec<f64>> {
    let page = StatisticsPage::of(&gateway.envoy)?;
    let endpoints = page.values(AGE, "endpoint", &[]);
    Ok(endpoints.into_iter().filter_map(|endpoint| page.sum(AGE, &[("endpoint", endpoint)])).collect())
}

/// How many there were so far.
fn scrapes(gateway: &Gateway) -> Result<f64> {
    let page = StatisticsPage::of(&gateway.envoy)?;
    page.sum("inference_picker_scrapes", &[]).context("nothing was scraped")
}

/// Of all scrapes so far.
fn failed_share(gateway: &Gateway) -> Result<f64> {
    let (page, scrapes) = (StatisticsPage::of(&gateway.envoy)?, scrapes(gateway)?);
    Ok(page.sum("inference_picker_scrape_failures", &[]).unwrap_or_default() / scrapes)
}

impl ScrapingCost {
    fn new(
        (build, endpoints, page, interval_ms): (Build, u32, Page, u64),
        rounds: &[Round],
        failed_share: f64,
    ) -> ScrapingCost {
        let each = |value: fn(&Round) -> f64| rounds.iter().map(value).collect::<Vec<f64>>();
        let per_scrape = each(|round| round.cpu.process as f64 / round.scrapes);
        let ages_ms: Vec<f64> = rounds.iter().flat_map(|round| round.ages_ms.iter().copied()).collect();
        ScrapingCost {
            build,
            endpoints,
            page,
            interval_ms,
            scrapes_per_second: median(&each(|round| round.scrapes / round.seconds)),
            cpu_us_per_second: median(&each(|round| round.cpu.process as f64 / round.seconds)),
            main_thread_cpu_us_per_second: median(&each(|round| {
                round.cpu.main_thread as f64 / round.seconds
            })),
            cpu_us_per_scrape: median(&per_scrape),
            rounds_cpu_us_per_scrape: per_scrape,
            failed_share,
            age_p50_ms: median(&ages_ms),
            age_highest_ms: ages_ms.iter().copied().fold(0.0, f64::max),
        }
    }
}

impl ScrapingCost {
    fn name(&self) -> String {
        let load = match self.page {
            Page::Idle => "idle",
            Page::Busy => "busy",
        };
        let (endpoints, interval_ms) = (grouped(self.endpoints.into()), grouped(self.interval_ms));
        format!("{endpoints} {load}, {interval_ms} ms{}", self.build.suffix())
    }
}

pub fn table(costs: &[ScrapingCost]) -> Table {
    let columns = [
        "scrapes a second",
        "failed",
        "of one core",
        "its main thread",
        "a scrape",
        "age, median",
        "age, highest",
    ];
    let mut table = Table::new("endpoints, each scraped every", columns);
    for cost in costs {
        let percent = |us_per_second: f64| format!("{:.1} %", us_per_second / 10_000.0);
        let cells = [
            grouped(cost.scrapes_per_second as u64),
            format!("{:.1} %", cost.failed_share * 100.0),
            percent(cost.cpu_us_per_second),
            percent(cost.main_thread_cpu_us_per_second),
            format!("{:.0} µs", cost.cpu_us_per_scrape),
            format!("{:.0} ms", cost.age_p50_ms),
            format!("{:.0} ms", cost.age_highest_ms),
        ];
        table.row(&cost.name(), cells);
    }
    table
}
