//! What is compared: cases, each with everybody who picks, several times with other seeds.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use rayon::prelude::*;

use super::picker::{Gateways, PickerKind};
use super::pool::PoolSettings;
use super::report::Measures;
use super::workload::Workload;
use super::{Scenario, simulate};

/// Traffic and a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    pub workload: Workload,
    /// Requests that arrive a second, in the mean.
    pub rate_per_s: f64,
    pub pool: PoolSettings,
    pub gateways: Gateways,
    pub pickers: Vec<PickerKind>,
}

/// How often and how long each case is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repetition {
    pub requests: usize,
    /// Each run has the next seed.
    pub first_seed: u64,
    pub runs: u64,
}

impl Repetition {
    pub fn seeds(self) -> std::ops::Range<u64> {
        self.first_seed..self.first_seed + self.runs
    }
}

/// A case with the measures of each of its pickers.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub case: Case,
    pub measures: Vec<(PickerKind, Measures)>,
}

impl Case {
    /// The workload's usual pool under this share of its capacity, with everybody who picks.
    pub fn usual(workload: Workload, load: f64) -> Case {
        Case::with_pool(workload, load, workload.pool())
    }

    /// The same for another pool, whose capacity is that of the usual one, scaled by its speed.
    pub fn with_pool(workload: Workload, load: f64, pool: PoolSettings) -> Case {
        let speed = pool.speed() / workload.pool().speed();
        Case {
            workload,
            rate_per_s: load * workload.capacity_per_s() * speed,
            pool,
            gateways: Gateways::default(),
            pickers: PickerKind::all_for(workload).to_vec(),
        }
    }

    pub fn scenario(&self, picker: PickerKind, requests: usize, seed: u64) -> Scenario {
        Scenario {
            workload: self.workload,
            picker,
            rate_per_s: self.rate_per_s,
            requests,
            seed,
            pool: self.pool.clone(),
            gateways: self.gateways,
        }
    }
}

/// Plays all cases on all cores; `progress` is given how many of how many runs are done.
///
/// # Errors
/// Those of [`simulate`].
pub fn compare(
    cases: &[Case],
    repetition: Repetition,
    progress: impl Fn(usize, usize) + Sync,
) -> Result<Vec<Outcome>> {
    let jobs: Vec<(&Case, PickerKind)> =
        cases.iter().flat_map(|case| case.pickers.iter().map(move |&picker| (case, picker))).collect();
    let done = AtomicUsize::new(0);
    let measures = jobs.par_iter().map(|&(case, picker)| {
        let measures = repeat(case, picker, repetition)?;
        progress(done.fetch_add(1, Ordering::Relaxed) + 1, jobs.len());
        Ok(measures)
    });
    let mut measures = measures.collect::<Result<Vec<_>>>()?.into_iter();
    let outcome = |case: &Case| Outcome {
        case: case.clone(),
        measures: case.pickers.iter().copied().zip(measures.by_ref()).collect(),
    };
    Ok(cases.iter().map(outcome).collect())
}

fn repeat(case: &Case, picker: PickerKind, repetition: Repetition) -> Result<Measures> {
    let measure = |seed| Ok(Measures::of(&simulate(&case.scenario(picker, repetition.requests, seed))?));
    Ok(Measures::mean(&repetition.seeds().map(measure).collect::<Result<Vec<_>>>()?))
}
