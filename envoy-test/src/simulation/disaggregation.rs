//! Disaggregated prefill: pods of which some only compute prompts, beside as many that do both.

use anyhow::Result;
use fastrand::Rng;

use super::Record;
use super::picker::{CorePicker, DecodeFirst, Gateways, Picker, PickerKind};
use super::pool::PoolSettings;
use super::run;
use super::workload::{self, Session, Workload};

/// Of mixed traffic's load, what long prompts are.
const LONG_SHARE: f64 = 0.5;

/// What comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Prompts of 20,000 tokens.
    LongPrompts,
    /// The same, and between them chats as in Azure's trace, each half of the load.
    Mixed,
    /// These chats alone.
    Chats,
}

/// Who computes prompts, and who picks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Division {
    /// All pods do both, picked by the core.
    Together,
    /// So many only compute prompts, and the core picks both.
    Core { prefill_pods: usize, threshold_tokens: usize },
    /// The same by llm-d's rule.
    DecodeFirst { prefill_pods: usize, threshold_tokens: usize },
}

/// One run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Disaggregation {
    pub traffic: Traffic,
    /// What arrives, as a share of what the pods could take if all did both.
    pub load: f64,
    pub division: Division,
    pub pods: usize,
    /// In the time in which they arrive, in seconds.
    pub seconds: usize,
    pub seed: u64,
}

impl Traffic {
    pub const ALL: [Traffic; 3] = [Traffic::LongPrompts, Traffic::Mixed, Traffic::Chats];

    pub fn name(self) -> &'static str {
        match self {
            Traffic::LongPrompts => "long prompts",
            Traffic::Mixed => "mixed",
            Traffic::Chats => "chats",
        }
    }

    /// The kinds that it consists of, with the share of the load that each is.
    fn parts(self) -> Vec<(Workload, f64)> {
        match self {
            Traffic::LongPrompts => vec![(Workload::Rag, 1.0)],
            Traffic::Mixed => vec![(Workload::Rag, LONG_SHARE), (Workload::Azure, 1.0 - LONG_SHARE)],
            Traffic::Chats => vec![(Workload::Azure, 1.0)],
        }
    }

    fn sessions(self, load: f64, pool: &PoolSettings, seconds: usize, seed: u64) -> Result<Vec<Session>> {
        let mut sessions = Vec::new();
        for (workload, share) in self.parts() {
            let speed = pool.speed() / workload.pool().speed();
            let rate_per_s = load * share * workload.capacity_per_s() * speed;
            let requests = (rate_per_s * seconds as f64) as usize;
            sessions.extend(workload::sessions(workload, requests, rate_per_s, seed)?);
        }
        sessions.sort_by_key(|session| session.starts);
        Ok(sessions)
    }
}

impl Division {
    pub fn name(self, pods: usize) -> String {
        let split = |prefill_pods: usize| format!("{prefill_pods} + {}", pods - prefill_pods);
        match self {
            Division::Together => format!("{pods} that do both"),
            Division::Core { prefill_pods, threshold_tokens } => {
                format!("{}, from {threshold_tokens} tokens on", split(prefill_pods))
            }
            Division::DecodeFirst { prefill_pods, threshold_tokens } => {
                format!("{}, llm-d's rule, from {threshold_tokens} tokens on", split(prefill_pods))
            }
        }
    }
}

/// Plays it to its end.
///
/// # Errors
/// A prompt that does not fit into an engine.
pub fn play(scenario: &Disaggregation) -> Result<Record> {
    let &Disaggregation { traffic, load, division, pods, seconds, seed } = scenario;
    let pool = PoolSettings { pods, ..Workload::Rag.pool() };
    let (engines, rng) = (pool.engines(), Rng::with_seed(seed));
    let strategy = PickerKind::PrefixCache.strategy();
    let mut picker: Box<dyn Picker> = match division {
        Division::Together => Box::new(CorePicker::new(strategy, &engines, Gateways::default(), rng)),
        Division::Core { prefill_pods, threshold_tokens } => {
            Box::new(CorePicker::disaggregated(strategy, &engines, prefill_pods, threshold_tokens, rng))
        }
        Division::DecodeFirst { prefill_pods, threshold_tokens } => {
            Box::new(DecodeFirst::new(&engines, prefill_pods, threshold_tokens, rng))
        }
    };
    run::run(traffic.sessions(load, &pool, seconds, seed)?, engines, picker.as_mut())
}
