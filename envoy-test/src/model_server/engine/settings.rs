//! What a simulated engine can do and how long it takes. The defaults are those of vLLM where it has one.

use std::time::Duration;

use super::kv_blocks::Eviction;

/// Sizes, limits and step costs of one engine.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineSettings {
    /// Tokens one step may compute, over all sequences (`--max-num-batched-tokens`).
    pub step_tokens_max: usize,
    /// Sequences that may run at once (`--max-num-seqs`).
    pub sequences_max: usize,
    /// Requests that may wait before the next is refused (`--max-num-queued-reqs`); `None` is no limit.
    pub queued_max: Option<usize>,
    /// Tokens in one KV-cache block.
    pub block_tokens: usize,
    /// KV-cache blocks.
    pub blocks: usize,
    /// How a full KV cache makes room.
    pub eviction: Eviction,
    /// LoRA adapters that may run at once (`--max-loras`); 0 refuses every adapter.
    pub lora_slots: usize,
    /// Added to the step that first runs an adapter which is not loaded.
    pub lora_load_ms: f64,
    /// Cost of any step.
    pub step_base_ms: f64,
    /// Cost of each prefill token in a step.
    pub prefill_token_ms: f64,
    /// Cost of each sequence that decodes one token in a step.
    pub decode_sequence_ms: f64,
    /// Cost of each token that is attended to, for each token that a step computes: vLLM 0.32.0 on a processor took 0.44 ms for
    /// a token of a prompt of 500, and 0.58 ms in one of 1,500 (docs/simulated-servers.md). By default it is in the other costs: of
    /// a model of billions of parameters it is a small part of them until prompts have tens of thousands of tokens.
    pub attended_token_ms: f64,
    /// Divides every cost: 2.0 is twice as fast.
    pub speed: f64,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            step_tokens_max: 2048,
            sequences_max: 256,
            queued_max: None,
            block_tokens: 16,
            // 60,000 tokens of KV cache.
            blocks: 3750,
            eviction: Eviction::Block,
            lora_slots: 0,
            lora_load_ms: 50.0,
            step_base_ms: 6.0,
            // About 8,333 prompt tokens a second.
            prefill_token_ms: 0.12,
            // A full batch of 256 decoding sequences takes about twice as long as one sequence alone.
            decode_sequence_ms: 0.025,
            attended_token_ms: 0.0,
            speed: 1.0,
        }
    }
}

impl EngineSettings {
    /// With SGLang's radix cache of as many tokens, whose pages have one token by default.
    pub fn with_radix_cache(self) -> Self {
        Self { block_tokens: 1, blocks: self.kv_cache_tokens(), eviction: Eviction::Run, ..self }
    }

    /// Tokens the KV cache holds.
    pub fn kv_cache_tokens(&self) -> usize {
        self.blocks * self.block_tokens
    }

    /// How long a step with this work takes.
    pub fn step_duration(&self, work: &StepWork) -> Duration {
        let cost_ms = self.step_base_ms
            + self.prefill_token_ms * work.prefill_tokens as f64
            + self.decode_sequence_ms * work.decoding_sequences as f64
            + self.lora_load_ms * work.adapters_loaded as f64
            + self.attended_token_ms * work.attended_tokens as f64;
        Duration::from_secs_f64(cost_ms / self.speed / 1000.0)
    }
}

/// What one step computes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepWork {
    pub prefill_tokens: usize,
    pub decoding_sequences: usize,
    pub adapters_loaded: usize,
    /// For each computed token, those before it.
    pub attended_tokens: usize,
}

impl StepWork {
    /// Tokens of the step's budget that are used up.
    pub fn tokens(&self) -> usize {
        self.prefill_tokens + self.decoding_sequences
    }
}
