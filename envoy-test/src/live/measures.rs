//! The figures of one cell.

use std::time::Duration;

use serde::Serialize;

use super::pods::Pod;
use super::sending::{Answer, Observed};
use crate::times::Times;

/// What a good answer keeps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Objective {
    /// Until the first token, at most.
    pub first_token_ms: f64,
    /// For each further token, in the mean of the answer, at most.
    pub per_token_ms: f64,
}

/// What clients saw, and what pods said of themselves meanwhile.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measures {
    pub requests: usize,
    /// Without a whole answer.
    pub failed: usize,
    pub first_token_ms: Times,
    /// For each further token of an answer.
    pub per_token_ms: Times,
    pub end_to_end_ms: Times,
    pub output_tokens_per_s: f64,
    /// Share of all requests that were answered within the objective.
    pub goodput_share: f64,
    /// Share of the prompts' tokens that servers found in their prefix caches; nothing if they do not report it.
    pub cache_hit_share: Option<f64>,
    /// Between the pod with the fullest KV cache and the one with the emptiest, in the mean of the time; nothing where
    /// no pods were watched.
    pub kv_cache_spread: Option<f64>,
    /// By how much requests were sent later than they were due.
    pub late_ms: Times,
    /// Share of the machine's processors that was busy, with whatever.
    pub machine_busy_share: f64,
}

impl Objective {
    /// A second until the first token and 40 ms for each further one, in the time of servers that are so many times
    /// faster.
    pub fn at_speed(speed: f64) -> Objective {
        Objective { first_token_ms: 1_000.0 / speed, per_token_ms: 40.0 / speed }
    }

    fn is_kept(&self, due: Duration, observed: &Observed) -> bool {
        milliseconds(observed.first_output.saturating_sub(due)) <= self.first_token_ms
            && observed.per_token().is_none_or(|time| milliseconds(time) <= self.per_token_ms)
    }
}

impl Observed {
    /// Nothing where there was no further token.
    fn per_token(&self) -> Option<Duration> {
        let further = u32::try_from(self.output_tokens.checked_sub(1)?).ok().filter(|&tokens| tokens > 0)?;
        Some(self.ended.saturating_sub(self.first_output) / further)
    }
}

impl Measures {
    pub fn of(answers: &[Answer], pods: &[Pod], objective: Objective, machine_busy_share: f64) -> Measures {
        let observed =
            || answers.iter().filter_map(|answer| Some((answer.due, answer.observed.as_ref().ok()?)));
        let since_due = |of: fn(&Observed) -> Duration| {
            Times::of(observed().map(move |(due, observed)| of(observed).saturating_sub(due)))
        };
        let good = observed().filter(|(due, observed)| objective.is_kept(*due, observed)).count();
        let tokens: usize = observed().map(|(_, observed)| observed.output_tokens).sum();
        let began = answers.iter().map(|answer| answer.due).min().unwrap_or_default();
        let ended = observed().map(|(_, observed)| observed.ended).max().unwrap_or_default();
        Measures {
            requests: answers.len(),
            failed: answers.len() - observed().count(),
            first_token_ms: since_due(|observed| observed.first_output),
            per_token_ms: Times::of(observed().filter_map(|(_, observed)| observed.per_token())),
            end_to_end_ms: since_due(|observed| observed.ended),
            output_tokens_per_s: tokens as f64
                / (ended.saturating_sub(began)).as_secs_f64().max(f64::MIN_POSITIVE),
            goodput_share: good as f64 / answers.len().max(1) as f64,
            cache_hit_share: cache_hit_share(pods),
            kv_cache_spread: kv_cache_spread(pods),
            late_ms: Times::of(answers.iter().map(|answer| answer.sent.saturating_sub(answer.due))),
            machine_busy_share,
        }
    }
}

fn cache_hit_share(pods: &[Pod]) -> Option<f64> {
    let (asked, found) =
        pods.iter().map(Pod::prefix_cache).fold((0.0, 0.0), |sum, pod| (sum.0 + pod.0, sum.1 + pod.1));
    (asked > 0.0).then(|| found / asked)
}

/// Pods are looked at in turn; the looks that have the same number are taken for simultaneous.
fn kv_cache_spread(pods: &[Pod]) -> Option<f64> {
    let looks = pods.iter().map(|pod| pod.kv_cache.len()).max().filter(|&looks| looks > 0)?;
    let spread = |look: usize| {
        let usages = || pods.iter().filter_map(move |pod| Some(pod.kv_cache.get(look)?.1));
        usages().fold(0.0, f64::max) - usages().fold(1.0, f64::min)
    };
    Some((0..looks).map(spread).sum::<f64>() / looks as f64)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
