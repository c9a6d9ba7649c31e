//! What gateways tell each other, on its way: told at every tick, heard so much later.

use std::collections::VecDeque;
use std::time::Duration;

use inference_picker::load::LoadTable;
use inference_picker::prefix::Batch;

use super::gateway::TICK;

/// What one gateway tells the others.
pub struct Told {
    pub gateway: usize,
    /// Of each of its workers.
    pub tables: Vec<LoadTable>,
    /// What happened to prompts since it last told, and at which worker.
    pub batches: Vec<(u64, Batch)>,
}

/// The way from each gateway to all others.
pub struct Telling {
    lateness: Duration,
    next_told: Duration,
    /// With the time at which it is heard, the next first.
    underway: VecDeque<(Duration, Told)>,
}

impl Telling {
    pub fn new(lateness: Duration) -> Telling {
        Telling { lateness, next_told: Duration::ZERO, underway: VecDeque::new() }
    }

    /// When something is next told or heard.
    pub fn next_tick(&self) -> Duration {
        self.underway.front().map_or(self.next_told, |(heard, _)| self.next_told.min(*heard))
    }

    /// Takes what all gateways tell, if it is time; returns what is heard by now.
    pub fn tick(&mut self, tell: impl FnOnce() -> Vec<Told>, now: Duration) -> Vec<Told> {
        if self.next_told <= now {
            self.next_told = now + TICK;
            let heard = now + self.lateness;
            self.underway.extend(tell().into_iter().map(|told| (heard, told)));
        }
        let count = self.underway.iter().take_while(|(heard, _)| *heard <= now).count();
        self.underway.drain(..count).map(|(_, told)| told).collect()
    }
}
