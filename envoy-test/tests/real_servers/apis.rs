//! The other APIs of a real server, and what the plugin must leave as the server wrote it.

use std::time::Duration;

use envoy_test::envoy::{Request, Response};
use serde_json::{Value, json};

use crate::gateway::{ANSWER_TOKENS, Gateway, chat_body, completion_body};
use crate::servers::MODEL;

/// Where a server sends something so long before its first output, it is clear which of both was taken for the first.
const CLEAR_GAP: Duration = Duration::from_millis(100);

const RESPONSES: &str = "/v1/responses";
const MESSAGES: &str = "/v1/messages";

/// A short request to each of the APIs.
pub fn requests() -> [(&'static str, Value); 4] {
    let response =
        json!({"model": MODEL, "input": "Hello", "max_output_tokens": ANSWER_TOKENS, "ignore_eos": true});
    [
        ("/v1/chat/completions", chat_body(MODEL)),
        ("/v1/completions", completion_body(MODEL)),
        (RESPONSES, response),
        (MESSAGES, chat_body(MODEL)),
    ]
}

/// A prompt that no cache knows. The model's tokens are characters.
fn long_prompt(gateway: &Gateway) -> String {
    format!("{:x} {}", fastrand::u64(..), "word ".repeat(gateway.servers.kind.long_prompt_words))
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
    let response =
        json!({"model": MODEL, "input": long_prompt(gateway), "max_output_tokens": 4, "stream": true});
    let messages = json!([{"role": "user", "content": long_prompt(gateway)}]);
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

/// Missing, null and empty: it is sent to some server, which may serve its own model or refuse.
pub fn a_request_without_a_model_is_for_the_servers_to_decide(gateway: &Gateway) {
    for (path, mut body) in requests() {
        for model in [None, Some(Value::Null), Some(json!(""))] {
            let fields = body.as_object_mut().unwrap();
            match &model {
                Some(model) => fields.insert("model".to_owned(), model.clone()),
                None => fields.remove("model"),
            };
            let request = Request::post(path).json(&body);
            let direct = gateway.servers.client(0).send_blocking(request.clone()).unwrap();
            let answer = gateway.send(request);
            assert_eq!(answer.status, direct.status, "{path}, {model:?}: {}", answer.text());
            let line = &gateway.log(1)[0];
            assert!(line["picked"].is_string() && line["upstream"].is_string(), "{path}, {model:?}: {line}");
            if direct.status != 200 {
                assert_eq!(answer.text(), direct.text(), "{path}, {model:?}");
            }
        }
    }
}

pub fn tokens_are_counted_as_the_server_counts_them(gateway: &Gateway) {
    let messages = json!({"model": MODEL, "messages": [{"role": "user", "content": "How many are these?"}]});
    // llama.cpp's name for what vLLM calls the prompt.
    let text = json!({"model": MODEL, "prompt": "How many are these?", "content": "How many are these?"});
    for (path, body) in [("/v1/messages/count_tokens", messages), ("/tokenize", text)] {
        let request = Request::post(path).json(&body);
        let direct = gateway.servers.client(0).send_blocking(request.clone()).unwrap();
        assert_eq!(direct.status, 200, "{path}: {}", direct.text());
        assert_eq!(gateway.send(request).text(), direct.text(), "{path}");
    }
}
