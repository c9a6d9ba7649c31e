//! What one endpoint's KV cache holds, as far as can be told from what was sent there.
//!
//! A list of blocks by last use, as servers keep theirs: the one unused for longest leaves first. Blocks of one prompt
//! are used from the last to the first, so none ever outlives one it continues. With that, a prompt's longest cached
//! start is found by halving. Output and what is behind a prompt's last block take room, too; nothing matches them.

use hashbrown::HashTable;

use crate::hash::mix;

/// No node.
const NONE: u32 = u32::MAX;

/// A hash that no block has: that of room which nothing matches.
const UNMATCHED: u64 = 0;

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
    blocks: usize,
    blocks_max: usize,
    tokens: u64,
    tokens_max: u64,
    uses: u32,
    seed: u64,
}

#[derive(Debug)]
struct Node {
    hash: u64,
    tokens: u32,
    newer: u32,
    older: u32,
    used: Use,
}

/// When a block was last used, counted in requests; wraps around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Use(u32);

impl Use {
    fn is_after(self, other: Use) -> bool {
        (self.0.wrapping_sub(other.0) as i32) > 0
    }
}

impl BlockCache {
    /// An empty one. `seed` keeps clients from choosing blocks that crowd its hash table.
    pub fn new(blocks_max: usize, seed: u64) -> BlockCache {
        BlockCache {
            nodes: Vec::new(),
            table: HashTable::new(),
            free: NONE,
            newest: NONE,
            oldest: NONE,
            blocks: 0,
            blocks_max,
            tokens: 0,
            tokens_max: u64::MAX,
            uses: 0,
            seed,
        }
    }

    /// One with nothing in it, and the same limits.
    pub fn emptied(&self) -> BlockCache {
        BlockCache { tokens_max: self.tokens_max, ..BlockCache::new(self.blocks_max, self.seed) }
    }

    /// Blocks held.
    pub fn len(&self) -> usize {
        self.blocks
    }

    /// Memory taken for them, in bytes.
    pub fn allocated_bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>() + self.table.allocation_size()
    }

    /// When the block was last used.
    pub fn last_use(&self, hash: u64) -> Option<Use> {
        self.find(hash).and_then(|place| self.node(place)).map(|node| node.used)
    }

    /// A prompt was computed there: its blocks, of `block_tokens` each, and so many other tokens behind them.
    pub fn use_blocks(&mut self, hashes: &[u64], block_tokens: u32, other_tokens: u32) {
        self.uses = self.uses.wrapping_add(1);
        if other_tokens > 0 {
            self.insert(UNMATCHED, other_tokens);
        }
        for &hash in hashes.iter().rev() {
            match self.find(hash) {
                Some(place) => self.renew(place),
                None => self.insert(hash, block_tokens),
            }
        }
        self.shrink();
    }

    /// Holds at most so many blocks from now on.
    pub fn set_blocks_max(&mut self, blocks_max: usize) {
        self.blocks_max = blocks_max;
        self.shrink();
    }

    /// Holds at most so many tokens from now on.
    pub fn set_tokens_max(&mut self, tokens_max: u64) {
        self.tokens_max = tokens_max;
        self.shrink();
    }

    /// Forgets what was last used at `last` or before: the endpoint has shown that it does not hold it any more.
    pub fn forget_until(&mut self, last: Use) {
        while self.node(self.oldest).is_some_and(|node| !node.used.is_after(last)) {
            self.remove_oldest();
        }
    }

    fn shrink(&mut self) {
        while self.oldest != NONE && (self.blocks > self.blocks_max || self.tokens > self.tokens_max) {
            self.remove_oldest();
        }
    }

    /// Whether it holds the block.
    pub fn holds(&self, hash: u64) -> bool {
        self.find(hash).is_some()
    }

    fn find(&self, hash: u64) -> Option<u32> {
        let is_it = |place: &u32| self.node(*place).is_some_and(|node| node.hash == hash);
        self.table.find(scatter(hash, self.seed), is_it).copied()
    }

    fn insert(&mut self, hash: u64, tokens: u32) {
        let node = Node { hash, tokens, newer: NONE, older: NONE, used: Use(self.uses) };
        let place = self.place(node);
        if hash != UNMATCHED {
            let Self { nodes, table, seed, .. } = self;
            let hash_at =
                |place: &u32| nodes.get(*place as usize).map_or(0, |node| scatter(node.hash, *seed));
            table.insert_unique(scatter(hash, *seed), place, hash_at);
        }
        self.blocks += 1;
        self.tokens += u64::from(tokens);
        self.link_newest(place);
    }

    /// A place for the node; one that is free if there is one.
    fn place(&mut self, node: Node) -> u32 {
        let place = self.free;
        if let Some(free) = self.nodes.get_mut(place as usize) {
            self.free = free.older;
            *free = node;
            return place;
        }
        self.nodes.push(node);
        (self.nodes.len() - 1) as u32
    }

    fn renew(&mut self, place: u32) {
        self.unlink(place);
        self.link_newest(place);
        let used = Use(self.uses);
        if let Some(node) = self.node_mut(place) {
            node.used = used;
        }
    }

    fn remove_oldest(&mut self) {
        let place = self.oldest;
        self.unlink(place);
        let Some(node) = self.nodes.get_mut(place as usize) else { return };
        let (hash, tokens) = (node.hash, node.tokens);
        node.older = std::mem::replace(&mut self.free, place);
        self.blocks -= 1;
        self.tokens -= u64::from(tokens);
        // Not by `entry`, which makes room for one more and would have to hash all others anew.
        if let Ok(entry) = self.table.find_entry(scatter(hash, self.seed), |other| *other == place) {
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

    fn cache(blocks_max: usize) -> BlockCache {
        BlockCache::new(blocks_max, 42)
    }

    fn held(cache: &BlockCache, hashes: &[u64]) -> Vec<u64> {
        hashes.iter().copied().filter(|hash| cache.holds(*hash)).collect()
    }

    #[test]
    fn the_end_of_what_was_unused_for_longest_leaves_first() {
        let mut cache = cache(5);
        for hashes in [&[1, 2, 3][..], &[7, 8], &[1, 2, 3], &[9]] {
            cache.use_blocks(hashes, 64, 0);
        }
        assert_eq!((held(&cache, &[1, 2, 3, 7, 8, 9]), cache.len()), (vec![1, 2, 3, 7, 9], 5));
        cache.use_blocks(&[10, 11, 12], 64, 0);
        assert_eq!((held(&cache, &[1, 2, 3, 7, 8, 9, 10, 11, 12]), cache.len()), (vec![1, 9, 10, 11, 12], 5));
    }

    #[test]
    fn output_takes_room_and_leaves_before_its_prompt() {
        let mut cache = cache(100);
        cache.set_tokens_max(640);
        cache.use_blocks(&[1, 2, 3], 64, 448);
        cache.use_blocks(&[9], 64, 0);
        assert_eq!(held(&cache, &[1, 2, 3, 9]), [1, 2, 3, 9]);
        cache.use_blocks(&[10], 64, 400);
        assert_eq!(held(&cache, &[1, 2, 3, 9, 10]), [1, 9, 10]);
    }

    #[test]
    fn a_prompt_larger_than_the_cache_keeps_its_start() {
        let mut cache = cache(3);
        cache.use_blocks(&[1, 2, 3, 4, 5], 64, 9);
        assert_eq!((held(&cache, &[1, 2, 3, 4, 5]), cache.len()), (vec![1, 2, 3], 3));
    }

    #[test]
    fn a_full_cache_of_any_size_holds_exactly_what_was_used_last() {
        for blocks_max in 1..130 {
            let mut cache = cache(blocks_max);
            for hash in 1..=3 * blocks_max as u64 {
                cache.use_blocks(&[hash], 64, 0);
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
            cache.use_blocks(hashes, 64, 0);
        }
        let last = cache.last_use(4).unwrap();
        cache.forget_until(last);
        assert_eq!(held(&cache, &[1, 2, 3, 4, 5, 6]), [5, 6]);
        assert_eq!(cache.last_use(4), None);
    }
}
