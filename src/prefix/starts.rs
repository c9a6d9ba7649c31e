//! Where the first block of each prompt has been sent: of a thousand endpoints, a pick then looks at the few that may hold
//! something of its prompt.
//!
//! An endpoint stays listed for a while when it has dropped the block. Whenever one is added, the two that have been listed
//! longest are looked at again, so that there are never more than twice as many as hold their block.

use std::collections::VecDeque;

use hashbrown::HashTable;

use super::block_cache::scatter;
use crate::load::LoadId;

/// Of those listed, how many are looked at again for each that is added.
const CHECKS_OF_ONE_ADDED: usize = 2;

/// Endpoints by first block.
#[derive(Debug)]
pub(super) struct Starts {
    table: HashTable<Start>,
    /// Those in the table, the one next looked at first.
    listed: VecDeque<Start>,
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Start {
    hash: u64,
    id: LoadId,
}

impl Starts {
    /// None. `seed` keeps clients from choosing blocks that crowd the hash table.
    pub fn new(seed: u64) -> Starts {
        Starts { table: HashTable::new(), listed: VecDeque::new(), seed }
    }

    /// Memory taken, in bytes.
    pub fn allocated_bytes(&self) -> usize {
        self.table.allocation_size() + self.listed.capacity() * size_of::<Start>()
    }

    /// The endpoints that may hold a prompt's first block.
    pub fn holders(&self, hash: u64) -> impl Iterator<Item = LoadId> {
        let same = self.table.iter_hash(scatter(hash, self.seed)).filter(move |start| start.hash == hash);
        same.map(|start| start.id)
    }

    /// A prompt that begins with this block was sent to an endpoint.
    pub fn add(&mut self, hash: u64, id: LoadId, is_held: impl Fn(LoadId, u64) -> bool) {
        let (new, seed) = (Start { hash, id }, self.seed);
        if self.table.find(scatter(hash, seed), |start| *start == new).is_some() {
            return;
        }
        self.table.insert_unique(scatter(hash, seed), new, |start| scatter(start.hash, seed));
        self.listed.push_back(new);
        for _ in 0..CHECKS_OF_ONE_ADDED {
            if let Some(oldest) = self.listed.pop_front() {
                self.keep_or_drop(oldest, is_held(oldest.id, oldest.hash));
            }
        }
    }

    fn keep_or_drop(&mut self, start: Start, is_held: bool) {
        if is_held {
            self.listed.push_back(start);
        } else if let Ok(entry) =
            self.table.find_entry(scatter(start.hash, self.seed), |other| *other == start)
        {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::LoadBook;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn ids(count: u8) -> Vec<LoadId> {
        let mut book = LoadBook::default();
        (0..count).map(|last| book.id(([10, 0, 0, last], 8000).into())).collect()
    }

    #[test]
    fn all_endpoints_that_hold_a_block_are_found() {
        let (mut starts, ids) = (Starts::new(42), ids(100));
        for (hash, id) in (1..=7).flat_map(|hash| ids.iter().map(move |id| (hash, *id))).chain([(1, ids[0])])
        {
            starts.add(hash, id, |_, _| true);
        }
        for hash in 1..=7 {
            let mut found: Vec<LoadId> = starts.holders(hash).collect();
            found.sort_by_key(|id| ids.iter().position(|other| other == id));
            assert_eq!(found, ids);
        }
        assert_eq!(starts.holders(8).count(), 0);
    }

    #[test]
    fn what_is_held_no_more_is_dropped_in_time_and_nothing_else() {
        let (mut starts, id) = (Starts::new(42), ids(1)[0]);
        for hash in 1..=1_000_u64 {
            // Each is held for a hundred more, and the first for ever.
            starts.add(hash, id, |_, listed| listed + 100 > hash || listed == 1);
            assert!(starts.table.len() <= 2 * 101, "{hash}: {}", starts.table.len());
            assert_eq!(starts.table.len(), starts.listed.len());
            assert!((hash.saturating_sub(99).max(1)..=hash).all(|held| starts.holders(held).count() == 1));
            assert_eq!(starts.holders(1).count(), 1);
        }
    }
}
