//! Failures that are reported under status 200, in each API's words.

use envoy_test::model_server::{FailInside, InnerFailure};

use super::*;

const AT_ONCE: usize = 0;

fn body(path: &str, stream: bool) -> Value {
    let mut body = match path {
        COMPLETIONS => completion(0..40, 10),
        RESPONSES => json!({"input": "Hello", "max_output_tokens": 10}),
        _ => json!({"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 10}),
    };
    body["stream"] = stream.into();
    body
}

/// The answer of a server that fails after so many tokens, and that it counts as a failure.
async fn failing(path: &str, stream: bool, after_tokens: usize, how: InnerFailure) -> String {
    let servers = quick();
    let server = servers.server(0);
    server.set(|knobs| knobs.fail_inside = Some(FailInside { after_tokens, how: how.clone() }));
    let answer = post(&server, path, &body(path, stream)).await;
    assert_eq!(answer.status, 200);
    eventually("its request has ended", || server.counters().in_flight == 0).await;
    assert_eq!((server.counters().failed, server.counters().completed), (1, 0), "{path}");
    answer.text()
}

fn error(code: u16) -> InnerFailure {
    InnerFailure::Error { code: Some(code) }
}

#[tokio::test]
async fn streams_fail_in_their_apis_words() {
    let chunk = r#"data: {"error":{"message":"Internal server error","type":"InternalServerError","param":null,"code":503}}"#;
    let chunks = format!("{chunk}\n\ndata: [DONE]\n\n");
    for path in [CHAT, COMPLETIONS] {
        assert_eq!(failing(path, true, AT_ONCE, error(503)).await, chunks, "{path}");
    }
    let event = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"internal_error\",\"message\":\"Internal server error\"}}\n\n";
    assert_eq!(failing(MESSAGES, true, AT_ONCE, error(503)).await, event);
    let response = failing(RESPONSES, true, AT_ONCE, error(503)).await;
    let last = response.lines().rfind(|line| line.starts_with("data: ")).unwrap();
    let last: Value = serde_json::from_str(last.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!((&last["type"], &last["sequence_number"]), (&json!("response.failed"), &json!(2)));
    assert_eq!(
        (&last["response"]["status"], &last["response"]["error"]["code"]),
        (&json!("failed"), &json!("server_error"))
    );
}

#[tokio::test]
async fn a_stream_may_fail_after_some_tokens() {
    for (path, token) in [
        (CHAT, r#""content":"0"#),
        (COMPLETIONS, r#""text":"0"#),
        (MESSAGES, "text_delta"),
        (RESPONSES, "event: response.output_text.delta"),
    ] {
        let text = failing(path, true, 3, error(500)).await;
        assert_eq!(text.matches(token).count(), 3, "{path}: {text}");
        assert!(text.contains("Internal server error"), "{path}: {text}");
    }
}

#[tokio::test]
async fn a_stream_may_end_without_any_output() {
    for path in [CHAT, COMPLETIONS, MESSAGES] {
        assert_eq!(failing(path, true, AT_ONCE, InnerFailure::End).await, "", "{path}");
    }
    let begun = failing(RESPONSES, true, AT_ONCE, InnerFailure::End).await;
    assert_eq!(begun.matches("event: ").count(), 2, "{begun}");
}

#[tokio::test]
async fn a_whole_answer_may_be_an_error_under_status_200() {
    for path in [CHAT, COMPLETIONS] {
        let answer: Value = serde_json::from_str(&failing(path, false, AT_ONCE, error(429)).await).unwrap();
        assert_eq!(answer["error"]["code"], 429, "{path}");
        let none = InnerFailure::Error { code: None };
        let answer: Value = serde_json::from_str(&failing(path, false, AT_ONCE, none).await).unwrap();
        assert_eq!(answer["error"]["code"], Value::Null, "{path}");
    }
    let answer: Value = serde_json::from_str(&failing(MESSAGES, false, AT_ONCE, error(500)).await).unwrap();
    assert_eq!(answer["type"], "error");
    let answer: Value = serde_json::from_str(&failing(RESPONSES, false, AT_ONCE, error(500)).await).unwrap();
    assert_eq!(answer["status"], "failed");
}
