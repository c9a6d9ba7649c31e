//! How popular the beginnings of prompts are: where a prompt's own part begins, which all gateways see alike, however little of
//! the traffic passes through each.
//!
//! ```text
//! popular = a block that is in more than 1 of PARTS_AN_ENDPOINT × endpoints prompts of late (of MAX_PARTS at most)
//! own     = the first block of a prompt that is not popular
//! ```
//!
//! Blocks are counted by their hash in a table of fixed size; two that share a place look more popular than they are. Of a
//! prompt so many blocks are counted as lead a little beyond the popular ones, so that a long common beginning is known after
//! a few prompts and a prompt's own part takes little room. All counts are halved now and then, so that the past is forgotten.

use super::BlockHash;

/// Blocks that are counted: two bytes each.
const MAX_COUNTED_BLOCKS: usize = 4_096;

/// Beginnings that are as popular as this share of an endpoint's part of the traffic are spread. With 2 to 8 it is as good.
const PARTS_AN_ENDPOINT: u32 = 4;

/// A beginning with less of the traffic than one of so many parts is not spread, however large the pool is.
const MAX_PARTS: u32 = 128;

/// Prompts as if seen before, none of which shares anything: the first ones are no crowd.
const PRIOR_PROMPTS: u32 = 16;

/// Prompts after which all counts are halved.
const MEMORY_PROMPTS: u32 = 2_048;

/// Blocks that are counted beyond the popular ones, and beyond as many again.
const AHEAD_BLOCKS: usize = 8;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Popularity {
    counts: Vec<u16>,
    prompts: u32,
}

impl Popularity {
    /// Nothing was seen yet.
    pub fn new() -> Popularity {
        Popularity { counts: vec![0; MAX_COUNTED_BLOCKS], prompts: 0 }
    }

    /// A prompt was sent to one of so many endpoints.
    pub fn sent(&mut self, hashes: &[BlockHash], endpoints: usize) {
        let popular = hashes.iter().take_while(|hash| self.is_popular(**hash, endpoints)).count();
        for hash in hashes.iter().take(2 * popular + AHEAD_BLOCKS) {
            if let Some(count) = self.counts.get_mut(slot(*hash)) {
                *count = count.saturating_add(1);
            }
        }
        self.prompts += 1;
        if self.prompts >= MEMORY_PROMPTS {
            self.prompts /= 2;
            self.counts.iter_mut().for_each(|count| *count /= 2);
        }
    }

    /// The first block of a prompt that is not popular, if there is one.
    pub fn own_block(&self, hashes: &[BlockHash], endpoints: usize) -> Option<BlockHash> {
        hashes.iter().copied().find(|hash| !self.is_popular(*hash, endpoints))
    }

    fn is_popular(&self, hash: BlockHash, endpoints: usize) -> bool {
        let endpoints = u32::try_from(endpoints).unwrap_or(MAX_PARTS);
        let parts = endpoints.saturating_mul(PARTS_AN_ENDPOINT).clamp(1, MAX_PARTS);
        let count = self.counts.get(slot(hash)).copied().unwrap_or(0);
        u32::from(count) > (self.prompts + PRIOR_PROMPTS).checked_div(parts).unwrap_or(0)
    }
}

fn slot(hash: BlockHash) -> usize {
    u32::from_le_bytes(hash) as usize % MAX_COUNTED_BLOCKS
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const ENDPOINTS: usize = 4;

    fn blocks(first: u32, count: u32) -> Vec<BlockHash> {
        (first..first + count).map(u32::to_le_bytes).collect()
    }

    /// What a gateway knows that has sent so many prompts with a common beginning of 30 blocks, each with 5 of its own.
    fn after(prompts: u32) -> Popularity {
        let mut popularity = Popularity::new();
        for prompt in 0..prompts {
            popularity.sent(&[blocks(0, 30), blocks(1_000 + prompt * 5, 5)].concat(), ENDPOINTS);
        }
        popularity
    }

    #[test]
    fn a_prompts_own_part_begins_behind_what_all_prompts_share() {
        let prompt = [blocks(0, 30), blocks(900, 5)].concat();
        assert_eq!(after(0).own_block(&prompt, ENDPOINTS), prompt.first().copied());
        for prompts in [20, 100, 1_000, 10_000] {
            let own = after(prompts).own_block(&prompt, ENDPOINTS);
            assert_eq!(own, prompt.get(30).copied(), "{prompts} prompts");
        }
    }

    #[test]
    fn what_few_prompts_share_is_their_own_and_what_is_no_longer_sent_is_forgotten() {
        let mut popularity = Popularity::new();
        for prompt in 0..1_000 {
            popularity.sent(&blocks(prompt % 100 * 10, 10), ENDPOINTS);
        }
        assert_eq!(popularity.own_block(&blocks(500, 10), ENDPOINTS), Some(500_u32.to_le_bytes()));
        let mut popularity = after(1_000);
        (0..8 * MEMORY_PROMPTS)
            .for_each(|prompt| popularity.sent(&blocks(2_000 + prompt % 1_000, 1), ENDPOINTS));
        assert_eq!(popularity.own_block(&blocks(0, 30), ENDPOINTS), Some(0_u32.to_le_bytes()));
    }
}
