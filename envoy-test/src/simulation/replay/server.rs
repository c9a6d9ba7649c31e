//! The real servers of which there are traces: with which settings each was started, and what of these an engine has.

use anyhow::{Context, Result};
use clap::ValueEnum;

use super::trace::{self, ServedRequest};
use crate::model_server::engine::{EngineSettings, Eviction};

const VLLM: &str = include_str!("../../../traces/served_vllm.csv");
const LLAMA_CPP: &str = include_str!("../../../traces/served_llama_cpp.csv");

/// Which real server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RecordedServer {
    Vllm,
    #[value(name = "llama.cpp")]
    LlamaCpp,
}

impl RecordedServer {
    pub const ALL: [RecordedServer; 2] = [RecordedServer::Vllm, RecordedServer::LlamaCpp];

    /// With the release that was recorded.
    pub fn name(self) -> &'static str {
        match self {
            RecordedServer::Vllm => "vLLM 0.32.0",
            RecordedServer::LlamaCpp => "llama.cpp (of llama-cpp-python 0.3.36)",
        }
    }

    /// The trace's file in `envoy-test/traces`.
    pub fn file(self) -> &'static str {
        match self {
            RecordedServer::Vllm => "served_vllm.csv",
            RecordedServer::LlamaCpp => "served_llama_cpp.csv",
        }
    }

    /// The settings with which the server is started and the simulated one replays its trace. What a step costs is not among
    /// them: that is fitted.
    pub fn settings(self) -> EngineSettings {
        match self {
            RecordedServer::Vllm => EngineSettings {
                step_tokens_max: 1_024,
                sequences_max: 32,
                block_tokens: 32,
                blocks: 600,
                ..EngineSettings::default()
            },
            // A slot keeps what it had last, token by token.
            RecordedServer::LlamaCpp => EngineSettings {
                step_tokens_max: 1_024,
                sequences_max: 8,
                block_tokens: 1,
                blocks: 8 * 2_048,
                eviction: Eviction::Run,
                ..EngineSettings::default()
            },
        }
    }

    /// What it was sent and when it answered.
    ///
    /// # Errors
    /// A trace that is not one.
    pub fn trace(self) -> Result<Vec<ServedRequest>> {
        let text = match self {
            RecordedServer::Vllm => VLLM,
            RecordedServer::LlamaCpp => LLAMA_CPP,
        };
        trace::read(text).context(self.file())
    }
}
