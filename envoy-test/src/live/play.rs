//! Sends the requests of a kind of traffic to a gateway, looks at the pods meanwhile, and measures what came of it.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::chooser::Chooser;
use super::gateway::Gateway;
use super::machine::ProcessorTime;
use super::measures::{Measures, Objective};
use super::pods::PodsWatch;
use super::sending::{Answer, Sender};
use super::traffic::{PodChange, PodState, Traffic};
use crate::envoy::blocking;
use crate::model_server::{MetricsMode, ModelServers};
use crate::simulation::workload::Session;

/// Between two looks at the pods for the pictures.
const PICTURE_INTERVAL: Duration = Duration::from_millis(100);
/// From the beginning to the time zero of the traffic, for whatever has to be ready first.
const LEAD: Duration = Duration::from_millis(200);
/// How many failures are printed.
const FAILURES_TOLD: usize = 3;

/// Who sends what where.
pub struct Play {
    pub traffic: Traffic,
    /// In which requests arrive.
    pub seconds: f64,
    pub seed: u64,
    /// Requests that arrive a second, in the mean.
    pub rate_per_s: f64,
    /// By how much pauses are shorter than the traffic says.
    pub speed: f64,
    pub gateway: Gateway,
    pub model: String,
    /// What the adapters are called, where traffic is for some.
    pub adapters: Vec<String>,
    /// Who picks here, if it is not the gateway.
    pub chooser: Option<Box<dyn Chooser>>,
    pub watch: Arc<PodsWatch>,
    /// How often pods are looked at where somebody picks by it.
    pub watch_interval: Option<Duration>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub traffic: Traffic,
    /// Who picked.
    pub column: String,
    pub objective: Objective,
    pub measures: Measures,
    /// Of each pod: when, and the share of its KV cache in use.
    pub kv_cache: Vec<Vec<(Duration, f64)>>,
    /// What was wrong with the first answers that failed.
    pub failures: Vec<String>,
}

impl Play {
    /// Plays to the last answer; `servers` are those whose pods go and come.
    ///
    /// # Errors
    /// A trace that cannot be read.
    pub fn run(self, column: &str, servers: Option<&ModelServers>) -> Result<Outcome> {
        let (traffic, objective) = (self.traffic, Objective::at_speed(self.speed));
        let sessions = traffic.sessions(self.seconds, self.rate_per_s, &self.adapters, self.seed)?;
        let watch = Arc::clone(&self.watch);
        blocking::wait_for(watch.look_at_all(Instant::now()));
        let before = ProcessorTime::now();
        let answers = self.play_watched(sessions, servers);
        let busy_share = ProcessorTime::now().busy_share_since(before);
        let pods = watch.pods();
        let failures = answers.iter().filter_map(|answer| answer.observed.as_ref().err());
        Ok(Outcome {
            traffic,
            column: column.to_owned(),
            objective,
            measures: Measures::of(&answers, &pods, objective, busy_share),
            kv_cache: pods.iter().map(|pod| pod.kv_cache.clone()).collect(),
            failures: failures.take(FAILURES_TOLD).cloned().collect(),
        })
    }

    /// The pods are watched in a thread of its own, so that no request is late because a page of metrics is being read.
    fn play_watched(self, sessions: Vec<Session>, servers: Option<&ModelServers>) -> Vec<Answer> {
        let started_at = Instant::now() + LEAD;
        let (interval, ended) = (self.watch_interval.unwrap_or(PICTURE_INTERVAL), Notify::new());
        let watch = Arc::clone(&self.watch);
        std::thread::scope(|scope| {
            scope.spawn(|| blocking::wait_for(watch.run(interval, started_at, &ended)));
            let answers = blocking::wait_for(self.play(sessions, servers, started_at));
            ended.notify_one();
            answers
        })
    }

    async fn play(
        self,
        sessions: Vec<Session>,
        servers: Option<&ModelServers>,
        started_at: Instant,
    ) -> Vec<Answer> {
        let changes = self.traffic.pod_changes();
        let sender = Arc::new(Sender {
            gateway: self.gateway,
            model: self.model,
            chooser: self.chooser.map(Mutex::new),
            speed: self.speed,
            started_at,
            sent: AtomicUsize::new(0),
        });
        tokio::select! {
            answers = sender.play_all(sessions) => answers,
            () = change_pods(&changes, servers, self.seconds, started_at) => Vec::new(),
        }
    }
}

impl Outcome {
    /// Says in short what came of it.
    pub fn print(&self) {
        let measures = &self.measures;
        eprintln!(
            "{}, {}: {} requests, {} failed, first token {:.0} ms (p90), {:.0} % within the objective",
            self.traffic.name(),
            self.column,
            measures.requests,
            measures.failed,
            measures.first_token_ms.p90,
            measures.goodput_share * 100.0,
        );
        for failure in &self.failures {
            eprintln!("    {failure}");
        }
    }
}

impl PodChange {
    /// Returns when that is done.
    pub fn apply(&self, servers: &ModelServers) {
        servers.server(self.pod).set(|knobs| {
            knobs.refuse = self.state == PodState::IsGone;
            knobs.metrics = match self.state {
                PodState::HasNoMetrics => MetricsMode::Status(500),
                PodState::Serves | PodState::IsGone => MetricsMode::Live,
            };
        });
    }
}

/// Never ends by itself.
async fn change_pods(
    changes: &[PodChange],
    servers: Option<&ModelServers>,
    seconds: f64,
    started_at: Instant,
) {
    for change in changes.iter().filter(|change| change.after_share > 0.0) {
        sleep_until(started_at + Duration::from_secs_f64(change.after_share * seconds)).await;
        if let Some(servers) = servers {
            // It takes a millisecond or two, as requests may be late by.
            change.apply(servers);
        }
    }
    std::future::pending().await
}
