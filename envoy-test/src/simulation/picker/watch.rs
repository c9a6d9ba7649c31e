//! What picking takes: processor time, the only thing in a simulation that is measured and not computed, and what a worker
//! keeps and exchanges.

use std::time::Duration;

/// Of virtual time, between two looks at the state.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What one worker keeps and exchanges.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// Blocks of prompts that it remembers.
    pub index_blocks: usize,
    /// The memory they take.
    pub index_bytes: usize,
    /// Its load table, as it is published.
    pub published_bytes: usize,
    /// The load tables of all others, which it reads.
    pub read_bytes: usize,
    /// What the scraper publishes to it.
    pub snapshot_bytes: usize,
}

impl State {
    fn most(self, other: State) -> State {
        State {
            index_blocks: self.index_blocks.max(other.index_blocks),
            index_bytes: self.index_bytes.max(other.index_bytes),
            published_bytes: self.published_bytes.max(other.published_bytes),
            read_bytes: self.read_bytes.max(other.read_bytes),
            snapshot_bytes: self.snapshot_bytes.max(other.snapshot_bytes),
        }
    }
}

/// What was seen in a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    /// The median of all picks: reading the request, the others' tables where it is time, deciding, and publishing.
    pub pick: Duration,
    /// The most of each.
    pub most: State,
}

/// Looks at picks and state in the course of a run.
#[derive(Debug, Default)]
pub struct Watch {
    picks: Vec<Duration>,
    next_look: Duration,
    most: State,
}

impl Watch {
    pub fn picked(&mut self, took: Duration) {
        self.picks.push(took);
    }

    pub fn look(&mut self, now: Duration, state: impl FnOnce() -> State) {
        if now >= self.next_look {
            self.next_look = now + LOOK_INTERVAL;
            self.most = self.most.most(state());
        }
    }

    pub fn seen(&self) -> Seen {
        let mut picks = self.picks.clone();
        picks.sort();
        Seen { pick: picks.get(picks.len() / 2).copied().unwrap_or_default(), most: self.most }
    }
}
