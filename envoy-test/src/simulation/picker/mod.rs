//! Who picks: the routing core with each of its strategies, and others to compare it with.

mod configuration;
mod decode_first;
pub(crate) mod default_weights;
mod exchange;
mod gateway;
pub(crate) mod guide_schedule;
pub(crate) mod oracle;
mod ring_hash;
mod scraping;
mod sent_blocks;
mod setting;
mod shared_data;
mod watch;

use std::time::Duration;

use clap::ValueEnum;

pub(super) use decode_first::DecodeFirst;
pub use gateway::{CorePicker, Wanted};
use guide_schedule::{Figures, GuideSchedule};
pub use watch::{Seen, State};

use super::workload::Workload;
use crate::model_server::engine::{Engine, Output};

/// A request as a picker sees it.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Names it until it has ended.
    pub key: usize,
    pub prompt: &'a [u32],
    /// The adapter it is for, if not for the base model.
    pub adapter: Option<&'a str>,
    /// The number by which its client names its session.
    pub session: Option<usize>,
}

/// Picks an engine for each request. It is given what a gateway sees of the answers, and may ask the engines' gauges at a
/// tick; only the oracle looks further into an engine.
pub trait Picker {
    /// The place of the engine to send it to.
    fn pick(&mut self, request: &Request<'_>, engines: &[Engine], now: Duration) -> usize;

    /// The same; nothing, if the request is shed.
    fn pick_or_shed(&mut self, request: &Request<'_>, engines: &[Engine], now: Duration) -> Option<usize> {
        Some(self.pick(request, engines, now))
    }

    /// The place of the engine that computes the prompt of the request of this key, which has been picked for, if that is
    /// another one than generates its answer.
    fn prefill_pod(&self, _key: usize) -> Option<usize> {
        None
    }

    fn first_output(&mut self, _key: usize, _output: &Output) {}

    /// The answer is complete; `output` is its last token.
    fn ended(&mut self, _key: usize, _output: &Output) {}

    /// When it next wants [`Picker::tick`].
    fn next_tick(&self) -> Option<Duration> {
        None
    }

    fn tick(&mut self, _engines: &[Engine], _now: Duration) {}
}

/// How many gateways stand in front of the pool, how many workers each has, and whether gateways publish to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gateways {
    pub gateways: usize,
    pub workers: usize,
    /// How long what one gateway publishes takes to reach the others; `None`: they exchange nothing.
    pub peers_ms: Option<u64>,
    /// How often each endpoint is scraped; `None`: as often as the plugin does by default. Under `scrapeBudget` a large pool's are
    /// scraped less often.
    pub scrape_interval_ms: Option<u64>,
}

impl Gateways {
    /// How late gateways that publish to each other receive, at the usual interval: on the late side.
    pub const LATENESS_MS: u64 = 25;
}

impl Default for Gateways {
    fn default() -> Self {
        Self { gateways: 1, workers: 1, peers_ms: None, scrape_interval_ms: None }
    }
}

/// What the core is configured with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strategy {
    /// Of `routingStrategy`.
    pub name: &'static str,
    /// Whether it knows of sessions.
    pub with_sessions: bool,
}

/// A rule by which engines are picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PickerKind {
    /// The core's ROUND_ROBIN.
    RoundRobin,
    /// The core's LEAST_REQUEST.
    LeastRequest,
    /// The core's DEFAULT, that knows of no sessions.
    Default,
    /// The core's DEFAULT with sessions.
    DefaultWithSessions,
    /// The core's PREFIX_CACHE.
    PrefixCache,
    /// The reference endpoint picker of the Gateway API with the default weights of its binary.
    DefaultWeights,
    /// The same with the schedule that llm-d's guide recommends.
    GuideSchedule,
    /// The same, with figures that suit the pool in place of the guide's.
    TunedGuideSchedule,
    /// Envoy's ring hash, by the name of the session.
    RingHash,
    /// Knows every engine's true state, and takes the earliest first token.
    Oracle,
}

impl PickerKind {
    /// Those that know of no sessions, or need not be.
    pub const ALL: [PickerKind; 8] = [
        PickerKind::RoundRobin,
        PickerKind::LeastRequest,
        PickerKind::Default,
        PickerKind::PrefixCache,
        PickerKind::DefaultWeights,
        PickerKind::GuideSchedule,
        PickerKind::TunedGuideSchedule,
        PickerKind::Oracle,
    ];

    /// The same and those that go by sessions, for traffic in which these have names.
    pub const WITH_SESSIONS: [PickerKind; 10] = [
        PickerKind::RoundRobin,
        PickerKind::LeastRequest,
        PickerKind::Default,
        PickerKind::DefaultWithSessions,
        PickerKind::PrefixCache,
        PickerKind::DefaultWeights,
        PickerKind::GuideSchedule,
        PickerKind::TunedGuideSchedule,
        PickerKind::RingHash,
        PickerKind::Oracle,
    ];

    /// Everybody who is compared on this traffic.
    pub fn all_for(workload: Workload) -> &'static [PickerKind] {
        if workload == Workload::Agents { &PickerKind::WITH_SESSIONS } else { &PickerKind::ALL }
    }

    pub fn name(self) -> &'static str {
        match self {
            PickerKind::RoundRobin => "ROUND_ROBIN",
            PickerKind::LeastRequest => "LEAST_REQUEST",
            PickerKind::Default => "DEFAULT",
            PickerKind::DefaultWithSessions => "DEFAULT with sessions",
            PickerKind::PrefixCache => "PREFIX_CACHE",
            PickerKind::DefaultWeights => "endpoint picker, default weights",
            PickerKind::GuideSchedule => "endpoint picker, guide's schedule",
            PickerKind::TunedGuideSchedule => "endpoint picker, guide's schedule tuned",
            PickerKind::RingHash => "ring hash",
            PickerKind::Oracle => "oracle",
        }
    }

    /// One that picks among these engines; the core does it in so many gateways.
    pub fn build(self, engines: &[Engine], gateways: Gateways, seed: u64) -> Box<dyn Picker> {
        let rng = fastrand::Rng::with_seed(seed);
        match self {
            PickerKind::DefaultWeights => Box::new(default_weights::DefaultWeights::new(engines, rng)),
            PickerKind::GuideSchedule => Box::new(GuideSchedule::new(engines, Figures::GUIDE, rng)),
            PickerKind::TunedGuideSchedule => Box::new(GuideSchedule::new(engines, Figures::POOL, rng)),
            PickerKind::RingHash => Box::new(ring_hash::RingHash::new(engines, rng)),
            PickerKind::Oracle => Box::new(oracle::Oracle::new(rng)),
            PickerKind::RoundRobin
            | PickerKind::LeastRequest
            | PickerKind::Default
            | PickerKind::DefaultWithSessions
            | PickerKind::PrefixCache => {
                Box::new(gateway::CorePicker::new(self.strategy(), engines, gateways, rng))
            }
        }
    }

    /// What the core is configured with.
    pub(super) fn strategy(self) -> Strategy {
        match self {
            PickerKind::DefaultWithSessions => {
                Strategy { name: PickerKind::Default.name(), with_sessions: true }
            }
            _ => Strategy { name: self.name(), with_sessions: self == PickerKind::PrefixCache },
        }
    }
}
