//! Which start of a prompt is cached where.
//!
//! A prompt is cut into blocks of fixed size, each known by a hash over itself and all before it ([`PromptBlocks`]), so
//! that two prompts share as many hashes as they share of their start. For each endpoint is kept which blocks its KV
//! cache holds, as far as can be known from what was sent there ([`PrefixIndex`]); workers publish to each other where they send
//! what ([`PromptEvent`]).
//!
//! It deliberately knows neither tokens nor templates: blocks are bytes of the prompt's text, and a share of the bytes
//! stands for the same share of the tokens.

mod blocks;
mod cache;
mod events;
mod in_flight;
mod index;
mod last_use;
mod popularity;
mod starts;
mod trees;

pub use blocks::{BLOCK_BYTES, BlockHash, BlockHasher, MAX_PROMPT_BLOCKS, PromptBlocks};
pub use events::{MAX_UNPUBLISHED_BLOCKS, PromptEvent, Unpublished};
pub use in_flight::PromptKey;
pub use index::{Match, PrefixIndex};
