//! The figures of one run.

use serde::Serialize;

use crate::simulation::{Answer, Record};
use crate::times::{Times, mean};

/// What a run is measured by.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Measures {
    pub first_token_ms: Times,
    /// For each further token of an answer.
    pub per_token_ms: Times,
    pub end_to_end_ms: Times,
    pub output_tokens_per_s: f64,
    /// Share of the prompts' tokens that were found in a prefix cache.
    pub cache_hit_share: f64,
    /// Prompt tokens that the busiest pod computed, over the mean of all pods.
    pub busiest_by_tokens: f64,
    /// The same of requests.
    pub busiest_by_requests: f64,
}

impl Measures {
    /// Of one run.
    pub fn of(record: &Record) -> Measures {
        let answers = &record.answers;
        let sum = |of: fn(&Answer) -> usize| answers.iter().map(of).sum::<usize>() as f64;
        let last = answers.iter().map(|answer| answer.ended).max().unwrap_or_default();
        let hit_tokens: u64 = record.caches.iter().map(|cache| cache.prefix_hit_tokens).sum();
        let queried_tokens: u64 = record.caches.iter().map(|cache| cache.prefix_queried_tokens).sum();
        let pods = record.caches.len();
        Measures {
            first_token_ms: Times::of(answers.iter().map(|answer| answer.first_output - answer.arrived)),
            per_token_ms: Times::of(answers.iter().filter_map(Answer::per_token)),
            end_to_end_ms: Times::of(answers.iter().map(|answer| answer.ended - answer.arrived)),
            output_tokens_per_s: sum(|answer| answer.output_tokens) / last.as_secs_f64(),
            cache_hit_share: hit_tokens as f64 / queried_tokens as f64,
            busiest_by_tokens: busiest(answers, pods, |answer| answer.prompt_tokens - answer.cached_tokens),
            busiest_by_requests: busiest(answers, pods, |_| 1),
        }
    }

    /// Of several runs, at least one: the mean of each figure.
    pub fn mean(runs: &[Measures]) -> Measures {
        let times = |of: fn(&Measures) -> Times| Times::mean(&runs.iter().map(of).collect::<Vec<_>>());
        Measures {
            first_token_ms: times(|run| run.first_token_ms),
            per_token_ms: times(|run| run.per_token_ms),
            end_to_end_ms: times(|run| run.end_to_end_ms),
            output_tokens_per_s: mean(runs, |run| run.output_tokens_per_s),
            cache_hit_share: mean(runs, |run| run.cache_hit_share),
            busiest_by_tokens: mean(runs, |run| run.busiest_by_tokens),
            busiest_by_requests: mean(runs, |run| run.busiest_by_requests),
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
    most as f64 * pods as f64 / loads.iter().sum::<usize>().max(1) as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model_server::engine::CacheTotals;

    fn answer(pod: usize, first_ms: u64, cached_tokens: usize) -> Answer {
        Answer {
            key: 0,
            pod,
            arrived: Duration::ZERO,
            first_output: Duration::from_millis(first_ms),
            ended: Duration::from_millis(1_000),
            prompt_tokens: 100,
            cached_tokens,
            output_tokens: 5,
        }
    }

    #[test]
    fn the_figures_of_a_run_are_those_of_its_answers() {
        let answers = vec![answer(0, 10, 0), answer(0, 20, 80), answer(1, 60, 40)];
        let cache = CacheTotals { prefix_queried_tokens: 100, prefix_hit_tokens: 40, preemptions: 0 };
        let measures = Measures::of(&Record { answers, caches: vec![cache, cache] });
        let times = measures.first_token_ms;
        assert_eq!((times.mean, times.p50, times.p90, times.p99), (30.0, 20.0, 60.0, 60.0));
        assert_eq!((measures.per_token_ms.p50, measures.per_token_ms.p90), (245.0, 247.5));
        assert_eq!(measures.output_tokens_per_s, 15.0);
        assert_eq!(measures.cache_hit_share, 0.4);
        assert_eq!(measures.busiest_by_tokens, 120.0 * 2.0 / 180.0);
        assert_eq!(measures.busiest_by_requests, 2.0 * 2.0 / 3.0);
    }
}
