//! Who holds which first block of a prompt: of a thousand endpoints, a pick then looks at the few that hold something of its
//! prompt.

use hashbrown::HashTable;

use super::blocks::BlockHash;
use crate::hash::mix;
use crate::load::LoadId;

/// Endpoints by first block.
#[derive(Debug)]
pub(super) struct Starts {
    table: HashTable<Start>,
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Start {
    hash: BlockHash,
    id: LoadId,
}

impl Starts {
    /// None. `seed` keeps clients from choosing blocks that crowd the hash table.
    pub fn new(seed: u64) -> Starts {
        Starts { table: HashTable::new(), seed }
    }

    /// Memory taken, in bytes.
    pub fn allocated_bytes(&self) -> usize {
        self.table.allocation_size()
    }

    /// The endpoints that hold a prompt's first block.
    pub fn holders(&self, hash: BlockHash) -> impl Iterator<Item = LoadId> {
        let same = self.table.iter_hash(scatter(hash, self.seed)).filter(move |start| start.hash == hash);
        same.map(|start| start.id)
    }

    /// An endpoint holds this first block, which it has not held before.
    pub fn add(&mut self, hash: BlockHash, id: LoadId) {
        let seed = self.seed;
        self.table.insert_unique(scatter(hash, seed), Start { hash, id }, |start| scatter(start.hash, seed));
    }

    /// An endpoint holds this first block no more.
    pub fn remove(&mut self, hash: BlockHash, id: LoadId) {
        let gone = Start { hash, id };
        if let Ok(entry) = self.table.find_entry(scatter(hash, self.seed), |start| *start == gone) {
            entry.remove();
        }
    }
}

/// Where in the table a block goes: its hash is known to clients, the seed is not.
fn scatter(hash: BlockHash, seed: u64) -> u64 {
    mix(u64::from(u32::from_le_bytes(hash)) ^ seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::LoadTracker;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn all_endpoints_that_hold_a_block_are_found_and_no_others() {
        let mut book = LoadTracker::default();
        let ids: Vec<LoadId> = (0..100).map(|last| book.id(([10, 0, 0, last], 8000).into())).collect();
        let mut starts = Starts::new(42);
        (1..=7).for_each(|hash: u32| ids.iter().for_each(|id| starts.add(hash.to_le_bytes(), *id)));
        ids.iter().skip(50).for_each(|id| starts.remove(3_u32.to_le_bytes(), *id));
        for (hash, expected) in [(1_u32, &ids[..]), (3, &ids[..50]), (7, &ids), (8, &[])] {
            let mut found: Vec<LoadId> = starts.holders(hash.to_le_bytes()).collect();
            found.sort_unstable();
            assert_eq!(found, expected, "{hash}");
        }
    }
}
