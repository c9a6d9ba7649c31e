//! The kinds of traffic, and what happens to the pool meanwhile.

use anyhow::Result;
use clap::ValueEnum;
use fastrand::Rng;

use crate::model_server::ServerSettings;
use crate::model_server::engine::EngineSettings;
use crate::simulation::workload::{self, Session, Workload, draw};

/// Of the benchmark that the original was measured with: 1,550 tokens in, 1,800 out, both a fifth more or less, all
/// divided by four.
const ORIGINAL_PROMPT_TOKENS: std::ops::RangeInclusive<usize> = 310..=465;
const ORIGINAL_OUTPUT_TOKENS: std::ops::RangeInclusive<usize> = 360..=540;
/// With it about 200 are in flight, as in that benchmark.
const ORIGINAL_RATE_PER_S: f64 = 36.0;

/// How much slower the slow pod is.
const SLOWNESS: f64 = 3.0;
/// The share of the pool's capacity that arrives.
const LOAD: f64 = 0.7;
/// The same where a fourth of the pool is not there for a part of the time.
const LOAD_OF_FEWER: f64 = 0.5;
/// The same of the hot prompt: the servers could take more requests than two cores can send and choose for.
const LOAD_OF_HOT_PROMPT: f64 = 0.4;
/// How many times as long agents come: a session lasts for half a minute, and caches are to fill.
const AGENTS_LONGER: f64 = 5.0;
/// Pods of the pool.
pub const PODS: usize = 4;

/// What requests come, and what happens to the pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Traffic {
    /// Random lengths as in the original's benchmark.
    Original,
    /// Mooncake's trace of conversations.
    Conversation,
    /// Azure's trace of conversations.
    Azure,
    /// Chats: each turn repeats all before it.
    MultiTurn,
    /// One long system prompt for all.
    HotPrompt,
    /// 24 requests at once, over and over.
    Bursts,
    /// Random lengths for twelve LoRA adapters.
    Adapters,
    /// Mooncake's trace, and one pod is three times slower.
    SlowPod,
    /// Mooncake's trace, and one pod is there from a third of the time on.
    PodJoins,
    /// Mooncake's trace, and one pod dies after a third of the time.
    PodDies,
    /// Mooncake's trace, and no pod's metrics can be read from a third of the time on.
    MetricsStop,
    /// Agents that call tools, in sessions that have names.
    Agents,
}

/// Something that happens to a pod.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PodChange {
    /// After this share of the time in which requests arrive.
    pub after_share: f64,
    pub pod: usize,
    pub state: PodState,
}

/// What a pod is then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodState {
    Serves,
    /// Its port is closed.
    IsGone,
    /// It serves, and its metrics are an error.
    HasNoMetrics,
}

impl Traffic {
    pub const ALL: [Traffic; 12] = [
        Traffic::Original,
        Traffic::Conversation,
        Traffic::Azure,
        Traffic::MultiTurn,
        Traffic::HotPrompt,
        Traffic::Bursts,
        Traffic::Adapters,
        Traffic::SlowPod,
        Traffic::PodJoins,
        Traffic::PodDies,
        Traffic::MetricsStop,
        Traffic::Agents,
    ];
    /// Those that need nothing of the pool but that it serves.
    pub const ANYWHERE: [Traffic; 6] = [
        Traffic::Original,
        Traffic::Conversation,
        Traffic::Azure,
        Traffic::MultiTurn,
        Traffic::HotPrompt,
        Traffic::Bursts,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Traffic::Original => "original",
            Traffic::Conversation => "conversation",
            Traffic::Azure => "azure",
            Traffic::MultiTurn => "multi-turn",
            Traffic::HotPrompt => "hot-prompt",
            Traffic::Bursts => "bursts",
            Traffic::Adapters => "adapters",
            Traffic::SlowPod => "slow-pod",
            Traffic::PodJoins => "pod-joins",
            Traffic::PodDies => "pod-dies",
            Traffic::MetricsStop => "metrics-stop",
            Traffic::Agents => "agents",
        }
    }

    /// Requests a second that come to four servers of the usual speed.
    pub fn rate_per_s(self) -> f64 {
        let usual_pods = PODS as f64;
        match self {
            Traffic::Original => ORIGINAL_RATE_PER_S,
            Traffic::SlowPod => {
                LOAD * self.capacity_per_s() * (usual_pods - 1.0 + 1.0 / SLOWNESS) / usual_pods
            }
            Traffic::PodJoins | Traffic::PodDies => LOAD_OF_FEWER * self.capacity_per_s(),
            Traffic::HotPrompt => LOAD_OF_HOT_PROMPT * self.capacity_per_s(),
            _ => LOAD * self.capacity_per_s(),
        }
    }

    fn capacity_per_s(self) -> f64 {
        self.workload().capacity_per_s()
    }

    /// The simulation's traffic that this is drawn from.
    fn workload(self) -> Workload {
        match self {
            Traffic::Conversation
            | Traffic::SlowPod
            | Traffic::PodJoins
            | Traffic::PodDies
            | Traffic::MetricsStop => Workload::Conversation,
            Traffic::Azure => Workload::Azure,
            Traffic::MultiTurn => Workload::MultiTurn,
            Traffic::HotPrompt => Workload::HotPrompt,
            Traffic::Bursts => Workload::Bursts,
            Traffic::Adapters => Workload::Adapters,
            Traffic::Original => Workload::Random,
            Traffic::Agents => Workload::Agents,
        }
    }

    /// What arrives in so many seconds at such a rate, the first session first.
    ///
    /// # Errors
    /// A trace that cannot be read.
    pub fn sessions(
        self,
        seconds: f64,
        rate_per_s: f64,
        adapters: &[String],
        seed: u64,
    ) -> Result<Vec<Session>> {
        let requests = self.requests(seconds, rate_per_s);
        match self {
            Traffic::Original => Ok(original(requests, rate_per_s, seed)),
            Traffic::Agents => workload::sessions(Workload::Agents, requests, rate_per_s, seed),
            Traffic::Adapters => {
                let mut rng = Rng::with_seed(seed);
                Ok(workload::adapters::sessions(requests, rate_per_s, adapters, &mut rng))
            }
            _ => {
                let sessions = workload::sessions(self.workload(), requests, rate_per_s, seed)?;
                Ok(sessions.into_iter().map(|session| Session { name: None, ..session }).collect())
            }
        }
    }

    /// How many come in so many seconds.
    pub fn requests(self, seconds: f64, rate_per_s: f64) -> usize {
        let longer = if self == Traffic::Agents { AGENTS_LONGER } else { 1.0 };
        (rate_per_s * seconds * longer).ceil() as usize
    }

    /// The pods that it needs, so many times faster than by default.
    pub fn servers(self, speed: f64) -> Vec<ServerSettings> {
        let (pool, usual) = (self.workload().pool(), EngineSettings::default());
        let slowness = |pod| if self == Traffic::SlowPod && pod == 0 { SLOWNESS } else { 1.0 };
        let server = |pod| ServerSettings {
            lora_adapters: self.adapters(),
            engine: EngineSettings {
                speed: speed * pool.engine_speed / slowness(pod),
                blocks: (usual.blocks as f64 * pool.kv_share) as usize,
                ..usual.clone()
            },
            stream_interval: STREAM_INTERVAL,
            ..ServerSettings::default()
        };
        (0..PODS).map(server).collect()
    }

    /// The adapters that its servers know.
    pub fn adapters(self) -> Vec<String> {
        if self == Traffic::Adapters { workload::adapters::names() } else { Vec::new() }
    }

    /// What happens to the pods. Whoever joins was not there at the beginning.
    pub fn pod_changes(self) -> Vec<PodChange> {
        const THIRD: f64 = 1.0 / 3.0;
        let joins = [
            PodChange { after_share: 0.0, pod: 0, state: PodState::IsGone },
            PodChange { after_share: THIRD, pod: 0, state: PodState::Serves },
        ];
        match self {
            Traffic::PodJoins => joins.to_vec(),
            Traffic::PodDies => vec![PodChange { after_share: THIRD, pod: 0, state: PodState::IsGone }],
            Traffic::MetricsStop => (0..PODS)
                .map(|pod| PodChange { after_share: THIRD, pod, state: PodState::HasNoMetrics })
                .collect(),
            _ => Vec::new(),
        }
    }
}

/// Tokens in an event of an answer: with one in each, the machine would be busy with events and not with requests.
const STREAM_INTERVAL: usize = 16;

fn original(requests: usize, rate_per_s: f64, seed: u64) -> Vec<Session> {
    let mut rng = Rng::with_seed(seed);
    let arrivals: Vec<_> = draw::poisson(rate_per_s, &mut rng).take(requests).collect();
    let session = |starts| {
        let text = draw::fresh_text(rng.usize(ORIGINAL_PROMPT_TOKENS), &mut rng);
        Session::single(starts, text, rng.usize(ORIGINAL_OUTPUT_TOKENS))
    };
    arrivals.into_iter().map(session).collect()
}
