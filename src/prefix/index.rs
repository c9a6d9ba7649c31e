//! Which blocks every endpoint of a pool holds, or is about to: those of prompts in flight, and those of others as long as
//! they are likely to be left.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::PromptBlocks;
use super::block_cache::{BlockCache, Use};
use super::in_flight::{PromptInFlight, PromptKey};
use super::starts::Starts;
use crate::load::LoadId;

/// Of so many blocks, all but one may be cached: what is left is for prompts in flight.
const MIN_BLOCKS_FOR_ONE_IN_FLIGHT: usize = 4;

/// For each block there may be, so many places of blocks that prompts in flight have: one that several have is one block.
const MAX_PLACES_OF_ONE_BLOCK: usize = 16;

/// The caches of a pool's endpoints, within a bound on all of them together, of which each endpoint has an equal part. A
/// block takes room once at each endpoint, whether it is cached, in flight, or both, and with however many prompts.
#[derive(Debug)]
pub struct PrefixIndex {
    caches: HashMap<LoadId, BlockCache, FixedState>,
    /// Blocks held, over all endpoints, and how many there may be; of those, cached ones.
    held: usize,
    held_max: usize,
    cached_max: usize,
    prompts: HashMap<PromptKey, PromptInFlight>,
    prompts_max: usize,
    /// Places that prompts in flight have, together.
    places: usize,
    starts: Starts,
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
        let prompts_max = blocks_max / MIN_BLOCKS_FOR_ONE_IN_FLIGHT;
        PrefixIndex {
            caches: HashMap::default(),
            held: 0,
            held_max: blocks_max,
            cached_max: blocks_max - prompts_max,
            prompts: HashMap::new(),
            prompts_max,
            places: 0,
            starts: Starts::new(seed),
            seed,
        }
    }

    /// Blocks held, over all endpoints.
    pub fn len(&self) -> usize {
        self.held
    }

    /// Memory taken for blocks, in bytes.
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
            (id, before.remove(&id).unwrap_or_else(|| BlockCache::new(self.cached_max, self.seed)))
        });
        self.caches = followed.collect();
        let cached_max = self.cached_max / self.caches.len().max(1);
        self.caches.values_mut().for_each(|cache| cache.set_cached_max(cached_max));
        self.held = self.caches.values().map(BlockCache::len).sum();
        self.prompts.retain(|_, prompt| !before.contains_key(&prompt.load_id));
        self.places = self.prompts.values().map(|prompt| prompt.places.len()).sum();
    }

    /// The tokens an endpoint's cache has room for.
    pub fn set_capacity(&mut self, id: LoadId, tokens: u64) {
        self.change(id, |cache| cache.set_tokens_max(tokens));
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
        let holds = |hash: &u64| cache.holds(*hash);
        match prompt.hashes.as_slice() {
            [first, ..] if !holds(first) => 0,
            [.., last] if holds(last) => prompt.hashes.len(),
            hashes => hashes.partition_point(holds),
        }
    }

    /// A prompt was sent to an endpoint. `false` if there is no room for all of it: what does not fit is cut at its end.
    pub fn sent(
        &mut self,
        key: PromptKey,
        id: LoadId,
        hashes: &[u64],
        block_tokens: u32,
        now_ms: u64,
    ) -> bool {
        self.dropped(key);
        if self.prompts.len() >= self.prompts_max {
            return false;
        }
        let room = self.held_max.saturating_sub(self.held);
        let places_left = (self.held_max * MAX_PLACES_OF_ONE_BLOCK).saturating_sub(self.places);
        let start = hashes.get(..places_left).unwrap_or(hashes);
        let Some(places) = self.change(id, |cache| cache.hold(start, room)) else { return true };
        if let Some(first) = hashes.first().filter(|_| !places.is_empty()) {
            let caches = &self.caches;
            self.starts.add(*first, id, |id, hash| caches.get(&id).is_some_and(|cache| cache.holds(hash)));
        }
        self.places += places.len();
        let cut_blocks = hashes.len() - places.len();
        self.prompts
            .insert(key, PromptInFlight { load_id: id, places, cut_blocks, block_tokens, sent_ms: now_ms });
        cut_blocks == 0
    }

    /// A prompt has been answered where it was sent; so many other tokens take room there with it.
    pub fn answered(&mut self, key: PromptKey, other_tokens: u32) {
        // They take a block's room here, too.
        let has_room = self.held < self.held_max;
        self.end(key, |cache, prompt| {
            let other_tokens = if has_room { other_tokens.saturating_add(prompt.cut_tokens()) } else { 0 };
            cache.use_blocks(&prompt.places, prompt.block_tokens, other_tokens);
        });
    }

    /// A prompt has failed, or went elsewhere.
    pub fn dropped(&mut self, key: PromptKey) {
        self.end(key, |_, _| ());
    }

    /// Nothing more will be heard of the prompts that a worker has in flight.
    pub fn drop_prompts_of(&mut self, worker: u64) {
        self.drop_where(|key, _| key.worker == worker);
    }

    /// A prompt is no longer in flight. What it has left behind is done before its blocks are let go.
    fn end(&mut self, key: PromptKey, leave_behind: impl FnOnce(&mut BlockCache, &PromptInFlight)) {
        let Some(prompt) = self.prompts.remove(&key) else { return };
        self.places -= prompt.places.len();
        self.change(prompt.load_id, |cache| {
            leave_behind(cache, &prompt);
            cache.release(&prompt.places);
        });
    }

    /// Changes what an endpoint holds, if there is one of this id.
    fn change<T>(&mut self, id: LoadId, change: impl FnOnce(&mut BlockCache) -> T) -> Option<T> {
        let cache = self.caches.get_mut(&id)?;
        self.held -= cache.len();
        let changed = change(cache);
        self.held += cache.len();
        Some(changed)
    }

    /// An endpoint has told whether it held what was matched. If it did not, and has told so before, then it holds
    /// nothing that was last used before that.
    pub fn correct(&mut self, id: LoadId, matched: Match, was_held: bool) {
        let Some(last) = matched.last_use else { return };
        self.change(id, |cache| if was_held { cache.confirm(last) } else { cache.belie(last) });
    }

    /// An endpoint has started anew, with an empty cache.
    pub fn forget(&mut self, id: LoadId) {
        self.change(id, BlockCache::clear);
    }

    /// Drops prompts of which nothing was heard for too long.
    pub fn expire(&mut self, now_ms: u64) {
        self.drop_where(|_, prompt| prompt.is_expired(now_ms));
    }

    fn drop_where(&mut self, is_dropped: impl Fn(&PromptKey, &PromptInFlight) -> bool) {
        let dropped = self.prompts.iter().filter(|(key, prompt)| is_dropped(key, prompt));
        let dropped: Vec<PromptKey> = dropped.map(|(key, _)| *key).collect();
        dropped.into_iter().for_each(|key| self.dropped(key));
    }
}
