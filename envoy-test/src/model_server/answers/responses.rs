//! `/v1/responses`.

use super::{EventShape, FAILURE_MESSAGE, Subject, Usage, last_text, named_event, text_of};

/// Where a response or its message is.
const IN_PROGRESS: &str = "in_progress";
/// All output ends because it has as many tokens as were asked for.
const INCOMPLETE: &str = "incomplete";
const FAILED: &str = "failed";

pub fn whole(subject: &Subject, usage: &Usage) -> String {
    finished(subject, usage)
}

fn finished(subject: &Subject, usage: &Usage) -> String {
    let item = finished_item(subject, &text_of(usage.completion_tokens));
    response(subject, INCOMPLETE, &item, &counts(usage))
}

/// A response that failed. It names a kind of failure, no HTTP status.
pub fn failed(subject: &Subject, code: Option<u16>) -> String {
    let code = if code == Some(429) { "rate_limit_exceeded" } else { "server_error" };
    let error = format!(r#""error":{{"code":"{code}","message":"{FAILURE_MESSAGE}"}},"incomplete_details""#);
    response(subject, FAILED, "", "null").replacen(r#""incomplete_details""#, &error, 1)
}

/// The form of a streamed response. Its events are numbered from 0: two before the prompt is computed, two with the first
/// token, one a token, and four.
pub struct Events;

const EARLY_EVENTS: usize = 2;
const OPENING_EVENTS: usize = EARLY_EVENTS + 2;

impl EventShape for Events {
    fn at_once(&self, subject: &Subject) -> Vec<String> {
        let started = format!(r#""response":{}"#, response(subject, IN_PROGRESS, "", "null"));
        vec![event("response.created", 0, &started), event("response.in_progress", 1, &started)]
    }

    fn failure(&self, subject: &Subject, usage: &Usage, code: Option<u16>) -> Vec<String> {
        let tokens = usage.completion_tokens;
        let number = if tokens == 0 { EARLY_EVENTS } else { OPENING_EVENTS + tokens };
        vec![event("response.failed", number, &format!(r#""response":{}"#, failed(subject, code)))]
    }

    fn opening(&self, subject: &Subject, _: &Usage) -> Vec<String> {
        let item = item(subject, "", IN_PROGRESS);
        let part = text_part("", "[]");
        vec![
            event("response.output_item.added", 2, &format!(r#""item":{item},"output_index":0"#)),
            event("response.content_part.added", 3, &format!(r#"{},"part":{part}"#, place(subject))),
        ]
    }

    fn tokens(&self, subject: &Subject, usage: &Usage, new_tokens: usize, _: bool) -> String {
        let delta = format!(r#","delta":"{}""#, last_text(usage, new_tokens));
        let number = OPENING_EVENTS + usage.completion_tokens - 1;
        event("response.output_text.delta", number, &logged_place(subject, &delta))
    }

    fn closing(&self, subject: &Subject, usage: &Usage) -> Vec<String> {
        let text = text_of(usage.completion_tokens);
        let part = format!(r#"{},"part":{}"#, place(subject), text_part(&text, "null"));
        let item = format!(r#""item":{},"output_index":0"#, finished_item(subject, &text));
        let completed = format!(r#""response":{}"#, finished(subject, usage));
        let next = OPENING_EVENTS + usage.completion_tokens;
        vec![
            text_done(subject, next, &text),
            event("response.content_part.done", next + 1, &part),
            event("response.output_item.done", next + 2, &item),
            event("response.completed", next + 3, &completed),
        ]
    }
}

fn event(name: &str, number: usize, fields: &str) -> String {
    named_event(name, &format!(r#"{{{fields},"sequence_number":{number},"type":"{name}"}}"#))
}

/// Where in the response a piece of text belongs.
fn place(subject: &Subject) -> String {
    format!(r#""content_index":0,"item_id":"msg_{}","output_index":0"#, subject.id)
}

/// The same with a list of log probabilities, which stands in the middle.
fn logged_place(subject: &Subject, delta: &str) -> String {
    format!(r#""content_index":0{delta},"item_id":"msg_{}","logprobs":[],"output_index":0"#, subject.id)
}

/// The one event whose number is not its last field but two.
fn text_done(subject: &Subject, number: usize, text: &str) -> String {
    const NAME: &str = "response.output_text.done";
    let place = logged_place(subject, "");
    named_event(NAME, &format!(r#"{{{place},"sequence_number":{number},"text":"{text}","type":"{NAME}"}}"#))
}

fn text_part(text: &str, logprobs: &str) -> String {
    format!(r#"{{"annotations":[],"text":"{text}","type":"output_text","logprobs":{logprobs}}}"#)
}

fn finished_item(subject: &Subject, text: &str) -> String {
    item(subject, &text_part(text, "null"), "completed")
}

fn item(subject: &Subject, content: &str, status: &str) -> String {
    format!(
        r#"{{"id":"msg_{}","content":[{content}],"role":"assistant","status":"{status}","type":"message","phase":null}}"#,
        subject.id
    )
}

fn counts(usage: &Usage) -> String {
    let Usage { prompt_tokens, cached_tokens, completion_tokens, created_cache_tokens } = usage;
    let total_tokens = prompt_tokens + completion_tokens;
    format!(
        r#"{{"input_tokens":{prompt_tokens},"input_tokens_details":{{"cached_tokens":{cached_tokens},"cache_write_tokens":{created_cache_tokens},"input_tokens_per_turn":[],"cached_tokens_per_turn":[]}},"output_tokens":{completion_tokens},"output_tokens_details":{{"reasoning_tokens":0,"tool_output_tokens":0,"output_tokens_per_turn":[],"tool_output_tokens_per_turn":[]}},"total_tokens":{total_tokens}}}"#
    )
}

fn response(subject: &Subject, status: &str, output: &str, usage: &str) -> String {
    let Subject { id, created, model, .. } = subject;
    let incomplete = if status == INCOMPLETE { r#"{"reason":"max_output_tokens"}"# } else { "null" };
    format!(
        r#"{{"id":"resp_{id}","created_at":{created},"incomplete_details":{incomplete},"instructions":null,"metadata":null,"model":{model},"object":"response","output":[{output}],"parallel_tool_calls":true,"temperature":0.0,"tool_choice":"none","tools":[],"top_p":1.0,"background":false,"max_output_tokens":6,"max_tool_calls":null,"previous_response_id":null,"prompt":null,"reasoning":null,"service_tier":"auto","status":"{status}","text":null,"top_logprobs":null,"truncation":"disabled","usage":{usage},"user":null,"presence_penalty":0.0,"frequency_penalty":0.0,"kv_transfer_params":null,"ec_transfer_params":null,"input_messages":null,"output_messages":null}}"#
    )
}
