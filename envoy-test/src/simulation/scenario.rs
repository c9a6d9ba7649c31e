//! One run: what comes, what picks, and what is picked from.

use anyhow::Result;

use super::picker::{Gateways, PickerKind};
use super::pool::PoolSettings;
use super::run::{self, Record};
use super::workload::{self, Workload};

/// Everything that decides the outcome of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    pub workload: Workload,
    pub picker: PickerKind,
    /// Requests that arrive a second, in the mean.
    pub rate_per_s: f64,
    pub requests: usize,
    pub seed: u64,
    pub pool: PoolSettings,
    pub gateways: Gateways,
}

/// Plays a scenario to its end, when everything that arrived has been answered.
///
/// # Errors
/// A prompt that does not fit into an engine.
pub fn simulate(scenario: &Scenario) -> Result<Record> {
    let &Scenario { workload, rate_per_s, requests, seed, .. } = scenario;
    let sessions = workload::sessions(workload, requests, rate_per_s, seed)?;
    let engines = scenario.pool.engines();
    let mut picker = scenario.picker.build(&engines, scenario.gateways, seed);
    run::run(sessions, engines, picker.as_mut())
}
