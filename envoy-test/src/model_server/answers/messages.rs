//! `/v1/messages`, the Anthropic form.

use super::{EventShape, FAILURE_MESSAGE, Subject, Usage, last_text, named_event, text_of};

pub fn whole(subject: &Subject, usage: &Usage) -> String {
    let content = format!(r#"{{"type":"text","text":"{}"}}"#, text_of(usage.completion_tokens));
    message(subject, &content, r#""max_tokens""#, &counts(usage))
}

/// The form of a streamed message.
pub struct Events;

impl EventShape for Events {
    fn opening(&self, subject: &Subject, usage: &Usage) -> Vec<String> {
        let usage = format!(r#"{{"input_tokens":{},"output_tokens":0}}"#, usage.prompt_tokens);
        let message = message(subject, "", r#"null,"stop_sequence":null"#, &usage);
        vec![
            event("message_start", &format!(r#","message":{message}"#)),
            event("content_block_start", r#","content_block":{"type":"text","text":""},"index":0"#),
        ]
    }

    /// There is no room for a status.
    fn failure(&self, _: &Subject, _: &Usage, _: Option<u16>) -> Vec<String> {
        let error = format!(r#","error":{{"type":"internal_error","message":"{FAILURE_MESSAGE}"}}"#);
        vec![event("error", &error)]
    }

    fn tokens(&self, _: &Subject, usage: &Usage, new_tokens: usize, _: bool) -> String {
        let delta = format!(r#"{{"type":"text_delta","text":"{}"}}"#, last_text(usage, new_tokens));
        event("content_block_delta", &format!(r#","delta":{delta},"index":0"#))
    }

    fn closing(&self, _: &Subject, usage: &Usage) -> Vec<String> {
        let end = format!(
            r#","delta":{{"stop_reason":"max_tokens","stop_sequence":null}},"usage":{}"#,
            counts(usage)
        );
        vec![
            event("content_block_stop", r#","index":0"#),
            event("message_delta", &end),
            event("message_stop", ""),
        ]
    }
}

fn event(name: &str, fields: &str) -> String {
    named_event(name, &format!(r#"{{"type":"{name}"{fields}}}"#))
}

/// What was neither cached nor is now, and then both, as vLLM reports with `--enable-prompt-tokens-details`.
fn counts(usage: &Usage) -> String {
    let Usage { prompt_tokens, cached_tokens, completion_tokens, created_cache_tokens } = usage;
    let input_tokens = prompt_tokens - cached_tokens - created_cache_tokens;
    format!(
        r#"{{"input_tokens":{input_tokens},"output_tokens":{completion_tokens},"cache_creation_input_tokens":{created_cache_tokens},"cache_read_input_tokens":{cached_tokens}}}"#
    )
}

fn message(subject: &Subject, content: &str, stop_reason: &str, usage: &str) -> String {
    let Subject { id, model, .. } = subject;
    format!(
        r#"{{"id":"chatcmpl-{id}","type":"message","role":"assistant","content":[{content}],"model":{model},"stop_reason":{stop_reason},"usage":{usage}}}"#
    )
}
