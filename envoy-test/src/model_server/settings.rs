//! What a simulated server is when it starts. What can change while it runs is in `knobs`.

use std::net::{Ipv4Addr, SocketAddr};

use super::engine::EngineSettings;
use super::metrics::MetricsPage;
use super::sidecar::Sidecar;

/// LoRA slots of a server that has adapters and whose settings name no number.
pub const DEFAULT_LORA_SLOTS: usize = 4;

/// One simulated server.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerSettings {
    /// A loopback address; port 0 takes a free one.
    pub address: SocketAddr,
    /// Names of the base model; requests without a model get the first.
    pub served_models: Vec<String>,
    pub lora_adapters: Vec<String>,
    pub engine: EngineSettings,
    /// Tokens in each event of a stream (`--stream-interval`): the first token is sent at once, whatever this is.
    pub stream_interval: usize,
    pub metrics_page: MetricsPage,
    /// Tokens that a prompt and its answer may have, as SGLang's page reports (`--context-length`) and vLLM's list of models
    /// (`--max-model-len`).
    pub context_tokens: usize,
    pub dialect: Dialect,
    /// Stands beside it, if it decodes what others have computed.
    pub sidecar: Option<Sidecar>,
}

/// Whose answers a server gives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dialect {
    #[default]
    Vllm,
    /// llama.cpp's llama-server: chat and completions in its form (the other APIs stay in vLLM's), its comments, and any
    /// model's name is taken for its own.
    LlamaCpp,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            served_models: vec!["tiny".to_owned()],
            lora_adapters: Vec::new(),
            engine: EngineSettings::default(),
            stream_interval: 1,
            metrics_page: MetricsPage::Vllm { engines: 1 },
            context_tokens: 8_192,
            dialect: Dialect::default(),
            sidecar: None,
        }
    }
}

impl ServerSettings {
    pub fn at(address: SocketAddr) -> Self {
        Self { address, ..Self::default() }
    }

    /// The name that requests without a model get.
    pub fn first_model(&self) -> &str {
        self.served_models.first().map_or("", String::as_str)
    }

    /// The engine's settings, with LoRA slots if there are adapters.
    pub fn engine_settings(&self) -> EngineSettings {
        let mut engine = self.engine.clone();
        if engine.lora_slots == 0 && !self.lora_adapters.is_empty() {
            engine.lora_slots = DEFAULT_LORA_SLOTS;
        }
        engine
    }
}
