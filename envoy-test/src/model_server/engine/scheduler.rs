//! Continuous batching: which sequences compute how many tokens in the next step.
//!
//! Running sequences come first, in the order they started; a prompt longer than the budget continues in the
//! next step. Then waiting requests are admitted, first come first served, while the budget, the sequence limit
//! and the KV cache allow. A request whose adapter finds no slot is passed over and keeps its place. If a running
//! sequence finds no free block, the one that started last is preempted: it goes to the front of the queue and is
//! computed again later; nobody is admitted in such a step.

use std::collections::VecDeque;
use std::time::Duration;

use super::kv_blocks::{Eviction, KvBlocks};
use super::lora_slots::LoraSlots;
use super::sequence::{RequestId, Sequence};
use super::settings::{EngineSettings, StepWork};

/// The queue, the running batch and what they hold.
#[derive(Debug, Clone)]
pub struct Scheduler {
    pub waiting: VecDeque<Sequence>,
    pub running: Vec<Sequence>,
    pub kv_blocks: KvBlocks,
    pub lora_slots: LoraSlots,
    pub totals: CacheTotals,
    step_tokens_max: usize,
    sequences_max: usize,
    block_tokens: usize,
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheTotals {
    pub prefix_queried_tokens: u64,
    pub prefix_hit_tokens: u64,
    pub preemptions: u64,
}

impl Scheduler {
    pub fn new(settings: &EngineSettings) -> Self {
        Self {
            waiting: VecDeque::new(),
            running: Vec::new(),
            kv_blocks: KvBlocks::new(settings.blocks, settings.eviction),
            lora_slots: LoraSlots::new(settings.lora_slots),
            totals: CacheTotals::default(),
            step_tokens_max: settings.step_tokens_max,
            sequences_max: settings.sequences_max,
            block_tokens: settings.block_tokens,
        }
    }

    pub fn block_tokens(&self) -> usize {
        self.block_tokens
    }

    /// Plans a step that starts now: sets `scheduled_tokens` of each sequence that takes part.
    pub fn schedule(&mut self, now: Duration) -> StepWork {
        let mut work = StepWork::default();
        let preemptions = self.totals.preemptions;
        self.continue_running(&mut work);
        if self.totals.preemptions == preemptions {
            self.admit_waiting(now, &mut work);
        }
        work
    }

    /// Removes a request, wherever it is. False if it is not here.
    pub fn remove(&mut self, id: RequestId) -> bool {
        if let Some(index) = self.running.iter().position(|sequence| sequence.id == id) {
            let mut sequence = self.running.remove(index);
            self.stop_running(&mut sequence);
            return true;
        }
        let index = self.waiting.iter().position(|sequence| sequence.id == id);
        index.and_then(|index| self.waiting.remove(index)).is_some()
    }

    /// Gives back what a running sequence holds.
    pub fn stop_running(&mut self, sequence: &mut Sequence) {
        self.kv_blocks.release(&sequence.blocks);
        self.lora_slots.release(sequence.adapter.as_deref());
        sequence.start_over();
    }

    /// SGLang's cache knows of a prompt's tokens when they are computed, and of an answer's, as a run of its own, when it has
    /// ended (read in 0.5.23).
    pub fn remember_computed(&mut self, sequence: &mut Sequence) {
        let is_due = sequence.output_tokens() <= 1 || sequence.is_finished();
        if self.kv_blocks.eviction() == Eviction::Run && is_due {
            let full = sequence.computed_tokens / self.block_tokens;
            let hashes = &sequence.hashes.as_slice()[..full];
            self.kv_blocks.remember_run(&mut sequence.blocks, hashes, sequence.remembered_blocks);
            sequence.remembered_blocks = full;
        }
    }

    fn continue_running(&mut self, work: &mut StepWork) {
        let mut index = 0;
        while index < self.running.len() {
            let tokens = self.running[index].missing_tokens().min(self.step_tokens_max - work.tokens());
            if tokens == 0 || !self.make_room(index, tokens) {
                break;
            }
            plan(&mut self.running[index], tokens, work);
            index += 1;
        }
    }

    /// Finds blocks for `tokens` more tokens of a running sequence, at the cost of those that started after it.
    /// False if it had to give way itself.
    fn make_room(&mut self, index: usize, tokens: usize) -> bool {
        while !self.grow(index, tokens) {
            self.preempt_last();
            if self.running.len() <= index {
                return false;
            }
        }
        true
    }

    fn grow(&mut self, index: usize, tokens: usize) -> bool {
        let sequence = &mut self.running[index];
        hold_blocks(sequence, tokens, &mut self.kv_blocks, self.block_tokens)
    }

    fn preempt_last(&mut self) {
        if let Some(mut sequence) = self.running.pop() {
            self.stop_running(&mut sequence);
            self.totals.preemptions += 1;
            self.waiting.push_front(sequence);
        }
    }

    fn admit_waiting(&mut self, now: Duration, work: &mut StepWork) {
        let mut passed_over = Vec::new();
        while work.tokens() < self.step_tokens_max && self.running.len() < self.sequences_max {
            let Some(mut sequence) = self.waiting.pop_front() else {
                break;
            };
            sequence.deferred = !self.lora_slots.has_room_for(sequence.adapter.as_deref());
            if sequence.deferred {
                passed_over.push(sequence);
            } else if self.start(&mut sequence, now, work) {
                self.running.push(sequence);
            } else {
                self.waiting.push_front(sequence);
                break;
            }
        }
        for sequence in passed_over.into_iter().rev() {
            self.waiting.push_front(sequence);
        }
    }

    /// Lets a sequence take part in the step. False if the KV cache has no room for its first tokens.
    fn start(&mut self, sequence: &mut Sequence, now: Duration, work: &mut StepWork) -> bool {
        let hits = self.kv_blocks.cached_prefix(sequence.reusable_hashes(self.block_tokens));
        let hit_tokens = hits.len() * self.block_tokens;
        let known_tokens = if sequence.was_computed { sequence.tokens() - 1 } else { hit_tokens };
        let tokens = (sequence.tokens() - known_tokens).min(self.step_tokens_max - work.tokens());
        let new_blocks = (known_tokens + tokens).div_ceil(self.block_tokens) - hits.len();
        if new_blocks + self.kv_blocks.free_among(&hits) > self.kv_blocks.free_count() {
            return false;
        }
        self.kv_blocks.share(&hits);
        sequence.remembered_blocks = hits.len();
        sequence.blocks = hits;
        sequence.computed_tokens = hit_tokens;
        let held_tokens = known_tokens - hit_tokens + tokens;
        hold_blocks(sequence, held_tokens, &mut self.kv_blocks, self.block_tokens);
        (sequence.computed_tokens, sequence.was_computed) = (known_tokens, false);
        work.adapters_loaded += usize::from(self.lora_slots.acquire(sequence.adapter.as_deref()));
        self.note_first_run(sequence, hit_tokens, now);
        plan(sequence, tokens, work);
        true
    }

    /// A sequence that comes back after a preemption has been counted before.
    fn note_first_run(&mut self, sequence: &mut Sequence, hit_tokens: usize, now: Duration) {
        if sequence.scheduled.is_none() {
            sequence.scheduled = Some(now);
            sequence.cached_tokens = sequence.computed_tokens;
            self.totals.prefix_queried_tokens += sequence.tokens() as u64;
            self.totals.prefix_hit_tokens += hit_tokens as u64;
        }
    }
}

fn plan(sequence: &mut Sequence, tokens: usize, work: &mut StepWork) {
    if sequence.decodes() {
        work.decoding_sequences += 1;
    } else {
        work.prefill_tokens += tokens;
    }
    work.attended_tokens += tokens * sequence.computed_tokens + tokens * tokens.saturating_sub(1) / 2;
    sequence.scheduled_tokens = tokens;
}

/// Gives `sequence` the blocks that `tokens` more tokens need; in vLLM's cache those that become full can be found at once.
/// False, and nothing changes, if there are not enough.
fn hold_blocks(
    sequence: &mut Sequence,
    tokens: usize,
    kv_blocks: &mut KvBlocks,
    block_tokens: usize,
) -> bool {
    let computed = sequence.computed_tokens + tokens;
    let missing = computed.div_ceil(block_tokens).saturating_sub(sequence.blocks.len());
    let Some(new_blocks) = kv_blocks.allocate(missing) else {
        return false;
    };
    sequence.blocks.extend(new_blocks);
    if kv_blocks.eviction() == Eviction::Block {
        for index in sequence.computed_tokens / block_tokens..computed / block_tokens {
            kv_blocks.remember(sequence.blocks[index], sequence.hashes.as_slice()[index]);
        }
    }
    true
}
