//! Which blocks every endpoint of a pool holds, or is about to: those of prompts in flight, and those of others as long as
//! they are likely to be left.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::PromptBlocks;
use super::block_cache::{BlockCache, Use};
use super::in_flight::{PromptInFlight, PromptKey};
use super::starts::Starts;
use crate::load::LoadId;

/// Of so many blocks, one may be that of a prompt in flight.
const MIN_BLOCKS_FOR_ONE_IN_FLIGHT: usize = 4;

/// The caches of a pool's endpoints, within a bound on all of them together, of which each endpoint has an equal part.
#[derive(Debug)]
pub struct PrefixIndex {
    caches: HashMap<LoadId, BlockCache, FixedState>,
    /// Blocks cached, over all endpoints, at most.
    cached_max: usize,
    prompts: HashMap<PromptKey, PromptInFlight>,
    /// Blocks of prompts in flight, over all endpoints, and how many there may be.
    in_flight: usize,
    in_flight_max: usize,
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
        let in_flight_max = blocks_max / MIN_BLOCKS_FOR_ONE_IN_FLIGHT;
        PrefixIndex {
            caches: HashMap::default(),
            cached_max: blocks_max - in_flight_max,
            prompts: HashMap::new(),
            in_flight: 0,
            in_flight_max,
            starts: Starts::new(seed),
            seed,
        }
    }

    /// Blocks held, over all endpoints. One that is both cached and in flight counts twice, as it does for the bounds.
    pub fn len(&self) -> usize {
        self.in_flight + self.caches.values().map(BlockCache::cached).sum::<usize>()
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
        self.in_flight -= before.values().map(BlockCache::in_flight).sum::<usize>();
        self.prompts.retain(|_, prompt| !before.contains_key(&prompt.load_id));
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
        let holds = |hash: &u64| cache.holds(*hash);
        match prompt.hashes.as_slice() {
            [first, ..] if !holds(first) => 0,
            [.., last] if holds(last) => prompt.hashes.len(),
            hashes => hashes.partition_point(holds),
        }
    }

    /// A prompt was sent to an endpoint. `false` if there is no room for it: it is forgotten.
    pub fn sent(
        &mut self,
        key: PromptKey,
        id: LoadId,
        hashes: &[u64],
        block_tokens: u32,
        now_ms: u64,
    ) -> bool {
        self.dropped(key);
        let Some(cache) = self.caches.get_mut(&id) else { return true };
        if self.in_flight + hashes.len() > self.in_flight_max || self.prompts.len() >= self.in_flight_max {
            return false;
        }
        let in_flight_before = cache.in_flight();
        let places = cache.hold(hashes);
        self.in_flight += cache.in_flight() - in_flight_before;
        self.prompts.insert(key, PromptInFlight { load_id: id, places, block_tokens, sent_ms: now_ms });
        if let Some(first) = hashes.first() {
            let caches = &self.caches;
            self.starts.add(*first, id, |id, hash| caches.get(&id).is_some_and(|cache| cache.holds(hash)));
        }
        true
    }

    /// A prompt has been answered where it was sent; so many other tokens take room there with it.
    pub fn answered(&mut self, key: PromptKey, other_tokens: u32) {
        self.end(key, |cache, prompt| cache.use_blocks(&prompt.places, prompt.block_tokens, other_tokens));
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
        let Some(cache) = self.caches.get_mut(&prompt.load_id) else { return };
        leave_behind(cache, &prompt);
        let in_flight_before = cache.in_flight();
        cache.release(&prompt.places);
        self.in_flight -= in_flight_before - cache.in_flight();
    }

    /// An endpoint has told whether it held what was matched. If it did not, and has told so before, then it holds
    /// nothing that was last used before that.
    pub fn correct(&mut self, id: LoadId, matched: Match, was_held: bool) {
        if let (Some(cache), Some(last)) = (self.caches.get_mut(&id), matched.last_use) {
            if was_held { cache.confirm(last) } else { cache.belie(last) }
        }
    }

    /// An endpoint has started anew, with an empty cache.
    pub fn forget(&mut self, id: LoadId) {
        if let Some(cache) = self.caches.get_mut(&id) {
            cache.clear();
        }
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
