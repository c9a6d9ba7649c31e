//! JSON as far as requests and answers need it read fast, or in pieces.

mod special_bytes;
mod string;
mod tokens;

pub(super) use special_bytes::short_string_bytes;
pub(super) use string::{JsonString, read_string};
pub(super) use tokens::{Bracket, JsonTokens, Token, decode_string};
