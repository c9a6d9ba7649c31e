//! The id under which a server has stored an answer: `id` at the top of a document, or in `response` of a stream's first event.
//!
//! The first id counts, so that it is known before the client can ask for it, and whatever else comes is not kept.

use super::place::{Seen, Spot};
use crate::openai::json::Token;

/// Bytes of an id from which on it is not remembered: servers' have some forty, of an escaped or longer one not all is kept
/// while an answer is read.
pub const MAX_ID_BYTES: usize = 192;

/// The reading of one answer.
#[derive(Debug, Default)]
pub(super) struct Id {
    found: Option<Vec<u8>>,
    is_over: bool,
}

impl Id {
    /// What an answer's document says.
    pub(super) fn see(&mut self, seen: &Seen<'_>) {
        if self.is_over || seen.spot != Spot::Id || seen.token != Token::Text {
            return;
        }
        self.is_over = true;
        self.found = (1..MAX_ID_BYTES).contains(&seen.text.len()).then(|| seen.text.to_vec());
    }

    /// Takes it out, once it is here.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        self.found.take()
    }
}

#[cfg(test)]
mod tests {
    use crate::openai::answer::id::MAX_ID_BYTES;
    use crate::openai::{AnswerFormat, AnswerReader};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn read<'a>(format: AnswerFormat, pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
        let mut answer = AnswerReader::new(format);
        answer.look_for_id();
        let mut found = None;
        for piece in pieces {
            answer.push(piece, false);
            found = found.or(answer.take_id());
        }
        answer.push(b"", true);
        found
    }

    /// The same whole, byte by byte, and in two pieces however cut.
    fn check(format: AnswerFormat, answer: &str, expected: Option<&str>) {
        let same = |found: Option<Vec<u8>>, how: &str| {
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{how}: {answer:.200}");
        };
        same(read(format, [answer.as_bytes()]), "whole");
        same(read(format, answer.as_bytes().chunks(1)), "byte by byte");
        for cut in 0..=answer.len().min(2_000) {
            let (first, second) = answer.as_bytes().split_at(cut);
            same(read(format, [first, second]), &format!("cut at {cut}"));
        }
    }

    #[test]
    fn a_documents_id_is_the_one_at_its_top() {
        let check = |document: &str, expected| check(AnswerFormat::Document, document, expected);
        check(r#"{"id":"resp_1","output":[{"id":"msg_1"}]}"#, Some("resp_1"));
        check(r#"{"output":[{"id":"msg_1"}],"previous_response_id":"resp_0","id":"resp_1"}"#, Some("resp_1"));
        check(r#"{"\u0069d" : "r\u0065sp\/1\ud83d\ude00"}"#, Some("resp/1😀"));
        check(r#"{"id":"a","id":"b"}"#, Some("a"));
        for none in [
            r#"{"id":7}"#,
            r#"{"id":null}"#,
            r#"{"id":""}"#,
            r#"{"id":["a"]}"#,
            r#"{"x":{"id":"a"}}"#,
            "[\"id\"]",
            "id",
            "",
        ] {
            check(none, None);
        }
    }

    #[test]
    fn a_streams_id_is_its_first_responses() {
        let check = |stream: &str, expected| check(AnswerFormat::Events, stream, expected);
        let recorded = include_str!("../../../tests/fixtures/synthetic/responses_stream.txt");
        let (_, behind) = recorded.split_once(r#""response":{"id":""#).unwrap();
        check(recorded, behind.split_once('"').map(|(id, _)| id));
        let event = |id: &str| {
            format!(
                "event: response.created\ndata: {{\"type\":\"response.created\",\"response\":{{\"id\":\"{id}\"}}}}\n\n"
            )
        };
        check(&format!(": ping\n\n{}{}", event("resp_1"), event("resp_2")), Some("resp_1"));
        check("data: {\"item\":{\"id\":\"msg_1\"}}\n\n", None);
    }

    #[test]
    fn what_is_too_long_to_be_an_id_is_none() {
        let document = |id: &str| format!(r#"{{"id":"{id}","x":1}}"#);
        let long = "a".repeat(MAX_ID_BYTES - 1);
        check(AnswerFormat::Document, &document(&long), Some(&long));
        for too_long in ["a".repeat(MAX_ID_BYTES), "a".repeat(4_096), r"\u0061".repeat(MAX_ID_BYTES / 6 + 1)]
        {
            check(AnswerFormat::Document, &document(&too_long), None);
        }
    }

    #[test]
    fn ten_megabytes_of_ids_are_one() {
        let garbage = format!("{{{}\"x\":1}}", r#""id":"resp_garbage","#.repeat(10 << 20 >> 5));
        assert_eq!(
            read(AnswerFormat::Document, garbage.as_bytes().chunks(1 << 16)).unwrap(),
            b"resp_garbage"
        );
        let garbage = format!(r#"{{"id":"{}"}}"#, "a".repeat(10 << 20));
        assert_eq!(read(AnswerFormat::Document, garbage.as_bytes().chunks(1 << 16)), None);
    }
}
