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

/// What is counted, by the name that it has in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    /// `prompt_tokens`: OpenAI's chat completions, completions, embeddings.
    Prompt,
    /// `completion_tokens`.
    Completion,
    /// `input_tokens`: OpenAI's responses, and Anthropic's messages.
    Input,
    /// `output_tokens`.
    Output,
    /// `cached_tokens`, OpenAI's.
    Cached,
    /// `cache_read_input_tokens`, Anthropic's: `input_tokens` is without them.
    CacheRead,
    /// `cache_creation_input_tokens`: `input_tokens` is without them, too.
    CacheCreation,
}

/// The counts, of each the last one read.
#[derive(Debug, Default)]
pub(super) struct Counts([Option<u32>; 7]);

impl Counts {
    /// Reads a number; says whether it is a whole one of at most 32 bits, in digits.
    pub(super) fn set(&mut self, count: Count, number: &[u8]) -> bool {
        let number = whole_number(number);
        if let (Some(place), Some(_)) = (self.0.get_mut(count as usize), number) {
            *place = number;
        }
        number.is_some()
    }

    /// The same of several.
    pub(super) fn set_all<'a>(&mut self, counts: impl Iterator<Item = (Count, &'a [u8])>) {
        counts.for_each(|(count, number)| {
            self.set(count, number);
        });
    }

    /// `None` where the size of the prompt was not reported.
    pub(super) fn usage(&self) -> Option<Usage> {
        let read = |count: Count| self.0.get(count as usize).copied().flatten();
        let cache_read = read(Count::CacheRead);
        let input = |input: u32| {
            let uncached = input.saturating_add(read(Count::CacheCreation).unwrap_or(0));
            uncached.saturating_add(cache_read.unwrap_or(0))
        };
        Some(Usage {
            prompt_tokens: read(Count::Prompt).or(read(Count::Input).map(input))?,
            completion_tokens: read(Count::Completion).or(read(Count::Output)).unwrap_or(0),
            cached_tokens: read(Count::Cached).or(cache_read),
        })
    }
}

/// A whole number of at most 32 bits, in digits.
pub(super) fn whole_number(word: &[u8]) -> Option<u32> {
    // `parse` would take a plus sign.
    word.first().filter(|byte| byte.is_ascii_digit())?;
    str::from_utf8(word).ok()?.parse().ok()
}
