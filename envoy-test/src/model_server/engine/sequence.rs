//! One request inside the engine: its tokens so far, how many of them are computed, and the blocks it holds.
//!
//! Prefill and decoding are the same thing: the next step computes what is missing, and when nothing is missing
//! the sequence gets one more token. A preempted sequence therefore just starts over, with all its tokens.

use std::time::Duration;

use super::block_hashes::BlockHashes;
use super::kv_blocks::BlockId;
use crate::model_server::tokens::output_token;

/// Names a request inside one engine.
pub type RequestId = u64;

/// A request for a number of output tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineRequest {
    /// An empty prompt counts as one token.
    pub prompt: Vec<u32>,
    /// The request ends after exactly this many tokens, at least one.
    pub output_tokens: usize,
    pub adapter: Option<String>,
    pub cache_salt: Option<String>,
}

/// What the engine keeps for a request.
#[derive(Debug, Clone)]
pub struct Sequence {
    pub id: RequestId,
    pub adapter: Option<String>,
    pub prompt_tokens: usize,
    pub arrived: Duration,
    /// When it first ran.
    pub scheduled: Option<Duration>,
    pub first_output: Option<Duration>,
    pub last_output: Option<Duration>,
    /// Prompt tokens that were cached when it first ran.
    pub cached_tokens: usize,
    pub computed_tokens: usize,
    /// Its prompt was computed elsewhere, and has not run here yet.
    pub was_computed: bool,
    /// Tokens the step in progress computes for it.
    pub scheduled_tokens: usize,
    /// Waits for a LoRA slot rather than for capacity.
    pub deferred: bool,
    pub blocks: Vec<BlockId>,
    /// The first ones of these, which others may find in SGLang's cache.
    pub remembered_blocks: usize,
    pub hashes: BlockHashes,
    tokens: Vec<u32>,
    output_tokens_max: usize,
}

impl Sequence {
    pub fn new(id: RequestId, request: EngineRequest, block_tokens: usize, arrived: Duration) -> Self {
        let mut tokens = request.prompt;
        if tokens.is_empty() {
            tokens.push(0);
        }
        let mut hashes =
            BlockHashes::new(block_tokens, request.adapter.as_deref(), request.cache_salt.as_deref());
        hashes.extend(&tokens);
        Self {
            id,
            adapter: request.adapter,
            prompt_tokens: tokens.len(),
            arrived,
            scheduled: None,
            first_output: None,
            last_output: None,
            cached_tokens: 0,
            computed_tokens: 0,
            was_computed: false,
            scheduled_tokens: 0,
            deferred: false,
            blocks: Vec::new(),
            remembered_blocks: 0,
            hashes,
            tokens,
            output_tokens_max: request.output_tokens.max(1),
        }
    }

    pub fn tokens(&self) -> usize {
        self.tokens.len()
    }

    pub fn missing_tokens(&self) -> usize {
        self.tokens.len() - self.computed_tokens
    }

    pub fn output_tokens(&self) -> usize {
        self.tokens.len() - self.prompt_tokens
    }

    /// Needs one token for the next one, and is not catching up after a preemption.
    pub fn decodes(&self) -> bool {
        self.output_tokens() > 0 && self.missing_tokens() == 1
    }

    /// Full blocks that a cache may supply: at least one token must be computed to get the next.
    pub fn reusable_hashes(&self, block_tokens: usize) -> &[u64] {
        let reusable = (self.tokens.len() - 1) / block_tokens;
        &self.hashes.as_slice()[..reusable]
    }

    /// Ends a step. True if it gave the sequence its next token.
    pub fn finish_step(&mut self) -> bool {
        self.computed_tokens += std::mem::take(&mut self.scheduled_tokens);
        let complete = self.missing_tokens() == 0;
        if complete {
            self.tokens.push(output_token(self.output_tokens()));
            self.hashes.extend(&self.tokens);
        }
        complete
    }

    pub fn is_finished(&self) -> bool {
        self.output_tokens() == self.output_tokens_max
    }

    /// Forgets everything that was computed.
    pub fn start_over(&mut self) {
        self.computed_tokens = 0;
        self.scheduled_tokens = 0;
        self.blocks.clear();
        self.remembered_blocks = 0;
    }
}
