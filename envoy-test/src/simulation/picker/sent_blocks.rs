//! Which blocks of prompts were sent to which pod, as the reference endpoint picker remembers it from its own picks: for
//! each pod the last ones used, as many as its cache has.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroUsize;

use lru::LruCache;

use crate::model_server::engine::Engine;

/// Tokens of one of its blocks: the least that it takes.
const BLOCK_TOKENS: usize = 64;
/// Tokens of a block in the engines' caches. It remembers as many of its blocks as a cache has of these, so four times as many
/// tokens.
const CACHE_BLOCK_TOKENS: usize = 16;
/// Blocks of a prompt that are looked at.
const PROMPT_BLOCKS_MAX: usize = 2048;

/// Of each pod.
pub struct SentBlocks {
    pods: Vec<LruCache<u64, ()>>,
}

impl SentBlocks {
    pub fn new(engines: &[Engine]) -> SentBlocks {
        let blocks = |engine: &Engine| {
            let tokens = engine.settings().kv_cache_tokens();
            LruCache::new(NonZeroUsize::new(tokens / CACHE_BLOCK_TOKENS).unwrap_or(NonZeroUsize::MIN))
        };
        SentBlocks { pods: engines.iter().map(blocks).collect() }
    }

    /// The share of these blocks, from the first on, that a pod was sent and still has.
    pub fn share(&self, pod: usize, blocks: &[u64]) -> f64 {
        let known = blocks.iter().take_while(|block| self.pods[pod].contains(block)).count();
        known as f64 / blocks.len().max(1) as f64
    }

    pub fn note(&mut self, pod: usize, blocks: Vec<u64>) {
        for block in blocks {
            self.pods[pod].put(block, ());
        }
    }
}

/// Of each full block, with all before it.
pub fn block_hashes(prompt: &[u32]) -> Vec<u64> {
    let mut parent = 0;
    let hashes = prompt.chunks_exact(BLOCK_TOKENS).take(PROMPT_BLOCKS_MAX).map(|block| {
        let mut hasher = DefaultHasher::new();
        (parent, block).hash(&mut hasher);
        parent = hasher.finish();
        parent
    });
    hashes.collect()
}
