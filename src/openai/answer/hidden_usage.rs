//! Takes the usage out of a stream again that was asked for on the client's behalf ([`include_usage()`](crate::openai::include_usage())), so
//! that the client sees what it would have seen without.
//!
//! Taken out are
//! - the one event more, whose `choices` is an empty list and whose `usage` is an object, with all its lines: an event
//!   without data is an error to some clients; and
//! - the member `"usage": null`, with the comma ahead of it, that some servers put into all other events.
//!
//! Put back is what servers move to the event that is taken out: vLLM its `system_fingerprint`, llama.cpp its `timings`. They
//! become the last members of the event with the finish reason, where they stand otherwise. Every other byte passes as it came.
//!
//! A server that reports the usage in its events with output, too, reports it to everybody (`--enable-force-include-usage` of vLLM
//! 0.32): that was not asked for, so its clients keep what they would have seen, and nothing is taken out from then on.
//!
//! # What is held back, and how long
//!
//! An event from its first line to the `[{` of `choices`, which comes behind id, time and model and says that this event is
//! none to take out; comments ahead of it pass. From there on what may become `,"usage":null`, and of an event with a finish
//! reason what follows its last member, until it is known whether the next event is to be taken out. An event is held to its
//! end if it has no `choices`, or none in them. Servers write an event at once, so bytes wait only where the network has cut
//! one. What grows beyond [`MAX_HELD_BYTES`](super::passage::MAX_HELD_BYTES) passes as it is.
//!
//! An event with several `data:` lines is not taken out. A `usage` that stands first in its object is left there.

use super::passage::{Mark, Passage};
use super::place::{Seen, Spot};
use crate::openai::json::{Bracket, Token};

/// What is put back, by name.
const MOVED: [(Spot, &str); 2] = [(Spot::Fingerprint, "system_fingerprint"), (Spot::Timings, "timings")];

/// The reading of one stream.
#[derive(Debug, Default)]
pub(super) struct HiddenUsage {
    /// Whether the server reports the usage to everybody.
    is_forced: bool,
    /// Where the event begins, while it may have to be taken out.
    event_from: Option<Mark>,
    /// Whether the event has had a `data:` line.
    has_data: bool,
    /// Whether the last one is to be taken out.
    is_hidden: bool,
    /// Where the member begins that may be `usage: null`: behind the value ahead of it.
    member_from: Option<Mark>,
    document: Document,
    finished: Option<Finished>,
    /// What the event to be taken out has of [`MOVED`].
    moved: Members,
}

/// Values at the top of a document, as they are spelled; of one that has passed on nothing.
type Members = [Option<Vec<u8>>; MOVED.len()];

/// What is known of the document in this line.
#[derive(Debug, Default)]
struct Document {
    /// Whether there are `choices`, and none in them.
    no_choices: bool,
    /// Whether there is something in them.
    has_choices: bool,
    /// Whether there is a `usage`, and it is an object.
    has_usage: bool,
    has_finish_reason: bool,
    /// Which of [`MOVED`] is being read, and where its value begins.
    value_from: Option<(usize, Mark)>,
    members: Members,
}

/// The last event with a finish reason, until another follows.
#[derive(Debug)]
struct Finished {
    /// Ahead of the bracket that closes its document.
    end: Mark,
    members: Members,
}

impl HiddenUsage {
    /// What may not go on yet.
    pub(super) fn held(&self) -> impl Iterator<Item = Mark> {
        let finished = self.finished.as_ref().map(|finished| finished.end);
        [self.event_from, self.member_from, finished].into_iter().flatten()
    }

    /// An event begins, that is no comment.
    pub(super) fn begin_event(&mut self, passage: &Passage<'_>) {
        self.event_from = Some(passage.mark());
    }

    /// An event came that is like one that is not taken out.
    pub(super) fn pass_event(&mut self) {
        self.finished = None;
    }

    /// The token is the last that has come.
    pub(super) fn see(&mut self, seen: &Seen<'_>, passage: &mut Passage<'_>) {
        match (seen.depth, seen.spot, seen.token) {
            (1, spot, Token::Key) => self.see_key(spot, passage),
            (1, ..) => self.see_member(seen, passage),
            (0, _, Token::Close { .. }) => self.end_object(passage),
            (0, _, Token::Open(Bracket::List)) | (_, Spot::Choice, Token::Open(_)) => self.keep_event(),
            (_, Spot::FinishReason, Token::Text) => self.document.has_finish_reason = true,
            _ => {}
        }
    }

    fn see_key(&mut self, spot: Spot, passage: &Passage<'_>) {
        if spot != Spot::Usage {
            self.member_from = None;
        }
        self.document.value_from = place_of(spot).map(|place| (place, passage.mark()));
    }

    /// A value at the top begins or ends. Behind it the next member begins.
    fn see_member(&mut self, seen: &Seen<'_>, passage: &mut Passage<'_>) {
        match (seen.spot, seen.token) {
            (Spot::Usage, Token::Open(Bracket::Object)) => self.document.has_usage = true,
            (Spot::Usage, Token::Close { .. }) | (Spot::Choices, Token::Open(Bracket::List)) => {}
            (Spot::Choices, Token::Close { empty: true }) => self.document.no_choices = true,
            (Spot::Usage, Token::Word) if seen.text == b"null" => {
                self.keep_event();
                self.take_out_member(passage);
            }
            (Spot::Choices, Token::Close { .. }) => {
                self.document.has_choices = true;
                self.keep_event();
            }
            (Spot::Usage | Spot::Choices, _) => self.keep_event(),
            _ => {}
        }
        let ends = !matches!(seen.token, Token::Open(_));
        self.member_from = ends.then(|| passage.mark());
        if ends
            && let Some((place, from)) = self.document.value_from.take()
            && let Some(member) = self.document.members.get_mut(place)
        {
            *member = Some(passage.since(from).unwrap_or_default().trim_ascii().to_vec());
        }
    }

    /// The document is closed.
    fn end_object(&mut self, passage: &Passage<'_>) {
        self.member_from = None;
        self.is_forced |= self.document.has_choices && self.document.has_usage;
        self.is_hidden = self.event_from.is_some()
            && !self.is_forced
            && self.document.no_choices
            && self.document.has_usage;
        if self.is_hidden {
            self.moved = std::mem::take(&mut self.document.members);
            return;
        }
        self.keep_event();
        if self.document.has_finish_reason {
            let members = std::mem::take(&mut self.document.members);
            self.finished = Some(Finished { end: passage.mark_before_last(), members });
        }
    }

    /// This event is not taken out, so nothing of it is put into the one before.
    fn keep_event(&mut self) {
        if self.event_from.take().is_some() {
            self.finished = None;
        }
    }

    fn take_out_member(&mut self, passage: &mut Passage<'_>) {
        if let Some(from) = self.member_from {
            passage.replace_since(from, b"");
        }
    }

    /// A line has ended, a `data:` line or another, and with it its document.
    pub(super) fn end_line(&mut self, is_data: bool) {
        if is_data && (std::mem::replace(&mut self.has_data, true) || !self.is_hidden) {
            self.keep_event();
        }
        self.document = Document::default();
        self.member_from = None;
    }

    /// A blank line has come, or the answer has ended: says whether the event was taken out.
    pub(super) fn end_event(&mut self, passage: &mut Passage<'_>) -> bool {
        let is_hidden = std::mem::take(&mut self.is_hidden);
        let event_from = self.event_from.take().filter(|_| is_hidden);
        let moved = std::mem::take(&mut self.moved);
        self.has_data = false;
        let is_taken_out = event_from.is_some_and(|from| passage.replace_since(from, b""));
        if event_from.is_some()
            && let Some(finished) = self.finished.take()
            && is_taken_out
        {
            passage.insert(finished.end, &put_back(&moved, &finished.members));
        }
        is_taken_out
    }
}

fn place_of(spot: Spot) -> Option<usize> {
    MOVED.iter().position(|(moved, _)| *moved == spot)
}

/// The members that were moved, as they are written at the end of an object that may have some of them itself.
fn put_back(moved: &Members, present: &Members) -> Vec<u8> {
    let mut written = Vec::new();
    for (((_, name), value), present) in MOVED.iter().zip(moved).zip(present) {
        if let (Some(value), None) =
            (value.as_deref().filter(|value| !matches!(*value, b"" | b"null")), present)
        {
            written.extend_from_slice(format!(",\"{name}\":").as_bytes());
            written.extend_from_slice(value);
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use crate::openai::answer::passage::MAX_HELD_BYTES;
    use crate::openai::{AnswerFormat, AnswerReader};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const OUTPUT: &str = r#"{"id":"1","choices":[{"index":0,"text":"a"}]}"#;
    const USAGE: &str = r#"{"id":"1","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1}}"#;

    fn answer() -> AnswerReader {
        let mut answer = AnswerReader::new(AnswerFormat::Events);
        answer.hide_usage();
        answer
    }

    fn hide<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let mut answer = answer();
        let mut rewritten = vec![];
        for piece in pieces {
            rewritten.extend_from_slice(&answer.push(piece, false));
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
        same(&answer().push(stream, true), "whole");
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

    const FINGERPRINT: &str = r#","system_fingerprint":"vllm-0.32.0-53379a06""#;

    /// The id differs with every request.
    fn without_id(stream: &str) -> String {
        let (_, behind) = stream.split_once(r#""id":""#).unwrap();
        let (id, _) = behind.split_once('"').unwrap();
        stream.replace(id, "ID")
    }

    fn without_usage_event(stream: &str) -> String {
        let (events, done) = stream.rsplit_once("data: [DONE]").unwrap();
        let (outputs, usage) = events.trim_end().rsplit_once("data: ").unwrap();
        assert!(usage.contains(r#""choices":[],"usage":{"#) && usage.contains(FINGERPRINT));
        let outputs = outputs.strip_suffix("}\n\n").unwrap();
        format!("{outputs}{FINGERPRINT}}}\n\ndata: [DONE]{done}")
    }

    #[test]
    fn a_stream_of_vllm_is_as_it_would_have_been_without_usage() {
        for [without, with] in [recorded!("chat_stream"), recorded!("comp_stream")] {
            let expected = without_usage_event(with);
            check(with, &expected);
            assert_eq!(without_id(&expected), without_id(without));
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
    fn answers_of_a_server_that_reports_the_usage_to_everybody_are_not_changed() {
        let forced = OUTPUT.replace("}]}", r#"}],"usage":{"prompt_tokens":9,"completion_tokens":1}}"#);
        check_untouched(&events([&forced, &forced, USAGE, "[DONE]"]));
        check(events([OUTPUT, USAGE, &forced, USAGE]), events([OUTPUT, &forced, USAGE]));
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
    fn the_whole_event_goes_or_none_of_it() {
        for (stream, expected) in [
            (format!(": a\n\ndata: {USAGE}\n\n: b\n\n"), ": a\n\n: b\n\n"),
            (format!(": a\ndata: {USAGE}\n\ndata: [DONE]\n\n"), ": a\ndata: [DONE]\n\n"),
            (format!("id: 1\ndata: {USAGE}\n\ndata: [DONE]\n\n"), "data: [DONE]\n\n"),
            (format!("data: {USAGE}\nid: 1\n\n"), ""),
            (format!("event: x\r\n: c\r\ndata: {USAGE}\r\nretry: 1\r\n\r\nid: 2\r\n\r\n"), "id: 2\r\n\r\n"),
            (format!("data: {USAGE}\n\n\n\ndata: {USAGE}\r\n\r\n\r\n"), "\n\n\r\n"),
            (format!("data: {USAGE}"), ""),
            (format!("id: 1\ndata: {USAGE}\n"), ""),
        ] {
            check(&stream, expected);
        }
        for stream in [
            format!("data: {USAGE}\ndata: {USAGE}\n\n"),
            format!("data: {USAGE}\ndata: x\n\n"),
            format!("data: x\ndata: {USAGE}\n\n"),
        ] {
            check_untouched(&stream);
        }
    }

    #[test]
    fn what_the_server_moved_is_put_back_into_the_event_with_the_finish_reason() {
        const LAST: &str = r#"{"choices":[{"finish_reason":"stop"}],"x":1}"#;
        let usage = |more: &str| format!(r#"{{"choices":[],"usage":{{}}{more}}}"#);
        let put_back = |last: &str, moved: &str, expected: &str| {
            check(events([OUTPUT, last, &usage(moved), "[DONE]"]), events([OUTPUT, expected, "[DONE]"]));
        };
        let finished = |more: &str| LAST.replace(",\"x\":1", &format!(",\"x\":1{more}"));
        let timings = r#","timings":{"prompt_n":7,"predicted_ms":[1.5,"}"]}"#;
        put_back(LAST, "", LAST);
        put_back(LAST, timings, &finished(timings));
        put_back(
            LAST,
            &format!("{timings}{FINGERPRINT},\"y\":2"),
            &finished(&format!("{FINGERPRINT}{timings}")),
        );
        put_back(LAST, r#", "timings" : null"#, LAST);
        put_back(LAST, r#", "system_fingerprint" : "a""#, &finished(r#","system_fingerprint":"a""#));
        let has_one = finished(r#","system_fingerprint":"b""#);
        put_back(&has_one, FINGERPRINT, &has_one);
        let comment = format!("data: {LAST}\n\n: alive\n\ndata: {}\n\n", usage(timings));
        check(comment, format!("data: {}\n\n: alive\n\n", finished(timings)));
        // Only the event right ahead of it has lost anything.
        check(events([LAST, OUTPUT, &usage(timings)]), events([LAST, OUTPUT]));
        check(events([OUTPUT, &usage(timings), LAST]), events([OUTPUT, LAST]));
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
            ("date", ""),
            ("event: x\ndata: {\"choices\":[", ""),
            ("event: x\ndata: {\"choices\":[{", "event: x\ndata: {\"choices\":[{"),
            (
                "data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\ndata: {\"x\":",
                "data: {\"choices\":[{\"finish_reason\":\"stop\"}]",
            ),
        ] {
            assert_eq!(String::from_utf8_lossy(&answer().push(piece.as_bytes(), false)), passes);
        }
    }

    #[test]
    fn an_event_or_member_that_grows_too_large_passes_as_it_is_however_cut() {
        let padding = |bytes: usize| " ".repeat(bytes);
        let event =
            |bytes: usize| format!("data: {USAGE}{}\n\n", padding(bytes - USAGE.len() - "data: \n\n".len()));
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
        let large =
            events([&format!("{{\"{0}\":\"{0}\",\"x\":[{0}],\"choices\":[]}}", "a".repeat(100_000)), OUTPUT]);
        few_cuts(&large, &large);
    }
}
