//! An answer from a server nobody trusts: it comes out the same however it is cut, two renamings add up to one, and
//! where a document is JSON its meaning changes in the model's name alone. Any bytes, and any in a stream's event that is
//! right around them.
#![no_main]

use inference_picker::openai::{AnswerFormat, AnswerReader};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

const SENT: &str = "sql-lora";
const ASKED: &str = "\"asked\"";

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    // The same bytes as a value of an event, and as text in one.
    check(
        &[b"data: {\"model\":\"sql-lora\",\"choices\":", bytes, b",\"usage\":null}\n\ndata: [DONE]\n\n"]
            .concat(),
    );
    let text = String::from_utf8_lossy(bytes);
    let event = json!({"id": text, "choices": [{"delta": {"content": text, "model": text}}], "model": SENT, "user": text});
    check(format!("data: {event}\r\n\r\n").as_bytes());
});

fn check(answer: &[u8]) {
    let rewritten = rewrite(SENT, ASKED, answer, usize::MAX);
    for length in [1, 7] {
        assert_eq!(rewritten, rewrite(SENT, ASKED, answer, length));
    }
    let normal = rewrite(SENT, SENT, answer, 1);
    let there_and_back = rewrite(ASKED, SENT, &rewritten, 7);
    assert_eq!(there_and_back, rewrite(ASKED, SENT, &normal, usize::MAX));
    if !answer.contains(&b'\\') {
        assert_eq!(normal, answer);
    }
    check_meaning(answer, &rewritten);
}

fn rewrite(sent: &str, asked: &str, answer: &[u8], length: usize) -> Vec<u8> {
    let mut model = AnswerReader::new(format(answer));
    model.rename_model(sent, asked);
    let mut rewritten = vec![];
    answer.chunks(length).for_each(|piece| rewritten.extend_from_slice(&model.push(piece, false)));
    rewritten.extend_from_slice(&model.push(b"", true));
    rewritten
}

/// As the content type would say it: what begins with a brace is a document.
fn format(answer: &[u8]) -> AnswerFormat {
    let is_document = answer.trim_ascii_start().starts_with(b"{");
    if is_document { AnswerFormat::Document } else { AnswerFormat::Events }
}

fn check_meaning(answer: &[u8], rewritten: &[u8]) {
    if answer.trim_ascii_start().starts_with(b"{") {
        return check_document(answer, rewritten);
    }
    let lines = |bytes: &[u8]| bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let (before, after) = (lines(answer), lines(rewritten));
    assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(&after) {
        match (before.strip_prefix(b"data:"), after.strip_prefix(b"data:")) {
            (Some(before), Some(after)) => check_document(before, after),
            _ => assert!(before == after || before.trim_ascii_start().starts_with(b"data:")),
        }
    }
}

fn check_document(before: &[u8], after: &[u8]) {
    if let Ok(before @ Value::Object(_)) = serde_json::from_slice(before) {
        assert_eq!(renamed(before), serde_json::from_slice::<Value>(after).unwrap());
    }
}

fn renamed(mut document: Value) -> Value {
    for place in ["/model", "/response/model", "/message/model"] {
        if let Some(name) = document.pointer_mut(place)
            && name == SENT
        {
            *name = ASKED.into();
        }
    }
    document
}
