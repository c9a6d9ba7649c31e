//! Token counts of an answer, in the three forms that the APIs print.

use crate::model_server::api::Api;
use crate::model_server::counters::ReportedTokens;
use crate::model_server::engine::Output;

/// Token counts of one request, so far or in the end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt_tokens: usize,
    pub cached_tokens: usize,
    pub completion_tokens: usize,
    /// Prompt tokens in full blocks that were not cached before.
    pub created_cache_tokens: usize,
}

impl Usage {
    pub fn of(output: &Output, block_tokens: usize) -> Self {
        let full_blocks = output.prompt_tokens / block_tokens * block_tokens;
        Self {
            prompt_tokens: output.prompt_tokens,
            cached_tokens: output.cached_tokens,
            completion_tokens: output.output_tokens,
            created_cache_tokens: full_blocks.saturating_sub(output.cached_tokens),
        }
    }

    /// The counts of several prompts of one request together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            prompt_tokens: self.prompt_tokens + other.prompt_tokens,
            cached_tokens: self.cached_tokens + other.cached_tokens,
            completion_tokens: self.completion_tokens + other.completion_tokens,
            created_cache_tokens: self.created_cache_tokens + other.created_cache_tokens,
        }
    }

    /// What of the counts an API prints.
    pub fn reported(&self, api: Api) -> ReportedTokens {
        let reports_cached = api != Api::Embeddings;
        ReportedTokens {
            prompt: self.prompt_tokens as u64,
            completion: if api == Api::Embeddings { 0 } else { self.completion_tokens as u64 },
            cached: if reports_cached { self.cached_tokens as u64 } else { 0 },
        }
    }

    /// `prompt_tokens`, `total_tokens` and `completion_tokens`, with `details` after them.
    pub fn json(&self, details: &str) -> String {
        format!(
            r#"{{"prompt_tokens":{},"total_tokens":{},"completion_tokens":{}{details}}}"#,
            self.prompt_tokens,
            self.prompt_tokens + self.completion_tokens,
            self.completion_tokens,
        )
    }
}
