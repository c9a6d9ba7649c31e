//! Prompts in flight: sent, and neither answered nor failed.

use super::cache::Held;
use crate::load::LoadId;

/// Time in milliseconds after which a prompt of which nothing was received is dropped: longer than answers take, so its worker
/// is gone, or what it published was lost.
const EXPIRES_AFTER_MS: u64 = 600_000;

/// A prompt, by the worker that sent it and the worker's number for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PromptKey {
    /// Distinguishes workers.
    pub worker: u64,
    /// The worker's number for the prompt.
    pub number: u64,
}

/// A prompt that was sent.
#[derive(Debug)]
pub(super) struct PromptInFlight {
    pub load_id: LoadId,
    /// What the endpoint's cache holds for it.
    pub held: Held,
    /// Blocks behind those for which there was no room.
    pub cut_blocks: usize,
    pub block_tokens: u32,
    pub sent_ms: u64,
}

impl PromptInFlight {
    /// The tokens of the blocks for which there was no room.
    pub fn cut_tokens(&self) -> u32 {
        u32::try_from(self.cut_blocks).unwrap_or(u32::MAX).saturating_mul(self.block_tokens)
    }

    pub fn is_expired(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.sent_ms) >= EXPIRES_AFTER_MS
    }
}
