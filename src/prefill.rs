//! Disaggregated prefill: whether a prompt is computed elsewhere than its answer is generated, and by whom.
//!
//! ```text
//! worth it  = the answer is generated, and uncached tokens at the endpoint picked for it ≥ minUncachedTokens
//! by        = the endpoint of the prefill pool that the pool's own strategy ranks first
//! load      : there    uncached prompt tokens, from the pick to the answer's first output
//!             here     a request that runs, and no prompt
//! ```
//!
//! A header names to the endpoint picked for the answer who computes the prompt, has it computed there, fetches what was
//! computed, and generates: what llm-d's sidecar does beside a server. Where that fails the sidecar lets its own server
//! compute the prompt, so that a failure of the answer is its endpoint's alone.

use crate::config::{Prefill, WhenGone};
use crate::load::{LoadId, RequestLoad};
use crate::openai::ApiError;
use crate::strategy::Ranked;

/// Who computes a prompt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PromptBy {
    /// The endpoint that generates the answer.
    #[default]
    Itself,
    /// Another one.
    Other(Box<PrefillPick>),
    /// The endpoint that generates the answer, because in the pool at this place nobody is there who could.
    Gone {
        /// The pool's place.
        pool: usize,
    },
}

/// An endpoint picked to compute a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefillPick {
    /// The place of its pool.
    pub pool: usize,
    /// Its place among the loads.
    pub load_id: LoadId,
    /// Its `ip:port`.
    pub address: String,
    /// What to count as in flight there.
    pub share: RequestLoad,
}

impl PrefillPick {
    /// The endpoint that is best for the prompt of a request that has this share where its answer is generated.
    pub fn new(pool: usize, best: &Ranked<'_>, share: RequestLoad) -> PrefillPick {
        PrefillPick {
            pool,
            load_id: best.endpoint.load_id,
            address: best.endpoint.address().to_string(),
            share: RequestLoad { tokens: best.uncached_tokens, ..share },
        }
    }
}

impl Prefill {
    /// Whether a prompt of which so many tokens are not cached at the endpoint picked is worth being computed elsewhere.
    pub fn is_worth(&self, uncached_tokens: u32) -> bool {
        uncached_tokens >= self.min_uncached_tokens
    }

    /// What is done when no endpoint of its pool, which has this name, may be picked.
    ///
    /// # Errors
    /// 503, where that is configured.
    pub fn gone(&self, pool: &str) -> Result<PromptBy, ApiError> {
        match self.when_gone {
            WhenGone::Together => Ok(PromptBy::Gone { pool: self.pool }),
            WhenGone::Refuse => Err(ApiError::no_prefill_endpoint(pool)),
        }
    }
}

/// What a request counts for where its answer is generated, when its prompt is computed elsewhere: it is as good as running.
pub fn share_without_prompt(share: RequestLoad) -> RequestLoad {
    RequestLoad { tokens: 1, streamed: false, ..share }
}
