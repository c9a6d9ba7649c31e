//! The figures of one run.

use std::time::Duration;

use serde::Serialize;

use crate::simulation::{Answer, Record};

/// How long something took, over all requests, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Times {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
}

/// What a run is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Measures {
    pub requests: usize,
    pub first_token_ms: Times,
    pub end_to_end_ms: Times,
    pub output_tokens_per_s: f64,
    /// Share of the prompts' tokens that were found in a prefix cache.
    pub cache_hit_share: f64,
    /// Prompt tokens that the busiest pod computed, over the mean of all pods.
    pub busiest_by_tokens: f64,
    /// The same of requests.
    pub busiest_by_requests: f64,
}

impl Times {
    /// Of at least one time.
    fn of(times: impl Iterator<Item = Duration>) -> Times {
        let mut ms: Vec<f64> = times.map(|time| time.as_secs_f64() * 1000.0).collect();
        ms.sort_by(f64::total_cmp);
        let quantile = |share: f64| ms.get((ms.len() as f64 * share) as usize).copied().unwrap_or_default();
        Times {
            mean: rounded(ms.iter().sum::<f64>() / ms.len().max(1) as f64),
            p50: rounded(quantile(0.5)),
            p90: rounded(quantile(0.9)),
            p99: rounded(quantile(0.99)),
        }
    }
}

impl Measures {
    pub fn of(record: &Record) -> Measures {
        let answers = &record.answers;
        let last = answers.iter().map(|answer| answer.ended).max().unwrap_or_default();
        let output_tokens: usize = answers.iter().map(|answer| answer.output_tokens).sum();
        let sum = |of: fn(&Answer) -> usize| answers.iter().map(of).sum::<usize>() as f64;
        let pods = record.caches.len();
        Measures {
            requests: answers.len(),
            first_token_ms: Times::of(answers.iter().map(|answer| answer.first_output - answer.arrived)),
            end_to_end_ms: Times::of(answers.iter().map(|answer| answer.ended - answer.arrived)),
            output_tokens_per_s: rounded(output_tokens as f64 / last.as_secs_f64()),
            cache_hit_share: rounded(sum(|answer| answer.cached_tokens) / sum(|answer| answer.prompt_tokens)),
            busiest_by_tokens: busiest(answers, pods, |answer| answer.prompt_tokens - answer.cached_tokens),
            busiest_by_requests: busiest(answers, pods, |_| 1),
        }
    }
}

/// The most that any pod had of something, over the mean.
fn busiest(answers: &[Answer], pods: usize, amount: fn(&Answer) -> usize) -> f64 {
    let mut loads = vec![0; pods];
    for answer in answers {
        loads[answer.pod] += amount(answer);
    }
    let most = loads.iter().max().copied().unwrap_or_default();
    rounded(most as f64 * pods as f64 / loads.iter().sum::<usize>().max(1) as f64)
}

/// Three digits behind the point: a microsecond of a millisecond, a tenth of a percent of a share.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
