//! One picker under one kind of traffic, from the start of the servers to the last answer.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::SPEED;
use super::column::{Column, scrape_interval};
use super::gateway::Gateway;
use super::play::{Outcome, Play};
use super::pods::PodsWatch;
use super::traffic::Traffic;
use crate::model_server::{ModelServers, ServerSettings};

/// Of a hundred requests, ninety-nine must be sent within this of the time when they are due.
const LATE_P99_MS_MAX: f64 = 20.0;
/// How often a cell is tried on a machine that is too busy now and then.
const TRIES: u32 = 5;
/// How long whatever keeps the machine busy has to pass before the second try; each next time twice as long.
const FIRST_REST: Duration = Duration::from_secs(3);
/// How long the plugin may take to read every pod's metrics for the first time.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often that is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long everybody has to notice that a pod is not there which joins later.
const NOTICE: Duration = Duration::from_millis(500);

/// What is played.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    pub traffic: Traffic,
    pub column: Column,
    /// In which requests arrive.
    pub seconds: f64,
    pub seed: u64,
}

impl Cell {
    /// # Errors
    /// A server or an Envoy that does not start; requests that were sent late each time.
    pub fn run(&self) -> Result<Outcome> {
        for rest in (0..TRIES).map(|tried| FIRST_REST * (1 << tried)) {
            let outcome = self.run_once()?;
            let late_ms = outcome.measures.late_ms.p99;
            if late_ms <= LATE_P99_MS_MAX {
                return Ok(outcome);
            }
            eprintln!(
                "  the machine was busy: one of a hundred requests was sent {late_ms:.0} ms late or later"
            );
            sleep(rest);
        }
        bail!(
            "the machine is too busy: {TRIES} times, one of a hundred requests was sent more than {LATE_P99_MS_MAX} ms late"
        );
    }

    fn run_once(&self) -> Result<Outcome> {
        let Cell { traffic, column, seconds, seed } = *self;
        let servers = ModelServers::start(traffic.servers(SPEED)).context("starting model servers")?;
        let envoy = column.start_envoy(&servers.addresses(), SPEED)?;
        if column.is_plugin() {
            wait_until(servers.scraped_twice())?;
        }
        for change in traffic.pod_changes().iter().filter(|change| change.after_share == 0.0) {
            change.apply(&servers);
            sleep(NOTICE);
        }
        let watch = Arc::new(PodsWatch::new(servers.addresses()));
        let play = Play {
            traffic,
            seconds,
            seed,
            rate_per_s: traffic.rate_per_s() * SPEED,
            speed: SPEED,
            gateway: Gateway::at(envoy.address()),
            model: ServerSettings::default().first_model().to_owned(),
            adapters: traffic.adapters(),
            chooser: column.chooser(&servers, &watch, seed),
            watch,
            watch_interval: (column == Column::EndpointPicker).then(|| scrape_interval(SPEED)),
        };
        play.run(column.name(), Some(&servers))
    }
}

fn wait_until(holds: impl Fn() -> bool) -> Result<()> {
    let started_at = Instant::now();
    while !holds() {
        ensure!(started_at.elapsed() < PATIENCE, "the plugin read no metrics within {PATIENCE:?}");
        sleep(POLL_INTERVAL);
    }
    Ok(())
}
