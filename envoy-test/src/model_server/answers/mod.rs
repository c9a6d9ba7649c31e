//! What answers say, API by API, field by field as a real vLLM 0.32 says it (after recorded answers; embeddings after the
//! API's document).
//!
//! Bodies are written out as text, so that their fields stand in the recorded order.

pub mod chat;
pub mod completions;
pub mod embeddings;
pub mod errors;
mod llama_cpp;
pub mod messages;
pub mod models;
pub mod responses;
mod usage;

pub use usage::Usage;

use super::api::Api;
use super::settings::Dialect;
use super::tokens::output_text;

const FAILURE_MESSAGE: &str = "Internal server error";

const FINGERPRINT: &str = r#""system_fingerprint":"vllm-0.32.0-simulated""#;

/// What an answer says about its request.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Hexadecimal digits, without the API's prefix.
    pub id: String,
    pub created: u64,
    /// The model's name as a JSON string.
    pub model: String,
    pub include_usage: bool,
    pub continuous_usage: bool,
    pub dialect: Dialect,
    /// Whether a chat's role comes ahead of its first token.
    pub early_role: bool,
}

/// A streamed answer's events, in one API's form.
pub trait EventShape: Send {
    /// Events before the prompt is computed, sent with the response's headers. Most APIs have none.
    fn at_once(&self, _: &Subject) -> Vec<String> {
        Vec::new()
    }

    /// What is said instead of going on when the server fails after `usage`; with this HTTP status, where there is one
    /// and the API has room for it.
    fn failure(&self, subject: &Subject, usage: &Usage, code: Option<u16>) -> Vec<String>;

    /// Events before the first token. They come together with it, when the prompt's counts are known.
    fn opening(&self, subject: &Subject, usage: &Usage) -> Vec<String>;
    /// The event of the last `new_tokens`, one or more; `usage` counts up to them.
    fn tokens(&self, subject: &Subject, usage: &Usage, new_tokens: usize, finished: bool) -> String;
    /// Events after the last token.
    fn closing(&self, subject: &Subject, usage: &Usage) -> Vec<String>;
}

/// The form of streamed answers, for APIs that have one.
pub fn event_shape(api: Api, dialect: Dialect) -> Option<Box<dyn EventShape>> {
    match api {
        Api::Chat if dialect == Dialect::LlamaCpp => Some(Box::new(llama_cpp::ChatChunks)),
        Api::Completions if dialect == Dialect::LlamaCpp => Some(Box::new(llama_cpp::CompletionChunks)),
        Api::Chat => Some(Box::new(chat::Chunks)),
        Api::Completions => Some(Box::new(completions::Chunks)),
        Api::Responses => Some(Box::new(responses::Events)),
        Api::Messages => Some(Box::new(messages::Events)),
        Api::Embeddings => None,
    }
}

/// A whole answer, with one result for each prompt.
pub fn whole(api: Api, subject: &Subject, results: &[Usage]) -> String {
    let total = results.iter().copied().fold(Usage::default(), Usage::plus);
    match api {
        Api::Chat if subject.dialect == Dialect::LlamaCpp => llama_cpp::whole_chat(subject, &total),
        Api::Completions if subject.dialect == Dialect::LlamaCpp => {
            llama_cpp::whole_completion(subject, &total)
        }
        Api::Chat => chat::whole(subject, &total),
        Api::Completions => completions::whole(subject, results, &total),
        Api::Responses => responses::whole(subject, &total),
        Api::Messages => messages::whole(subject, &total),
        Api::Embeddings => embeddings::whole(subject, results.len(), &total),
    }
}

/// A failure reported under status 200 in an answer that is not streamed.
pub fn whole_failure(api: Api, subject: &Subject, code: Option<u16>) -> String {
    match api {
        Api::Responses => responses::failed(subject, code),
        Api::Messages => {
            format!(r#"{{"type":"error","error":{{"type":"internal_error","message":"{FAILURE_MESSAGE}"}}}}"#)
        }
        Api::Chat | Api::Completions | Api::Embeddings => failure_body(code),
    }
}

/// The text of an answer of so many tokens.
fn text_of(tokens: usize) -> String {
    (0..tokens).map(output_text).collect()
}

/// The text of the last tokens of those counted.
fn last_text(usage: &Usage, new_tokens: usize) -> String {
    (usage.completion_tokens.saturating_sub(new_tokens)..usage.completion_tokens).map(output_text).collect()
}

/// How chat and completions report a failure: an error, then the mark that ends every stream.
fn failed_chunks(code: Option<u16>) -> Vec<String> {
    vec![data_event(&failure_body(code)), data_event("[DONE]")]
}

/// An error in the words of vLLM 0.32 for a request that the engine gave up.
fn failure_body(code: Option<u16>) -> String {
    let code = code.map_or_else(|| "null".to_owned(), |code| code.to_string());
    format!(
        r#"{{"error":{{"message":"{FAILURE_MESSAGE}","type":"InternalServerError","param":null,"code":{code}}}}}"#
    )
}

fn data_event(json: &str) -> String {
    format!("data: {json}\n\n")
}

fn named_event(name: &str, json: &str) -> String {
    format!("event: {name}\ndata: {json}\n\n")
}
