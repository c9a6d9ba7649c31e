//! What workers tell each other about prompts that were computed.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Blocks in one batch, which is written at once: half a megabyte. What a worker learns beyond that between two ticks
/// stays its own.
pub const MAX_BATCH_BLOCKS: usize = 65_536;

/// A prompt that was computed at an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learnt {
    /// Where.
    pub address: SocketAddr,
    /// Its blocks; they come with the model, so that no other pool's prompts match them.
    pub hashes: Vec<u64>,
    /// Tokens in one of them.
    pub block_tokens: u32,
    /// Tokens of output and of the rest behind the last block.
    pub unmatched_tokens: u32,
}

/// What a worker has learnt since its last batch.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Counts the worker's batches, from 1.
    pub number: u64,
    /// In the order in which it was learnt.
    pub learnt: Vec<Learnt>,
    blocks: usize,
}

impl Batch {
    /// Adds a prompt, if there is room for it.
    pub fn push(&mut self, learnt: Learnt) {
        let blocks = self.blocks + learnt.hashes.len().max(1);
        if blocks <= MAX_BATCH_BLOCKS {
            self.blocks = blocks;
            self.learnt.push(learnt);
        }
    }

    /// Takes out what is to be published; `None` if there is nothing.
    pub fn take(&mut self) -> Option<Batch> {
        if self.learnt.is_empty() {
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

    fn learnt(blocks: usize) -> Learnt {
        let address = SocketAddr::from(([10, 0, 0, 1], 8000));
        Learnt { address, hashes: vec![7; blocks], block_tokens: 64, unmatched_tokens: 0 }
    }

    #[test]
    fn batches_are_numbered_and_hold_what_was_learnt_since() {
        let mut batch = Batch::default();
        assert_eq!(batch.take(), None);
        for number in 1..=3 {
            batch.push(learnt(2));
            let taken = batch.take().unwrap();
            assert_eq!((taken.number, taken.learnt), (number, vec![learnt(2)]));
        }
        assert_eq!(batch.take(), None);
    }

    #[test]
    fn no_batch_is_larger_than_the_limit() {
        let mut batch = Batch::default();
        for _ in 0..5 {
            batch.push(learnt(MAX_BATCH_BLOCKS / 2));
        }
        assert_eq!(batch.take().unwrap().learnt.len(), 2);
    }
}
