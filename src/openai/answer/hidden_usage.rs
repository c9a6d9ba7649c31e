//! Takes the usage out of a stream again that was asked for on the client's behalf ([`include_usage()`](crate::openai::include_usage())), so
//! that the client sees what it would have seen without.
//!
//! Taken out are
//! - the one event more, whose `choices` is an empty list and whose `usage` is an object: its `data:` line, and the
//!   blank line behind it where the event is that line alone, and
//! - the member `"usage": null`, with the comma ahead of it, that some servers put into all other events.
//!
//! Every other byte passes as it came. `system_fingerprint` is not put back: vLLM moves it from the last event with
//! output to the one that is taken out.
//!
//! # What is held back, and how long
//!
//! A `data:` line from its beginning to the `[{` of `choices`, which comes behind id, time and model and says that this
//! event is none to take out; from there on only what may become `,"usage":null`. An event is held to its end if it
//! has no `choices`, or none in them. Servers write an event at once, so bytes wait only where the network has cut one.
//! What grows beyond 8 KiB (`MAX_HELD_BYTES`) passes as it is.
//!
//! As in [`super::AnswerUsage`], a name spelled with escapes is not recognized, broken JSON is no error, and a
//! compressed answer is the caller's to keep away. A `usage` that stands first in its object is left there.

use std::borrow::Cow;

use memchr::memmem;

use super::event_lines::{EventLines, Part};
use crate::openai::json::{Bracket, JsonTokens, Token};

/// The most that is held back, in bytes. An event with usage has 400, and the name of a model, of at most
/// [`MAX_MODEL_NAME_BYTES`](crate::openai::MAX_MODEL_NAME_BYTES), six times that when it is spelled with escapes.
const MAX_HELD_BYTES: usize = 8 * 1024;

/// The rewriting of one stream.
#[derive(Debug)]
pub struct HiddenUsage {
    lines: EventLines,
    tokens: JsonTokens,
    /// What may not go on yet, and during a push the bytes ahead of that.
    pending: Vec<u8>,
    /// Where in `pending` the line begins that may be taken out.
    line_from: Option<usize>,
    /// Where in `pending` the member begins that may be `usage: null`: behind the value ahead of it.
    member_from: Option<usize>,
    document: Document,
    /// Whether the next line is the first of its event.
    begins_event: bool,
    /// Whether an event was taken out, so that its blank line goes, too.
    ends_hidden: bool,
}

/// What is known of the document in this line.
#[derive(Debug, Default)]
struct Document {
    /// The last key at the top.
    key: Key,
    /// Whether there are `choices`, and none in them.
    no_choices: bool,
    /// Whether there is a `usage`, and it is an object.
    has_usage: bool,
    /// Whether it has come to its end and is to be taken out.
    hidden: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Key {
    Choices,
    Usage,
    #[default]
    Other,
}

impl Default for HiddenUsage {
    fn default() -> HiddenUsage {
        HiddenUsage::new()
    }
}

impl HiddenUsage {
    /// For one answer.
    pub fn new() -> HiddenUsage {
        HiddenUsage {
            lines: EventLines::new(),
            tokens: JsonTokens::new(),
            pending: Vec::new(),
            line_from: Some(0),
            member_from: None,
            document: Document::default(),
            begins_event: true,
            ends_hidden: false,
        }
    }

    /// Takes the next bytes of the answer; returns what may go on now. `end`: these were the last.
    ///
    /// All that was returned, joined, is the answer without the usage, however its bytes were cut.
    pub fn push<'a>(&mut self, bytes: &'a [u8], end: bool) -> Cow<'a, [u8]> {
        if self.has_nothing_to_do(bytes) {
            return Cow::Borrowed(bytes);
        }
        self.pending.reserve(bytes.len());
        let mut rest = bytes;
        while let Some(part) = self.lines.next(&mut rest) {
            match part {
                Part::Start(text) => self.pending.extend_from_slice(text),
                Part::Data(text) => self.read(text),
                Part::Other(text) => {
                    self.line_from = None;
                    self.pending.extend_from_slice(text);
                }
                Part::End { blank } => {
                    self.pending.push(b'\n');
                    self.end_line(blank);
                }
            }
        }
        if end && self.document.hidden {
            self.take_out(self.line_from);
        }
        Cow::Owned(self.release(end))
    }

    /// Whether these are whole events in which nothing can be a usage, as most of a stream is: they need not be read.
    fn has_nothing_to_do(&self, bytes: &[u8]) -> bool {
        let between_events = self.pending.is_empty() && self.line_from == Some(0) && self.begins_event;
        between_events
            && !self.ends_hidden
            && bytes.ends_with(b"\n\n")
            && memmem::find(bytes, b"usage").is_none()
    }

    fn read(&mut self, text: &[u8]) {
        let mut rest = text;
        loop {
            let before = rest;
            let token = self.tokens.next(&mut rest);
            let read = before.len() - rest.len();
            self.pending.extend_from_slice(before.get(..read).unwrap_or_default());
            match token {
                Some(Token::Open(bracket)) => self.open(bracket),
                Some(Token::Close { empty }) => self.close(empty),
                Some(Token::Key) => self.read_key(),
                Some(Token::Text) => self.read_text(),
                Some(Token::Word) => self.read_word(),
                None => break,
            }
        }
        if self.tokens.has_ended() && !self.document.hidden {
            self.line_from = None;
        }
    }

    /// Passes over every bracket but the document's and that of `choices`, unless something is in it.
    fn open(&mut self, bracket: Bracket) {
        match (self.tokens.depth(), self.document.key, bracket) {
            (1, _, Bracket::Object) | (2, Key::Choices, Bracket::List) => return,
            (2, Key::Usage, Bracket::Object) => self.document.has_usage = true,
            (2, Key::Other, _) => {}
            _ => self.line_from = None,
        }
        self.member_from = None;
        self.tokens.skip(bracket);
    }

    fn close(&mut self, empty: bool) {
        match (self.tokens.depth(), self.document.key) {
            (0, _) => {
                self.document.hidden =
                    self.line_from.is_some() && self.document.no_choices && self.document.has_usage;
                self.member_from = None;
            }
            (1, Key::Choices) if empty => self.document.no_choices = true,
            (1, Key::Choices) => self.line_from = None,
            _ => {}
        }
        self.end_value();
    }

    fn read_key(&mut self) {
        if self.tokens.depth() != 1 {
            return;
        }
        self.document.key = match self.tokens.text() {
            b"choices" => Key::Choices,
            b"usage" => Key::Usage,
            _ => Key::Other,
        };
        if self.document.key != Key::Usage {
            self.member_from = None;
        }
    }

    fn read_text(&mut self) {
        if self.document.key != Key::Other {
            self.line_from = None;
        }
        self.end_value();
    }

    fn read_word(&mut self) {
        if self.document.key != Key::Other {
            self.line_from = None;
        }
        if (self.tokens.depth(), self.document.key, self.tokens.text()) == (1, Key::Usage, b"null") {
            self.take_out(self.member_from);
        }
        self.end_value();
    }

    /// Behind a value at the top: the next member begins here.
    fn end_value(&mut self) {
        if self.tokens.depth() == 1 {
            self.member_from = Some(self.pending.len());
        }
    }

    fn end_line(&mut self, blank: bool) {
        if self.document.hidden && self.take_out(self.line_from) {
            self.ends_hidden = self.begins_event;
        } else {
            if blank && self.ends_hidden {
                self.take_out(self.line_from);
            }
            self.ends_hidden = false;
            self.begins_event = blank;
        }
        self.tokens.restart();
        self.document = Document::default();
        self.line_from = Some(self.pending.len());
        self.member_from = None;
    }

    /// Drops what is pending from this place on, if there is one and it could be held back however it was cut.
    fn take_out(&mut self, from: Option<usize>) -> bool {
        let from = from.filter(|from| self.may_hold(*from));
        if let Some(from) = from {
            self.pending.truncate(from);
        }
        from.is_some()
    }

    fn may_hold(&self, from: usize) -> bool {
        self.pending.len().saturating_sub(from) <= MAX_HELD_BYTES
    }

    /// The pending bytes, without those that are held back.
    fn release(&mut self, end: bool) -> Vec<u8> {
        self.line_from = self.line_from.filter(|from| !end && self.may_hold(*from));
        self.member_from = self.member_from.filter(|from| !end && self.may_hold(*from));
        let held_from = self.line_from.or(self.member_from).unwrap_or(self.pending.len());
        let passing_bytes = held_from.min(self.pending.len());
        let held = self.pending.split_off(passing_bytes);
        self.line_from = self.line_from.map(|_| 0);
        self.member_from = self.member_from.map(|from| from.saturating_sub(passing_bytes));
        std::mem::replace(&mut self.pending, held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const OUTPUT: &str = r#"{"id":"1","choices":[{"index":0,"text":"a"}]}"#;
    const USAGE: &str = r#"{"id":"1","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1}}"#;

    fn hide<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let mut answer = HiddenUsage::new();
        let mut rewritten = vec![];
        for piece in pieces {
            rewritten.extend_from_slice(&answer.push(piece, false));
            assert!(answer.pending.len() <= MAX_HELD_BYTES);
        }
        rewritten.extend_from_slice(&answer.push(b"", true));
        rewritten
    }

    /// The same whole, byte by byte, and in two pieces however cut.
    fn check(stream: impl AsRef<[u8]>, expected: impl AsRef<[u8]>) {
        let (stream, expected) = (stream.as_ref(), String::from_utf8_lossy(expected.as_ref()));
        let same = |rewritten: &[u8], how: &str| {
            assert_eq!(
                String::from_utf8_lossy(rewritten),
                expected,
                "{how}: {}",
                String::from_utf8_lossy(stream)
            );
        };
        same(&HiddenUsage::new().push(stream, true), "whole");
        same(&hide(stream.chunks(1)), "byte by byte");
        for cut in 0..=stream.len() {
            let (first, second) = stream.split_at(cut);
            same(&hide([first, second]), &format!("cut at {cut}"));
        }
    }

    fn check_untouched(stream: &str) {
        check(stream, stream);
    }

    fn events<'a>(documents: impl IntoIterator<Item = &'a str>) -> String {
        documents.into_iter().map(|document| format!("data: {document}\n\n")).collect()
    }

    /// Bodies of streams of one API: without usage, and with it.
    macro_rules! recorded {
        ($name:literal) => {
            [
                include_str!(concat!("../../../tests/fixtures/vllm-0.32/", $name, ".http")),
                include_str!(concat!("../../../tests/fixtures/vllm-0.32/", $name, "_usage.http")),
            ]
            .map(|answer| answer.split_once("\r\n\r\n").or_else(|| answer.split_once("\n\n")).unwrap().1)
        };
    }

    /// The id differs with every request; the fingerprint is in the event taken out.
    fn without_what_differs(stream: &str) -> String {
        let (_, behind) = stream.split_once(r#""id":""#).unwrap();
        let (id, _) = behind.split_once('"').unwrap();
        stream.replace(id, "ID").replace(r#","system_fingerprint":"vllm-0.32.0-53379a06""#, "")
    }

    fn without_usage_event(stream: &str) -> String {
        let (events, done) = stream.rsplit_once("data: [DONE]").unwrap();
        let (outputs, usage) = events.trim_end().rsplit_once("data: ").unwrap();
        assert!(usage.contains(r#""choices":[],"usage":{"#));
        format!("{outputs}data: [DONE]{done}")
    }

    #[test]
    fn a_stream_of_vllm_is_as_it_would_have_been_without_usage() {
        for [without, with] in [recorded!("chat_stream"), recorded!("comp_stream")] {
            let expected = without_usage_event(with);
            check(with, &expected);
            assert_eq!(without_what_differs(&expected), without_what_differs(without));
            let crlf = |stream: &str| stream.replace('\n', "\r\n");
            check(crlf(with), crlf(&expected));
        }
    }

    #[test]
    fn streams_without_usage_pass_unchanged() {
        for [without, _] in [recorded!("chat_stream"), recorded!("comp_stream")] {
            check_untouched(without);
        }
        check_untouched(include_str!("../../../tests/fixtures/synthetic/messages_stream.txt"));
        check_untouched(include_str!("../../../tests/fixtures/synthetic/responses_stream.txt"));
        check_untouched(include_str!("../../../tests/fixtures/vllm-0.32/err_bad_json.http"));
    }

    #[test]
    fn usage_that_is_null_is_taken_out_of_every_event() {
        let [_, with] = recorded!("comp_stream");
        for null in [r#","usage":null"#, " ,\t\"usage\" : null"] {
            check(with.replace("}]", &format!("}}]{null}")), without_usage_event(with));
        }
        check(
            events([
                r#"{"usage":null,"a":{},"usage":null,"usage":null,"choices":[{}] ,"usage":null }"#,
                "[DONE]",
            ]),
            events([r#"{"usage":null,"a":{},"choices":[{}] }"#, "[DONE]"]),
        );
    }

    #[test]
    fn only_an_event_with_usage_and_without_choices_is_taken_out() {
        check(events([OUTPUT, USAGE, "[DONE]"]), events([OUTPUT, "[DONE]"]));
        check(events([USAGE, USAGE]), "");
        check(events([r#"{"usage":{},"choices":[ ]}"#, r#" { "choices" : [] , "usage" : {"a":[]} } "#]), "");
        for other in [
            r#"{"choices":[{"index":0,"text":"a"}],"usage":{"prompt_tokens":9}}"#,
            r#"{"choices":[]}"#,
            r#"{"usage":{"prompt_tokens":9}}"#,
            r#"{"choices":[],"usage":[]}"#,
            r#"{"choices":[],"usage":5}"#,
            r#"{"choices":[],"usage":"null"}"#,
            r#"{"choices":["a"],"usage":{}}"#,
            r#"{"choices":[0],"usage":{}}"#,
            r#"{"choices":[[]],"usage":{}}"#,
            r#"{"choices":{},"usage":{}}"#,
            r#"{"choices":null,"usage":{}}"#,
            r#"{"choices":"","usage":{}}"#,
            r#"{"choices":[],"x":{"usage":{}}}"#,
            r#"{"x":{"choices":[]},"usage":{}}"#,
            r#"[{"choices":[],"usage":{}}]"#,
            r#"{"x":"{\"choices\":[],\"usage\":{}}","y":[{"a":1,"usage":null}]}"#,
            r#"{"choices":[{}],"choices":[],"usage":{}}"#,
            r#"{"choices":["a"],"choices":[],"usage":{}}"#,
            r#"{"choices":[],"usage":{}"#,
            r#"{"error":{"message":"a","code":500}}"#,
            "hello, \"usage\":null",
            "[]\n\nevent: data: {\"choices\":[],\"usage\":{}}\n\ndatas: {\"choices\":[],\"usage\":{}}",
            "",
        ] {
            check_untouched(&events([OUTPUT, other, OUTPUT, "[DONE]"]));
        }
    }

    #[test]
    fn a_line_begins_anew_wherever_the_one_before_was_cut_off() {
        for cut_off in
            [r#"{"x":"\"#, r#"{"x":"a"#, r#"{"choices":[],"usage":{"#, r#"{"a":1,"usage":nul"#, "[", "x"]
        {
            check(
                format!("data: {cut_off}\n\n{}", events([USAGE, OUTPUT])),
                format!("data: {cut_off}\n\n{}", events([OUTPUT])),
            );
        }
    }

    #[test]
    fn what_stands_around_the_event_stays() {
        for (stream, expected) in [
            (format!(": a\n\ndata: {USAGE}\n\n: b\n\n"), ": a\n\n: b\n\n"),
            (format!("id: 1\ndata: {USAGE}\n\ndata: [DONE]\n\n"), "id: 1\n\ndata: [DONE]\n\n"),
            (format!("data: {USAGE}\nid: 1\n\n"), "id: 1\n\n"),
            (format!("data: {USAGE}\n\n\n\ndata: {USAGE}\r\n\r\n\r\n"), "\n\n\r\n"),
            (format!("data: {USAGE}"), ""),
        ] {
            let expected =
                if expected.is_empty() && stream.starts_with("event") { &stream } else { expected };
            check(&stream, expected);
        }
    }

    #[test]
    fn bytes_wait_only_while_they_may_be_taken_out() {
        for (piece, passes) in [
            ("data: [", "data: ["),
            ("data: {\"id\":\"1\",\"choices\":[", ""),
            ("data: {\"id\":\"1\",\"choices\":[{", "data: {\"id\":\"1\",\"choices\":[{"),
            ("data: {\"choices\":[{\"text\":\"a\"}]", "data: {\"choices\":[{\"text\":\"a\"}]"),
            ("data: {\"choices\":[{}],\"usa", "data: {\"choices\":[{}]"),
            ("data: {\"choices\":[{}],\"usage\":nul", "data: {\"choices\":[{}]"),
            ("data: {\"choices\":[{}],\"usage\":{", "data: {\"choices\":[{}],\"usage\":{"),
            ("data: {\"choices\":[{}],\"x\":", "data: {\"choices\":[{}],\"x\":"),
            ("data: {\"error\":{}", ""),
            ("data: {\"error\":{}}", "data: {\"error\":{}}"),
            ("data: {\"choices\":[],\"usage\":{}}", ""),
            (": pi", ": pi"),
            ("dat", ""),
            ("date", "date"),
        ] {
            assert_eq!(String::from_utf8_lossy(&HiddenUsage::new().push(piece.as_bytes(), false)), passes);
        }
    }

    #[test]
    fn an_event_or_member_that_grows_too_large_passes_as_it_is_however_cut() {
        let padding = |bytes: usize| " ".repeat(bytes);
        let event =
            |bytes: usize| format!("data: {USAGE}{}\n\n", padding(bytes - USAGE.len() - "data: \n".len()));
        let member =
            |bytes: usize| format!("data: {{\"choices\":[{{}}],\"usage\":{}null}}\n\n", padding(bytes - 13));
        let few_cuts = |stream: &str, expected: &str| {
            for length in [1, 7, 1_000, MAX_HELD_BYTES, usize::MAX] {
                assert!(hide(stream.as_bytes().chunks(length)) == expected.as_bytes(), "{length}");
            }
        };
        few_cuts(&event(MAX_HELD_BYTES), "");
        few_cuts(&event(MAX_HELD_BYTES + 1), &event(MAX_HELD_BYTES + 1));
        few_cuts(&member(MAX_HELD_BYTES), "data: {\"choices\":[{}]}\n\n");
        few_cuts(&member(MAX_HELD_BYTES + 1), &member(MAX_HELD_BYTES + 1));
        let large = events([
            &format!("{{\"{0}\":\"{0}\",\"x\":[{0}],\"choices\":[]}}", "a".repeat(1_000_000)),
            OUTPUT,
        ]);
        few_cuts(&large, &large);
    }
}
