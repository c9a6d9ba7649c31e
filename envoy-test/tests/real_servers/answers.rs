//! Answers of a real server come through as it gives them.

use envoy_test::envoy::{Request, Response};
use serde_json::{Value, json};

use crate::gateway::{ANSWER_TOKENS, Gateway, chat, completion};
use crate::servers::MODEL;

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

pub fn the_models_are_the_servers_own(gateway: &Gateway) {
    let direct = gateway.servers.client(0).send_blocking(Request::get("/v1/models")).unwrap();
    let ids = |answer: &Response| {
        let list = answer.json().unwrap()["data"].as_array().unwrap().clone();
        list.iter().map(|model| model["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&direct), gateway.servers.kind.models);
    assert_eq!(ids(&gateway.send(Request::get("/v1/models"))), ids(&direct));
}

/// Each of these is refused with this status and these words, as it is without the gateway.
pub fn check_refused(gateway: &Gateway, refused: &[(Request, u16, &str)]) {
    for (request, status, words) in refused {
        let answer = gateway.send(request.clone());
        assert_eq!(answer.status, *status, "{}", answer.text());
        assert!(answer.text().contains(words), "{}", answer.text());
        let direct = gateway.servers.client(0).send_blocking(request.clone()).unwrap();
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

/// Both kinds of server say with their models that they have room for so many tokens.
const CONTEXT_TOKENS: usize = 8_192;

pub fn a_prompt_that_no_server_has_room_for_is_refused_with_the_length_that_would_fit(gateway: &Gateway) {
    let ids: Vec<usize> = vec![100; CONTEXT_TOKENS + 1];
    let body = json!({"model": MODEL, "prompt": ids, "max_tokens": 1});
    let request = Request::post("/v1/completions").json(&body);
    // A gateway that has just started does not know yet, and leaves it to the servers.
    let mut answers = std::iter::repeat_with(|| gateway.send(request.clone())).take(100);
    let is_own = |answer: &Response| answer.json().unwrap()["error"]["code"] == "context_length_exceeded";
    let refused = answers.find(is_own).expect("the gateway refuses it");
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("8192 tokens"), "{}", refused.text());
}
