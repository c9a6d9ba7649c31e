//! A model of a vLLM V1 engine in virtual time: a queue, a batch that changes with every step, a KV cache.
//!
//! Contract: no input or output, no clock, no randomness. Time is an argument, counted from a start of the
//! caller's choice, and never goes back. The same calls give the same results, so the model serves real servers
//! and pure simulations alike. What it models is what routing can see from outside: when tokens appear, what the
//! prefix cache saves, and what the gauges show.
//!
//! Gauges are a snapshot taken at the end of a step, as in vLLM: requests that arrived during the step are not
//! in it yet. It deliberately does not model models: outputs have a fixed length, and their content is filler.

mod block_hashes;
mod kv_blocks;
mod lora_slots;
mod observation;
mod scheduler;
mod sequence;
mod settings;
#[cfg(test)]
mod tests;

use std::time::Duration;

use scheduler::Scheduler;
use sequence::Sequence;

pub use kv_blocks::Eviction;
pub use observation::{Gauges, Output};
pub use scheduler::CacheTotals;
pub use sequence::{EngineRequest, RequestId};
pub use settings::{EngineSettings, StepWork};

/// Why a request was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// As many requests wait as may wait.
    QueueFull,
    /// Prompt and output together would not fit into an empty KV cache.
    TooLong,
    /// It wants an adapter and the engine has no LoRA slots.
    NoLoraSlots,
}

/// One engine. See the module's documentation.
#[derive(Debug, Clone)]
pub struct Engine {
    settings: EngineSettings,
    scheduler: Scheduler,
    /// Arrived during the step in progress; the scheduler sees them when the next one starts.
    arrivals: Vec<Sequence>,
    step: Option<Step>,
    /// When the next step may start.
    ready_at: Duration,
    finished_steps: u64,
    generated_tokens: u64,
    gauges: Gauges,
    last_id: RequestId,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    work: StepWork,
    ends: Duration,
}

impl Engine {
    pub fn new(settings: EngineSettings) -> Self {
        Self {
            scheduler: Scheduler::new(&settings),
            settings,
            arrivals: Vec::new(),
            step: None,
            ready_at: Duration::ZERO,
            finished_steps: 0,
            generated_tokens: 0,
            gauges: Gauges::default(),
            last_id: 0,
        }
    }

    pub fn settings(&self) -> &EngineSettings {
        &self.settings
    }

    /// Takes effect with the next step.
    pub fn set_speed(&mut self, speed: f64) {
        self.settings.speed = speed;
    }

    pub fn gauges(&self) -> &Gauges {
        &self.gauges
    }

    pub fn cache_totals(&self) -> CacheTotals {
        self.scheduler.totals
    }

    /// Tokens that were ever generated.
    pub fn generated_tokens(&self) -> u64 {
        self.generated_tokens
    }

    pub fn finished_steps(&self) -> u64 {
        self.finished_steps
    }

    /// Requests that were ever taken.
    pub fn submitted(&self) -> u64 {
        self.last_id
    }

    /// What the step in progress computes.
    pub fn step_work(&self) -> Option<StepWork> {
        self.step.map(|step| step.work)
    }

    /// Queues a request. It runs at the earliest in the next step that `advance` starts.
    pub fn submit(&mut self, now: Duration, request: EngineRequest) -> Result<RequestId, Refusal> {
        self.check(&request)?;
        if self.step.is_none() && !self.has_work() {
            self.ready_at = self.ready_at.max(now);
        }
        self.last_id += 1;
        self.arrivals.push(Sequence::new(self.last_id, request, self.settings.block_tokens, now));
        Ok(self.last_id)
    }

    /// The same, of a request whose prompt was computed elsewhere and is here: all but its last token, as vLLM has it
    /// (read in 0.32's `KVConnectorBase_V1`).
    pub fn submit_computed(&mut self, now: Duration, request: EngineRequest) -> Result<RequestId, Refusal> {
        let id = self.submit(now, request)?;
        if let Some(sequence) = self.arrivals.last_mut() {
            sequence.was_computed = true;
        }
        Ok(id)
    }

    /// Drops a request and frees what it held. False if it had ended.
    pub fn cancel(&mut self, id: RequestId) -> bool {
        let arrived = self.arrivals.iter().position(|sequence| sequence.id == id);
        match arrived {
            Some(index) => {
                self.arrivals.remove(index);
                true
            }
            None => self.scheduler.remove(id),
        }
    }

    /// When `advance` next has something to do.
    pub fn next_event(&self) -> Option<Duration> {
        let ends = self.step.map(|step| step.ends);
        ends.or_else(|| self.has_work().then_some(self.ready_at))
    }

    /// Ends and starts every step that is due. Outputs come in the order in which they appeared.
    pub fn advance(&mut self, now: Duration) -> Vec<Output> {
        let mut outputs = Vec::new();
        while let Some(at) = self.next_event().filter(|&at| at <= now) {
            match self.step.take() {
                Some(_) => self.finish_step(at, &mut outputs),
                None => self.start_step(at),
            }
        }
        outputs
    }

    fn check(&self, request: &EngineRequest) -> Result<(), Refusal> {
        let waiting = self.scheduler.waiting.len() + self.arrivals.len();
        if self.settings.queued_max.is_some_and(|most| waiting >= most) {
            return Err(Refusal::QueueFull);
        }
        if request.adapter.is_some() && self.settings.lora_slots == 0 {
            return Err(Refusal::NoLoraSlots);
        }
        let tokens = request.prompt.len().max(1).saturating_add(request.output_tokens.max(1));
        (tokens <= self.settings.kv_cache_tokens()).then_some(()).ok_or(Refusal::TooLong)
    }

    fn has_work(&self) -> bool {
        let Scheduler { waiting, running, .. } = &self.scheduler;
        !(waiting.is_empty() && running.is_empty() && self.arrivals.is_empty())
    }

    fn start_step(&mut self, now: Duration) {
        self.scheduler.waiting.extend(self.arrivals.drain(..));
        let work = self.scheduler.schedule(now);
        self.step = Some(Step { work, ends: now + self.settings.step_duration(&work) });
    }

    fn finish_step(&mut self, now: Duration, outputs: &mut Vec<Output>) {
        for mut sequence in std::mem::take(&mut self.scheduler.running) {
            if sequence.scheduled_tokens > 0 && sequence.finish_step() {
                self.generated_tokens += 1;
                outputs.push(Output::of(&mut sequence, now));
            }
            self.scheduler.remember_computed(&mut sequence);
            if sequence.is_finished() {
                self.scheduler.stop_running(&mut sequence);
            } else {
                self.scheduler.running.push(sequence);
            }
        }
        self.ready_at = now;
        self.finished_steps += 1;
        self.gauges = Gauges::of(&self.scheduler);
    }
}
