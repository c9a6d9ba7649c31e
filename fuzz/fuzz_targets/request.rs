//! A request from a client nobody trusts. A key in front that has to be decoded takes the body past the fast reader,
//! so what it accepts can be compared with what the slow one says.
#![no_main]

use inference_picker::openai::{InferenceRequest, read_request};
use libfuzzer_sys::fuzz_target;

const ESCAPED_FIELD: &[u8] = br#""\u0061":0,"#;

fuzz_target!(|body: &[u8]| {
    let request = read_request(body).ok();
    if let Some(request) = &request {
        check_places(request, body);
    }
    let Some(brace) = body.iter().position(|byte| *byte == b'{') else {
        return assert_eq!(request, None);
    };
    let (before, fields) = body.split_at(brace + 1);
    let slow_body = [before, ESCAPED_FIELD, fields].concat();
    assert_eq!(request.map(moved), read_request(&slow_body).ok());
});

fn check_places(request: &InferenceRequest<'_>, body: &[u8]) {
    let last = request.model_spans.last().unwrap().clone();
    assert_eq!(serde_json::from_slice::<String>(&body[last]).unwrap(), request.model);
    assert!(request.model_spans.is_sorted_by(|one, next| one.end < next.start));
    assert!(request.prompt_tokens > 0);
}

/// What is to be read where the model stands behind the escaped field.
fn moved(mut request: InferenceRequest<'_>) -> InferenceRequest<'_> {
    for span in request.model_spans.iter_mut().chain(&mut request.stream_options) {
        *span = span.start + ESCAPED_FIELD.len()..span.end + ESCAPED_FIELD.len();
    }
    request
}
