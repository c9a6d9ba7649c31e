//! The few figures that say how long something took.

use std::time::Duration;

use serde::Serialize;

/// How long something took, over all requests, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Times {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
}

impl Times {
    pub fn of(times: impl Iterator<Item = Duration>) -> Times {
        let mut ms: Vec<f64> = times.map(|time| time.as_secs_f64() * 1000.0).collect();
        ms.sort_by(f64::total_cmp);
        let quantile = |share: f64| ms.get((ms.len() as f64 * share) as usize).copied().unwrap_or_default();
        let mean = ms.iter().sum::<f64>() / ms.len().max(1) as f64;
        Times { mean, p50: quantile(0.5), p90: quantile(0.9), p99: quantile(0.99) }
    }

    /// Of several runs, at least one: the mean of each figure.
    pub(crate) fn mean(all: &[Times]) -> Times {
        Times {
            mean: mean(all, |times| times.mean),
            p50: mean(all, |times| times.p50),
            p90: mean(all, |times| times.p90),
            p99: mean(all, |times| times.p99),
        }
    }
}

/// Of one figure of each.
pub(crate) fn mean<T>(all: &[T], figure: fn(&T) -> f64) -> f64 {
    all.iter().map(figure).sum::<f64>() / all.len() as f64
}
