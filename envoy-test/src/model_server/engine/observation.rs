//! What can be seen of an engine from outside: tokens, and gauges.

use std::collections::BTreeSet;
use std::time::Duration;

use super::scheduler::Scheduler;
use super::sequence::{RequestId, Sequence};

/// One token of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    pub request: RequestId,
    pub at: Duration,
    pub arrived: Duration,
    /// When the request first ran.
    pub scheduled: Duration,
    /// When its first token appeared; this one, perhaps.
    pub first: Duration,
    /// When its token before this one appeared.
    pub previous: Option<Duration>,
    pub prompt_tokens: usize,
    pub cached_tokens: usize,
    /// Output tokens so far, this one included.
    pub output_tokens: usize,
    pub finished: bool,
}

/// The engine as it was at the end of its last step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gauges {
    pub running: usize,
    /// Waiting for capacity, or for a LoRA slot.
    pub waiting: usize,
    /// The part of `waiting` that waits for a LoRA slot.
    pub deferred: usize,
    pub kv_cache_usage: f64,
    /// Tokens that are cached for nobody in particular, and leave when there is need of room.
    pub evictable_tokens: usize,
    /// Adapters of unfinished requests that have had their first token. vLLM 0.32 reports no others.
    pub active_adapters: BTreeSet<String>,
}

impl Output {
    /// The token that `sequence` got `now`.
    pub(super) fn of(sequence: &mut Sequence, now: Duration) -> Self {
        Self {
            request: sequence.id,
            at: now,
            arrived: sequence.arrived,
            scheduled: sequence.scheduled.unwrap_or(sequence.arrived),
            first: *sequence.first_output.get_or_insert(now),
            previous: sequence.last_output.replace(now),
            prompt_tokens: sequence.prompt_tokens,
            cached_tokens: sequence.cached_tokens,
            output_tokens: sequence.output_tokens(),
            finished: sequence.is_finished(),
        }
    }
}

impl Gauges {
    pub(super) fn of(scheduler: &Scheduler) -> Self {
        let Scheduler { waiting, running, kv_blocks, .. } = scheduler;
        let with_output = running.iter().chain(waiting).filter(|sequence| sequence.output_tokens() > 0);
        Self {
            running: running.len(),
            waiting: waiting.len(),
            deferred: waiting.iter().filter(|sequence| sequence.deferred).count(),
            kv_cache_usage: kv_blocks.usage(),
            evictable_tokens: kv_blocks.evictable_count() * scheduler.block_tokens(),
            active_adapters: with_output.filter_map(|sequence| sequence.adapter.clone()).collect(),
        }
    }
}
