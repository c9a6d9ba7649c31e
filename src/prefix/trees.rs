//! Which starts of prompts endpoints hold: a radix tree for each endpoint, all of them in one list.
//!
//! A prompt is a path of segments from its endpoint's root. A segment is a run of blocks in the middle of which no prompt
//! leaves it; it is found by its parent and its first block. So a prompt is learnt by adding one segment with what is new
//! of it, and looked up in a step for each segment: a block's hash stands for all before it, so two runs are the same up
//! to the last block in which they agree.
//!
//! Where a prompt leaves a segment in its middle, the segment is split. Where nothing else continues a segment, what does
//! is joined to it, so that a conversation of many turns stays one segment.

use hashbrown::HashTable;

use super::blocks::BlockHash;
use super::last_use::Use;
use super::starts::Starts;
use crate::hash::mix;

/// No segment.
pub(super) const NONE: u32 = u32::MAX;

/// When there is room for no more segments, or for no more blocks of one, room is made for this part of them: to double it, as
/// vectors do by themselves, would leave half of it empty.
const GROWTH: usize = 8;
/// And for so many at least.
const LEAST_GROWTH: usize = 16;

/// A run of blocks, or room that something else takes.
#[derive(Debug)]
pub(super) struct Segment {
    /// The segment that it continues.
    pub parent: u32,
    /// Segments that continue it, and prompts in flight that end with it: as long as there are any, it stays.
    pub dependents: u32,
    /// Its blocks; none if it is a root, or room that something else takes.
    pub hashes: Vec<BlockHash>,
    /// Of all its blocks, if it was used.
    pub tokens: u32,
    /// Of what was behind the last of them: the rest of a prompt, and its answer.
    pub other_tokens: u32,
    /// Its neighbours by last use, if it was used; `older` links those that are free, too.
    pub newer: u32,
    pub older: u32,
    /// When all of it was last used.
    pub used: Option<Use>,
}

impl Segment {
    fn new(parent: u32, hashes: Vec<BlockHash>, older: u32) -> Segment {
        let (dependents, tokens, other_tokens, newer, used) = (0, 0, 0, NONE, None);
        Segment { parent, dependents, hashes, tokens, other_tokens, newer, older, used }
    }

    /// Gives back most of the memory of blocks of which it was cut.
    pub fn give_back_room(&mut self) {
        if self.hashes.len() < self.hashes.capacity() / 2 {
            // Not by `shrink_to_fit`, which can panic.
            self.hashes = self.hashes.as_slice().to_vec();
        }
    }

    /// How many blocks it counts for.
    pub fn blocks(&self) -> usize {
        self.hashes.len().max(1)
    }
}

/// How far a prompt leads into a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reached {
    /// The last segment of which it has something, or the root.
    pub place: u32,
    /// How many blocks of that.
    pub inside: usize,
    /// How many blocks in all.
    pub blocks: usize,
}

/// The trees of a pool's endpoints.
#[derive(Debug)]
pub(super) struct Trees {
    segments: Vec<Segment>,
    /// Segments by parent and first block.
    table: HashTable<u32>,
    /// Segments that are not in use, linked by `older`.
    free: u32,
    blocks: usize,
    blocks_max: usize,
    seed: u64,
    /// Who holds which first block.
    pub starts: Starts,
}

impl Trees {
    /// Trees without blocks, with room for so many. `seed` keeps clients from choosing blocks that crowd the hash tables.
    pub fn new(blocks_max: usize, seed: u64) -> Trees {
        let (segments, table) = (Vec::new(), HashTable::new());
        Trees { segments, table, free: NONE, blocks: 0, blocks_max, seed, starts: Starts::new(seed) }
    }

    /// Blocks of all segments.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// How many more there is room for.
    pub fn room(&self) -> usize {
        self.blocks_max.saturating_sub(self.blocks)
    }

    /// Memory taken, in bytes.
    pub fn allocated_bytes(&self) -> usize {
        let hashes: usize = self.segments.iter().map(|segment| segment.hashes.capacity()).sum();
        self.segments.capacity() * size_of::<Segment>()
            + hashes * size_of::<BlockHash>()
            + self.table.allocation_size()
            + self.starts.allocated_bytes()
    }

    pub fn get(&self, place: u32) -> Option<&Segment> {
        self.segments.get(place as usize)
    }

    pub fn get_mut(&mut self, place: u32) -> Option<&mut Segment> {
        self.segments.get_mut(place as usize)
    }

    /// A tree without blocks.
    pub fn add_root(&mut self) -> u32 {
        self.occupy(NONE, Vec::new())
    }

    /// The tree of this root is gone, all segments having been removed from it.
    pub fn remove_root(&mut self, root: u32) {
        self.vacate(root);
    }

    /// Adds something that is no block and nothing matches; it takes the room of one.
    pub fn add_other(&mut self, tokens: u32, used: Use) -> u32 {
        self.blocks += 1;
        let place = self.occupy(NONE, Vec::new());
        if let Some(segment) = self.get_mut(place) {
            (segment.tokens, segment.used) = (tokens, Some(used));
        }
        place
    }

    /// Adds blocks behind a segment.
    pub fn add(&mut self, parent: u32, hashes: &[BlockHash]) -> u32 {
        let place = self.occupy(parent, hashes.to_vec());
        self.blocks += hashes.len();
        self.list(place);
        if let Some(parent) = self.get_mut(parent) {
            parent.dependents += 1;
        }
        place
    }

    /// Removes a segment on which nothing depends. Returns its parent.
    pub fn remove(&mut self, place: u32) -> u32 {
        self.unlist(place);
        let Some(segment) = self.vacate(place) else { return NONE };
        self.blocks -= segment.blocks();
        if let Some(parent) = self.get_mut(segment.parent) {
            parent.dependents -= 1;
        }
        segment.parent
    }

    /// Drops all but so many blocks of a segment with which nothing goes on.
    pub fn truncate(&mut self, place: u32, blocks: usize) {
        let Some(segment) = self.segments.get_mut(place as usize) else { return };
        self.blocks -= segment.hashes.len() - blocks;
        segment.hashes.truncate(blocks);
    }

    /// Splits a segment behind so many blocks, of which there are fewer than all. What is behind them keeps the place, so
    /// that all that depends on it is right as it is. Returns the place of the others.
    pub fn split(&mut self, place: u32, blocks: usize) -> u32 {
        let Some(segment) = self.get_mut(place) else { return NONE };
        let parent = segment.parent;
        let start = segment.hashes.get(..blocks).unwrap_or_default().to_vec();
        let rest = segment.hashes.get(blocks..).unwrap_or_default().to_vec();
        let start_place = self.occupy(parent, start);
        self.relist(place, start_place);
        if let Some(start) = self.get_mut(start_place) {
            start.dependents = 1;
        }
        if let Some(segment) = self.get_mut(place) {
            (segment.parent, segment.hashes) = (start_place, rest);
        }
        self.list(place);
        start_place
    }

    /// Joins a segment, on which nothing depends, to its parent, on which nothing else does.
    pub fn join(&mut self, place: u32) {
        self.unlist(place);
        let Some(segment) = self.vacate(place) else { return };
        let Some(parent) = self.get_mut(segment.parent) else { return };
        parent.dependents -= 1;
        parent.other_tokens = segment.other_tokens;
        let new = segment.hashes.len();
        if parent.hashes.capacity() - parent.hashes.len() < new {
            parent.hashes.reserve_exact(new.max((parent.hashes.len() + new) / GROWTH));
        }
        parent.hashes.extend_from_slice(&segment.hashes);
    }

    /// How far a prompt leads into the tree of this root.
    pub fn walk(&self, root: u32, hashes: &[BlockHash]) -> Reached {
        let mut reached = Reached { place: root, inside: 0, blocks: 0 };
        while let Some((rest, first)) =
            hashes.get(reached.blocks..).and_then(|rest| Some((rest, rest.first()?)))
            && let Some((place, segment)) = self.child(reached.place, *first)
        {
            let inside = common_start(&segment.hashes, rest);
            reached = Reached { place, inside, blocks: reached.blocks + inside };
            if inside < segment.hashes.len() {
                break;
            }
        }
        reached
    }

    fn child(&self, parent: u32, first: BlockHash) -> Option<(u32, &Segment)> {
        let is_it = |place: &u32| {
            self.get(*place).is_some_and(|it| it.parent == parent && it.hashes.first() == Some(&first))
        };
        let place = *self.table.find(self.slot(parent, first), is_it)?;
        Some((place, self.get(place)?))
    }

    /// A new segment takes a place, which is returned: a free one if there is one.
    fn occupy(&mut self, parent: u32, hashes: Vec<BlockHash>) -> u32 {
        let new = Segment::new(parent, hashes, NONE);
        let place = self.free;
        if let Some(segment) = self.segments.get_mut(place as usize) {
            self.free = std::mem::replace(segment, new).older;
            return place;
        }
        if self.segments.len() == self.segments.capacity() {
            self.segments.reserve_exact((self.segments.len() / GROWTH).max(LEAST_GROWTH));
        }
        self.segments.push(new);
        self.segments.len() as u32 - 1
    }

    /// The place is free.
    fn vacate(&mut self, place: u32) -> Option<Segment> {
        let older = std::mem::replace(&mut self.free, place);
        Some(std::mem::replace(self.get_mut(place)?, Segment::new(NONE, Vec::new(), older)))
    }

    /// A segment can be found from now on.
    fn list(&mut self, place: u32) {
        let Self { table, segments, seed, .. } = self;
        let slot = |place: &u32| segments.get(*place as usize).map_or(0, |segment| slot_of(segment, *seed));
        table.insert_unique(slot(&place), place, slot);
    }

    /// A segment is found no more.
    fn unlist(&mut self, place: u32) {
        let Some(segment) = self.segments.get(place as usize) else { return };
        // Not by `entry`, which makes room for one more and would have to hash all others anew.
        if let Ok(entry) = self.table.find_entry(slot_of(segment, self.seed), |other| *other == place) {
            entry.remove();
        }
    }

    /// Another segment, which begins with the same block, is found in place of one.
    fn relist(&mut self, place: u32, new_place: u32) {
        let Some(segment) = self.segments.get(place as usize) else { return };
        if let Some(found) = self.table.find_mut(slot_of(segment, self.seed), |other| *other == place) {
            *found = new_place;
        }
    }

    fn slot(&self, parent: u32, first: BlockHash) -> u64 {
        slot(parent, first, self.seed)
    }
}

/// Where in the table a segment is.
fn slot_of(segment: &Segment, seed: u64) -> u64 {
    slot(segment.parent, segment.hashes.first().copied().unwrap_or_default(), seed)
}

/// Blocks are known to clients, the seed is not.
fn slot(parent: u32, first: BlockHash, seed: u64) -> u64 {
    mix((u64::from(parent) << 32 | u64::from(u32::from_le_bytes(first))) ^ seed)
}

/// How many blocks two runs that begin with the same one have in common. Most of them all of the shorter one; else it is
/// found by halving.
fn common_start(one: &[BlockHash], other: &[BlockHash]) -> usize {
    let are_same = |last: usize| one.get(last) == other.get(last);
    let shorter = one.len().min(other.len());
    let (mut same, mut end) = (1, shorter);
    if are_same(shorter.saturating_sub(1)) {
        return shorter;
    }
    while same < end {
        let middle = same.midpoint(end);
        if are_same(middle) { same = middle + 1 } else { end = middle }
    }
    same
}
