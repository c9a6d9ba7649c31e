//! An answer from a server nobody trusts: what it costs is read the same however it is cut, and what is to be hidden
//! of it is gone and nothing else; where it is JSON, as a slow reader of whole answers says.
#![no_main]

#[path = "../../tests/usage_oracle/mod.rs"]
mod usage_oracle;

use inference_picker::openai::AnswerFormat;
use libfuzzer_sys::fuzz_target;
use usage_oracle::{account, hide, lines, read, visible};

fuzz_target!(|answer: &[u8]| {
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
});
