//! What workers tell each other about prompts: where one was sent, and what became of it.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::hash_bytes;

/// Blocks in one batch, which is written at once: a quarter of a megabyte. Prompts that a worker sends beyond that between two
/// ticks stay its own knowledge.
pub const MAX_BATCH_BLOCKS: usize = 65_536;

/// Batches of a worker that are kept for others to read: 160 ms of them, at one a tick.
pub const BATCHES_KEPT: u64 = 16;

/// Of so many batches published, the numbers of those that are kept, for who has read those up to `read`.
pub fn numbers_to_read(read: u64, published: u64) -> RangeInclusive<u64> {
    read.saturating_add(1).max(published.saturating_sub(BATCHES_KEPT - 1))..=published
}

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
        #[serde(with = "hash_bytes")]
        hashes: Vec<u32>,
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
    /// Adds an event, if there is room for it; of a prompt, as much of its start as there is room for.
    pub fn push(&mut self, mut event: PromptEvent) {
        let room = MAX_BATCH_BLOCKS.saturating_sub(self.blocks);
        if let PromptEvent::Sent { hashes, .. } = &mut event {
            hashes.truncate(room);
        }
        if event.blocks() <= room {
            self.blocks += event.blocks();
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
    fn what_is_kept_and_was_not_read_is_read() {
        assert_eq!(numbers_to_read(0, 0).count(), 0);
        assert_eq!(numbers_to_read(3, 5), 4..=5);
        assert_eq!(numbers_to_read(5, 5).count(), 0);
        assert_eq!(numbers_to_read(5, 30), 15..=30, "older ones are written over");
        assert_eq!(numbers_to_read(9, 5).count(), 0);
        assert!(
            numbers_to_read(u64::MAX, u64::MAX).count() <= 1 && numbers_to_read(0, u64::MAX).count() <= 16
        );
    }

    #[test]
    fn no_batch_is_larger_than_the_limit() {
        let mut batch = Batch::default();
        for _ in 0..5 {
            batch.push(sent(MAX_BATCH_BLOCKS - 7));
        }
        assert_eq!(batch.take().unwrap().events, [sent(MAX_BATCH_BLOCKS - 7), sent(7)], "cut at the end");
    }
}
