//! What the plugin must leave as the server wrote it, and what it reads of it.

use envoy_test::envoy::{Request, Response};
use serde_json::{Value, json};

use crate::apis::requests;
use crate::gateway::Gateway;

/// What differs between any two answers: names, dates, and how long things took.
const CHANCE: [&str; 13] = [
    "id",
    "item_id",
    "sequence_number",
    "created",
    "created_at",
    "completed_at",
    "prompt_ms",
    "prompt_per_token_ms",
    "prompt_per_second",
    "predicted_ms",
    "predicted_per_token_ms",
    "predicted_per_second",
    "system_fingerprint",
];
/// Where a chunk has its piece of the text.
const PIECES: [&str; 4] = ["/choices/0/delta/content", "/choices/0/text", "/delta", "/delta/text"];

/// The answer to a request through the gateway, and one that a server gave directly.
///
/// Every server has had the request before, so all have the same of it cached. They have the same weights.
fn both(gateway: &Gateway, path: &str, body: &Value) -> [Response; 2] {
    let mut body = body.clone();
    body["temperature"] = 0.into();
    let request = Request::post(path).json(&body);
    let direct = |index| gateway.servers.client(index).send_blocking(request.clone()).unwrap();
    (0..gateway.servers.count()).for_each(|index| drop(direct(index)));
    let answers = [gateway.send(request.clone()), direct(0)];
    assert!(answers.iter().all(|answer| answer.status == 200), "{path}: {}", answers[1].text());
    answers
}

/// The body of a request that every server answers with the same words.
fn same_words(gateway: &Gateway, mut body: Value) -> Value {
    let fields = (gateway.servers.kind.anew)();
    for (name, value) in fields.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    body
}

/// The text with every `"name":value` as `"name":0`, where the value has no comma and no bracket.
fn blanked(text: &str, name: &str) -> String {
    let key = format!("\"{name}\":");
    let mut pieces = text.split(&key);
    let mut blanked = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let value_ends = piece.find([',', '}']).unwrap_or(piece.len());
        blanked.extend([&key, "0", &piece[value_ends..]]);
    }
    blanked
}

fn without_chance(answer: &Response) -> String {
    CHANCE.iter().fold(answer.text(), |text, name| blanked(&text, name))
}

/// A stream's text, and its events without their part of it: how many tokens come at once is chance, too.
fn events_without_chance(answer: &Response) -> (String, Vec<String>) {
    let (mut text, mut events) = (String::new(), Vec::new());
    for event in without_chance(answer).split_inclusive("\n\n") {
        let data = event.lines().find_map(|line| line.strip_prefix("data: "));
        let document: Value = data.and_then(|data| serde_json::from_str(data).ok()).unwrap_or_default();
        let mut kept = event.to_owned();
        for piece in PIECES.iter().filter_map(|piece| document.pointer(piece)?.as_str()) {
            text.push_str(piece);
            kept = kept.replacen(&format!("\":{}", json!(piece)), "\":\"\"", 1);
        }
        events.push(kept);
    }
    events.dedup();
    (text, events)
}

pub fn a_whole_answer_is_the_servers_own_byte_by_byte(gateway: &Gateway) {
    for (path, body) in requests() {
        let [through, direct] = both(gateway, path, &same_words(gateway, body));
        assert_eq!(without_chance(&through), without_chance(&direct), "{path}");
    }
}

/// With and without the usage that clients ask for: the plugin asks for it always, and takes it out again.
pub fn a_stream_is_the_servers_own_byte_by_byte(gateway: &Gateway) {
    for (path, body) in requests() {
        let mut body = same_words(gateway, body);
        body["stream"] = true.into();
        let has_options = path.ends_with("completions");
        let asked = [None, Some(true), Some(false)];
        for asked in asked.into_iter().take(if has_options { asked.len() } else { 1 }) {
            if let Some(asked) = asked {
                body["stream_options"] = json!({"include_usage": asked});
            }
            let [through, direct] = both(gateway, path, &body);
            assert_eq!(events_without_chance(&through), events_without_chance(&direct), "{path}, {asked:?}");
        }
    }
}

/// Tokens of the prompt, of the answer, and cached ones, by the name that an API has for each. The Messages API counts the
/// cached ones apart.
fn usage(body: &Value) -> [u64; 3] {
    let usage = &body["usage"];
    let number = |names: [&str; 2]| names.iter().find_map(|name| usage.pointer(name)?.as_u64());
    let apart = number(["/cache_read_input_tokens", ""]);
    let cached =
        apart.or(number(["/prompt_tokens_details/cached_tokens", "/input_tokens_details/cached_tokens"]));
    let prompt = number(["/prompt_tokens", "/input_tokens"]).unwrap() + apart.unwrap_or_default();
    [prompt, number(["/completion_tokens", "/output_tokens"]).unwrap(), cached.unwrap_or_default()]
}

/// Of whole answers and of streams, whether the client asked for it or not.
pub fn the_log_has_the_usage_that_the_server_reports(gateway: &Gateway) {
    for (path, mut body) in requests() {
        let [_, whole] = both(gateway, path, &body);
        for streams in [false, true] {
            body["stream"] = streams.into();
            both(gateway, path, &body);
            let line = &gateway.log(1)[0];
            let logged: [u64; 3] = ["prompt_tokens", "completion_tokens", "cached_tokens"]
                .map(|name| line[name].as_str().and_then(|text| text.parse().ok()).unwrap_or_default());
            assert_eq!(logged, usage(&whole.json().unwrap()), "{path}, streams: {streams}: {line}");
        }
    }
}
