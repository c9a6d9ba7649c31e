//! An answer from a server nobody trusts: what it costs and reports is read the same however it is cut, and what is to be hidden
//! of it is gone and nothing else; where it is JSON, as a slow reader of whole answers says. Any bytes, and any in a
//! stream that is right around them.
#![no_main]

#[path = "../../tests/usage_oracle/mod.rs"]
mod usage_oracle;

use inference_picker::openai::{AnswerFormat, Usage};
use libfuzzer_sys::fuzz_target;
use serde_json::json;
use usage_oracle::{account, hide, lines, read, visible};

const LAST: &[u8] =
    b"\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n";

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    check(&[b"data: {\"choices\":", bytes, b",\"usage\":null}", LAST].concat());
    check_text(&String::from_utf8_lossy(bytes));
    check_alike(bytes);
});

/// Events that differ in their text alone: the first half of the bytes is ahead of it, the second behind it.
fn check_alike(bytes: &[u8]) {
    let (ahead, behind) = bytes.split_at(bytes.len() / 2);
    let event = |text: &[u8]| [b"data: {\"choices\":[{\"text\"", ahead, text, behind, b"\n\n"].concat();
    check(&[b"a" as &[u8], b"", b"usage", b"\\\"", b"\\"].map(event).concat());
}

/// A text in an event is none of what is looked for.
fn check_text(text: &str) {
    let event = json!({"choices": [{"delta": {"content": "a", "role": text}}], "system_fingerprint": text});
    let stream = [b"data: ", event.to_string().as_bytes(), LAST].concat();
    check(&stream);
    let usage = Usage { prompt_tokens: 7, completion_tokens: 2, cached_tokens: None };
    let read = read(AnswerFormat::Events, [stream]);
    assert_eq!((read.usage, read.output_events, read.complete, read.failure), (Some(usage), 1, true, None));
}

fn check(answer: &[u8]) {
    for format in [AnswerFormat::Document, AnswerFormat::Events] {
        let found = read(format, [answer]);
        for length in [1, 7] {
            assert_eq!(found, read(format, answer.chunks(length)));
        }
        if let Some(expected) = account(format, answer) {
            assert_eq!(found, expected);
        }
    }
    let rewritten = hide([answer]);
    for length in [1, 7] {
        assert_eq!(rewritten, hide(answer.chunks(length)));
    }
    if let Some(expected) = visible(answer) {
        assert_eq!(lines(&rewritten), Some(expected));
    }
}
