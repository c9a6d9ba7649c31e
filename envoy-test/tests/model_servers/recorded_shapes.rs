//! Answers have the recorded ones' status, headers and fields, in their order; only the values differ.

use envoy_test::envoy::{Request, Response};
use serde_json::{Value, json};

use super::recorded::{Recorded, fixture, recorded_answer};
use super::*;

/// Sends the recorded request `name` and compares the answer with the recorded one.
async fn check(path: &str, name: &str) {
    let servers = quick();
    let body = fixture(&format!("{name}.req.json"));
    let mut request = Request::post(path).header("content-type", "application/json").body(body);
    if let Some(format) = name.strip_prefix("orca_chat_") {
        request = request.header("endpoint-load-metrics-format", format);
    }
    let answer = client_of(&servers.server(0)).send(request).await.unwrap();
    compare(name, &answer, &recorded_answer(name));
}

fn compare(name: &str, answer: &Response, recorded: &Recorded) {
    assert_eq!(answer.status, recorded.status, "{name}");
    for (header, value) in &recorded.headers {
        let own = answer.header(header).unwrap_or_else(|| panic!("{name}: no header {header}"));
        if ["content-type", "server", "vary", "endpoint-load-metrics"].contains(&header.as_str()) {
            assert_eq!(own, value, "{name}");
        }
    }
    assert_eq!(fields(&answer.text()), fields(&recorded.body), "{name}");
}

/// For each JSON document in a body (one, or one an event): its fields in order, each with its kind of value.
pub fn fields(body: &str) -> Vec<Vec<String>> {
    let documents = body.lines().filter(|line| !line.is_empty());
    documents.map(|line| document_fields(line.strip_prefix("data: ").unwrap_or(line))).collect()
}

fn document_fields(document: &str) -> Vec<String> {
    let Ok(value) = serde_json::from_str::<Value>(document) else {
        return vec![document.to_owned()];
    };
    let mut kinds = Vec::new();
    push_kinds("", &value, &mut kinds);
    let order = field_names(&document.replace("\\\"", "")).join(" ");
    kinds.into_iter().chain([order]).collect()
}

/// `path: kind` of everything in a value.
fn push_kinds(path: &str, value: &Value, kinds: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| push_kinds(&format!("{path}.{name}"), value, kinds));
        }
        Value::Array(items) => items.iter().for_each(|item| push_kinds(&format!("{path}[]"), item, kinds)),
        Value::String(_) => kinds.push(format!("{path}: string")),
        Value::Number(_) => kinds.push(format!("{path}: number")),
        other => kinds.push(format!("{path}: {other}")),
    }
}

/// Names of fields in the order in which they are written, of a document without escaped quotes.
fn field_names(document: &str) -> Vec<&str> {
    let pieces: Vec<&str> = document.split('"').collect();
    pieces.windows(2).skip(1).step_by(2).filter(|pair| pair[1].starts_with(':')).map(|pair| pair[0]).collect()
}

#[tokio::test]
async fn whole_answers_have_the_recorded_shape() {
    for name in ["chat", "chat_cached", "chat_lora_a", "orca_chat_TEXT"] {
        check(CHAT, name).await;
    }
    check(COMPLETIONS, "comp").await;
}

#[tokio::test]
async fn streamed_answers_have_the_recorded_events() {
    for name in ["chat_stream", "chat_stream_usage"] {
        check(CHAT, name).await;
    }
    for name in ["comp_stream", "comp_stream_usage"] {
        check(COMPLETIONS, name).await;
    }
}

/// The filler is never what the model made up, so an answer may have another number of deltas.
#[tokio::test]
async fn answers_of_other_apis_have_the_recorded_shape() {
    for name in ["responses", "responses_model_missing"] {
        check(RESPONSES, name).await;
    }
    check(MESSAGES, "messages").await;
    check("/v1/messages/count_tokens", "count_tokens").await;
    for name in ["model_missing", "model_empty", "model_null"] {
        check(CHAT, name).await;
    }
}

#[tokio::test]
async fn streams_of_other_apis_have_the_recorded_events() {
    for (path, name, delta) in [
        (RESPONSES, "responses_stream", "response.output_text.delta"),
        (MESSAGES, "messages_stream", "content_block_delta"),
    ] {
        let servers = quick();
        let request = Request::post(path).body(fixture(&format!("{name}.req.json")));
        let answer = client_of(&servers.server(0)).send(request).await.unwrap();
        let recorded = recorded_answer(name);
        assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
        assert_eq!(kinds_of_events(&answer.text(), delta), kinds_of_events(&recorded.body, delta), "{name}");
    }
}

/// The fields of each event, with those of one delta in place of several.
fn kinds_of_events(body: &str, delta: &str) -> Vec<Vec<String>> {
    assert!(body.contains(delta), "{body}");
    let mut events = fields(body);
    events.retain(|event| !event[0].starts_with("event: "));
    events.dedup();
    events
}

#[tokio::test]
async fn requests_to_paths_that_are_not_served_get_the_recorded_answers() {
    for (path, name) in [("/v1/nothing", "path_unknown"), ("/chat/completions", "path_without_version")] {
        check(path, name).await;
    }
    let servers = quick();
    let server = servers.server(0);
    let request = Request::post("/v1/chat/completions/").body(fixture("path_slash.req.json"));
    let answer = client_of(&server).send(request).await.unwrap();
    let location = format!("http://{}/v1/chat/completions", server.address());
    assert_eq!((answer.status, answer.header("location")), (307, Some(&*location)));
    assert_eq!(recorded_answer("path_slash").status, 307);
}

#[tokio::test]
async fn every_event_is_a_chunk_of_its_own() {
    let servers = quick();
    let request = Request::post(CHAT).body(fixture("chat_stream_usage.req.json"));
    let answer = client_of(&servers.server(0)).send(request).await.unwrap();
    for chunk in &answer.chunks {
        let event = std::str::from_utf8(&chunk.data).unwrap();
        assert!(event.starts_with("data: ") && event.find("\n\n") == Some(event.len() - 2), "{event:?}");
    }
    assert_eq!(answer.chunks.len(), fields(&answer.text()).len());
}

#[tokio::test]
async fn errors_are_the_recorded_ones_word_for_word() {
    let names = ["err_bad_json", "err_unknown_model", "model_unknown"].map(|name| (CHAT, name));
    let messages = ["messages_model_missing", "messages_model_empty", "messages_model_unknown"];
    for (path, name) in names.into_iter().chain(messages.map(|name| (MESSAGES, name))) {
        check(path, name).await;
        let servers = quick();
        let request = Request::post(path).body(fixture(&format!("{name}.req.json")));
        let answer = client_of(&servers.server(0)).send(request).await.unwrap();
        assert_eq!(answer.text(), recorded_answer(name).body);
    }
}

#[tokio::test]
async fn a_full_queue_answers_the_recorded_503() {
    let servers = one_at_a_time(Some(1));
    let server = servers.server(0);
    let client = client_of(&server);
    let running = client.open(Request::post(COMPLETIONS).json(&endless_completion())).await.unwrap();
    eventually("a request runs", || value(&server.metrics_page(), "vllm:num_requests_running") == 1.0).await;
    let waiting = client.open(Request::post(COMPLETIONS).json(&endless_completion())).await.unwrap();
    let refused = post(&server, COMPLETIONS, &completion(0..10, 1)).await;
    compare(
        "err_503_queue_full",
        &refused,
        &Recorded { headers: Default::default(), ..recorded_answer("err_503_queue_full") },
    );
    assert_eq!(refused.text(), recorded_answer("err_503_queue_full").body);
    drop((running, waiting));
}

#[tokio::test]
async fn the_list_of_models_has_the_recorded_shape() {
    let servers = quick();
    let answer = get(&servers.server(0), "/v1/models").await;
    compare("models", &answer, &recorded_answer("models"));
    let names = |body: &Value| -> Vec<Value> {
        body["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect()
    };
    assert_eq!(names(&answer.json().unwrap()), [json!("tiny"), json!("lora-a"), json!("lora-b")]);
}

#[tokio::test]
async fn every_answer_says_who_gave_it() {
    let servers = quick();
    let server = servers.server(0);
    let address = server.address().to_string();
    for path in ["/health", "/v1/models", "/metrics", "/nowhere", "/sim/counters"] {
        assert_eq!(get(&server, path).await.header("x-served-by"), Some(address.as_str()), "{path}");
    }
}

#[tokio::test]
async fn http_2_with_prior_knowledge_gets_the_same_answers() {
    let servers = quick();
    let address = servers.server(0).address();
    let request = || Request::post(CHAT).body(fixture("chat_stream_usage.req.json"));
    let one = Client::new(address, Protocol::Http1).send(request()).await.unwrap();
    let two = Client::new(address, Protocol::Http2).send(request()).await.unwrap();
    assert_eq!(fields(&one.text()), fields(&two.text()));
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused() {
    let servers = quick();
    let request = Request::post(CHAT).body(vec![b' '; (32 << 20) + 1]);
    assert_eq!(client_of(&servers.server(0)).send(request).await.unwrap().status, 413);
}
