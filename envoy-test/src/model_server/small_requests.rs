//! Requests that no text is generated for: counting tokens, scores, embeddings of other kinds, images, speech and
//! transcripts. They are answered at once, in the shapes of vLLM 0.32's protocol files, or of vLLM-Omni 0.26's document
//! where plain vLLM has no such path (images, speech). No engine runs, as its work for them is small.

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::{Request, Response, StatusCode};
use serde_json::{Value, json};

use super::answers::errors::ApiError;
use super::api::Api;
use super::inference::{misbehave, read_body};
use super::metrics::unix_seconds;
use super::models::ServedModels;
use super::request::{model_of, parse_json};
use super::response::{self, Body, full, with_type};
use super::server::Server;
use super::{multipart, prompt, tokens};

/// Tokens of a model's context, as `/tokenize` reports.
const CONTEXT_TOKENS: usize = 8192;

/// A kind of request, by its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmallApi {
    CountTokens,
    Tokenize,
    Detokenize,
    Rerank,
    Score,
    Classify,
    Pooling,
    Images,
    Speech,
    /// A form with a file: transcriptions and translations.
    Transcript,
    /// A form with a file.
    ImageEdit,
}

impl SmallApi {
    pub fn at_path(path: &str) -> Option<Self> {
        match path {
            "/v1/messages/count_tokens" => Some(Self::CountTokens),
            "/tokenize" => Some(Self::Tokenize),
            "/detokenize" => Some(Self::Detokenize),
            "/rerank" | "/v1/rerank" | "/v2/rerank" => Some(Self::Rerank),
            "/score" | "/v1/score" => Some(Self::Score),
            "/classify" => Some(Self::Classify),
            "/pooling" => Some(Self::Pooling),
            "/v1/images/generations" => Some(Self::Images),
            "/v1/audio/speech" => Some(Self::Speech),
            "/v1/audio/transcriptions" | "/v1/audio/translations" => Some(Self::Transcript),
            "/v1/images/edits" => Some(Self::ImageEdit),
            _ => None,
        }
    }

    /// The API in whose form it says errors, and whose rules hold for requests without a model.
    fn relative(self) -> Api {
        if self == Self::CountTokens { Api::Messages } else { Api::Chat }
    }
}

/// Answers a request at one of their paths.
pub async fn answer(server: &Server, api: SmallApi, request: Request<Incoming>) -> Response<Body> {
    let mut in_flight = server.counters.begin_request(server.now_ms());
    let (head, body) = request.into_parts();
    match begin(server, api, head.uri.path(), &head.headers, body).await {
        Ok(answer) => {
            in_flight.complete();
            answer
        }
        Err(error) => {
            in_flight.fail();
            response::json(error.status, error.body(api.relative()))
        }
    }
}

async fn begin(
    server: &Server,
    api: SmallApi,
    path: &str,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<Response<Body>, ApiError> {
    let body = fields(headers, &read_body(body).await?)?;
    server.counters.lock().note_model(path, model_of(&body).unwrap_or_default());
    misbehave(server).await?;
    let models = server.models();
    let model = models.find(api.relative(), &body)?;
    Ok(match api {
        SmallApi::Speech => with_type(StatusCode::OK, "audio/wav", full("RIFF....WAVE")),
        SmallApi::CountTokens => response::json(StatusCode::OK, counted_tokens(&body)),
        _ => response::json(StatusCode::OK, content(api, &body, model).to_string()),
    })
}

/// The fields of a JSON body or of a form.
fn fields(headers: &HeaderMap, body: &[u8]) -> Result<Value, ApiError> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match multipart::boundary(content_type) {
        Some(boundary) => Ok(multipart::fields(body, boundary)),
        None => parse_json(body),
    }
}

fn counted_tokens(body: &Value) -> String {
    let count = prompt::of_messages(body).unwrap_or_default().len();
    format!(r#"{{"input_tokens":{count},"context_management":{{"original_input_tokens":{count}}}}}"#)
}

fn content(api: SmallApi, body: &Value, model: &str) -> Value {
    let created = unix_seconds() as u64;
    let usage =
        json!({"prompt_tokens": 8, "total_tokens": 8, "completion_tokens": 0, "prompt_tokens_details": null});
    let list = |id: &str, data: Value| json!({"id": id, "object": "list", "created": created, "model": model, "data": data, "usage": usage});
    match api {
        // Answered elsewhere: in an order of fields that matters, and not in JSON.
        SmallApi::CountTokens | SmallApi::Speech => Value::Null,
        SmallApi::Tokenize => {
            let tokens = tokens_of(body);
            json!({"count": tokens.len(), "max_model_len": CONTEXT_TOKENS, "tokens": tokens, "token_strs": null})
        }
        SmallApi::Detokenize => json!({"prompt": "000 001 002 "}),
        SmallApi::Rerank => {
            let result = json!({"index": 0, "document": {"text": "000 ", "multi_modal": null}, "relevance_score": 0.5});
            json!({"id": "rerank-0", "model": model, "usage": {"prompt_tokens": 8, "total_tokens": 8},
                "results": [result]})
        }
        SmallApi::Score => list("embd-0", json!([{"index": 0, "object": "score", "score": 0.5}])),
        SmallApi::Classify => {
            let class = json!({"index": 0, "label": "LABEL_0", "probs": [0.5, 0.5], "num_classes": 2});
            list("classify-0", json!([class]))
        }
        SmallApi::Pooling => list("pool-0", json!([{"index": 0, "object": "pooling", "data": [0.5, -0.5]}])),
        SmallApi::Images | SmallApi::ImageEdit => json!({"created": created, "data": [{"b64_json": "AAAA"}]}),
        SmallApi::Transcript => {
            json!({"text": "000 001 002 ", "usage": {"type": "duration", "seconds": 1}})
        }
    }
}

/// The tokens of a text, or of a chat.
fn tokens_of(body: &Value) -> Vec<u32> {
    match body.get("prompt").and_then(Value::as_str) {
        Some(text) => tokens::tokens_of(text.as_bytes()),
        None => prompt::of_chat(body).unwrap_or_default(),
    }
}

/// Answers `/v1/load_lora_adapter` and its opposite (vLLM 0.32 with `VLLM_ALLOW_RUNTIME_LORA_UPDATING`). The engine has
/// slots for adapters only if it was started with some.
pub async fn change_adapters(server: &Server, loads: bool, body: Incoming) -> Response<Body> {
    let changed = match read_body(body).await.and_then(|body| parse_json(&body)) {
        Ok(body) => with_change(server.models(), loads, body["lora_name"].as_str().unwrap_or_default()),
        Err(error) => Err(error),
    };
    let set = changed.and_then(|(models, said)| {
        let mut knobs = server.knobs();
        knobs.lora_adapters = Some(models.adapters);
        server.set_knobs(knobs).map_err(ApiError::bad_request).map(|()| said)
    });
    match set {
        Ok(said) => Response::new(full(said)),
        Err(error) => response::json(error.status, error.body(Api::Chat)),
    }
}

/// The models with one adapter more or less, and what is said of it.
fn with_change(
    mut models: ServedModels,
    loads: bool,
    name: &str,
) -> Result<(ServedModels, String), ApiError> {
    let place = models.adapters.iter().position(|adapter| adapter == name);
    match (loads, place) {
        (true, None) => models.adapters.push(name.to_owned()),
        (true, Some(_)) => return Err(ApiError::adapter_loaded_already(name)),
        (false, None) => return Err(ApiError::no_such_adapter(name)),
        (false, Some(place)) => drop(models.adapters.remove(place)),
    }
    let done = if loads { "added" } else { "removed" };
    Ok((models, format!("Success: LoRA adapter '{name}' {done} successfully.")))
}
