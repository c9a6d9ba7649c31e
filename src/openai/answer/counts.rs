//! The token counts of an answer, under whichever names an API gives them.

/// What an answer says it has cost, in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// The whole prompt, with what of it was cached.
    pub prompt_tokens: u32,
    /// The output; 0 where the API has none (embeddings).
    pub completion_tokens: u32,
    /// What of the prompt the server had cached, where it says so.
    pub cached_tokens: Option<u32>,
}

/// The counts as they are named; of each the last one read.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// `prompt_tokens`: OpenAI's chat completions, completions, embeddings.
    pub prompt: Option<u32>,
    /// `completion_tokens`.
    pub completion: Option<u32>,
    /// `input_tokens`: OpenAI's responses, and Anthropic's messages.
    pub input: Option<u32>,
    /// `output_tokens`.
    pub output: Option<u32>,
    /// `cached_tokens`, OpenAI's.
    pub cached: Option<u32>,
    /// `cache_read_input_tokens`, Anthropic's: `input_tokens` is without them.
    pub cache_read: Option<u32>,
    /// `cache_creation_input_tokens`: `input_tokens` is without them, too.
    pub cache_creation: Option<u32>,
}

impl Counts {
    /// `None` where the size of the prompt was not told.
    pub(super) fn usage(&self) -> Option<Usage> {
        let input = |input: u32| {
            let uncached = input.saturating_add(self.cache_creation.unwrap_or(0));
            uncached.saturating_add(self.cache_read.unwrap_or(0))
        };
        Some(Usage {
            prompt_tokens: self.prompt.or(self.input.map(input))?,
            completion_tokens: self.completion.or(self.output).unwrap_or(0),
            cached_tokens: self.cached.or(self.cache_read),
        })
    }
}
