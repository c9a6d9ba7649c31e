//! Answers in the form of llama.cpp's llama-server.

use envoy_test::model_server::{Dialect, Knobs};

use super::recorded::{fixture_of, recorded_answer_of};
use super::recorded_shapes::fields;
use super::*;

const RECORDED: &str = "llama.cpp-0.3.36";

fn llama_cpp() -> ModelServers {
    start(ServerSettings {
        dialect: Dialect::LlamaCpp,
        metrics_page: MetricsPage::LlamaCpp,
        engine: EngineSettings { speed: 20.0, ..EngineSettings::default() },
        ..ServerSettings::default()
    })
}

/// The documents of a stream of three tokens.
async fn stream(path: &str, options: Value, knobs: impl FnOnce(&mut Knobs)) -> Vec<Value> {
    let servers = llama_cpp();
    let server = servers.server(0);
    server.set(knobs);
    let messages = json!([{"role": "user", "content": "Hello"}]);
    let body = json!({"model": "any", "messages": messages, "prompt": "Hello", "max_tokens": 3, "stream": true,
        "stream_options": options});
    let text = post(&server, path, &body).await.text();
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    let data = text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    data.map(|data| serde_json::from_str(data).unwrap()).collect()
}

/// Which events have a field.
fn with(events: &[Value], field: &str) -> Vec<usize> {
    (0..events.len()).filter(|index| events[*index].get(field).is_some()).collect()
}

#[tokio::test]
async fn timings_stand_on_the_last_event_and_usage_only_on_one_that_was_asked_for() {
    let events = stream(CHAT, Value::Null, |_| {}).await;
    assert_eq!((events.len(), with(&events, "usage"), with(&events, "timings")), (5, vec![], vec![4]));
    let events = stream(CHAT, json!({"include_usage": true}), |_| {}).await;
    assert_eq!((events.len(), with(&events, "usage"), with(&events, "timings")), (6, vec![5], vec![5]));
    assert_eq!(events[5]["choices"], json!([]));
}

#[tokio::test]
async fn a_finishing_completion_reports_its_usage_to_everybody() {
    let events = stream(COMPLETIONS, Value::Null, |_| {}).await;
    assert_eq!((events.len(), with(&events, "usage"), with(&events, "timings")), (4, vec![3], vec![3]));
    assert_eq!(events[3]["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn any_model_is_taken_and_answered_under_its_own_name() {
    let servers = llama_cpp();
    for body in [json!({"model": "nope", "prompt": "x"}), json!({"prompt": "x"})] {
        let answer = post(&servers.server(0), COMPLETIONS, &body).await;
        assert_eq!((answer.status, &answer.json().unwrap()["model"]), (200, &json!("tiny")));
    }
}

/// An answer may have another number of deltas than the recorded one: what the model makes up is no fixed text.
#[tokio::test]
async fn answers_have_the_recorded_fields_in_their_order() {
    let exchanges = [
        (CHAT, "chat_cached"),
        (CHAT, "chat_stream"),
        (CHAT, "chat_stream_usage"),
        (COMPLETIONS, "comp"),
        (COMPLETIONS, "comp_stream"),
        (COMPLETIONS, "comp_stream_usage"),
    ];
    let servers = llama_cpp();
    for (path, name) in exchanges {
        let request = Request::post(path).body(fixture_of(RECORDED, &format!("{name}.req.json")));
        let answer = client_of(&servers.server(0)).send(request).await.unwrap();
        let recorded = recorded_answer_of(RECORDED, name);
        let shapes = [answer.text(), recorded.body].map(|body| {
            let mut shape = fields(&body);
            shape.dedup();
            shape
        });
        assert_eq!(shapes[0], shapes[1], "{name}");
    }
}
