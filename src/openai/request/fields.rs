//! The fields of a request that matter, as both readers find them.

use std::ops::Range;

use super::prompt::PromptSize;
use super::prompt_text::{PromptPart, PromptParts};

/// Times `model` may be in one body; more than one is already strange.
pub(super) const MAX_MODEL_FIELDS: usize = 16;

/// What is read of the fields that matter: the raw text of the last `model` and `user`, the rest as requests have it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fields<'a> {
    pub model: Option<&'a str>,
    pub model_spans: Vec<Range<usize>>,
    pub stream: bool,
    pub prompt: PromptSize,
    pub user: Option<&'a str>,
    /// Where the last `stream_options` stands.
    pub stream_options: Option<Range<usize>>,
    pub cache_salt: Option<&'a [u8]>,
    pub prompt_parts: PromptParts<'a>,
}

impl<'a> Fields<'a> {
    /// Takes a field for the part of the prompt that it is.
    pub(super) fn set_prompt_part(&mut self, key: Key, part: PromptPart<'a>) {
        match key {
            Key::Tools => self.prompt_parts.tools = part,
            Key::System => self.prompt_parts.system = part,
            _ => self.prompt_parts.turns = part,
        }
    }
}

/// The fields of the top-level object that matter.
#[derive(Clone, Copy, serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
pub(super) enum Key {
    Model,
    Stream,
    StreamOptions,
    User,
    CacheSalt,
    Tools,
    #[serde(alias = "instructions")]
    System,
    #[serde(alias = "prompt", alias = "input")]
    Messages,
    #[serde(other)]
    Other,
}
