//! The KV cache: blocks with reference counts, and the prefix cache made of those that hold known tokens.
//!
//! A block nobody refers to is free but keeps its content until it is needed for something else; the one that
//! has been free for longest goes first. Blocks of one sequence are freed from its end, so that a shared start
//! outlives what followed it. Which tokens a block holds is the caller's matter: blocks are known by hash.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

/// Index of a block.
pub type BlockId = usize;

/// All blocks of one engine.
#[derive(Debug, Clone)]
pub struct KvBlocks {
    blocks: Vec<Block>,
    cached: HashMap<u64, BlockId>,
    /// Free blocks by the time they became free: the first is the next to be used.
    free: BTreeMap<u64, BlockId>,
    /// Counts releases; a stamp in `free` is never used twice.
    releases: u64,
}

#[derive(Debug, Clone, Default)]
struct Block {
    hash: Option<u64>,
    references: usize,
    freed_at: u64,
}

impl KvBlocks {
    pub fn new(count: usize) -> Self {
        let mut blocks = Self {
            blocks: vec![Block::default(); count],
            cached: HashMap::new(),
            free: BTreeMap::new(),
            releases: 0,
        };
        for id in 0..count {
            blocks.make_free(id);
        }
        blocks
    }

    pub fn free_count(&self) -> usize {
        self.free.len()
    }

    /// Share of blocks in use, 0 to 1. Free blocks that are still cached do not count.
    pub fn usage(&self) -> f64 {
        1.0 - self.free.len() as f64 / self.blocks.len() as f64
    }

    /// The blocks that hold the longest cached start of `hashes`.
    pub fn cached_prefix(&self, hashes: &[u64]) -> Vec<BlockId> {
        hashes.iter().map_while(|hash| self.cached.get(hash).copied()).collect()
    }

    /// How many of `blocks` would leave the free list if they were shared.
    pub fn free_among(&self, blocks: &[BlockId]) -> usize {
        blocks.iter().filter(|&&id| self.blocks[id].references == 0).count()
    }

    /// Adds a reference to each of `blocks`.
    pub fn share(&mut self, blocks: &[BlockId]) {
        for &id in blocks {
            let block = &mut self.blocks[id];
            if block.references == 0 {
                self.free.remove(&block.freed_at);
            }
            block.references += 1;
        }
    }

    /// Takes `count` blocks with unknown content, or none if there are not as many.
    pub fn allocate(&mut self, count: usize) -> Option<Vec<BlockId>> {
        (count <= self.free.len()).then(|| (0..count).map_while(|_| self.take_oldest_free()).collect())
    }

    /// Lets others find `block` by its content. If another block holds the same content, that one stays.
    pub fn remember(&mut self, block: BlockId, hash: u64) {
        if let Entry::Vacant(entry) = self.cached.entry(hash) {
            entry.insert(block);
            self.blocks[block].hash = Some(hash);
        }
    }

    /// Gives back a sequence's blocks, last one first.
    pub fn release(&mut self, blocks: &[BlockId]) {
        for &id in blocks.iter().rev() {
            self.blocks[id].references -= 1;
            if self.blocks[id].references == 0 {
                self.make_free(id);
            }
        }
    }

    fn make_free(&mut self, id: BlockId) {
        self.releases += 1;
        self.blocks[id].freed_at = self.releases;
        self.free.insert(self.releases, id);
    }

    fn take_oldest_free(&mut self) -> Option<BlockId> {
        let (_, id) = self.free.pop_first()?;
        let block = &mut self.blocks[id];
        block.references = 1;
        if let Some(hash) = block.hash.take() {
            self.cached.remove(&hash);
        }
        Some(id)
    }
}
