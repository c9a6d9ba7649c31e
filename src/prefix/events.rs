//! What workers tell each other about prompts: where one was sent, and what became of it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::hash_bytes;

/// Blocks of prompts that wait to be told: a quarter of a megabyte. Prompts that a worker sends beyond that before it has told them
/// stay its own knowledge.
pub const MAX_UNTOLD_BLOCKS: usize = 65_536;

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

/// What has happened at a worker and was not told yet, in the order in which it happened.
#[derive(Debug, Default)]
pub struct Untold {
    events: Vec<PromptEvent>,
    blocks: usize,
}

impl Untold {
    /// Adds an event, if there is room for it; of a prompt, as much of its start as there is room for.
    pub fn push(&mut self, mut event: PromptEvent) {
        let room = MAX_UNTOLD_BLOCKS.saturating_sub(self.blocks);
        if let PromptEvent::Sent { hashes, .. } = &mut event {
            hashes.truncate(room);
        }
        if event.blocks() <= room {
            self.blocks += event.blocks();
            self.events.push(event);
        }
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Takes out what is to be told.
    pub fn take(&mut self) -> Vec<PromptEvent> {
        self.blocks = 0;
        std::mem::take(&mut self.events)
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
    fn what_is_taken_is_what_has_happened_since() {
        let mut untold = Untold::default();
        assert_eq!(untold.take(), []);
        for _ in 0..3 {
            untold.push(sent(2));
            untold.push(PromptEvent::Dropped { number: 7 });
            assert_eq!(untold.take(), [sent(2), PromptEvent::Dropped { number: 7 }]);
        }
        assert_eq!(untold.take(), []);
    }

    #[test]
    fn no_more_waits_to_be_told_than_the_limit() {
        let mut untold = Untold::default();
        for _ in 0..5 {
            untold.push(sent(MAX_UNTOLD_BLOCKS - 7));
        }
        assert_eq!(untold.take(), [sent(MAX_UNTOLD_BLOCKS - 7), sent(7)], "cut at the end");
    }
}
