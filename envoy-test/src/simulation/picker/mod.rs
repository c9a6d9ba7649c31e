//! Who picks: the routing core with each of its strategies, and others to compare it with.

pub(crate) mod default_weights;
mod gateway;
pub(crate) mod guide_schedule;
pub(crate) mod oracle;
mod scraping;
mod sent_blocks;
mod shared_data;
mod telling;
mod watch;

use std::time::Duration;

use clap::ValueEnum;

pub use gateway::CorePicker;
use guide_schedule::{Figures, GuideSchedule};
pub use watch::{Seen, State};

use crate::model_server::engine::{Engine, Output};

/// A request as a picker sees it.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Names it until it has ended.
    pub key: usize,
    pub prompt: &'a [u32],
    /// The adapter it is for, if not for the base model.
    pub adapter: Option<&'a str>,
}

/// Picks an engine for each request. It is told what a gateway sees of the answers, and may ask the engines' gauges at a
/// tick; only the oracle looks further into an engine.
pub trait Picker {
    /// The place of the engine to send it to.
    fn pick(&mut self, request: &Request<'_>, engines: &[Engine], now: Duration) -> usize;

    fn first_output(&mut self, _key: usize, _output: &Output) {}

    /// The answer is complete; `output` is its last token.
    fn ended(&mut self, _key: usize, _output: &Output) {}

    /// When it next wants [`Picker::tick`].
    fn next_tick(&self) -> Option<Duration> {
        None
    }

    fn tick(&mut self, _engines: &[Engine], _now: Duration) {}
}

/// How many gateways stand in front of the pool, how many workers each has, and whether gateways tell each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gateways {
    pub gateways: usize,
    pub workers: usize,
    /// How long what one gateway tells takes to reach the others; `None`: they tell each other nothing.
    pub peers_ms: Option<u64>,
}

impl Gateways {
    /// How late gateways that tell each other hear, at the usual interval: on the late side.
    pub const LATENESS_MS: u64 = 25;
}

impl Default for Gateways {
    fn default() -> Self {
        Self { gateways: 1, workers: 1, peers_ms: None }
    }
}

/// A rule by which engines are picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PickerKind {
    /// The core's ROUND_ROBIN.
    RoundRobin,
    /// The core's LEAST_REQUEST.
    LeastRequest,
    /// The core's DEFAULT.
    Default,
    /// The core's PREFIX_CACHE.
    PrefixCache,
    /// The reference endpoint picker of the Gateway API with the default weights of its binary.
    DefaultWeights,
    /// The same with the schedule that llm-d's guide recommends.
    GuideSchedule,
    /// The same, with figures that suit the pool in place of the guide's.
    TunedGuideSchedule,
    /// Knows every engine's true state, and takes the earliest first token.
    Oracle,
}

impl PickerKind {
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

    pub fn name(self) -> &'static str {
        match self {
            PickerKind::RoundRobin => "ROUND_ROBIN",
            PickerKind::LeastRequest => "LEAST_REQUEST",
            PickerKind::Default => "DEFAULT",
            PickerKind::PrefixCache => "PREFIX_CACHE",
            PickerKind::DefaultWeights => "endpoint picker, default weights",
            PickerKind::GuideSchedule => "endpoint picker, guide's schedule",
            PickerKind::TunedGuideSchedule => "endpoint picker, guide's schedule tuned",
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
            PickerKind::Oracle => Box::new(oracle::Oracle::new(rng)),
            _ => Box::new(gateway::CorePicker::new(self.name(), engines, gateways, rng)),
        }
    }
}
