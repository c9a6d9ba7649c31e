//! Sends requests to a server when they are due, whatever has become of those before, and notes when it answered.

use anyhow::{Context, Result, ensure};
use envoy_test::envoy::{Client, Request};
use envoy_test::simulation::replay::trace::{SentRequest, ServedRequest};
use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// What every event with output has, and no comment of a server that only shows that it is there.
const OUTPUT_MARK: &[u8] = b"\"text\"";
/// How much of an answer that is an error is shown.
const SHOWN_BYTES: usize = 200;

/// Sends all of them, and returns what the server made of each, in the order in which they were sent. Their places, of which
/// their prompts are drawn, are counted from `first_place` on.
///
/// # Errors
/// One had no whole answer, or not as long a one as was asked for.
pub async fn play(
    client: Client,
    model: &str,
    requests: Vec<SentRequest>,
    first_place: usize,
) -> Result<Vec<ServedRequest>> {
    let started_at = Instant::now();
    let mut playing = JoinSet::new();
    for (place, request) in (first_place..).zip(requests) {
        let body = body(model, &request, place);
        playing.spawn(async move {
            sleep_until(started_at + request.arrival).await;
            let sent = SentRequest { arrival: started_at.elapsed(), ..request };
            let served = ask(client, &body, sent).await;
            served.with_context(|| format!("request {place}"))
        });
    }
    let served: Result<Vec<ServedRequest>> = playing.join_all().await.into_iter().collect();
    let mut served = served?;
    served.sort_by_key(|served| served.sent.arrival);
    Ok(served)
}

/// The prompt is token ids, so that it has as many tokens as it should and no two servers cut it in different ways.
fn body(model: &str, request: &SentRequest, place: usize) -> String {
    let body = json!({
        "model": model,
        "prompt": request.prompt(place),
        "max_tokens": request.output_tokens,
        "temperature": 0,
        "ignore_eos": true,
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    body.to_string()
}

async fn ask(client: Client, body: &str, sent: SentRequest) -> Result<ServedRequest> {
    let sent_at = Instant::now();
    let request = Request::post("/v1/completions").header("content-type", "application/json");
    let mut stream = client.open(request.body(body.to_owned())).await?;
    let (mut answer, mut first_token) = (Vec::new(), None);
    while let Some(chunk) = stream.next_chunk().await? {
        let has_output = chunk.data.windows(OUTPUT_MARK.len()).any(|window| window == OUTPUT_MARK);
        if has_output && first_token.is_none() {
            first_token = Some(sent_at.elapsed());
        }
        answer.extend_from_slice(&chunk.data);
    }
    let end_to_end = sent_at.elapsed();
    let shown = || String::from_utf8_lossy(&answer[..answer.len().min(SHOWN_BYTES)]).into_owned();
    ensure!(stream.status == 200, "{}: {}", stream.status, shown());
    let usage = usage(&answer).with_context(shown)?;
    let expected = (sent.prompt_tokens, sent.output_tokens);
    ensure!((usage.prompt_tokens, usage.completion_tokens) == expected, "{usage:?}, not {expected:?}");
    let first_token = first_token.context("an answer without output")?;
    Ok(ServedRequest { sent, cached_tokens: usage.cached_tokens(), first_token, end_to_end })
}

#[derive(Deserialize)]
struct Event {
    usage: Option<Usage>,
}

#[derive(Debug, Deserialize)]
struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    prompt_tokens_details: Option<Details>,
}

#[derive(Debug, Deserialize)]
struct Details {
    cached_tokens: Option<usize>,
}

impl Usage {
    fn cached_tokens(&self) -> usize {
        self.prompt_tokens_details.as_ref().and_then(|details| details.cached_tokens).unwrap_or_default()
    }
}

/// The last usage that a stream reports.
fn usage(answer: &[u8]) -> Option<Usage> {
    let lines = answer.split(|&byte| byte == b'\n').filter_map(|line| line.strip_prefix(b"data:"));
    lines.filter_map(|data| serde_json::from_slice::<Event>(data.trim_ascii()).ok()?.usage).next_back()
}
