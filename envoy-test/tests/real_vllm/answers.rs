//! Answers of a real vLLM come through as it gives them.

use envoy_test::envoy::Request;
use serde_json::{Value, json};

use crate::gateway::{ANSWER_TOKENS, Gateway, chat, chat_body, completion, completion_body};
use crate::servers::{ADAPTERS, MODEL};

/// Answered in full, as this kind of object.
fn check_whole(gateway: &Gateway, request: Request, object: &str, text: &str) {
    let answer = gateway.send(request);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json().unwrap();
    assert_eq!((&body["object"], &body["model"]), (&object.into(), &MODEL.into()), "{body}");
    assert!(body.pointer(text).and_then(Value::as_str).is_some_and(|text| !text.is_empty()), "{body}");
    assert_eq!(body["usage"]["completion_tokens"], ANSWER_TOKENS, "{body}");
}

pub fn a_chat_is_answered(gateway: &Gateway) {
    check_whole(gateway, chat(MODEL), "chat.completion", "/choices/0/message/content");
}

pub fn a_completion_is_answered(gateway: &Gateway) {
    check_whole(gateway, completion(MODEL), "text_completion", "/choices/0/text");
}

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

pub fn a_stream_ends_with_its_mark_and_tells_usage_only_if_asked(gateway: &Gateway) {
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

pub fn the_models_are_listed_with_their_adapters(gateway: &Gateway) {
    let body = gateway.send(Request::get("/v1/models")).json().unwrap();
    let ids: Vec<_> = body["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
    assert_eq!(ids, [MODEL, ADAPTERS[0], ADAPTERS[1]]);
}

/// The tiny model makes no embeddings; vLLM has no such path then.
pub fn what_vllm_refuses_is_told_in_its_own_words(gateway: &Gateway) {
    let mut too_long = completion_body(MODEL);
    too_long["max_tokens"] = 100_000.into();
    let refused = [
        (chat("nope"), 404, "`nope` does not exist"),
        (Request::post("/v1/completions").json(&too_long), 400, "max_tokens"),
        (Request::post("/v1/embeddings").json(&json!({"model": MODEL, "input": "Hi"})), 404, "Not Found"),
    ];
    for (request, status, words) in refused {
        let answer = gateway.send(request.clone());
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.text().contains(words), "{}", answer.text());
        let direct = gateway.servers.client(0).send_blocking(request).unwrap();
        assert_eq!((answer.status, answer.text()), (direct.status, direct.text()));
    }
}

pub fn a_body_that_is_not_json_is_refused_by_the_gateway(gateway: &Gateway) {
    let broken = Request::post("/v1/completions").header("content-type", "application/json");
    let answer = gateway.send(broken.body(r#"{"model": "tiny", "prompt": "#));
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert_eq!(answer.json().unwrap()["error"]["code"], "invalid_json");
    let line = &gateway.log(1)[0];
    assert_eq!((&line["upstream"], &line["details"]), (&Value::Null, &"invalid_json".into()), "{line}");
}
