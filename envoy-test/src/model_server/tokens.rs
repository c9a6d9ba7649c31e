//! A stand-in for a tokenizer: text is cut every four bytes, and a token's id is a hash of those bytes.
//!
//! Equal starts of text give equal starts of tokens, which is all a prefix cache asks of a tokenizer. Four bytes
//! are about what a token of English text has.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Bytes of text in one token.
pub const TOKEN_BYTES: usize = 4;

/// Cuts text into tokens; the last may be shorter.
pub fn tokens_of(text: &[u8]) -> Vec<u32> {
    text.chunks(TOKEN_BYTES).map(token_of).collect()
}

/// The filler text of a request's output token, counted from 0: `000 001 002 …`.
pub fn output_text(index: usize) -> String {
    format!("{:03} ", index % 1000)
}

/// The id of a request's output token, counted from 0: that of its text.
pub fn output_token(index: usize) -> u32 {
    token_of(output_text(index).as_bytes())
}

fn token_of(bytes: &[u8]) -> u32 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish() as u32
}
