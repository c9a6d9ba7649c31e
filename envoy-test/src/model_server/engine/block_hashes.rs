//! Names of full KV-cache blocks: each hash covers the block's tokens and, through its parent, all before it.
//!
//! The chain is seeded with the LoRA adapter and the cache salt, so prompts that differ in either share nothing.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Hashes of the full blocks of a growing list of tokens.
#[derive(Debug, Clone)]
pub struct BlockHashes {
    block_tokens: usize,
    seed: u64,
    hashes: Vec<u64>,
}

impl BlockHashes {
    pub fn new(block_tokens: usize, adapter: Option<&str>, cache_salt: Option<&str>) -> Self {
        let seed = hash_of(&(adapter, cache_salt));
        Self { block_tokens, seed, hashes: Vec::new() }
    }

    /// Names the blocks of `tokens` that became full since the last call.
    pub fn extend(&mut self, tokens: &[u32]) {
        let named = self.hashes.len() * self.block_tokens;
        for block in tokens[named..].chunks_exact(self.block_tokens) {
            let parent = self.hashes.last().copied().unwrap_or(self.seed);
            self.hashes.push(hash_of(&(parent, block)));
        }
    }

    pub fn as_slice(&self) -> &[u64] {
        &self.hashes
    }
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
