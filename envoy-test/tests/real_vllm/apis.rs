//! The other APIs of a real vLLM, and what the plugin must leave as the server wrote it.

use std::time::Duration;

use envoy_test::envoy::{Request, Response};
use serde_json::{Value, json};

use crate::gateway::{Gateway, chat_body, completion_body};
use crate::servers::MODEL;

/// Some 6,000 tokens of a model whose tokens are characters: it takes a while to compute them.
const LONG_PROMPT_WORDS: usize = 1_200;
/// Where a server sends something so long before its first output, it is clear which of both was taken for the first.
const CLEAR_GAP: Duration = Duration::from_millis(100);

const RESPONSES: &str = "/v1/responses";
const MESSAGES: &str = "/v1/messages";
/// The name of [`MODEL`] for clients of a gateway with [`Gateway::with_alias`].
pub const ALIAS: &str = "alias";

/// A prompt that no cache knows.
fn long_prompt() -> String {
    format!("{:x} {}", fastrand::u64(..), "word ".repeat(LONG_PROMPT_WORDS))
}

/// When a stream's first event came, and when its first output did.
fn first_times(answer: &Response, output: &str) -> [Duration; 2] {
    let output_at = answer.chunks.iter().find(|chunk| {
        let text = String::from_utf8_lossy(&chunk.data).into_owned();
        text.contains(output)
    });
    [&answer.chunks[0], output_at.expect("an output")].map(|chunk| chunk.arrived_after)
}

/// A response's first two events come long before its first output. What the plugin logs is the time of the output.
pub fn the_first_output_of_responses_and_messages_is_logged(gateway: &Gateway) {
    let response = json!({"model": MODEL, "input": long_prompt(), "max_output_tokens": 4, "stream": true});
    let messages = json!([{"role": "user", "content": long_prompt()}]);
    let message = json!({"model": MODEL, "messages": messages, "max_tokens": 4, "stream": true});
    let streams =
        [(RESPONSES, response, "response.output_text.delta"), (MESSAGES, message, "content_block_delta")];
    for (path, body, output) in streams {
        let answer = gateway.send(Request::post(path).json(&body));
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let [first_event, first_output] = first_times(&answer, output);
        let line = &gateway.log(1)[0];
        let logged_ms: u64 = line["ttft_ms"].as_str().and_then(|text| text.parse().ok()).unwrap();
        let logged = Duration::from_millis(logged_ms);
        eprintln!(
            "    {path}: the client had the first event after {} ms, the first output after {} ms; logged: {logged_ms} ms",
            first_event.as_millis(),
            first_output.as_millis()
        );
        if first_output > first_event + CLEAR_GAP {
            assert!(logged.abs_diff(first_output) < logged.abs_diff(first_event), "{path}: {line}");
        }
    }
}

/// Missing, null and empty: vLLM serves its own model, but in the Anthropic API, where it refuses in its own words.
pub fn a_request_without_a_model_is_the_servers_to_judge(gateway: &Gateway) {
    let mut response = json!({"input": "Hello", "max_output_tokens": 2});
    let mut message = chat_body(MODEL);
    let (mut chat, mut completion) = (chat_body(MODEL), completion_body(MODEL));
    let requests = [
        ("/v1/chat/completions", &mut chat, 200),
        ("/v1/completions", &mut completion, 200),
        (RESPONSES, &mut response, 200),
        (MESSAGES, &mut message, 400),
    ];
    for (path, body, status) in requests {
        for model in [None, Some(Value::Null), Some(json!(""))] {
            let fields = body.as_object_mut().unwrap();
            match &model {
                Some(model) => fields.insert("model".to_owned(), model.clone()),
                None => fields.remove("model"),
            };
            let request = Request::post(path).json(body);
            let answer = gateway.send(request.clone());
            assert_eq!(answer.status, status, "{path}, {model:?}: {}", answer.text());
            let line = &gateway.log(1)[0];
            assert!(line["picked"].is_string() && line["upstream"].is_string(), "{path}, {model:?}: {line}");
            if status != 200 {
                let direct = gateway.servers.client(0).send_blocking(request).unwrap();
                assert_eq!(answer.text(), direct.text(), "{path}, {model:?}");
            }
        }
    }
}

/// Paths that generate nothing know the alias as well. vLLM itself has never heard of it.
pub fn an_alias_is_resolved_where_tokens_are_counted(gateway: &Gateway) {
    let mut body = chat_body(ALIAS);
    body.as_object_mut().unwrap().remove("ignore_eos");
    body.as_object_mut().unwrap().remove("max_tokens");
    for (path, count) in [("/v1/messages/count_tokens", "input_tokens"), ("/tokenize", "count")] {
        let request = Request::post(path).json(&body);
        let direct = gateway.servers.client(0).send_blocking(request.clone()).unwrap();
        assert_eq!(direct.status, 404, "{path}: {}", direct.text());
        let answer = gateway.send(request);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert!(answer.json().unwrap()[count].as_u64() > Some(0), "{path}: {}", answer.text());
    }
}

/// A stream's events as they came, but for what differs between any two answers: their names and dates, and how many
/// tokens came at once. Its text is whole, by itself.
fn without_chance(answer: &Response) -> (String, Vec<String>) {
    let (mut text, mut events) = (String::new(), Vec::new());
    for event in answer.text().split_inclusive("\n\n") {
        let document = event.strip_prefix("data: ").and_then(|data| serde_json::from_str::<Value>(data).ok());
        let Some(document) = document else {
            events.push(event.to_owned());
            continue;
        };
        let mut kept = event.to_owned();
        for name in ["id", "created"] {
            kept = kept.replacen(&document[name].to_string(), "0", 1);
        }
        for piece in ["/choices/0/delta/content", "/choices/0/text"] {
            if let Some(Value::String(piece)) = document.pointer(piece) {
                text.push_str(piece);
                kept = kept.replacen(&format!("\":{}", json!(piece)), "\":\"\"", 1);
            }
        }
        events.push(kept);
    }
    events.dedup();
    (text, events)
}

/// With and without the usage that clients ask for: the plugin asks for it always, and takes it out again.
pub fn a_stream_is_the_servers_own_byte_by_byte(gateway: &Gateway) {
    let kinds = [("/v1/chat/completions", chat_body(MODEL)), ("/v1/completions", completion_body(MODEL))];
    for (path, mut body) in kinds {
        body["stream"] = true.into();
        body["temperature"] = 0.into();
        for options in [Value::Null, json!({"include_usage": true}), json!({"include_usage": false})] {
            body["stream_options"] = options.clone();
            let request = Request::post(path).json(&body);
            // Both servers have the same weights, and at no temperature they say the same.
            let direct = gateway.servers.client(0).send_blocking(request.clone()).unwrap();
            let through = gateway.send(request);
            assert!(direct.text().contains("system_fingerprint"), "{path}: {}", direct.text());
            assert_eq!(without_chance(&through), without_chance(&direct), "{path}, {options}");
        }
    }
}
