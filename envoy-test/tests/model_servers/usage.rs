//! Token counts are right in every API's form, whole and streamed.

use serde_json::{Value, json};

use super::*;

/// The documents of a stream's events, without `[DONE]`.
fn documents(stream: &Response) -> Vec<Value> {
    let text = stream.text();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    data.map(|data| serde_json::from_str(data).unwrap()).collect()
}

/// Sends `body` twice, whole and then streamed, and compares the final counts of each answer.
async fn check(path: &str, body: Value, whole: Value, streamed: Value) {
    let servers = quick();
    let server = servers.server(0);
    let answer = post(&server, path, &body).await.json().unwrap();
    assert_eq!(answer["usage"], whole, "{path}");
    let mut body = body;
    body["stream"] = json!(true);
    let events = documents(&post(&server, path, &body).await);
    let mut usages =
        events.iter().rev().filter_map(|event| event.get("usage").or_else(|| event["response"].get("usage")));
    assert_eq!(usages.next(), Some(&streamed), "{path}");
}

#[tokio::test]
async fn counts_are_right_in_every_api() {
    let prompt: Vec<u32> = (0..40).collect();
    let usage_on = json!({"include_usage": true});
    let whole = json!({"prompt_tokens": 40, "total_tokens": 45, "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 0, "created_cache_tokens": null, "multimodal_tokens": null},
        "completion_tokens_details": null});
    let streamed = json!({"prompt_tokens": 40, "total_tokens": 45, "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 32}});
    let body = json!({"prompt": prompt, "max_tokens": 5, "stream_options": usage_on});
    check(COMPLETIONS, body, whole, streamed).await;

    // 68 bytes of text with the template around it: 17 tokens, of which one block of 16 is cached.
    let text = "x".repeat(68 - "<|user|>\n\n<|assistant|>\n".len());
    let whole = json!({"prompt_tokens": 17, "total_tokens": 20, "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 0, "created_cache_tokens": 16, "multimodal_tokens": null},
        "completion_tokens_details": null});
    let streamed = json!({"prompt_tokens": 17, "total_tokens": 20, "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 16, "created_cache_tokens": 0}});
    let messages = json!([{"role": "user", "content": text}]);
    let body = json!({"messages": messages, "max_completion_tokens": 3, "stream_options": usage_on});
    check(CHAT, body, whole, streamed).await;

    let counts = |cached| {
        json!({"input_tokens": 17, "output_tokens": 3, "total_tokens": 20,
            "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 16 - cached,
                "input_tokens_per_turn": [], "cached_tokens_per_turn": []},
            "output_tokens_details": {"reasoning_tokens": 0, "tool_output_tokens": 0,
                "output_tokens_per_turn": [], "tool_output_tokens_per_turn": []}})
    };
    check("/v1/responses", json!({"input": text, "max_output_tokens": 3}), counts(0), counts(16)).await;

    // The last event with counts is `message_delta`.
    let counts = |cached| {
        json!({"input_tokens": 1, "output_tokens": 3, "cache_creation_input_tokens": 16 - cached,
            "cache_read_input_tokens": cached})
    };
    let body = json!({"model": "tiny", "messages": messages, "max_tokens": 3});
    check(MESSAGES, body, counts(0), counts(16)).await;
}

#[tokio::test]
async fn embeddings_count_their_prompts() {
    let servers = quick();
    let answer = post(&servers.server(0), "/v1/embeddings", &json!({"input": ["12345678", "1234"]})).await;
    let answer = answer.json().unwrap();
    assert_eq!(answer["data"].as_array().unwrap().len(), 2);
    assert_eq!(answer["usage"]["prompt_tokens"], 3);
}

#[tokio::test]
async fn usage_on_every_chunk_counts_up() {
    let servers = quick();
    let mut body = completion(0..10, 4);
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true, "continuous_usage_stats": true});
    let events = documents(&post(&servers.server(0), COMPLETIONS, &body).await);
    let counts: Vec<_> = events.iter().map(|event| event["usage"]["completion_tokens"].clone()).collect();
    assert_eq!(counts, [1, 2, 3, 4, 4]);
}

#[tokio::test]
async fn adapters_and_salts_do_not_share_cached_prompts() {
    let servers = quick();
    let server = servers.server(0);
    let variants = [json!({}), json!({"model": "lora-a"}), json!({"cache_salt": "secret"})];
    for round in 0..2 {
        for variant in &variants {
            let mut body = completion(0..40, 1);
            for (name, value) in variant.as_object().unwrap() {
                body[name] = value.clone();
            }
            let answer = post(&server, COMPLETIONS, &body).await.json().unwrap();
            let cached = &answer["usage"]["prompt_tokens_details"]["cached_tokens"];
            assert_eq!(*cached, round * 32, "{variant}, round {round}");
        }
    }
}

#[tokio::test]
async fn a_request_without_a_model_gets_the_first_one() {
    let servers = quick();
    let answer = post(&servers.server(0), COMPLETIONS, &json!({"prompt": "x"})).await;
    let answer = answer.json().unwrap();
    assert_eq!((&answer["model"], &answer["usage"]["completion_tokens"]), (&json!("tiny"), &json!(16)));
}

#[tokio::test]
async fn several_prompts_get_a_choice_each() {
    let servers = quick();
    let answer = post(&servers.server(0), COMPLETIONS, &json!({"prompt": ["a", "b"], "max_tokens": 2})).await;
    let answer = answer.json().unwrap();
    assert_eq!(answer["choices"].as_array().unwrap().len(), 2);
    assert_eq!(answer["usage"]["completion_tokens"], 4);
}

#[tokio::test]
async fn several_tokens_in_an_event_are_the_same_text_and_the_first_token_comes_by_itself() {
    let servers = start(ServerSettings { stream_interval: 4, ..ServerSettings::default() });
    let mut body = completion(0..20, 10);
    body["stream"] = true.into();
    let text = post(&servers.server(0), COMPLETIONS, &body).await.text();
    let events =
        text.lines().filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
    let texts: Vec<String> =
        events.filter_map(|event| event["choices"][0]["text"].as_str().map(str::to_owned)).collect();
    assert_eq!(texts, ["000 ", "001 002 003 004 ", "005 006 007 008 ", "009 "]);
}
