//! Which blocks every endpoint of a pool holds.

use std::collections::HashMap;

use super::PromptBlocks;
use super::block_cache::{BlockCache, Use};
use crate::load::LoadId;

/// The caches of a pool's endpoints, within a bound on all of them together, of which each endpoint has an equal part.
#[derive(Debug)]
pub struct PrefixIndex {
    caches: HashMap<LoadId, BlockCache>,
    blocks_max: usize,
    seed: u64,
}

/// How much of a prompt an endpoint holds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// Blocks, from the first on.
    pub blocks: usize,
    /// When the last of them was used.
    last_use: Option<Use>,
}

impl PrefixIndex {
    /// An index of at most so many blocks. `seed` is to be drawn at random.
    pub fn new(blocks_max: usize, seed: u64) -> PrefixIndex {
        PrefixIndex { caches: HashMap::new(), blocks_max, seed }
    }

    /// Blocks held, over all endpoints.
    pub fn len(&self) -> usize {
        self.caches.values().map(BlockCache::len).sum()
    }

    /// Whether nothing has been learnt yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes over the list of endpoints. What was known of others goes.
    pub fn follow(&mut self, endpoints: impl Iterator<Item = LoadId>) {
        let mut before = std::mem::take(&mut self.caches);
        let followed = endpoints.map(|id| {
            (id, before.remove(&id).unwrap_or_else(|| BlockCache::new(self.blocks_max, self.seed)))
        });
        self.caches = followed.collect();
        let blocks_max = self.blocks_max / self.caches.len().max(1);
        self.caches.values_mut().for_each(|cache| cache.set_blocks_max(blocks_max));
    }

    /// The tokens an endpoint's cache has room for.
    pub fn set_capacity(&mut self, id: LoadId, tokens: u64) {
        if let Some(cache) = self.caches.get_mut(&id) {
            cache.set_tokens_max(tokens);
        }
    }

    /// How much of a prompt an endpoint holds.
    pub fn matched(&self, id: LoadId, prompt: &PromptBlocks) -> Match {
        let Some(cache) = self.caches.get(&id) else { return Match::default() };
        let blocks = cache.matched(&prompt.hashes);
        let last = blocks.checked_sub(1).and_then(|last| prompt.hashes.get(last));
        Match { blocks, last_use: last.and_then(|hash| cache.last_use(*hash)) }
    }

    /// A prompt was computed at an endpoint: blocks of `block_tokens` each, and so many tokens that nothing matches.
    pub fn learn(&mut self, id: LoadId, hashes: &[u64], block_tokens: u32, unmatched_tokens: u32) {
        if let Some(cache) = self.caches.get_mut(&id) {
            cache.use_blocks(hashes, block_tokens, unmatched_tokens);
        }
    }

    /// An endpoint did not hold what was matched: it holds nothing, then, that was last used before that.
    pub fn correct(&mut self, id: LoadId, missed: Match) {
        if let (Some(cache), Some(last)) = (self.caches.get_mut(&id), missed.last_use) {
            cache.forget_until(last);
        }
    }

    /// An endpoint has started anew, with an empty cache.
    pub fn forget(&mut self, id: LoadId) {
        if let Some(cache) = self.caches.get_mut(&id) {
            *cache = cache.emptied();
        }
    }
}
