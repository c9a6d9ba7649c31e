//! What workers tell each other about prompts: where one was sent, and what became of it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Blocks in one batch, which is written at once: half a megabyte. Prompts that a worker sends beyond that between two
/// ticks stay its own knowledge.
pub const MAX_BATCH_BLOCKS: usize = 65_536;

/// Something that happened to a prompt. A worker numbers its prompts; numbers are not used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PromptEvent {
    /// It was sent to an endpoint, which will soon have its blocks.
    Sent {
        /// The worker's number for it.
        number: u64,
        /// Where.
        address: SocketAddr,
        /// Its blocks; the model is in them, so that no other pool's prompts match them.
        hashes: Vec<u64>,
        /// Tokens in one of them.
        block_tokens: u32,
    },
    /// It is answered: its blocks are free to be used again, or to be dropped for others.
    Answered {
        /// The worker's number for it.
        number: u64,
        /// Tokens that take room there besides: those behind its last block, and the answer's.
        other_tokens: u32,
    },
    /// It failed, or went elsewhere: nothing is known of what it left.
    Dropped {
        /// The worker's number for it.
        number: u64,
    },
}

impl PromptEvent {
    /// What it counts in a batch.
    fn blocks(&self) -> usize {
        match self {
            PromptEvent::Sent { hashes, .. } => hashes.len().max(1),
            _ => 1,
        }
    }
}

/// What has happened at a worker since its last batch.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Counts the worker's batches, from 1.
    pub number: u64,
    /// In the order in which it happened.
    pub events: Vec<PromptEvent>,
    blocks: usize,
}

impl Batch {
    /// Adds an event, if there is room for it.
    pub fn push(&mut self, event: PromptEvent) {
        let blocks = self.blocks + event.blocks();
        if blocks <= MAX_BATCH_BLOCKS {
            self.blocks = blocks;
            self.events.push(event);
        }
    }

    /// Takes out what is to be published; `None` if there is nothing.
    pub fn take(&mut self) -> Option<Batch> {
        if self.events.is_empty() {
            return None;
        }
        let next = Batch { number: self.number + 1, ..Batch::default() };
        let mut taken = std::mem::replace(self, next);
        taken.number += 1;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn sent(blocks: usize) -> PromptEvent {
        let address = SocketAddr::from(([10, 0, 0, 1], 8000));
        PromptEvent::Sent { number: 7, address, hashes: vec![7; blocks], block_tokens: 64 }
    }

    #[test]
    fn batches_are_numbered_and_hold_what_has_happened_since() {
        let mut batch = Batch::default();
        assert_eq!(batch.take(), None);
        for number in 1..=3 {
            batch.push(sent(2));
            batch.push(PromptEvent::Dropped { number: 7 });
            let taken = batch.take().unwrap();
            assert_eq!(
                (taken.number, taken.events),
                (number, vec![sent(2), PromptEvent::Dropped { number: 7 }])
            );
        }
        assert_eq!(batch.take(), None);
    }

    #[test]
    fn no_batch_is_larger_than_the_limit() {
        let mut batch = Batch::default();
        for _ in 0..5 {
            batch.push(sent(MAX_BATCH_BLOCKS / 2));
        }
        assert_eq!(batch.take().unwrap().events.len(), 2);
    }
}
