//! What a pool carries while users are served as promised: the highest rate, and the fewest pods for one rate.
//!
//! ```text
//! kept = in each run: 90th percentile of the time to first token ≤ first_token_ms
//!                 and 90th percentile of the time for each further token ≤ per_token_ms
//! ```
//!
//! Both are searched by bisection: whoever keeps the promise at one rate is taken to keep it at lower ones, and with more
//! pods.

use std::ops::Range;
use std::time::Duration;

use anyhow::Result;
use rayon::prelude::*;
use serde::Serialize;

use super::comparison::Case;
use super::picker::PickerKind;
use super::pool::PoolSettings;
use super::report::Measures;
use super::simulate;
use super::workload::Workload;

/// Rates that are tried, as shares of the workload's capacity.
const SHARES: (f64, f64) = (0.05, 1.8);
/// The last step between two rates.
const PRECISION: f64 = 1.02;
/// Pods that are tried.
pub const PODS_MAX: usize = 32;
/// In which requests arrive, at every rate: a queue that grows is then seen to grow, and caches are full.
const ARRIVALS: Duration = Duration::from_secs(60);
/// The traffic for which pods are counted: so much of what so many pods can take.
const TRAFFIC: (f64, usize) = (0.7, 8);

/// What users are promised, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Objective {
    pub first_token_ms: f64,
    /// For each further token, in the mean of an answer.
    pub per_token_ms: f64,
}

/// What one picker carries of one kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Carried {
    /// The highest rate, with the workload's usual pool; nothing if there is none.
    pub highest_per_s: Option<f64>,
    /// The fewest pods; nothing if [`PODS_MAX`] are not enough.
    pub fewest_pods: Option<usize>,
}

/// What everybody carries of one kind of traffic.
#[derive(Debug, Clone, PartialEq)]
pub struct CarriedOutcome {
    pub workload: Workload,
    /// For which pods were counted.
    pub rate_per_s: f64,
    pub carried: Vec<(PickerKind, Carried)>,
}

impl Objective {
    fn is_kept(self, measures: &Measures) -> bool {
        measures.first_token_ms.p90 <= self.first_token_ms && measures.per_token_ms.p90 <= self.per_token_ms
    }

    fn is_kept_in(self, case: &Case, picker: PickerKind, seeds: &Range<u64>) -> Result<bool> {
        let requests = (case.rate_per_s * ARRIVALS.as_secs_f64()).ceil() as usize;
        for seed in seeds.clone() {
            let record = simulate(&case.scenario(picker, requests, seed))?;
            if !self.is_kept(&Measures::of(&record)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Searches what each picker carries of each kind of traffic, on all cores; `progress` is given how many of how many
/// searches are done.
///
/// # Errors
/// Those of [`simulate`].
pub fn search(
    workloads: &[Workload],
    pickers: &[PickerKind],
    objective: Objective,
    seeds: Range<u64>,
    progress: impl Fn(usize, usize) + Sync,
) -> Result<Vec<CarriedOutcome>> {
    let pairs = workloads.iter().flat_map(|&workload| pickers.iter().map(move |&picker| (workload, picker)));
    let pairs: Vec<_> = pairs.collect();
    let done = std::sync::atomic::AtomicUsize::new(0);
    let carried = pairs.par_iter().map(|&(workload, picker)| {
        let highest_per_s = highest_rate(workload, picker, objective, &seeds)?;
        let fewest_pods = fewest_pods(workload, picker, objective, &seeds)?;
        progress(done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1, pairs.len());
        Ok((picker, Carried { highest_per_s, fewest_pods }))
    });
    let carried: Vec<_> = carried.collect::<Result<_>>()?;
    let outcome = |(&workload, carried): (&Workload, &[_])| CarriedOutcome {
        workload,
        rate_per_s: traffic_of_pods(workload).rate_per_s,
        carried: carried.to_vec(),
    };
    Ok(workloads.iter().zip(carried.chunks(pickers.len().max(1))).map(outcome).collect())
}

fn highest_rate(
    workload: Workload,
    picker: PickerKind,
    objective: Objective,
    seeds: &Range<u64>,
) -> Result<Option<f64>> {
    let is_kept = |share| objective.is_kept_in(&Case::usual(workload, share), picker, seeds);
    let (mut low, mut high) = SHARES;
    if !is_kept(low)? {
        return Ok(None);
    }
    while high / low > PRECISION {
        let middle = (low * high).sqrt();
        match is_kept(middle)? {
            true => low = middle,
            false => high = middle,
        }
    }
    Ok(Some(Case::usual(workload, low).rate_per_s))
}

fn fewest_pods(
    workload: Workload,
    picker: PickerKind,
    objective: Objective,
    seeds: &Range<u64>,
) -> Result<Option<usize>> {
    let traffic = traffic_of_pods(workload);
    let is_kept = |pods| {
        let pool = PoolSettings { pods, ..traffic.pool.clone() };
        objective.is_kept_in(&Case { pool, ..traffic.clone() }, picker, seeds)
    };
    let (mut too_few, mut enough) = (0, PODS_MAX);
    if !is_kept(PODS_MAX)? {
        return Ok(None);
    }
    while enough - too_few > 1 {
        let middle = (too_few + enough) / 2;
        match is_kept(middle)? {
            true => enough = middle,
            false => too_few = middle,
        }
    }
    Ok(Some(enough))
}

fn traffic_of_pods(workload: Workload) -> Case {
    let (load, pods) = TRAFFIC;
    Case::with_pool(workload, load, PoolSettings { pods, ..workload.pool() })
}
