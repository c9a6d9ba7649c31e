//! Which blocks every endpoint of a pool holds, or is about to: those of prompts in flight, and those of others as long as
//! they are likely to be left.

use std::collections::{HashMap, HashSet};

use foldhash::fast::FixedState;

use super::cache::Cache;
use super::in_flight::{PromptInFlight, PromptKey};
use super::last_use::Use;
use super::popularity::Popularity;
use super::trees::Trees;
use super::{BlockHash, PromptBlocks};
use crate::load::LoadId;

/// Of so many blocks, all but one may be cached: what is left is for prompts in flight.
const MIN_BLOCKS_FOR_ONE_IN_FLIGHT: usize = 4;

/// The caches of a pool's endpoints, within a bound on all of them together, of which each endpoint has an equal part. A
/// block takes room once at each endpoint, whether it is cached, in flight, or both, and with however many prompts.
#[derive(Debug)]
pub struct PrefixIndex {
    caches: HashMap<LoadId, Cache, FixedState>,
    trees: Trees,
    /// How many blocks may be cached, over all endpoints.
    cached_max: usize,
    prompts: HashMap<PromptKey, PromptInFlight, FixedState>,
    prompts_max: usize,
    popularity: Popularity,
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
            trees: Trees::new(blocks_max, seed),
            cached_max: blocks_max - prompts_max,
            prompts: HashMap::default(),
            prompts_max,
            popularity: Popularity::new(),
        }
    }

    /// Blocks held, over all endpoints.
    pub fn len(&self) -> usize {
        self.trees.blocks()
    }

    /// Memory taken for blocks, in bytes.
    pub fn cache_bytes(&self) -> usize {
        self.trees.allocated_bytes()
    }

    /// Whether nothing has been learnt yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes over the list of endpoints. What was known of others goes.
    pub fn follow(&mut self, endpoints: impl Iterator<Item = LoadId>) {
        let followed: HashSet<LoadId, FixedState> = endpoints.collect();
        self.drop_where(|_, prompt| !followed.contains(&prompt.load_id));
        let Self { caches, trees, .. } = self;
        let gone = caches.extract_if(|id, _| !followed.contains(id));
        gone.for_each(|(_, cache)| cache.leave(trees));
        let cached_max = self.cached_max / followed.len().max(1);
        for id in followed {
            caches.entry(id).or_insert_with(|| Cache::new(id, trees)).set_cached_max(trees, cached_max);
        }
    }

    /// The tokens an endpoint's cache has room for.
    pub fn set_capacity(&mut self, id: LoadId, tokens: u64) {
        self.change(id, |cache, trees| cache.set_tokens_max(trees, tokens));
    }

    /// How much of a prompt an endpoint holds, or will have computed before this prompt's turn comes.
    pub fn matched(&self, id: LoadId, prompt: &PromptBlocks) -> Match {
        let Some(cache) = self.caches.get(&id) else { return Match::default() };
        let (blocks, last_use) = cache.matched(&self.trees, &prompt.hashes);
        Match { blocks, last_use }
    }

    /// The endpoints that hold something of a prompt, each with how many blocks of it.
    pub fn holders(&self, prompt: &PromptBlocks) -> impl Iterator<Item = (LoadId, usize)> {
        let ids = prompt.hashes.first().into_iter().flat_map(|first| self.trees.starts.holders(*first));
        ids.map(|id| (id, self.matched(id, prompt).blocks))
    }

    /// The block with which a prompt's own part begins, behind what many prompts share.
    pub fn own_block(&self, prompt: &PromptBlocks) -> Option<BlockHash> {
        self.popularity.own_block(&prompt.hashes, self.caches.len())
    }

    /// A prompt was sent to an endpoint. `false` if there is no room for all of it: what does not fit is cut at its end.
    pub fn sent(
        &mut self,
        key: PromptKey,
        id: LoadId,
        hashes: &[BlockHash],
        block_tokens: u32,
        now_ms: u64,
    ) -> bool {
        let endpoints = self.caches.len();
        let Some(cache) = self.caches.get_mut(&id) else { return true };
        self.popularity.sent(hashes, endpoints);
        if self.prompts.len() >= self.prompts_max {
            return false;
        }
        let held = cache.hold(&mut self.trees, hashes);
        let cut_blocks = hashes.len() - held.blocks;
        let prompt = PromptInFlight { load_id: id, held, cut_blocks, block_tokens, sent_ms: now_ms };
        if let Some(before) = self.prompts.insert(key, prompt) {
            // Numbers are not used again, but who publishes them may be anybody.
            self.change(before.load_id, |cache, trees| cache.dropped(trees, before.held));
        }
        cut_blocks == 0
    }

    /// A prompt has been answered where it was sent; so many other tokens take room there with it.
    pub fn answered(&mut self, key: PromptKey, other_tokens: u32) {
        let Some(prompt) = self.prompts.remove(&key) else { return };
        let other_tokens = other_tokens.saturating_add(prompt.cut_tokens());
        self.change(prompt.load_id, |cache, trees| {
            cache.answered(trees, prompt.held, prompt.block_tokens, other_tokens);
        });
    }

    /// A prompt has failed, or went elsewhere.
    pub fn dropped(&mut self, key: PromptKey) {
        let Some(prompt) = self.prompts.remove(&key) else { return };
        self.change(prompt.load_id, |cache, trees| cache.dropped(trees, prompt.held));
    }

    /// Nothing more will be received of the prompts that a worker has in flight.
    pub fn drop_prompts_of(&mut self, worker: u64) {
        self.drop_where(|key, _| key.worker == worker);
    }

    /// What was published of the prompts that workers other than this one have in flight was lost.
    pub fn drop_prompts_of_others(&mut self, worker: u64) {
        self.drop_where(|key, _| key.worker != worker);
    }

    /// Changes what an endpoint holds, if there is one of this id.
    fn change(&mut self, id: LoadId, change: impl FnOnce(&mut Cache, &mut Trees)) {
        if let Some(cache) = self.caches.get_mut(&id) {
            change(cache, &mut self.trees);
        }
    }

    /// An endpoint has reported whether it held what was matched. If it did not, and has reported so before, then it holds
    /// nothing that was last used before that.
    pub fn correct(&mut self, id: LoadId, matched: Match, was_held: bool) {
        let Some(last) = matched.last_use else { return };
        self.change(
            id,
            |cache, trees| if was_held { cache.confirm(last) } else { cache.record_miss(trees, last) },
        );
    }

    /// An endpoint has started anew, with an empty cache.
    pub fn forget(&mut self, id: LoadId) {
        self.change(id, Cache::clear);
    }

    /// Drops prompts of which nothing was received for too long.
    pub fn expire(&mut self, now_ms: u64) {
        self.drop_where(|_, prompt| prompt.is_expired(now_ms));
    }

    fn drop_where(&mut self, is_dropped: impl Fn(&PromptKey, &PromptInFlight) -> bool) {
        let dropped = self.prompts.iter().filter(|(key, prompt)| is_dropped(key, prompt));
        let dropped: Vec<PromptKey> = dropped.map(|(key, _)| *key).collect();
        dropped.into_iter().for_each(|key| self.dropped(key));
    }
}
