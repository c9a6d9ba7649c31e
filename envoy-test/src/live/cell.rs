//! One picker under one kind of traffic, from the start of the servers to the last answer.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::SPEED;
use super::column::scrape_interval;
use super::front::Front;
use super::gateway::Gateway;
use super::play::{Outcome, Play};
use super::pods::PodsWatch;
use super::traffic::Traffic;
use crate::model_server::{ModelServers, ServerSettings};

/// Before each try: whatever keeps the machine busy has time to pass.
const RESTS: [Duration; 3] = [Duration::ZERO, Duration::from_secs(3), Duration::from_secs(9)];
/// How long a gateway may take to read every pod's metrics for the first time.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often that is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long everybody has to notice that a pod is not there which joins later.
const NOTICE: Duration = Duration::from_millis(500);

/// What is played.
#[derive(Debug, Clone)]
pub struct Cell {
    pub traffic: Traffic,
    pub front: Front,
    /// In which requests arrive.
    pub seconds: f64,
    pub seed: u64,
    /// Of a hundred requests, ninety-nine must be sent within this of the time when they are due.
    pub late_ms_max: f64,
}

impl Cell {
    /// Nothing, if requests were sent late each time.
    ///
    /// # Errors
    /// A server or an Envoy that does not start.
    pub fn run(&self) -> Result<Option<Outcome>> {
        for rest in RESTS {
            sleep(rest);
            let outcome = self.run_once()?;
            let late_ms = outcome.measures.late_ms.p99;
            if late_ms <= self.late_ms_max {
                return Ok(Some(outcome));
            }
            eprintln!(
                "  the machine is busy: one of a hundred requests was sent {late_ms:.0} ms late or later"
            );
        }
        Ok(None)
    }

    fn run_once(&self) -> Result<Outcome> {
        let (front, &Cell { traffic, seconds, seed, .. }) = (&self.front, self);
        let servers = ModelServers::start(traffic.servers(SPEED)).context("starting model servers")?;
        let running = front.start(&servers.addresses(), SPEED, !traffic.pod_changes().is_empty())?;
        if front.scrapes() {
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
            gateway: Gateway::at(running.address()),
            model: ServerSettings::default().first_model().to_owned(),
            adapters: traffic.adapters(),
            chooser: front.column().and_then(|column| column.chooser(&servers, &watch, seed)),
            watch,
            watch_interval: front
                .column()
                .filter(|column| column.watches_pods())
                .map(|_| scrape_interval(SPEED)),
        };
        play.run(front.name(), Some(&servers))
    }
}

fn wait_until(holds: impl Fn() -> bool) -> Result<()> {
    let started_at = Instant::now();
    while !holds() {
        ensure!(started_at.elapsed() < PATIENCE, "the gateway read no metrics within {PATIENCE:?}");
        sleep(POLL_INTERVAL);
    }
    Ok(())
}
