//! How the body of an answer is made up.

use crate::openai::content_type::{is_json_type, media_type};

/// How an answer's body is made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerFormat {
    /// One JSON document.
    Document,
    /// Server-sent events, with a JSON document in each `data:` line.
    Events,
}

impl AnswerFormat {
    /// The format that a `content-type` names, if it is one of the two.
    pub fn of(content_type: &[u8]) -> Option<AnswerFormat> {
        if is_json_type(content_type) {
            return Some(AnswerFormat::Document);
        }
        let is_stream = media_type(content_type).eq_ignore_ascii_case(b"text/event-stream");
        is_stream.then_some(AnswerFormat::Events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn the_content_type_names_the_format() {
        let of = |content_type: &str| AnswerFormat::of(content_type.as_bytes());
        assert_eq!(of("application/json"), Some(AnswerFormat::Document));
        assert_eq!(of("Text/Event-Stream; charset=utf-8"), Some(AnswerFormat::Events));
        assert_eq!(of("text/plain"), None);
        assert_eq!(of(""), None);
    }
}
