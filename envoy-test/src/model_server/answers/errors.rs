//! Errors, as vLLM words them.

use hyper::StatusCode;
use serde_json::Value;

use crate::model_server::api::Api;
use crate::model_server::engine::Refusal;

/// An answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    pub status: StatusCode,
    /// `error.type`.
    kind: &'static str,
    message: String,
    /// `error.param`.
    parameter: Option<String>,
}

impl ApiError {
    pub fn bad_json(error: &serde_json::Error) -> Self {
        let place = format!("body.{}", error.column());
        let message = format!(
            "1 validation error:\n  {{'type': 'json_invalid', 'loc': '{place}', 'msg': 'JSON decode error', 'input': '<dict of 0 items>', 'ctx': {{'error': 'Expecting value'}}}}"
        );
        Self { parameter: Some(place), ..Self::bad_request(message) }
    }

    pub fn missing_field(name: &str, body: &Value) -> Self {
        let fields = body.as_object().map_or(0, serde_json::Map::len);
        Self::invalid(
            name,
            &format!(
                "'missing', 'loc': 'body.{name}', 'msg': 'Field required', 'input': '<dict of {fields} items>'"
            ),
        )
    }

    pub fn empty_model() -> Self {
        Self::invalid(
            "model",
            "'value_error', 'loc': 'body.model', 'msg': 'Value error, Model is required', 'input': '', 'ctx': {'error': ValueError('Model is required')}",
        )
    }

    /// The model is no text; what it is, Python writes so.
    pub fn model_is_no_text(model: &Value) -> Self {
        let given = if model.is_null() { "None".to_owned() } else { model.to_string() };
        Self::invalid(
            "model",
            &format!(
                "'string_type', 'loc': 'body.model', 'msg': 'Input should be a valid string', 'input': '{given}'"
            ),
        )
    }

    fn invalid(field: &str, what: &str) -> Self {
        let message = format!("1 validation error:\n  {{'type': {what}}}");
        Self { parameter: Some(format!("body.{field}")), ..Self::bad_request(message) }
    }

    /// vLLM has no engine of this rank.
    pub fn no_such_rank(rank: &str, engines: usize) -> Self {
        let message = format!("data_parallel_rank {rank} is out of range [0, {engines}).");
        Self { kind: "BadRequestError", ..Self::bad_request(message) }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            kind: "Bad Request",
            message: message.into(),
            parameter: None,
        }
    }

    pub fn body_too_large() -> Self {
        let message = "The request body is too large.".to_owned();
        Self {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            kind: "Request Entity Too Large",
            message,
            parameter: None,
        }
    }

    /// `known` are the names of the base model.
    pub fn unknown_model(model: &str, known: &[String]) -> Self {
        let aliases = known.join(", ");
        Self {
            status: StatusCode::NOT_FOUND,
            kind: "NotFoundError",
            message: format!("The model `{model}` does not exist. Valid aliases: {aliases}."),
            parameter: Some("model".to_owned()),
        }
    }

    pub fn no_such_response(id: &str) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            kind: "invalid_request_error",
            message: format!("Response with id '{id}' not found."),
            parameter: Some("response_id".to_owned()),
        }
    }

    pub fn adapter_loaded_already(name: &str) -> Self {
        let message = format!(
            "The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, set 'load_inplace' to True."
        );
        Self { kind: "InvalidUserInput", ..Self::bad_request(message) }
    }

    pub fn no_such_adapter(name: &str) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            kind: "NotFoundError",
            message: format!("The lora adapter '{name}' cannot be found."),
            parameter: None,
        }
    }

    /// `limit` is how many tokens fit.
    pub fn refused(refusal: Refusal, limit: usize) -> Self {
        match refusal {
            Refusal::QueueFull => Self {
                status: StatusCode::SERVICE_UNAVAILABLE,
                kind: "Service Unavailable",
                message: "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance.".to_owned(),
                parameter: None,
            },
            Refusal::TooLong => Self::bad_request(format!("This model's maximum context length is {limit} tokens.")),
            Refusal::NoLoraSlots => Self::bad_request("LoRA is not enabled."),
        }
    }

    pub fn failing(status: StatusCode) -> Self {
        let kind = status.canonical_reason().unwrap_or("Unknown");
        Self { status, kind, message: "This server was told to fail.".to_owned(), parameter: None }
    }

    pub fn body(&self, api: Api) -> String {
        let message = Value::from(self.message.as_str());
        let kind = self.kind;
        // What the fields' types rule out is refused before the API has its say, in one form for all.
        let is_validation = self.parameter.as_ref().is_some_and(|name| name.starts_with("body."));
        if api == Api::Messages && !is_validation {
            return format!(r#"{{"type":"error","error":{{"type":"{kind}","message":{message}}}}}"#);
        }
        let parameter = Value::from(self.parameter.clone());
        let code = self.status.as_u16();
        format!(r#"{{"error":{{"message":{message},"type":"{kind}","param":{parameter},"code":{code}}}}}"#)
    }
}
