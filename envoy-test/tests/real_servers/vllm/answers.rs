//! What only vLLM answers so.

use envoy_test::envoy::Request;
use serde_json::{Value, json};

use crate::answers::check_refused;
use crate::gateway::{ANSWER_TOKENS, Gateway, chat, chat_body, completion_body};
use crate::servers::MODEL;

/// The events of a stream before its end mark, which must be there.
fn stream(gateway: &Gateway, path: &str, body: &Value) -> Vec<Value> {
    let answer = gateway.send(Request::post(path).json(body));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    let events: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    let (end, events) = events.split_last().expect("events");
    assert_eq!(*end, "[DONE]", "{text}");
    events.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
}

pub fn a_stream_ends_with_its_mark_and_reports_usage_only_if_asked(gateway: &Gateway) {
    let kinds = [("/v1/chat/completions", chat_body(MODEL)), ("/v1/completions", completion_body(MODEL))];
    for (path, mut body) in kinds {
        body["stream"] = true.into();
        let events = stream(gateway, path, &body);
        assert!(events.len() > 1, "{path}: {events:?}");
        assert!(events.iter().all(|event| event["usage"].is_null()), "{path}: {events:?}");

        body["stream_options"] = json!({"include_usage": true});
        let events = stream(gateway, path, &body);
        let last = events.last().unwrap();
        assert_eq!(
            (&last["choices"], &last["usage"]["completion_tokens"]),
            (&json!([]), &ANSWER_TOKENS.into())
        );
    }
}

/// The tiny model makes no embeddings; vLLM has no such path then.
pub fn what_vllm_refuses_is_said_in_its_own_words(gateway: &Gateway) {
    let mut too_long = completion_body(MODEL);
    too_long["max_tokens"] = 100_000.into();
    let embeddings = json!({"model": MODEL, "input": "Hi"});
    check_refused(
        gateway,
        &[
            (chat("nope"), 404, "`nope` does not exist"),
            (Request::post("/v1/completions").json(&too_long), 400, "max_tokens"),
            (Request::post("/v1/embeddings").json(&embeddings), 404, "Not Found"),
        ],
    );
}
