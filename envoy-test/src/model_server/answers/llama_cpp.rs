//! Chat and completions as llama.cpp's llama-server answers them (`tests/fixtures/llama.cpp-0.3.36/`): the role and the
//! first token come together, `timings` stand on the last event before `[DONE]`, and a finishing completion reports its
//! usage to everybody.

use super::{EventShape, FAILURE_MESSAGE, Subject, Usage, data_event, last_text, text_of};

const FINGERPRINT: &str = r#""system_fingerprint":"b0-simulated""#;

pub fn whole_chat(subject: &Subject, usage: &Usage) -> String {
    let text = text_of(usage.completion_tokens);
    let choice = format!(
        r#"{{"finish_reason":"length","index":0,"message":{{"role":"assistant","content":"{text}"}}}}"#
    );
    document(subject, &choice, "chat.completion", Some(usage), Some(usage))
}

pub fn whole_completion(subject: &Subject, usage: &Usage) -> String {
    let choice = text_choice(&text_of(usage.completion_tokens), true);
    document(subject, &choice, "text_completion", Some(usage), Some(usage))
}

/// An error as its streams report it: under status 200, without a `[DONE]` behind it.
fn failed(code: Option<u16>) -> Vec<String> {
    let code = code.map_or_else(|| "null".to_owned(), |code| code.to_string());
    let error =
        format!(r#"{{"error":{{"code":{code},"message":"{FAILURE_MESSAGE}","type":"server_error"}}}}"#);
    vec![data_event(&error)]
}

/// The form of a streamed chat.
pub struct ChatChunks;

impl EventShape for ChatChunks {
    /// With `return_progress` in the request, the role comes ahead, with how far the prompt is.
    fn at_once(&self, subject: &Subject) -> Vec<String> {
        let role = r#"{"role":"assistant","content":null}"#;
        let chunk = || data_event(&chat_chunk(subject, role, "null", None, None));
        if subject.early_role { vec![chunk()] } else { Vec::new() }
    }

    fn opening(&self, subject: &Subject, _: &Usage) -> Vec<String> {
        let role = r#"{"role":"assistant","content":null}"#;
        vec![data_event(&chat_chunk(subject, role, "null", None, None))]
    }

    fn failure(&self, _: &Subject, _: &Usage, code: Option<u16>) -> Vec<String> {
        failed(code)
    }

    fn tokens(&self, subject: &Subject, usage: &Usage, new_tokens: usize, _: bool) -> String {
        let delta = format!(r#"{{"content":"{}"}}"#, last_text(usage, new_tokens));
        data_event(&chat_chunk(subject, &delta, "null", None, None))
    }

    fn closing(&self, subject: &Subject, usage: &Usage) -> Vec<String> {
        let finish = |timings| data_event(&chat_chunk(subject, "{}", r#""length""#, None, timings));
        let counts = || data_event(&document(subject, "", CHAT_CHUNK, Some(usage), Some(usage)));
        let last =
            if subject.include_usage { vec![finish(None), counts()] } else { vec![finish(Some(usage))] };
        last.into_iter().chain([data_event("[DONE]")]).collect()
    }
}

/// The form of a streamed completion.
pub struct CompletionChunks;

impl EventShape for CompletionChunks {
    fn opening(&self, _: &Subject, _: &Usage) -> Vec<String> {
        Vec::new()
    }

    fn failure(&self, _: &Subject, _: &Usage, code: Option<u16>) -> Vec<String> {
        failed(code)
    }

    fn tokens(&self, subject: &Subject, usage: &Usage, new_tokens: usize, _: bool) -> String {
        let choice = text_choice(&last_text(usage, new_tokens), false);
        data_event(&document(subject, &choice, "text_completion", None, None))
    }

    fn closing(&self, subject: &Subject, usage: &Usage) -> Vec<String> {
        let choice = text_choice("", true);
        let last = document(subject, &choice, "text_completion", Some(usage), Some(usage));
        vec![data_event(&last), data_event("[DONE]")]
    }
}

const CHAT_CHUNK: &str = "chat.completion.chunk";

fn text_choice(text: &str, finished: bool) -> String {
    let finish = if finished { r#""length""# } else { "null" };
    format!(r#"{{"text":"{text}","index":0,"logprobs":null,"finish_reason":{finish}}}"#)
}

fn chat_chunk(
    subject: &Subject,
    delta: &str,
    finish: &str,
    usage: Option<&Usage>,
    timings: Option<&Usage>,
) -> String {
    let choice = format!(r#"{{"finish_reason":{finish},"index":0,"delta":{delta}}}"#);
    document(subject, &choice, CHAT_CHUNK, usage, timings)
}

/// Any answer or event: its one choice or none, then what all have, then what only the last one has.
fn document(
    subject: &Subject,
    choice: &str,
    object: &str,
    usage: Option<&Usage>,
    timings: Option<&Usage>,
) -> String {
    let Subject { id, created, model, .. } = subject;
    let is_chunk = object == CHAT_CHUNK;
    let object = format!(r#"{FINGERPRINT},"object":"{object}""#);
    let usage = usage.map(usage_field).unwrap_or_default();
    let timings = timings.map(timings_field).unwrap_or_default();
    let id = format!(r#""id":"chatcmpl-{id}""#);
    // Chunks of chats have their id ahead of the model, everything else behind the usage.
    if is_chunk {
        format!(
            r#"{{"choices":[{choice}],"created":{created},{id},"model":{model},{object}{usage}{timings}}}"#
        )
    } else {
        format!(
            r#"{{"choices":[{choice}],"created":{created},"model":{model},{object}{usage},{id}{timings}}}"#
        )
    }
}

fn usage_field(usage: &Usage) -> String {
    let Usage { prompt_tokens, cached_tokens, completion_tokens, .. } = usage;
    let total_tokens = prompt_tokens + completion_tokens;
    format!(
        r#","usage":{{"completion_tokens":{completion_tokens},"prompt_tokens":{prompt_tokens},"total_tokens":{total_tokens},"prompt_tokens_details":{{"cached_tokens":{cached_tokens}}}}}"#
    )
}

/// Counts, and durations that nobody reads here.
fn timings_field(usage: &Usage) -> String {
    let computed_tokens = usage.prompt_tokens - usage.cached_tokens;
    format!(
        r#","timings":{{"cache_n":{},"prompt_n":{computed_tokens},"prompt_ms":1.5,"prompt_per_token_ms":0.5,"prompt_per_second":2000.5,"predicted_n":{},"predicted_ms":1.5,"predicted_per_token_ms":0.5,"predicted_per_second":2000.5}}"#,
        usage.cached_tokens, usage.completion_tokens
    )
}
