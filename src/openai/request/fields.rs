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
    /// Whether the server may cut the prompt to what fits.
    pub may_be_cut: bool,
    pub own_prompt: OwnPrompt<'a>,
    pub names: Names<'a>,
}

/// What a request says of the conversation that it belongs to: the raw text of the last value of each field.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Names<'a> {
    /// The response that it follows, where its server has stored that.
    pub previous_response_id: Option<&'a str>,
    /// The conversation, likewise.
    pub conversation: Option<&'a str>,
    /// What is alike in requests that have a prefix in common.
    pub prompt_cache_key: Option<&'a str>,
    /// What its client says besides.
    pub metadata: Option<&'a str>,
}

/// What counts as prompt in servers' own APIs only: elsewhere these names mean something else, as `text` in responses.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct OwnPrompt<'a> {
    size: PromptSize,
    files: PromptPart<'a>,
    text: PromptPart<'a>,
}

impl<'a> Fields<'a> {
    /// The request is one of a server's own API. Where infill has a `prompt`, too, that comes behind.
    pub(super) fn take_own_prompt(&mut self) {
        let OwnPrompt { size, files, text } = std::mem::take(&mut self.own_prompt);
        self.prompt.merge(size);
        self.prompt_parts.files = files;
        self.prompt_parts.text = text;
    }

    /// Tokens that the prompt has at least: as many as it has ids, if it is a list of these; else by its text. 0 if there may
    /// be several prompts (a list of texts or of lists), or it need not be computed as a whole.
    pub(super) fn least_tokens(&self) -> u32 {
        let PromptParts { tools, system, files, text, .. } = &self.prompt_parts;
        let is_alone = [tools, system].iter().all(|part| part.json.is_empty());
        let is_own = [files, text].iter().any(|part| !part.json.is_empty());
        let within_list = self.prompt_parts.turns.json.strip_prefix(b"[").map(<[u8]>::trim_ascii_start);
        match within_list.map(|list| list.first()) {
            _ if self.may_be_cut || is_own => 0,
            None | Some(Some(b'{')) => self.prompt.least_tokens(),
            Some(Some(b'0'..=b'9')) if is_alone => self.prompt.numbers(),
            Some(_) => 0,
        }
    }

    /// Takes a field for the part of the prompt that it is.
    pub(super) fn add_prompt(&mut self, key: Key, size: PromptSize, part: PromptPart<'a>) {
        match key {
            Key::Text | Key::InputExtra | Key::InputSuffix => self.own_prompt.size.merge(size),
            _ => self.prompt.merge(size),
        }
        match key {
            Key::Tools => self.prompt_parts.tools = part,
            Key::System => self.prompt_parts.system = part,
            Key::Text => self.own_prompt.text = part,
            Key::InputExtra => self.own_prompt.files = part,
            // It changes with what stands ahead of it: what follows is not the same the next time.
            Key::InputSuffix => {}
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
    /// SGLang's prompt; TGI's; token ids of SGLang and of vLLM; and what stands ahead of the place that llama.cpp fills in.
    #[serde(alias = "inputs", alias = "input_ids", alias = "token_ids", alias = "input_prefix")]
    Text,
    /// Other files, which llama.cpp's infill puts first.
    InputExtra,
    /// What stands behind that place.
    InputSuffix,
    PreviousResponseId,
    Conversation,
    #[serde(rename = "prompt_cache_key")]
    CachedWith,
    Metadata,
    /// How much of a prompt is computed that is too long.
    #[serde(alias = "truncation", alias = "truncate")]
    TruncatePromptTokens,
    #[serde(other)]
    Other,
}
