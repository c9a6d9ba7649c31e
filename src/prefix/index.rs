//! Which blocks every endpoint of a pool holds, or is about to: those of prompts in flight, and those of others as long as
//! they are likely to be left.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::PromptBlocks;
use super::block_cache::{BlockCache, Use};
use super::in_flight::{PromptInFlight, PromptKey, PromptsInFlight};
use super::starts::Starts;
use crate::load::LoadId;

/// Of so many blocks, one may be that of a prompt in flight.
const BLOCKS_OF_ONE_IN_FLIGHT: usize = 4;

/// The caches of a pool's endpoints, within a bound on all of them together, of which each endpoint has an equal part.
#[derive(Debug)]
pub struct PrefixIndex {
    caches: HashMap<LoadId, BlockCache, FixedState>,
    in_flight: PromptsInFlight,
    starts: Starts,
    blocks_max: usize,
    seed: u64,
}

/// How much of a prompt an endpoint holds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// Blocks, from the first on.
    pub blocks: usize,
    /// When the last of them was used, unless it is only about to be there.
    last_use: Option<Use>,
}

impl PrefixIndex {
    /// An index of at most so many blocks. `seed` is to be drawn at random.
    pub fn new(blocks_max: usize, seed: u64) -> PrefixIndex {
        let in_flight_max = blocks_max / BLOCKS_OF_ONE_IN_FLIGHT;
        PrefixIndex {
            caches: HashMap::default(),
            in_flight: PromptsInFlight::new(in_flight_max, seed),
            starts: Starts::new(seed),
            blocks_max: blocks_max - in_flight_max,
            seed,
        }
    }

    /// Blocks held, over all endpoints.
    pub fn len(&self) -> usize {
        self.in_flight.len() + self.caches.values().map(BlockCache::len).sum::<usize>()
    }

    /// Memory taken for what the endpoints hold, without the prompts in flight, in bytes.
    pub fn cache_bytes(&self) -> usize {
        self.starts.allocated_bytes() + self.caches.values().map(BlockCache::allocated_bytes).sum::<usize>()
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

    /// How much of a prompt an endpoint holds, or will have computed before this prompt's turn comes.
    pub fn matched(&self, id: LoadId, prompt: &PromptBlocks) -> Match {
        let blocks = self.matched_blocks(id, prompt);
        let last = blocks.checked_sub(1).and_then(|last| prompt.hashes.get(last));
        let cache = self.caches.get(&id);
        Match { blocks, last_use: cache.zip(last).and_then(|(cache, hash)| cache.last_use(*hash)) }
    }

    /// The endpoints that hold something of a prompt, each with how many blocks of it.
    pub fn holders(&self, prompt: &PromptBlocks) -> impl Iterator<Item = (LoadId, usize)> {
        let ids = prompt.hashes.first().into_iter().flat_map(|first| self.starts.holders(*first));
        ids.map(|id| (id, self.matched_blocks(id, prompt))).filter(|(_, matched_blocks)| *matched_blocks > 0)
    }

    /// How many blocks of a prompt an endpoint holds, or will have computed before this prompt's turn comes.
    ///
    /// Found by halving: an endpoint that holds a block holds all before it, whether it has them or is about to. Most hold
    /// nothing of a prompt, and many of the others all of it, so both ends are looked at first.
    pub fn matched_blocks(&self, id: LoadId, prompt: &PromptBlocks) -> usize {
        let Some(cache) = self.caches.get(&id) else { return 0 };
        let holds = |hash: &u64| cache.holds(*hash) || self.in_flight.holds(id, *hash);
        match prompt.hashes.as_slice() {
            [first, ..] if !holds(first) => 0,
            [.., last] if holds(last) => prompt.hashes.len(),
            hashes => hashes.partition_point(holds),
        }
    }

    /// A prompt was sent to an endpoint.
    pub fn sent(&mut self, key: PromptKey, id: LoadId, hashes: &[u64], block_tokens: u32, now_ms: u64) {
        let Self { caches, in_flight, starts, .. } = self;
        if !caches.contains_key(&id) {
            return;
        }
        in_flight.add(key, id, hashes, block_tokens, now_ms);
        if let Some(first) = hashes.first() {
            let is_cached = |id, hash| caches.get(&id).is_some_and(|cache| cache.holds(hash));
            starts.add(*first, id, |id, hash| is_cached(id, hash) || in_flight.holds(id, hash));
        }
    }

    /// A prompt has been answered where it was sent; so many other tokens take room there with it.
    pub fn answered(&mut self, key: PromptKey, other_tokens: u32) {
        let Some(PromptInFlight { load_id, hashes, block_tokens, .. }) = self.in_flight.take(key) else {
            return;
        };
        if let Some(cache) = self.caches.get_mut(&load_id) {
            cache.use_blocks(&hashes, block_tokens, other_tokens);
        }
    }

    /// A prompt has failed, or went elsewhere.
    pub fn dropped(&mut self, key: PromptKey) {
        self.in_flight.take(key);
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

    /// Drops prompts of which nothing was heard for too long.
    pub fn expire(&mut self, now_ms: u64) {
        let caches = &self.caches;
        self.in_flight.retain(|id| caches.contains_key(&id), now_ms);
    }
}
