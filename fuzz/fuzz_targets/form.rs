//! A multipart form from a client nobody trusts: the models that are found in it, put in place of each other, are found
//! again where they stand, and nothing else has changed. Any bytes as a form; as its boundary; as what stands around a field.
#![no_main]

use inference_picker::openai::{ExpectedBody, apply_edits, model_edits};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    check("x", bytes);
    let field = b"--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n";
    check("x", &[bytes, b"\r\n", field, bytes, b"\r\n--x--"].concat());
    check("x", &[&field[..], b"--x\r\n", bytes, b"\r\n\r\n", bytes, b"\r\n--x--"].concat());
    let boundary = String::from_utf8_lossy(bytes);
    check(
        &boundary,
        format!("--{boundary}\r\nContent-Disposition: form-data; name=model\r\n\r\nm\r\n--{boundary}--")
            .as_bytes(),
    );
});

fn check(boundary: &str, body: &[u8]) {
    const TARGET: &str = "target";
    let content_type = format!("multipart/form-data; boundary=\"{boundary}\"");
    let Some(expected) = ExpectedBody::of(b"/v1/audio/transcriptions", Some(content_type.as_bytes()), None)
    else {
        return;
    };
    let Some(request) = expected.read(body).unwrap() else { return };
    assert_eq!(&body[request.model_spans.last().unwrap().clone()], request.model.as_bytes());
    let edited = apply_edits(body, model_edits(&request, TARGET));
    let again = expected.read(&edited).unwrap().unwrap();
    assert_eq!((&*again.model, again.model_spans.len()), (TARGET, request.model_spans.len()));
    let outside = |body: &[u8], spans: &[std::ops::Range<usize>]| {
        let keep = |place: &usize| !spans.iter().any(|span| span.contains(place));
        (0..body.len()).filter(keep).map(|place| body[place]).collect::<Vec<u8>>()
    };
    assert_eq!(outside(body, &request.model_spans), outside(&edited, &again.model_spans));
}
