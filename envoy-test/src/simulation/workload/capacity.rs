//! What the usual pool can take of each kind of traffic, so that a load can be named as a share of it.
//!
//! The capacity is the highest rate at which the oracle's first tokens come within a second in the mean. Where more
//! arrives than is worked off, the queue grows as long as the run lasts and waits are soon many seconds, so this is
//! close to the rate from which on the queue grows. The figures are what `routing --find-capacity` prints, but for those of
//! long answers and what follows them, for which the oracle takes hours: they are rough, from a few rates with PREFIX_CACHE.

use std::time::Duration;

use anyhow::Result;

use super::Workload;
use crate::simulation::picker::PickerKind;
use crate::simulation::{Scenario, simulate};

const FIRST_TOKEN_MEAN: Duration = Duration::from_secs(1);
/// Where the search starts: every kind of traffic can be worked off at this rate.
const LOWEST_PER_S: f64 = 4.0;
/// How far apart the first rates tried are: much more than the capacity takes long to simulate.
const STEP: f64 = 1.25;
/// The halvings after that: the last is one in a hundred.
const HALVINGS: usize = 5;

impl Workload {
    /// Requests a second that the four engines of its pool can take.
    pub fn capacity_per_s(self) -> f64 {
        match self {
            Workload::Conversation => 43.2,
            Workload::Azure => 19.8,
            Workload::MultiTurn => 93.1,
            Workload::HotPrompt => 284.2,
            Workload::Random => 80.9,
            Workload::SharedPrefixes => 75.1,
            Workload::Bursts => 64.3,
            Workload::Adapters => 74.0,
            Workload::LongAnswers => 12.0,
            Workload::Rag => 6.5,
            Workload::Embeddings => 50.0,
            Workload::Day => 28.0,
            Workload::TwoModels => 90.0,
            Workload::Agents => 24.0,
        }
    }
}

/// Searches the capacity of the scenario's pool for its workload; picker and rate of the scenario are not used.
///
/// # Errors
/// Those of [`simulate`].
pub fn find_capacity(scenario: &Scenario) -> Result<f64> {
    let (mut low, mut high) = (LOWEST_PER_S, LOWEST_PER_S * STEP);
    while is_worked_off(scenario, high)? {
        (low, high) = (high, high * STEP);
    }
    for _ in 0..HALVINGS {
        let middle = (low + high) / 2.0;
        match is_worked_off(scenario, middle)? {
            true => low = middle,
            false => high = middle,
        }
    }
    Ok(low)
}

fn is_worked_off(scenario: &Scenario, rate_per_s: f64) -> Result<bool> {
    let record = simulate(&Scenario { picker: PickerKind::Oracle, rate_per_s, ..scenario.clone() })?;
    let waited: Duration = record.answers.iter().map(|answer| answer.first_output - answer.arrived).sum();
    Ok(waited <= FIRST_TOKEN_MEAN * record.answers.len() as u32)
}
