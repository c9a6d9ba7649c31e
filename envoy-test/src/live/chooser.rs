//! Those that pick in the process that sends, and pass it to Envoy in the pick header. What they need to know costs the
//! gateway nothing, which is in their favour.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::pods::PodsWatch;
use crate::model_server::engine::{Engine, EngineRequest, EngineSettings, Gauges};
use crate::model_server::tokens::tokens_of;
use crate::model_server::{ModelServer, ModelServers};
use crate::simulation::picker::default_weights::DefaultWeights;
use crate::simulation::picker::guide_schedule::{Figures, GuideSchedule};
use crate::simulation::picker::oracle::{earliest, first_output};

/// Picks a pod for each request; a key names a request until its answer has begun.
pub trait Chooser: Send {
    fn choose(&mut self, key: usize, prompt: &str, adapter: Option<&str>) -> SocketAddr;

    /// The answer has begun, or there will be none.
    fn begun(&mut self, _key: usize) {}
}

/// The reference endpoint picker's default weights, on metrics that the watch reads at its own interval.
/// A pod whose metrics cannot be read is left out, as one that is not ready would be.
pub struct DefaultWeightsChooser {
    picker: DefaultWeights,
    watch: Arc<PodsWatch>,
}

impl DefaultWeightsChooser {
    pub fn new(watch: Arc<PodsWatch>, seed: u64) -> DefaultWeightsChooser {
        let engines = vec![Engine::new(EngineSettings::default()); watch.addresses().len()];
        DefaultWeightsChooser { picker: DefaultWeights::new(&engines, Rng::with_seed(seed)), watch }
    }
}

impl Chooser for DefaultWeightsChooser {
    fn choose(&mut self, _key: usize, prompt: &str, _adapter: Option<&str>) -> SocketAddr {
        let pods = self.watch.pods();
        for (place, pod) in pods.iter().enumerate() {
            let Some(metrics) = &pod.latest else { continue };
            let gauges = Gauges {
                waiting: metrics.waiting as usize,
                running: metrics.running as usize,
                kv_cache_usage: f64::from(metrics.kv_cache_utilization.unwrap_or_default()),
                ..Gauges::default()
            };
            self.picker.observe(place, gauges);
        }
        let picked = self.picker.choose(&tokens_of(prompt.as_bytes()), |pod| pods[pod].latest.is_some());
        self.watch.addresses()[picked]
    }
}

/// The schedule of llm-d's guide. It needs no metrics, but leaves out a pod whose metrics cannot be read.
pub struct GuideScheduleChooser {
    schedule: GuideSchedule,
    watch: Arc<PodsWatch>,
}

impl GuideScheduleChooser {
    pub fn new(watch: Arc<PodsWatch>, seed: u64) -> GuideScheduleChooser {
        let engines = vec![Engine::new(EngineSettings::default()); watch.addresses().len()];
        GuideScheduleChooser {
            schedule: GuideSchedule::new(&engines, Figures::GUIDE, Rng::with_seed(seed)),
            watch,
        }
    }
}

impl Chooser for GuideScheduleChooser {
    fn choose(&mut self, key: usize, prompt: &str, _adapter: Option<&str>) -> SocketAddr {
        let pods = self.watch.pods();
        let prompt = tokens_of(prompt.as_bytes());
        let picked = self.schedule.choose(key, &prompt, |pod| pods[pod].latest.is_some());
        self.watch.addresses()[picked]
    }

    fn begun(&mut self, key: usize) {
        self.schedule.begun(key);
    }
}

/// How long a request takes at most from its pick to its server; one that is not there by then has failed.
const ON_THE_WAY_MAX: Duration = Duration::from_millis(200);

/// Tries the request on a copy of every server that is there, with what it has sent there and is still on its way, and
/// takes the earliest first token. It does not ask what that does to others.
pub struct Oracle {
    servers: Vec<ModelServer>,
    /// To each server.
    sent: Vec<Sent>,
    rng: Rng,
}

#[derive(Default)]
struct Sent {
    all: u64,
    /// The last ones, in the order of their picks.
    recent: Vec<(Instant, EngineRequest)>,
}

impl Oracle {
    pub fn new(servers: &ModelServers, seed: u64) -> Oracle {
        let servers: Vec<ModelServer> = servers.servers().collect();
        let sent = servers.iter().map(|_| Sent::default()).collect();
        Oracle { servers, sent, rng: Rng::with_seed(seed) }
    }

    /// How long the first token would take there; nothing if longer than `limit`.
    fn wait(&mut self, place: usize, request: &EngineRequest, limit: Duration) -> Option<Duration> {
        let server = &self.servers[place];
        if server.knobs().refuse {
            return None;
        }
        let (mut engine, now) = server.engine();
        for request in self.sent[place].on_the_way(engine.submitted()) {
            // One that the engine refuses delays nothing.
            let _ = engine.submit(now, request.clone());
        }
        let at = first_output(engine, request.clone(), now, now.saturating_add(limit))?;
        Some(at.saturating_sub(now))
    }
}

impl Sent {
    /// What was sent and is not among so many that have come.
    fn on_the_way(&mut self, come: u64) -> impl Iterator<Item = &EngineRequest> {
        self.recent.retain(|(sent_at, _)| sent_at.elapsed() < ON_THE_WAY_MAX);
        let missing = self.all.saturating_sub(come) as usize;
        let come = self.recent.len().saturating_sub(missing);
        self.recent.iter().skip(come).map(|(_, request)| request)
    }

    fn add(&mut self, request: EngineRequest) {
        self.all += 1;
        self.recent.push((Instant::now(), request));
    }
}

impl Chooser for Oracle {
    fn choose(&mut self, _key: usize, prompt: &str, adapter: Option<&str>) -> SocketAddr {
        let request = EngineRequest {
            prompt: tokens_of(prompt.as_bytes()),
            output_tokens: 1,
            adapter: adapter.map(str::to_owned),
            cache_salt: None,
        };
        let best = earliest(self.servers.len(), |place, limit| self.wait(place, &request, limit));
        let picked = self.rng.choice(best).unwrap_or_default();
        self.sent[picked].add(request);
        self.servers[picked].address()
    }
}
