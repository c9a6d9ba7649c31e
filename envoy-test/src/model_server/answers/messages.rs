//! `/v1/messages`, the Anthropic form.

use super::{EventShape, FAILURE_MESSAGE, Subject, Usage, last_text, named_event, text_of};

pub fn whole(subject: &Subject, usage: &Usage) -> String {
    let content = format!(r#"{{"type":"text","text":"{}"}}"#, text_of(usage.completion_tokens));
    message(subject, &content, r#""max_tokens""#, usage)
}

/// The form of a streamed message.
pub struct Events;

impl EventShape for Events {
    fn opening(&self, subject: &Subject, usage: &Usage) -> Vec<String> {
        let before = Usage { completion_tokens: 0, ..*usage };
        let message = message(subject, "", "null", &before);
        vec![
            event("message_start", &format!(r#","message":{message}"#)),
            event("content_block_start", r#","index":0,"content_block":{"type":"text","text":""}"#),
        ]
    }

    /// There is no room for a status.
    fn failure(&self, _: &Subject, _: &Usage, _: Option<u16>) -> Vec<String> {
        let error = format!(r#","error":{{"type":"internal_error","message":"{FAILURE_MESSAGE}"}}"#);
        vec![event("error", &error)]
    }

    fn tokens(&self, _: &Subject, usage: &Usage, new_tokens: usize, _: bool) -> String {
        let delta = format!(r#"{{"type":"text_delta","text":"{}"}}"#, last_text(usage, new_tokens));
        event("content_block_delta", &format!(r#","index":0,"delta":{delta}"#))
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

fn counts(usage: &Usage) -> String {
    format!(r#"{{"input_tokens":{},"output_tokens":{}}}"#, usage.prompt_tokens, usage.completion_tokens)
}

fn message(subject: &Subject, content: &str, stop_reason: &str, usage: &Usage) -> String {
    let Subject { id, model, .. } = subject;
    let usage = counts(usage);
    format!(
        r#"{{"id":"chatcmpl-{id}","type":"message","role":"assistant","content":[{content}],"model":{model},"stop_reason":{stop_reason},"stop_sequence":null,"usage":{usage}}}"#
    )
}
