//! `make dashboard-picture`: the dashboard's main panels, from a real run. The same kind of traffic goes through the plugin
//! in two real Envoys to simulated model servers, in turn and by load, while a real Prometheus scrapes each; what the
//! dashboard's own expressions return is drawn to docs/dashboard.svg. Both run at once, so that whatever else the machine
//! does shows in both.

use std::fs;
use std::panic::resume_unwind;
use std::thread::{self, sleep};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use envoy_test::demonstration::{WARM_UP, configuration, varied_request};
use envoy_test::envoy::binary::project_root;
use envoy_test::envoy::{Client, Envoy, EnvoySettings, Load, Protocol};
use envoy_test::model_server::{ModelServers, ServerSettings};
use envoy_test::observability::{Chart, Line, Panel, Prometheus, panels, picture, without_variables};

const STRATEGIES: [&str; 2] = ["ROUND_ROBIN", "DEFAULT"];
/// Titles of the dashboard's panels, from top to bottom.
const PANELS: [&str; 4] = [
    "KV-cache usage by endpoint",
    "Waiting requests by endpoint",
    "Picks by endpoint",
    "Time to first token",
];
const MODELS: [&str; 1] = ["tiny"];
const PODS: usize = 4;
const CLIENTS: usize = 96;
const REST_MAX: Duration = Duration::from_millis(600);
/// At first all clients ask at once; what is shown comes after that.
const SETTLING: Duration = Duration::from_secs(40);
const SCRAPE_INTERVAL: Duration = Duration::from_secs(1);
const RATE_INTERVAL: &str = "10s";

/// Draws the dashboard's main panels from a real run.
#[derive(Debug, Parser)]
struct Arguments {
    /// How much of the run is shown.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

fn main() -> Result<()> {
    let length = Duration::from_secs(Arguments::parse().seconds);
    ensure!(Prometheus::is_installed(), "no Prometheus; `make setup` installs it where Debian's package is");
    let panels = panels()?;
    let panels = PANELS.map(|title| panels.iter().find(|panel| panel.title == title).context(title));
    let panels = panels.into_iter().collect::<Result<Vec<_>>>()?;
    println!("{} s ...", (SETTLING + length).as_secs());
    let columns = thread::scope(|scope| {
        let runs = STRATEGIES.map(|strategy| scope.spawn(|| run(strategy, &panels, length)));
        runs.map(|run| run.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    let columns = columns.into_iter().collect::<Result<Vec<_>>>()?;
    let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
    let rows: Vec<Vec<Chart>> =
        panels.iter().map(|_| columns.iter_mut().filter_map(Iterator::next).collect()).collect();
    let file = project_root().join("docs/dashboard.svg");
    fs::write(&file, picture(&rows)?)?;
    println!("wrote {}", file.display());
    Ok(())
}

/// What each panel showed of a run with this strategy.
fn run(strategy: &str, panels: &[&Panel], length: Duration) -> Result<Vec<Chart>> {
    let servers = ModelServers::start(vec![ServerSettings::default(); PODS])?;
    let mut configuration = configuration("stop-iteration", &servers.addresses())?;
    configuration.edit_plugin(|plugin| plugin["pools"][0]["routingStrategy"] = strategy.into());
    let envoy = Envoy::start(EnvoySettings::new(configuration))?;
    let prometheus = Prometheus::start(&[envoy.admin_address()], SCRAPE_INTERVAL)?;
    sleep(WARM_UP);
    let models = MODELS.map(str::to_owned);
    let client = Client::new(envoy.address(), Protocol::Http1);
    let _load = Load::start(client, CLIENTS, REST_MAX, move |index| varied_request(index, &models))?;
    sleep(SETTLING + length);
    panels.iter().map(|panel| chart(&prometheus, strategy, panel, length)).collect()
}

fn chart(prometheus: &Prometheus, strategy: &str, panel: &Panel, length: Duration) -> Result<Chart> {
    let mut lines = Vec::new();
    for target in &panel.targets {
        let expression = without_variables(&target.expression, RATE_INTERVAL);
        let (start_s, series) = prometheus.query_range(&expression, length, SCRAPE_INTERVAL)?;
        lines.extend(series.iter().map(|series| Line {
            name: target.name(&series.labels),
            points: series.points().map(|(time_s, value)| (time_s - start_s, value)).collect(),
        }));
    }
    Ok(Chart { title: format!("{strategy}: {}", panel.title), lines })
}
