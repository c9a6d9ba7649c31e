//! What streams send before the prompt is computed, and where nothing is sent.

use super::*;

/// Long enough for a prompt of [`long_prompt`], short of its end.
const SOON: Duration = Duration::from_millis(300);

/// A server that takes many seconds for a prompt.
fn slow() -> ModelServers {
    start(ServerSettings {
        engine: EngineSettings { speed: 0.02, ..EngineSettings::default() },
        ..ServerSettings::default()
    })
}

fn long_prompt() -> String {
    "word ".repeat(2000)
}

fn streamed(path: &str) -> Request {
    let text = long_prompt();
    let body = match path {
        COMPLETIONS => json!({"prompt": text, "stream": true}),
        RESPONSES => json!({"input": text, "stream": true}),
        _ => json!({"model": "tiny", "messages": [{"role": "user", "content": text}], "stream": true}),
    };
    Request::post(path).json(&body)
}

/// What a server sends within [`SOON`]. Later bytes are not awaited, so a busy machine changes nothing.
async fn first_bytes(server: &ModelServer, path: &str) -> String {
    let mut stream = client_of(server).open(streamed(path)).await.unwrap();
    assert_eq!(stream.status, 200);
    let mut text = String::new();
    while let Ok(Ok(Some(chunk))) = tokio::time::timeout(SOON, stream.next_chunk()).await {
        text.push_str(&String::from_utf8_lossy(&chunk.data));
    }
    text
}

#[tokio::test]
async fn only_responses_begin_before_the_prompt_is_computed() {
    let servers = slow();
    for path in [CHAT, COMPLETIONS, MESSAGES] {
        assert_eq!(first_bytes(&servers.server(0), path).await, "", "{path}");
    }
    let begun = first_bytes(&servers.server(0), RESPONSES).await;
    let names: Vec<&str> = begun.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(names, ["response.created", "response.in_progress"]);
}

#[tokio::test]
async fn a_silent_stream_of_any_api_is_kept_alive_with_comments() {
    let servers = slow();
    let server = servers.server(0);
    server.set(|knobs| knobs.keep_alive_ms = Some(20));
    for path in [CHAT, COMPLETIONS, RESPONSES, MESSAGES] {
        let mut stream = client_of(&server).open(streamed(path)).await.unwrap();
        let mut text = String::new();
        while !text.ends_with(": keep-alive\n\n: keep-alive\n\n") {
            text.push_str(&String::from_utf8_lossy(&stream.next_chunk().await.unwrap().unwrap().data));
        }
        assert!(!text.contains("delta\":"), "{path}: {text}");
    }
}

#[tokio::test]
async fn a_chats_role_may_come_long_before_its_first_token_and_then_only_once() {
    let servers = slow();
    let server = servers.server(0);
    server.set(|knobs| knobs.early_role = true);
    let begun = first_bytes(&server, CHAT).await;
    assert_eq!(begun.matches(r#""delta":{"role":"assistant","content":""}"#).count(), 1, "{begun}");
    assert_eq!(begun.matches("data: ").count(), 1, "{begun}");
    server.set(|knobs| knobs.speed = 100.0);
    let whole = client_of(&server).send(streamed(CHAT)).await.unwrap().text();
    assert_eq!(whole.matches(r#""role""#).count(), 1, "{whole}");
}
