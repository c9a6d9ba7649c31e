//! Prompts in flight: their blocks are where they were sent, or about to be.
//!
//! They count as cached there, because a prompt that begins like one that is being computed does not have to be computed
//! twice, and an endpoint drops nothing that is in use. They leave no trace if they fail.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::load::LoadId;

/// Time in milliseconds after which a prompt of which nothing was heard is dropped: longer than answers take, so its worker
/// is gone, or what it told was lost.
const EXPIRES_AFTER_MS: u64 = 600_000;

/// A prompt, by the worker that sent it and the worker's number for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PromptKey {
    /// Tells workers apart.
    pub worker: u64,
    /// The worker's number for the prompt.
    pub number: u64,
}

/// A prompt that was sent.
#[derive(Debug)]
pub(super) struct PromptInFlight {
    pub load_id: LoadId,
    pub hashes: Vec<u64>,
    pub block_tokens: u32,
    sent_ms: u64,
}

/// All of them, and their blocks by endpoint.
#[derive(Debug)]
pub(super) struct PromptsInFlight {
    prompts: HashMap<PromptKey, PromptInFlight>,
    /// How many prompts have a block at an endpoint.
    blocks: HashMap<(LoadId, u64), u32, FixedState>,
    blocks_max: usize,
}

impl PromptsInFlight {
    /// None, and room for so many blocks. `seed` keeps clients from choosing blocks that crowd a hash table.
    pub fn new(blocks_max: usize, seed: u64) -> PromptsInFlight {
        let blocks = HashMap::with_hasher(FixedState::with_seed(seed));
        PromptsInFlight { prompts: HashMap::new(), blocks, blocks_max }
    }

    /// Blocks held.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    pub fn holds(&self, load_id: LoadId, hash: u64) -> bool {
        !self.blocks.is_empty() && self.blocks.contains_key(&(load_id, hash))
    }

    /// A prompt was sent. It is forgotten if there is no room for it.
    pub fn add(&mut self, key: PromptKey, load_id: LoadId, hashes: &[u64], block_tokens: u32, now_ms: u64) {
        if self.blocks.len() + hashes.len() > self.blocks_max || self.prompts.len() >= self.blocks_max {
            return;
        }
        for hash in hashes {
            *self.blocks.entry((load_id, *hash)).or_default() += 1;
        }
        let prompt = PromptInFlight { load_id, hashes: hashes.to_vec(), block_tokens, sent_ms: now_ms };
        if let Some(before) = self.prompts.insert(key, prompt) {
            self.release(&before);
        }
    }

    /// A prompt is no longer in flight.
    pub fn take(&mut self, key: PromptKey) -> Option<PromptInFlight> {
        let prompt = self.prompts.remove(&key)?;
        self.release(&prompt);
        Some(prompt)
    }

    /// Drops those of which nothing was heard for too long, and those at endpoints that are gone.
    pub fn retain(&mut self, is_known: impl Fn(LoadId) -> bool, now_ms: u64) {
        let is_over = |prompt: &PromptInFlight| {
            now_ms.saturating_sub(prompt.sent_ms) >= EXPIRES_AFTER_MS || !is_known(prompt.load_id)
        };
        let over: Vec<PromptKey> =
            self.prompts.iter().filter(|(_, prompt)| is_over(prompt)).map(|(key, _)| *key).collect();
        over.into_iter().for_each(|key| {
            self.take(key);
        });
    }

    fn release(&mut self, prompt: &PromptInFlight) {
        for hash in &prompt.hashes {
            let place = (prompt.load_id, *hash);
            if let Some(prompts) = self.blocks.get_mut(&place) {
                *prompts -= 1;
                if *prompts == 0 {
                    self.blocks.remove(&place);
                }
            }
        }
    }
}
