//! The APIs that take JSON and run the model.

/// An API that takes JSON and runs the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    Chat,
    Completions,
    Embeddings,
    Responses,
    Messages,
}

impl Api {
    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Embeddings => "/v1/embeddings",
            Self::Responses => "/v1/responses",
            Self::Messages => "/v1/messages",
        }
    }

    pub fn at_path(path: &str) -> Option<Self> {
        let all = [Self::Chat, Self::Completions, Self::Embeddings, Self::Responses, Self::Messages];
        all.into_iter().find(|api| api.path() == path)
    }
}
