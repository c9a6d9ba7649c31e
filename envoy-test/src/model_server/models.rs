//! The models that a server has now: those of its settings until a knob says otherwise.

use serde_json::Value;

use super::answers::errors::ApiError;
use super::api::Api;
use super::knobs::Knobs;
use super::settings::{Dialect, ServerSettings};

/// Names of models. A server whose models change answers as vLLM 0.32 does that was started anew with another one,
/// or that loaded and unloaded adapters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedModels {
    /// Names of the base model; requests without a model get the first.
    pub base: Vec<String>,
    pub adapters: Vec<String>,
    /// Whether any other name is taken for the first.
    pub takes_any_name: bool,
}

impl ServedModels {
    pub fn of(settings: &ServerSettings, knobs: &Knobs) -> Self {
        Self {
            base: knobs.served_models.clone().unwrap_or_else(|| settings.served_models.clone()),
            takes_any_name: settings.dialect == Dialect::LlamaCpp,
            adapters: knobs.lora_adapters.clone().unwrap_or_else(|| settings.lora_adapters.clone()),
        }
    }

    /// The name that labels metrics and answers requests without a model.
    pub fn first(&self) -> &str {
        self.base.first().map_or("", String::as_str)
    }

    /// The model that a request gets: the first where it names none, if its API lets it (vLLM 0.32: all but messages).
    pub fn find<'a>(&'a self, api: Api, body: &'a Value) -> Result<&'a str, ApiError> {
        match body.get("model") {
            Some(Value::String(model)) if self.serves(model) => Ok(model),
            _ if self.takes_any_name => Ok(self.first()),
            Some(Value::String(model)) if !model.is_empty() => {
                Err(ApiError::unknown_model(model, &self.base))
            }
            None if api == Api::Messages => Err(ApiError::missing_field("model", body)),
            Some(Value::String(_)) if api == Api::Messages => Err(ApiError::empty_model()),
            Some(model) if api == Api::Messages || !(model.is_null() || model.is_string()) => {
                Err(ApiError::model_is_no_text(model))
            }
            _ => Ok(self.first()),
        }
    }

    pub fn serves(&self, model: &str) -> bool {
        self.base.iter().any(|name| name == model) || self.is_adapter(model)
    }

    pub fn is_adapter(&self, model: &str) -> bool {
        self.adapters.iter().any(|name| name == model)
    }
}
