//! The blocks of a prompt, by chained hash.
//!
//! ```text
//! hash₀ = XXH64(seed: hash of the model and the cache salt, block₀)      hashᵢ = XXH64(seed: hashᵢ₋₁, blockᵢ)
//! ```
//!
//! Of each hash the lower half is kept: of four billion blocks that differ one looks like another, and then a prompt is taken
//! to be cached for a block more than it is.
//!
//! What is behind the last whole block is not hashed. The same bytes in other pieces give the same blocks.

use twox_hash::XxHash64;

/// Bytes of a prompt's text in one block: about 64 tokens, which is four blocks of a server's cache. Smaller ones would
/// see little more of what is shared, and cost more to keep.
pub const BLOCK_BYTES: usize = 256;

/// Blocks of a prompt that are distinguished: a mebibyte of text, more than models read. What follows is as if it were new.
pub const MAX_PROMPT_BLOCKS: usize = 4_096;

/// Half of a block's chained hash, the least significant byte first: as workers publish it.
pub type BlockHash = [u8; 4];

/// The blocks of one prompt.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PromptBlocks {
    /// Those that are whole, first block first.
    pub hashes: Vec<BlockHash>,
    /// All bytes of the prompt's text, those behind the last block too.
    pub bytes: usize,
}

impl PromptBlocks {
    /// Whether there is more of the prompt than blocks are distinguished.
    pub fn is_cut(&self) -> bool {
        self.bytes >= (MAX_PROMPT_BLOCKS + 1) * BLOCK_BYTES
    }
}

/// Cuts a prompt into blocks as its text comes.
#[derive(Debug)]
pub struct BlockHasher {
    blocks: PromptBlocks,
    last: u64,
    /// The beginning of the next block.
    partial: [u8; BLOCK_BYTES],
    partial_bytes: usize,
}

impl BlockHasher {
    /// A prompt for this model, by its name at the server, and this cache salt: neither shares blocks with another.
    pub fn new(model: &str, cache_salt: &[u8]) -> BlockHasher {
        let salt = XxHash64::oneshot(0, cache_salt);
        let last = XxHash64::oneshot(salt, model.as_bytes());
        BlockHasher { blocks: PromptBlocks::default(), last, partial: [0; BLOCK_BYTES], partial_bytes: 0 }
    }

    /// Adds text.
    pub fn push(&mut self, text: &[u8]) {
        self.blocks.bytes += text.len();
        let mut rest = text;
        if self.partial_bytes > 0 {
            rest = self.fill(text);
            if self.partial_bytes < BLOCK_BYTES {
                return;
            }
            let block = self.partial;
            self.end_block(&block);
            self.partial_bytes = 0;
        }
        let (blocks, tail) = rest.as_chunks::<BLOCK_BYTES>();
        blocks.iter().for_each(|block| self.end_block(block));
        self.fill(tail);
    }

    /// The blocks of what was pushed.
    pub fn finish(self) -> PromptBlocks {
        self.blocks
    }

    /// Takes as much of the text as the next block has room for, and returns what is left.
    fn fill<'a>(&mut self, text: &'a [u8]) -> &'a [u8] {
        let room = self.partial.get_mut(self.partial_bytes..).unwrap_or_default();
        let (taken, rest) = text.split_at(room.len().min(text.len()));
        room.iter_mut().zip(taken).for_each(|(place, byte)| *place = *byte);
        self.partial_bytes += taken.len();
        rest
    }

    fn end_block(&mut self, block: &[u8; BLOCK_BYTES]) {
        if self.blocks.hashes.len() < MAX_PROMPT_BLOCKS {
            self.last = XxHash64::oneshot(self.last, block);
            self.blocks.hashes.push((self.last as u32).to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn blocks(model: &str, salt: &str, text: &[u8]) -> PromptBlocks {
        let mut hasher = BlockHasher::new(model, salt.as_bytes());
        hasher.push(text);
        hasher.finish()
    }

    fn shared(one: &PromptBlocks, other: &PromptBlocks) -> usize {
        one.hashes.iter().zip(&other.hashes).take_while(|(one, other)| one == other).count()
    }

    #[test]
    fn prompts_share_the_blocks_of_their_common_start_and_no_later_ones() {
        let text: Vec<u8> = (0..BLOCK_BYTES * 4 + 9).map(|place| place as u8).collect();
        let whole = blocks("m", "", &text);
        assert_eq!((whole.hashes.len(), whole.bytes), (4, text.len()));
        for differs_at in [0, 255, 256, 700, 1_023, 1_024] {
            let mut other = text.clone();
            other[differs_at] ^= 1;
            assert_eq!(shared(&whole, &blocks("m", "", &other)), differs_at / BLOCK_BYTES, "{differs_at}");
        }
    }

    #[test]
    fn another_model_or_salt_shares_nothing() {
        let text = [7; BLOCK_BYTES * 2];
        let one = blocks("m", "salt", &text);
        assert_eq!(shared(&one, &blocks("m", "salt", &text)), 2);
        assert_eq!(shared(&one, &blocks("n", "salt", &text)), 0);
        assert_eq!(shared(&one, &blocks("m", "", &text)), 0);
        assert_eq!(shared(&one, &blocks("msalt", "", &text)), 0);
    }

    #[test]
    fn blocks_do_not_depend_on_the_pieces_the_text_comes_in() {
        let text: Vec<u8> = (0..2_000).map(|place: usize| (place * 7) as u8).collect();
        let whole = blocks("m", "", &text);
        for piece in [1, 3, 255, 256, 257, 300, 512, 1_999] {
            let mut hasher = BlockHasher::new("m", b"");
            text.chunks(piece).for_each(|piece| hasher.push(piece));
            assert_eq!(hasher.finish(), whole, "pieces of {piece}");
        }
    }

    #[test]
    fn no_prompt_has_more_blocks_than_the_limit() {
        let text = vec![1; BLOCK_BYTES * (MAX_PROMPT_BLOCKS + 3)];
        let whole = blocks("m", "", &text);
        assert_eq!((whole.hashes.len(), whole.bytes), (MAX_PROMPT_BLOCKS, text.len()));
    }
}
