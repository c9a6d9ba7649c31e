//! A request from a client nobody trusts. A key in front that has to be decoded takes the body past the fast reader,
//! so what it accepts can be compared with what the slow one says. Any body; any bytes as a field of a chat; and any
//! text as the names and contents of one, which is then read as what it was written as.
#![no_main]

use inference_picker::openai::{InferenceRequest, MAX_MODEL_NAME_BYTES, read_request};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

const ESCAPED_FIELD: &[u8] = br#""\u0061":0,"#;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    let open = br#"{"model":"m","stream":true,"messages":[{"role":"user","content":"Hi"}],"stop":"#;
    check(&[open, bytes, b"}"].concat());
    check_chat(&String::from_utf8_lossy(bytes));
});

fn check(body: &[u8]) {
    let request = read_request(body).ok();
    if let Some(request) = &request {
        check_places(request, body);
    }
    let Some(brace) = body.iter().position(|byte| *byte == b'{') else {
        return assert_eq!(request, None);
    };
    let (before, fields) = body.split_at(brace + 1);
    // No comma before the end of an object in which nothing else is.
    let is_empty = fields.trim_ascii_start().starts_with(b"}");
    let field = ESCAPED_FIELD.strip_suffix(b",").filter(|_| is_empty).unwrap_or(ESCAPED_FIELD);
    let slow_body = [before, field, fields].concat();
    assert_eq!(request.map(moved), read_request(&slow_body).ok().map(undigested));
}

/// With a key that no field of the API is named as, whatever the text is.
fn check_chat(text: &str) {
    let key = format!("x-{text}");
    let message = json!({"role": text, "content": text, &key: [text]});
    let body =
        json!({&key: {"model": text}, "model": text, "messages": [message], "stream": true}).to_string();
    check(body.as_bytes());
    let request = read_request(body.as_bytes()).unwrap();
    let is_name = (1..=MAX_MODEL_NAME_BYTES).contains(&text.len());
    assert_eq!((&*request.model, request.stream), (if is_name { text } else { "" }, true));
    assert_eq!(request.unnamed.is_none(), is_name);
}

fn check_places(request: &InferenceRequest<'_>, body: &[u8]) {
    if request.unnamed.is_none() {
        let last = request.model_spans.last().unwrap().clone();
        assert_eq!(serde_json::from_slice::<String>(&body[last]).unwrap(), request.model);
    }
    assert!(request.model_spans.is_sorted_by(|one, next| one.end < next.start));
    assert!(request.prompt_tokens > 0);
}

/// What is to be read where the model stands behind the escaped field.
fn moved(mut request: InferenceRequest<'_>) -> InferenceRequest<'_> {
    request = undigested(request);
    for span in request.model_spans.iter_mut().chain(&mut request.stream_options) {
        *span = span.start + ESCAPED_FIELD.len()..span.end + ESCAPED_FIELD.len();
    }
    request
}

/// Digest and size are those of the bytes, which differ.
fn undigested(request: InferenceRequest<'_>) -> InferenceRequest<'_> {
    InferenceRequest { digest: 0, body_bytes: 0, ..request }
}
