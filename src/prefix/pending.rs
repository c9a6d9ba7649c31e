//! Prompts that were sent and have had no output: their blocks are about to be where they were sent.
//!
//! They count as cached as long as nothing else is heard, because a prompt that begins like one that is being computed
//! does not have to be computed twice; and they leave no trace if it fails.

use std::collections::HashMap;

use crate::load::LoadId;

/// Time in milliseconds after which a prompt of which nothing was heard is dropped: its worker is gone, or what it told
/// was lost.
const EXPIRES_AFTER_MS: u64 = 120_000;

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
pub(super) struct Pending {
    pub load_id: LoadId,
    pub hashes: Vec<u64>,
    pub block_tokens: u32,
    sent_ms: u64,
}

/// All of them, and their blocks by endpoint.
#[derive(Debug)]
pub(super) struct PendingPrompts {
    prompts: HashMap<PromptKey, Pending>,
    /// How many prompts have a block at an endpoint.
    blocks: HashMap<(LoadId, u64), u32>,
    blocks_max: usize,
}

impl PendingPrompts {
    pub fn new(blocks_max: usize) -> PendingPrompts {
        PendingPrompts { prompts: HashMap::new(), blocks: HashMap::new(), blocks_max }
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
        let pending = Pending { load_id, hashes: hashes.to_vec(), block_tokens, sent_ms: now_ms };
        if let Some(before) = self.prompts.insert(key, pending) {
            self.release(&before);
        }
    }

    /// A prompt is no longer pending.
    pub fn take(&mut self, key: PromptKey) -> Option<Pending> {
        let pending = self.prompts.remove(&key)?;
        self.release(&pending);
        Some(pending)
    }

    /// Drops those of which nothing was heard for too long, and those at endpoints that are gone.
    pub fn retain(&mut self, is_known: impl Fn(LoadId) -> bool, now_ms: u64) {
        let is_over = |pending: &Pending| {
            now_ms.saturating_sub(pending.sent_ms) >= EXPIRES_AFTER_MS || !is_known(pending.load_id)
        };
        let over: Vec<PromptKey> =
            self.prompts.iter().filter(|(_, pending)| is_over(pending)).map(|(key, _)| *key).collect();
        over.into_iter().for_each(|key| {
            self.take(key);
        });
    }

    fn release(&mut self, pending: &Pending) {
        for hash in &pending.hashes {
            let place = (pending.load_id, *hash);
            if let Some(prompts) = self.blocks.get_mut(&place) {
                *prompts -= 1;
                if *prompts == 0 {
                    self.blocks.remove(&place);
                }
            }
        }
    }
}
