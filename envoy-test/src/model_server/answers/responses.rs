//! `/v1/responses`.

use super::{EventShape, FAILURE_MESSAGE, Subject, Usage, last_text, named_event, text_of};

pub fn whole(subject: &Subject, usage: &Usage) -> String {
    response(
        subject,
        "incomplete",
        &item(subject, "incomplete", &text_of(usage.completion_tokens)),
        &counts(usage),
    )
}

/// A response that failed. It names a kind of failure, no HTTP status.
pub fn failed(subject: &Subject, code: Option<u16>) -> String {
    let code = if code == Some(429) { "rate_limit_exceeded" } else { "server_error" };
    let error = format!(r#""error":{{"code":"{code}","message":"{FAILURE_MESSAGE}"}}"#);
    response(subject, "failed", "", "null").replacen(r#""error":null"#, &error, 1)
}

/// The form of a streamed response. Its events are numbered from 0: two before the prompt is computed, two with the first
/// token, one a token, and four.
pub struct Events;

const EARLY_EVENTS: usize = 2;
const OPENING_EVENTS: usize = EARLY_EVENTS + 2;

impl EventShape for Events {
    fn at_once(&self, subject: &Subject) -> Vec<String> {
        let started = format!(r#""response":{}"#, response(subject, "in_progress", "", "null"));
        vec![event("response.created", 0, &started), event("response.in_progress", 1, &started)]
    }

    fn failure(&self, subject: &Subject, usage: &Usage, code: Option<u16>) -> Vec<String> {
        let told = usage.completion_tokens;
        let number = if told == 0 { EARLY_EVENTS } else { OPENING_EVENTS + told };
        vec![event("response.failed", number, &format!(r#""response":{}"#, failed(subject, code)))]
    }

    fn opening(&self, subject: &Subject, _: &Usage) -> Vec<String> {
        let item = format!(r#""output_index":0,"item":{}"#, empty_item(subject));
        let part = format!(r#"{},"part":{}"#, place(subject), text_part(""));
        vec![event("response.output_item.added", 2, &item), event("response.content_part.added", 3, &part)]
    }

    fn tokens(&self, subject: &Subject, usage: &Usage, new_tokens: usize, _: bool) -> String {
        let delta = format!(r#"{},"delta":"{}","logprobs":[]"#, place(subject), last_text(usage, new_tokens));
        event("response.output_text.delta", OPENING_EVENTS + usage.completion_tokens - 1, &delta)
    }

    fn closing(&self, subject: &Subject, usage: &Usage) -> Vec<String> {
        let text = text_of(usage.completion_tokens);
        let place = place(subject);
        let item = item(subject, "completed", &text);
        let next = OPENING_EVENTS + usage.completion_tokens;
        let completed = response(subject, "completed", &item, &counts(usage));
        vec![
            event("response.output_text.done", next, &format!(r#"{place},"text":"{text}","logprobs":[]"#)),
            event("response.content_part.done", next + 1, &format!(r#"{place},"part":{}"#, text_part(&text))),
            event("response.output_item.done", next + 2, &format!(r#""output_index":0,"item":{item}"#)),
            event("response.completed", next + 3, &format!(r#""response":{completed}"#)),
        ]
    }
}

fn event(name: &str, number: usize, fields: &str) -> String {
    named_event(name, &format!(r#"{{"type":"{name}","sequence_number":{number},{fields}}}"#))
}

/// Where in the response a piece of text belongs.
fn place(subject: &Subject) -> String {
    format!(r#""item_id":"msg_{}","output_index":0,"content_index":0"#, subject.id)
}

fn text_part(text: &str) -> String {
    format!(r#"{{"type":"output_text","text":"{text}","annotations":[],"logprobs":[]}}"#)
}

fn empty_item(subject: &Subject) -> String {
    format!(
        r#"{{"id":"msg_{}","type":"message","role":"assistant","status":"in_progress","content":[]}}"#,
        subject.id
    )
}

fn item(subject: &Subject, status: &str, text: &str) -> String {
    let part = text_part(text);
    format!(
        r#"{{"id":"msg_{}","type":"message","role":"assistant","status":"{status}","content":[{part}]}}"#,
        subject.id
    )
}

fn counts(usage: &Usage) -> String {
    let Usage { prompt_tokens, cached_tokens, completion_tokens, .. } = usage;
    let total_tokens = prompt_tokens + completion_tokens;
    format!(
        r#"{{"input_tokens":{prompt_tokens},"input_tokens_details":{{"cached_tokens":{cached_tokens}}},"output_tokens":{completion_tokens},"output_tokens_details":{{"reasoning_tokens":0}},"total_tokens":{total_tokens}}}"#
    )
}

fn response(subject: &Subject, status: &str, output: &str, usage: &str) -> String {
    let Subject { id, created, model, .. } = subject;
    let incomplete = if status == "incomplete" { r#"{"reason":"max_output_tokens"}"# } else { "null" };
    format!(
        r#"{{"id":"resp_{id}","created_at":{created},"error":null,"incomplete_details":{incomplete},"instructions":null,"metadata":null,"model":{model},"object":"response","output":[{output}],"parallel_tool_calls":true,"temperature":1.0,"tool_choice":"auto","tools":[],"top_p":1.0,"background":false,"previous_response_id":null,"reasoning":null,"service_tier":"auto","status":"{status}","text":null,"truncation":"disabled","usage":{usage},"user":null}}"#
    )
}
