//! Large pools: how balance, what is found in caches, what a worker keeps and what a pick costs grow with pods, workers and
//! gateways.
//!
//! The load of each pod is the same whatever their number, and so is how often it is asked what was asked before: traffic
//! grows with the pool, and so do the documents that are asked about. What differs between two sizes is then due to size.

use std::time::Duration;

use anyhow::{Context, Result};

use super::Record;
use super::picker::{CorePicker, Gateways, PickerKind, Seen};
use super::pool::PoolSettings;
use super::report::Measures;
use super::run;
use super::workload::{Session, random, shared_prefixes};

/// Requests a second for each pod: seven tenths of what one can take of random prompts.
const RATE_A_POD_PER_S: f64 = 14.0;
/// Documents for each pod; as many tokens as a third of its KV cache holds.
const DOCUMENTS_A_POD: usize = 40;
const DOCUMENT_TOKENS: std::ops::RangeInclusive<usize> = 200..=800;
/// How often the load of all pods is compared.
const SAMPLE: Duration = Duration::from_millis(250);

/// What comes to a large pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Prompts of unequal length, nothing shared.
    Random,
    /// Questions about documents, some of which are popular.
    Documents,
}

/// One run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LargeScenario {
    pub traffic: Traffic,
    pub picker: PickerKind,
    pub pods: usize,
    pub gateways: Gateways,
    pub requests_a_pod: usize,
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LargeOutcome {
    pub requests: usize,
    pub measures: Measures,
    /// Requests in flight on the busiest pod, over the mean of all: the mean over the time in which requests come.
    pub busiest_in_flight: f64,
    pub seen: Seen,
}

impl Traffic {
    pub fn name(self) -> &'static str {
        match self {
            Traffic::Random => "random",
            Traffic::Documents => "documents",
        }
    }

    fn sessions(self, pods: usize, requests: usize, rng: &mut fastrand::Rng) -> Vec<Session> {
        let rate_per_s = RATE_A_POD_PER_S * pods as f64;
        match self {
            Traffic::Random => random::sessions(requests, rate_per_s, rng),
            Traffic::Documents => {
                let documents = DOCUMENTS_A_POD * pods;
                shared_prefixes::about(documents, DOCUMENT_TOKENS, requests, rate_per_s, rng)
            }
        }
    }
}

/// Plays a large scenario to its end.
///
/// # Errors
/// A prompt that does not fit into an engine.
pub fn play(scenario: &LargeScenario) -> Result<(Record, Seen)> {
    let &LargeScenario { traffic, picker, pods, gateways, requests_a_pod, seed } = scenario;
    let sessions = traffic.sessions(pods, requests_a_pod * pods, &mut fastrand::Rng::with_seed(seed));
    let engines = PoolSettings { pods, ..PoolSettings::default() }.engines();
    let mut picker =
        CorePicker::watched(picker.strategy(), &engines, gateways, fastrand::Rng::with_seed(seed));
    let record = run::run(sessions, engines, &mut picker)?;
    Ok((record, picker.seen().context("it was watched")?))
}

/// Plays it, and says what came of it.
///
/// # Errors
/// Those of [`play`].
pub fn measure(scenario: &LargeScenario) -> Result<LargeOutcome> {
    let (record, seen) = play(scenario)?;
    Ok(LargeOutcome {
        requests: record.answers.len(),
        measures: Measures::of(&record),
        busiest_in_flight: busiest_in_flight(&record),
        seen,
    })
}

fn busiest_in_flight(record: &Record) -> f64 {
    let place = |time: Duration| (time.as_secs_f64() / SAMPLE.as_secs_f64()) as usize;
    let last_arrival = record.answers.iter().map(|answer| answer.arrived).max().unwrap_or_default();
    let pods = record.caches.len();
    let mut samples = vec![vec![0_usize; pods]; place(last_arrival) + 1];
    for answer in &record.answers {
        let last = place(answer.ended).min(samples.len() - 1);
        for sample in &mut samples[place(answer.arrived)..=last] {
            sample[answer.pod] += 1;
        }
    }
    // The pool fills in the first fifth.
    let filled = &samples[samples.len() / 5..];
    let busiest = filled.iter().map(|sample| {
        let most = sample.iter().copied().max().unwrap_or_default() as f64;
        most * pods as f64 / sample.iter().sum::<usize>().max(1) as f64
    });
    busiest.sum::<f64>() / filled.len() as f64
}
