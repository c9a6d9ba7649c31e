//! What one endpoint's KV cache holds, as far as can be told from what was sent there; and what it is about to hold.
//!
//! A list of blocks by last use, as servers keep theirs: the one unused for longest leaves first. Blocks of one prompt
//! are used from the last to the first, so none ever outlives one it continues. With that, a prompt's longest cached
//! start is found by halving. Output and what is behind a prompt's last block take room, too; nothing matches them.
//!
//! Blocks of prompts in flight count as held, because a prompt that begins like one that is being computed does not have to
//! be computed twice, and an endpoint drops nothing that is in use. They are in the list only once they were used, and leave
//! no trace if their prompt fails. A block keeps its place as long as a prompt with it is in flight, so it is looked
//! for once, when the prompt is sent.

use std::num::NonZeroU32;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::hash::mix;

/// No node.
const NONE: u32 = u32::MAX;

/// A hash that no block has: that of room which nothing matches.
const UNMATCHED: u64 = 0;

/// When there is room for no more blocks, room is made for this part of them: to double it, as vectors do by themselves, would
/// leave half of it empty once a cache is full.
const GROWTH: usize = 8;
/// And for so many at least.
const LEAST_GROWTH: usize = 16;

/// The blocks of one endpoint.
#[derive(Debug)]
pub(super) struct BlockCache {
    nodes: Vec<Node>,
    /// Nodes by hash.
    table: HashTable<u32>,
    /// Nodes that are not in use, linked by `older`.
    free: u32,
    newest: u32,
    oldest: u32,
    /// Blocks in the list.
    cached: usize,
    cached_max: usize,
    /// Blocks that are in the list, in flight, or both.
    held: usize,
    /// Tokens of the blocks in the list.
    tokens: u64,
    tokens_max: u64,
    newest_use: Use,
    /// What the endpoint has shown not to hold, though that may have been the request's own doing.
    doubted: Option<Use>,
    seed: u64,
}

/// Of 28 bytes; aligned as its hash would be, it would have 32.
#[derive(Debug, Clone, Copy)]
#[repr(Rust, packed(4))]
struct Node {
    hash: u64,
    /// Prompts in flight that have the block.
    prompts: u32,
    tokens: u32,
    newer: u32,
    older: u32,
    /// When it was last used, if it is in the list.
    used: Option<Use>,
}

impl Node {
    fn new(hash: u64) -> Node {
        Node { hash, prompts: 0, tokens: 0, newer: NONE, older: NONE, used: None }
    }
}

/// When a block was last used, counted in requests; wraps around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Use(NonZeroU32);

impl Use {
    const FIRST: Use = Use(NonZeroU32::MIN);

    fn next(self) -> Use {
        Use(self.0.checked_add(1).unwrap_or(NonZeroU32::MIN))
    }

    fn is_after(self, other: Use) -> bool {
        (self.0.get().wrapping_sub(other.0.get()) as i32) > 0
    }
}

impl BlockCache {
    /// An empty one. `seed` keeps clients from choosing blocks that crowd its hash table.
    pub fn new(cached_max: usize, seed: u64) -> BlockCache {
        BlockCache {
            nodes: Vec::new(),
            table: HashTable::new(),
            free: NONE,
            newest: NONE,
            oldest: NONE,
            cached: 0,
            cached_max,
            held: 0,
            tokens: 0,
            tokens_max: u64::MAX,
            newest_use: Use::FIRST,
            doubted: None,
            seed,
        }
    }

    /// Blocks that are cached, in flight, or both.
    pub fn len(&self) -> usize {
        self.held
    }

    /// Memory taken for them, in bytes.
    pub fn allocated_bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>() + self.table.allocation_size()
    }

    /// Whether it holds the block, or is about to.
    pub fn holds(&self, hash: u64) -> bool {
        self.find(hash).is_some()
    }

    /// When the block was last used, unless it is only about to be there.
    pub fn last_use(&self, hash: u64) -> Option<Use> {
        self.find(hash)?.used
    }

    /// A prompt with these blocks was sent there: it holds them, up to the one with which more than `room` would be new.
    /// Returns their places, to be handed back to [`BlockCache::release`].
    pub fn hold(&mut self, hashes: &[u64], room: usize) -> Vec<u32> {
        let held_max = self.held + room;
        let mut places = Vec::with_capacity(hashes.len());
        for hash in hashes {
            let Some(place) = self.find_or_insert(*hash, held_max) else { break };
            if let Some(node) = self.node_mut(place) {
                node.prompts += 1;
            }
            places.push(place);
        }
        places
    }

    /// A prompt is no longer in flight.
    pub fn release(&mut self, places: &[u32]) {
        for &place in places {
            let Some(node) = self.node_mut(place) else { continue };
            node.prompts -= 1;
            if node.prompts == 0 && node.used.is_none() {
                self.remove(place);
            }
        }
    }

    /// A prompt in flight was computed there: its blocks, of `block_tokens` each, and so many other tokens behind them.
    pub fn use_blocks(&mut self, places: &[u32], block_tokens: u32, other_tokens: u32) {
        self.newest_use = self.newest_use.next();
        if other_tokens > 0 {
            let place = self.occupy(UNMATCHED);
            self.use_block(place, other_tokens);
        }
        for &place in places.iter().rev() {
            self.use_block(place, block_tokens);
        }
        self.shrink();
    }

    /// Caches at most so many blocks from now on.
    pub fn set_cached_max(&mut self, cached_max: usize) {
        self.cached_max = cached_max;
        self.shrink();
    }

    /// Caches at most so many tokens from now on.
    pub fn set_tokens_max(&mut self, tokens_max: u64) {
        self.tokens_max = tokens_max;
        self.shrink();
    }

    /// The endpoint has shown that it holds what was last used at `last`: so it does what was used later.
    pub fn confirm(&mut self, last: Use) {
        if self.doubted.is_some_and(|doubted| !last.is_after(doubted)) {
            self.doubted = None;
        }
    }

    /// The endpoint has shown that it does not hold what was last used at `last`, nor, then, what was used before. It is
    /// believed when it has shown so twice: some requests (with `prompt_logprobs`, say) are computed without a look at
    /// the cache.
    pub fn belie(&mut self, last: Use) {
        if last.is_after(self.newest_use) {
            // Told of the cache before this one: the endpoint had left.
            return;
        }
        let doubted = self.doubted.replace(last);
        let Some(before) = doubted else { return };
        let (older, newer) = if last.is_after(before) { (before, last) } else { (last, before) };
        self.doubted = Some(newer);
        self.forget_until(older);
    }

    fn forget_until(&mut self, last: Use) {
        while self.node(self.oldest).and_then(|node| node.used).is_some_and(|used| !used.is_after(last)) {
            self.drop_oldest();
        }
    }

    /// Forgets all but what is in flight.
    pub fn clear(&mut self) {
        while self.oldest != NONE {
            self.drop_oldest();
        }
    }

    fn shrink(&mut self) {
        while self.oldest != NONE && (self.cached > self.cached_max || self.tokens > self.tokens_max) {
            self.drop_oldest();
        }
    }

    fn find(&self, hash: u64) -> Option<&Node> {
        let is_it = |place: &u32| self.node(*place).is_some_and(|node| node.hash == hash);
        self.table.find(scatter(hash, self.seed), is_it).and_then(|place| self.node(*place))
    }

    /// The place of a block, a new one if it is not held and fewer than `held_max` are.
    fn find_or_insert(&mut self, hash: u64, held_max: usize) -> Option<u32> {
        let next_place = self.next_place();
        let Self { nodes, table, seed, held, .. } = self;
        let hash_at = |place: &u32| nodes.get(*place as usize).map_or(UNMATCHED, |node| node.hash);
        let is_it = |place: &u32| hash_at(place) == hash;
        match table.entry(scatter(hash, *seed), is_it, |place| scatter(hash_at(place), *seed)) {
            Entry::Occupied(entry) => Some(*entry.get()),
            Entry::Vacant(entry) if *held < held_max => {
                entry.insert(next_place);
                Some(self.occupy(hash))
            }
            Entry::Vacant(_) => None,
        }
    }

    /// The place that the next new block takes: a free one if there is one.
    fn next_place(&self) -> u32 {
        if self.free == NONE { self.nodes.len() as u32 } else { self.free }
    }

    /// A new block takes the next place, which is returned.
    fn occupy(&mut self, hash: u64) -> u32 {
        let place = self.next_place();
        self.held += 1;
        match self.nodes.get_mut(place as usize) {
            Some(node) => self.free = std::mem::replace(node, Node::new(hash)).older,
            None => {
                if self.nodes.len() == self.nodes.capacity() {
                    self.nodes.reserve_exact((self.nodes.len() / GROWTH).max(LEAST_GROWTH));
                }
                self.nodes.push(Node::new(hash));
            }
        }
        place
    }

    /// The block becomes the newest of the list.
    fn use_block(&mut self, place: u32, tokens: u32) {
        let used = Some(self.newest_use);
        let Some(node) = self.node_mut(place) else { return };
        if std::mem::replace(&mut node.used, used).is_some() {
            self.unlink(place);
        } else {
            node.tokens = tokens;
            self.cached += 1;
            self.tokens += u64::from(tokens);
        }
        self.link_newest(place);
    }

    /// The oldest block leaves the list.
    fn drop_oldest(&mut self) {
        let place = self.oldest;
        self.unlink(place);
        let Some(node) = self.nodes.get_mut(place as usize) else { return };
        node.used = None;
        self.cached -= 1;
        self.tokens -= u64::from(node.tokens);
        if node.prompts == 0 {
            self.remove(place);
        }
    }

    /// A block is neither cached nor in flight any more.
    fn remove(&mut self, place: u32) {
        let Some(node) = self.nodes.get_mut(place as usize) else { return };
        self.held -= 1;
        node.older = std::mem::replace(&mut self.free, place);
        // Not by `entry`, which makes room for one more and would have to hash all others anew.
        if let Ok(entry) = self.table.find_entry(scatter(node.hash, self.seed), |other| *other == place) {
            entry.remove();
        }
    }

    fn link_newest(&mut self, place: u32) {
        let before = std::mem::replace(&mut self.newest, place);
        match self.node_mut(before) {
            Some(node) => node.newer = place,
            None => self.oldest = place,
        }
        if let Some(node) = self.node_mut(place) {
            (node.newer, node.older) = (NONE, before);
        }
    }

    fn unlink(&mut self, place: u32) {
        let Some(node) = self.node(place) else { return };
        let (newer, older) = (node.newer, node.older);
        match self.node_mut(newer) {
            Some(node) => node.older = older,
            None => self.newest = older,
        }
        match self.node_mut(older) {
            Some(node) => node.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn node(&self, place: u32) -> Option<&Node> {
        self.nodes.get(place as usize)
    }

    fn node_mut(&mut self, place: u32) -> Option<&mut Node> {
        self.nodes.get_mut(place as usize)
    }
}

/// Where in the table a block goes: its hash is known to clients, the seed is not.
pub(super) fn scatter(hash: u64, seed: u64) -> u64 {
    mix(hash ^ seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// Enough for any of these prompts.
    const ROOM: usize = 100;

    fn cache(blocks_max: usize) -> BlockCache {
        BlockCache::new(blocks_max, 42)
    }

    /// A prompt is sent and answered.
    fn answer(cache: &mut BlockCache, hashes: &[u64], other_tokens: u32) {
        let places = cache.hold(hashes, ROOM);
        cache.use_blocks(&places, 64, other_tokens);
        cache.release(&places);
    }

    fn held(cache: &BlockCache, hashes: &[u64]) -> Vec<u64> {
        hashes.iter().copied().filter(|hash| cache.holds(*hash)).collect()
    }

    #[test]
    fn the_end_of_what_was_unused_for_longest_leaves_first() {
        let mut cache = cache(5);
        for hashes in [&[1, 2, 3][..], &[7, 8], &[1, 2, 3], &[9]] {
            answer(&mut cache, hashes, 0);
        }
        assert_eq!((held(&cache, &[1, 2, 3, 7, 8, 9]), cache.cached), (vec![1, 2, 3, 7, 9], 5));
        answer(&mut cache, &[10, 11, 12], 0);
        assert_eq!(
            (held(&cache, &[1, 2, 3, 7, 8, 9, 10, 11, 12]), cache.cached),
            (vec![1, 9, 10, 11, 12], 5)
        );
    }

    #[test]
    fn output_takes_room_and_leaves_before_its_prompt() {
        let mut cache = cache(100);
        cache.set_tokens_max(640);
        answer(&mut cache, &[1, 2, 3], 448);
        answer(&mut cache, &[9], 0);
        assert_eq!(held(&cache, &[1, 2, 3, 9]), [1, 2, 3, 9]);
        answer(&mut cache, &[10], 400);
        assert_eq!(held(&cache, &[1, 2, 3, 9, 10]), [1, 9, 10]);
    }

    #[test]
    fn a_prompt_larger_than_the_cache_keeps_its_start() {
        let mut cache = cache(3);
        answer(&mut cache, &[1, 2, 3, 4, 5], 9);
        assert_eq!((held(&cache, &[1, 2, 3, 4, 5]), cache.cached), (vec![1, 2, 3], 3));
    }

    #[test]
    fn a_full_cache_of_any_size_holds_exactly_what_was_used_last() {
        for blocks_max in 1..130 {
            let mut cache = cache(blocks_max);
            for hash in 1..=3 * blocks_max as u64 {
                answer(&mut cache, &[hash], 0);
                let first_held = hash.saturating_sub(blocks_max as u64) + 1;
                let wrong = (1..=hash).find(|known| cache.holds(*known) != (*known >= first_held));
                assert_eq!(wrong, None, "of {blocks_max}, after {hash}");
            }
        }
    }

    #[test]
    fn what_an_endpoint_no_longer_holds_goes_with_all_that_is_older() {
        let mut cache = cache(100);
        for hashes in [&[1, 2][..], &[3, 4], &[5, 6]] {
            answer(&mut cache, hashes, 0);
        }
        let [first, second, third] = [2, 4, 6].map(|hash: u64| cache.last_use(hash).unwrap());
        cache.belie(second);
        assert_eq!(held(&cache, &[1, 2, 3, 4, 5, 6]), [1, 2, 3, 4, 5, 6], "shown once");
        cache.belie(third);
        assert_eq!(held(&cache, &[1, 2, 3, 4, 5, 6]), [5, 6]);
        assert_eq!(cache.last_use(4), None);
        cache.belie(first);
        assert_eq!(held(&cache, &[5, 6]), [5, 6]);
        cache.belie(third);
        assert!(held(&cache, &[5, 6]).is_empty());
    }

    #[test]
    fn what_is_found_in_between_takes_a_doubt_back() {
        let mut cache = cache(100);
        for hashes in [&[1, 2][..], &[3, 4]] {
            answer(&mut cache, hashes, 0);
        }
        let [first, second] = [2, 4].map(|hash| cache.last_use(hash).unwrap());
        for (found, left) in [(first, &[1, 2, 3, 4][..]), (second, &[3, 4])] {
            cache.belie(first);
            cache.confirm(found);
            cache.belie(second);
            assert_eq!(held(&cache, &[1, 2, 3, 4]), left);
            cache.confirm(first);
        }
    }

    #[test]
    fn what_another_cache_was_matched_with_says_nothing() {
        let (mut before, mut cache) = (cache(100), cache(100));
        for _ in 0..3 {
            answer(&mut before, &[1], 0);
        }
        answer(&mut cache, &[1], 0);
        for _ in 0..2 {
            cache.belie(before.last_use(1).unwrap());
        }
        assert_eq!(held(&cache, &[1]), [1]);
    }

    #[test]
    fn a_prompt_in_flight_is_held_until_it_fails_and_leaves_what_others_have() {
        let mut cache = cache(100);
        answer(&mut cache, &[1, 2], 0);
        let one = cache.hold(&[1, 2, 3], ROOM);
        let other = cache.hold(&[1, 2, 3, 4], ROOM);
        assert_eq!((cache.cached, cache.len()), (2, 4));
        cache.release(&other);
        assert_eq!(held(&cache, &[1, 2, 3, 4]), [1, 2, 3]);
        cache.release(&one);
        assert_eq!((held(&cache, &[1, 2, 3, 4]), cache.len()), (vec![1, 2], 2));
    }

    #[test]
    fn what_is_in_flight_outlasts_its_leaving_the_list() {
        let mut cache = cache(2);
        answer(&mut cache, &[1, 2], 0);
        let places = cache.hold(&[1, 2], ROOM);
        answer(&mut cache, &[8, 9], 0);
        assert_eq!((held(&cache, &[1, 2, 8, 9]), cache.last_use(1)), (vec![1, 2, 8, 9], None));
        cache.clear();
        assert_eq!(held(&cache, &[1, 2, 8, 9]), [1, 2]);
        cache.use_blocks(&places, 64, 0);
        cache.release(&places);
        assert_eq!((held(&cache, &[1, 2]), cache.cached, cache.len()), (vec![1, 2], 2, 2));
    }

    #[test]
    fn places_of_blocks_that_are_gone_are_taken_again() {
        let mut cache = cache(4);
        for hash in 1..1_000 {
            let places = cache.hold(&[hash, hash + 1_000], ROOM);
            cache.release(&places);
            answer(&mut cache, &[hash], 7);
        }
        assert!(cache.nodes.len() <= 8, "{}", cache.nodes.len());
    }
}
