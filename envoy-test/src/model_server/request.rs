//! Inference requests: which API, which model, which prompts, how long an answer, streamed or not.

use serde_json::Value;

use super::answers::errors::ApiError;
use super::api::Api;
use super::prompt;

/// Output tokens of a request that does not say.
const DEFAULT_OUTPUT_TOKENS: usize = 16;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct InferenceRequest {
    /// One or more.
    pub prompts: Vec<Vec<u32>>,
    pub output_tokens: usize,
    pub cache_salt: Option<String>,
    pub stream: bool,
    pub include_usage: bool,
    pub continuous_usage: bool,
}

/// Reads a body as JSON, behind a byte order mark too: vLLM 0.32 leaves it to Python's `json`, which passes over one.
pub fn parse_json(body: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body))
        .map_err(|error| ApiError::bad_json(&error))
}

/// The model a body asks for; none is allowed.
pub fn model_of(body: &Value) -> Option<&str> {
    body.get("model").and_then(Value::as_str)
}

impl InferenceRequest {
    pub fn from_body(api: Api, body: &Value) -> Result<Self, ApiError> {
        let prompts = prompts_of(api, body)?;
        let stream = flag(body.get("stream")) && api != Api::Embeddings;
        if prompts.is_empty() || stream && prompts.len() > 1 {
            return Err(ApiError::bad_request("expected one prompt, or several and no stream"));
        }
        let options = body.get("stream_options");
        let option = |name| flag(options.and_then(|options| options.get(name)));
        Ok(Self {
            prompts,
            output_tokens: output_tokens(api, body),
            cache_salt: body.get("cache_salt").and_then(Value::as_str).map(str::to_owned),
            stream,
            include_usage: option("include_usage"),
            continuous_usage: option("include_usage") && option("continuous_usage_stats"),
        })
    }
}

fn prompts_of(api: Api, body: &Value) -> Result<Vec<Vec<u32>>, ApiError> {
    let (field, prompts) = match api {
        Api::Chat => ("messages", prompt::of_chat(body).map(|prompt| vec![prompt])),
        Api::Messages => ("messages", prompt::of_messages(body).map(|prompt| vec![prompt])),
        Api::Responses => ("input", prompt::of_response_input(body).map(|prompt| vec![prompt])),
        Api::Completions => ("prompt", body.get("prompt").and_then(prompt::of_completion)),
        Api::Embeddings => ("input", body.get("input").and_then(prompt::of_completion)),
    };
    prompts.ok_or_else(|| ApiError::missing_field(field, body))
}

/// An embedding is done when its prompt is computed, which is when an answer would get its first token.
fn output_tokens(api: Api, body: &Value) -> usize {
    if api == Api::Embeddings {
        return 1;
    }
    let names = ["max_completion_tokens", "max_output_tokens", "max_tokens"];
    let given = names.iter().find_map(|name| body.get(name)?.as_u64());
    given.map_or(DEFAULT_OUTPUT_TOKENS, |tokens| usize::try_from(tokens).unwrap_or(usize::MAX).max(1))
}

fn flag(value: Option<&Value>) -> bool {
    value.and_then(Value::as_bool).unwrap_or(false)
}
