//! The fields of the access log: filter state `wasm.NAME`, which log formats and spans read. Each that is published costs a
//! call of the host, so a configuration may name those that its log format reads.

/// A field of the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogField {
    /// The model asked for.
    Model,
    /// The model sent.
    TargetModel,
    /// Where it was sent, best first.
    Destinations,
    /// Why there.
    Decision,
    /// Prompt tokens, by the answer.
    PromptTokens,
    /// Completion tokens, by the answer.
    CompletionTokens,
    /// Prompt tokens that the server had cached, by the answer.
    CachedTokens,
    /// Milliseconds from the request's headers to the first output of a stream.
    TimeToFirstToken,
    /// The same as it was expected when its endpoint was picked, if the request is promised something.
    ExpectedTimeToFirstToken,
    /// The model asked for, by the name that Alibaba Cloud Service Mesh has for it.
    MeshModel,
    /// Prompt tokens, likewise.
    MeshPromptTokens,
    /// Completion tokens, likewise.
    MeshCompletionTokens,
}

impl LogField {
    /// All of them.
    pub const ALL: [LogField; 12] = [
        LogField::Model,
        LogField::TargetModel,
        LogField::Destinations,
        LogField::Decision,
        LogField::PromptTokens,
        LogField::CompletionTokens,
        LogField::CachedTokens,
        LogField::TimeToFirstToken,
        LogField::ExpectedTimeToFirstToken,
        LogField::MeshModel,
        LogField::MeshPromptTokens,
        LogField::MeshCompletionTokens,
    ];

    /// As in `wasm.NAME`.
    pub fn name(self) -> &'static str {
        match self {
            LogField::Model => "llm_model",
            LogField::TargetModel => "llm_target_model",
            LogField::Destinations => "llm_dest",
            LogField::Decision => "llm_decision",
            LogField::PromptTokens => "llm_prompt_tokens",
            LogField::CompletionTokens => "llm_completion_tokens",
            LogField::CachedTokens => "llm_cached_tokens",
            LogField::TimeToFirstToken => "llm_ttft_ms",
            LogField::ExpectedTimeToFirstToken => "llm_expected_ttft_ms",
            LogField::MeshModel => "asm.llmproxy.request_model",
            LogField::MeshPromptTokens => "asm.llmproxy.request_prompt_tokens",
            LogField::MeshCompletionTokens => "asm.llmproxy.request_completion_tokens",
        }
    }

    /// The field of this name.
    pub fn of_name(name: &str) -> Option<LogField> {
        LogField::ALL.into_iter().find(|field| field.name() == name)
    }
}

/// Some of the fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogFields(u16);

impl LogFields {
    /// None of them.
    pub const NONE: LogFields = LogFields(0);

    /// All of them.
    pub fn all() -> LogFields {
        LogField::ALL.into_iter().fold(LogFields::NONE, LogFields::with)
    }

    /// These and one more.
    #[must_use]
    pub fn with(self, field: LogField) -> LogFields {
        LogFields(self.0 | 1 << field as u16)
    }

    /// Whether it is one of them.
    pub fn has(self, field: LogField) -> bool {
        self.0 & 1 << field as u16 != 0
    }
}
