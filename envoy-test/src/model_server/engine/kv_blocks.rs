//! The KV cache: blocks with reference counts, and the prefix cache made of those that hold known tokens.
//!
//! A block nobody refers to is free but keeps its content until it is needed for something else; the one that
//! has been free for longest goes first. Blocks of one sequence are freed from its end, so that a shared start
//! outlives what followed it. Which tokens a block holds is the caller's matter: blocks are known by hash.
//!
//! SGLang's radix cache is the same with three differences ([`Eviction::Run`]): what was remembered at once is a run, and
//! leaves as a whole, from its end to where another sequence continues from it; blocks without content are used up before;
//! who has computed what is there already takes the block that is there. So it is read in SGLang 0.5.23's
//! `srt/mem_cache/radix_cache.py` and `allocator/base.py`; that server was not run.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

/// Index of a block.
pub type BlockId = usize;

/// How a full cache makes room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Eviction {
    /// Block by block (vLLM).
    #[default]
    Block,
    /// By leaf of a radix tree (SGLang).
    Run,
}

/// All blocks of one engine.
#[derive(Debug, Clone)]
pub struct KvBlocks {
    eviction: Eviction,
    blocks: Vec<Block>,
    cached: HashMap<u64, BlockId>,
    /// Free blocks by the time they became free, behind those without content if these go first: the first is the next to
    /// be used.
    free: BTreeMap<(bool, u64), BlockId>,
    /// Free blocks with content.
    evictable: usize,
    /// Counts releases; a stamp in `free` is never used twice.
    releases: u64,
}

#[derive(Debug, Clone, Default)]
struct Block {
    hash: Option<u64>,
    references: usize,
    freed_at: u64,
    /// Where a run continues from, and what continues from this one. Only for [`Eviction::Run`].
    parent: Option<BlockId>,
    children: Vec<BlockId>,
    begins_run: bool,
}

impl KvBlocks {
    pub fn new(count: usize, eviction: Eviction) -> Self {
        let mut blocks = Self {
            eviction,
            blocks: vec![Block::default(); count],
            cached: HashMap::new(),
            free: BTreeMap::new(),
            evictable: 0,
            releases: 0,
        };
        for id in 0..count {
            blocks.make_free(id);
        }
        blocks
    }

    pub fn eviction(&self) -> Eviction {
        self.eviction
    }

    pub fn free_count(&self) -> usize {
        self.free.len()
    }

    /// Free blocks that others may find by their content.
    pub fn evictable_count(&self) -> usize {
        self.evictable
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
            if self.blocks[id].references == 0 {
                self.take_from_free(id);
            }
            self.blocks[id].references += 1;
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

    /// Lets others find a sequence's `blocks` by their content from the one at `from` on: a run. A block whose content is
    /// there already is given back for the one that is there.
    pub fn remember_run(&mut self, blocks: &mut [BlockId], hashes: &[u64], from: usize) {
        for index in from..hashes.len() {
            let before = index.checked_sub(1).map(|before| blocks[before]);
            match self.cached.get(&hashes[index]).copied() {
                Some(known) if known != blocks[index] => {
                    self.share(&[known]);
                    self.release(&[std::mem::replace(&mut blocks[index], known)]);
                }
                Some(_) => {}
                None => {
                    self.remember(blocks[index], hashes[index]);
                    self.continue_run(before, blocks[index], index == from);
                }
            }
        }
    }

    /// Where several sequences continue from one block, each begins a run there.
    fn continue_run(&mut self, parent: Option<BlockId>, id: BlockId, begins_run: bool) {
        (self.blocks[id].parent, self.blocks[id].begins_run) = (parent, begins_run);
        let Some(parent) = parent else { return };
        self.blocks[parent].children.push(id);
        if self.blocks[parent].children.len() > 1 {
            for child in self.blocks[parent].children.clone() {
                self.blocks[child].begins_run = true;
            }
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
        self.put_to_free(id);
    }

    fn put_to_free(&mut self, id: BlockId) {
        self.free.insert(self.free_key(id), id);
        self.evictable += usize::from(self.blocks[id].hash.is_some());
    }

    fn take_from_free(&mut self, id: BlockId) {
        self.free.remove(&self.free_key(id));
        self.evictable -= usize::from(self.blocks[id].hash.is_some());
    }

    fn free_key(&self, id: BlockId) -> (bool, u64) {
        let block = &self.blocks[id];
        (self.eviction == Eviction::Run && block.hash.is_some(), block.freed_at)
    }

    fn take_oldest_free(&mut self) -> Option<BlockId> {
        let (_, &oldest) = self.free.first_key_value()?;
        let mut next = Some(oldest);
        while let Some(id) = next {
            next = self.forget(id);
        }
        self.take_from_free(oldest);
        self.blocks[oldest].references = 1;
        Some(oldest)
    }

    /// Takes its content from a free block; the block before it, if that goes with it.
    fn forget(&mut self, id: BlockId) -> Option<BlockId> {
        let hash = self.blocks[id].hash?;
        self.take_from_free(id);
        self.cached.remove(&hash);
        self.blocks[id].hash = None;
        self.put_to_free(id);
        let parent = self.blocks[id].parent.take()?;
        let before = &mut self.blocks[parent];
        before.children.retain(|child| *child != id);
        let goes_along = before.references == 0 && before.children.is_empty();
        (goes_along && !self.blocks[id].begins_run).then_some(parent)
    }
}
