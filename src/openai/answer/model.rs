//! Gives the model's name in an answer back as the client asked for it, while the answer streams by.
//!
//! Replaced is the string under a key `model` that equals the name sent to the servers, escapes decoded, where it
//! stands
//! - at the top of a document: `{"model":"sql-lora"}`, or
//! - in an object right below the top, under `response` (events of the Responses API) or `message` (Anthropic's).
//!
//! An answer that begins with `{` is one document. Any other is taken for server-sent events, where each line
//! `data: {` holds one document. Every other byte passes as it came, and so do answers of any other form.
//!
//! Broken JSON is no error. What stands ahead of the first fault in the outer objects is replaced as in any answer,
//! as it may be with the client already; the rest of that document passes unchanged. Nested values are skipped by
//! their brackets and strings alone.
//!
//! Not done here: a document spread over several `data:` lines and lines ended by a lone CR pass unchanged, no
//! vLLM-like server sends them. The length of the answer changes, so a `content-length` is the caller's to remove,
//! and a compressed answer is the caller's to keep away.

use memchr::{memchr, memchr3, memmem};

/// What begins a line that holds a document.
const DATA_FIELD: &[u8] = b"data:";

/// The longest key that matters; `model` and `message` are shorter.
const LONGEST_KEY: &str = "response";

/// Bytes JSON spends at most on one byte of text: `\u002d` for `-`. A longer string cannot be the one looked for.
const LONGEST_ESCAPE_BYTES: usize = 6;

/// The rewriting of one answer.
#[derive(Debug)]
pub struct AnswerModel {
    sent: String,
    /// The replacement: the client's name as a JSON string.
    asked: Vec<u8>,
    /// The longest string worth waiting for, in bytes with its quotes.
    longest_string: usize,
    /// Whether a new line begins anew: the answer is not one document.
    by_line: bool,
    /// Whether a name was replaced in this line.
    is_named: bool,
    /// Whether the object being read is the one under `response` or `message`.
    in_envelope: bool,
    state: State,
    /// What may not go on yet, and during a push the bytes ahead of that.
    pending: Vec<u8>,
    /// Where in `pending` the string begins that may be a key or name looked for.
    held_from: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Nothing but whitespace so far.
    Start,
    /// At the beginning of a line: what is missing of [`DATA_FIELD`]. Nothing missing: ahead of the document.
    Line(&'static [u8]),
    BeforeKey,
    BeforeColon(Key),
    BeforeValue(Key),
    /// Within a number, `true`, `false` or `null`.
    Word,
    AfterValue,
    /// The same behind the first name that was replaced in this line of events.
    AfterName,
    /// Within a value of no interest, this many brackets deep.
    Nested(u64),
    Text(Role),
    /// Behind a backslash.
    Escape(Role),
    /// Nothing more to replace, in this line or at all.
    Ignored,
}

#[derive(Debug, Clone, Copy)]
enum Key {
    Model,
    Envelope,
    Other,
}

/// What a string is.
#[derive(Debug, Clone, Copy)]
enum Role {
    Key,
    Model,
    OtherValue,
    /// Part of a nested value, with its depth.
    Nested(u64),
}

impl AnswerModel {
    /// `sent`: the name the servers know; `asked`: the name the client used.
    pub fn new(sent: &str, asked: &str) -> AnswerModel {
        AnswerModel {
            sent: sent.to_owned(),
            asked: serde_json::Value::from(asked).to_string().into_bytes(),
            longest_string: sent.len().max(LONGEST_KEY.len()) * LONGEST_ESCAPE_BYTES + "\"\"".len(),
            by_line: false,
            is_named: false,
            in_envelope: false,
            state: State::Start,
            pending: Vec::new(),
            held_from: None,
        }
    }

    /// Takes the next bytes of the answer; returns what may go on now. `end`: these were the last.
    ///
    /// All that was returned, joined, is the answer rewritten, however its bytes were cut. Held back is at most one
    /// unfinished key or model's name, of six times the bytes of the name sent or of `response`, and its quotes.
    pub fn push(&mut self, bytes: &[u8], end: bool) -> Vec<u8> {
        self.pending.reserve(bytes.len());
        let mut rest = bytes;
        loop {
            let (dull, telling) = rest.split_at(self.dull_bytes(rest));
            self.pending.extend_from_slice(dull);
            let Some((&byte, behind)) = telling.split_first() else { break };
            self.pending.push(byte);
            self.state = self.next(self.state, byte);
            rest = behind;
        }
        self.release(end)
    }

    /// How many of the next bytes cannot change the state.
    fn dull_bytes(&self, bytes: &[u8]) -> usize {
        let telling = match self.state {
            State::Text(_) => memchr3(b'"', b'\\', b'\n', bytes),
            State::Ignored => memchr(b'\n', bytes),
            State::AfterName => Some(dull_line_bytes(bytes)),
            _ => Some(0),
        };
        telling.unwrap_or(bytes.len())
    }

    /// The pending bytes, without the string that is held back.
    fn release(&mut self, end: bool) -> Vec<u8> {
        let pending_bytes = self.pending.len();
        self.held_from = self
            .held_from
            .filter(|start| !end && pending_bytes.saturating_sub(*start) <= self.longest_string);
        let held = self.pending.split_off(self.held_from.unwrap_or(pending_bytes).min(pending_bytes));
        self.held_from = self.held_from.map(|_| 0);
        std::mem::replace(&mut self.pending, held)
    }

    /// The state behind `byte`, which is the last of the pending ones.
    fn next(&mut self, state: State, byte: u8) -> State {
        use State::{
            AfterName, AfterValue, BeforeColon, BeforeKey, BeforeValue, Escape, Ignored, Line, Nested, Start,
            Text, Word,
        };
        match (state, byte) {
            (_, b'\n') if self.by_line => self.begin_line(),

            (AfterName, _) => self.next(AfterValue, byte),

            (Text(role), b'"') => self.end_text(role),
            (Text(role), b'\\') => Escape(role),
            (Text(role) | Escape(role), _) => Text(role),

            (Nested(depth), b'"') => Text(Role::Nested(depth)),
            (Nested(depth), b'{' | b'[') => Nested(depth + 1),
            (Nested(1), b'}' | b']') => AfterValue,
            (Nested(depth), b'}' | b']') => Nested(depth - 1),
            (Nested(_) | Ignored, _) => state,

            (Line([expected, missing @ ..]), _) if *expected == byte => Line(missing),
            (Line([_, ..]), _) => Ignored,

            (Word, b' ' | b'\t' | b'\r' | b'\n') => AfterValue,
            (_, b' ' | b'\t' | b'\r' | b'\n') => state,

            (Start | Line(_), b'{') => BeforeKey,
            (Start, _) => {
                self.by_line = true;
                self.next(Line(DATA_FIELD), byte)
            }

            (BeforeKey, b'"') => self.hold(Role::Key),
            (BeforeColon(key), b':') => BeforeValue(key),
            (BeforeValue(Key::Model), b'"') => self.hold(Role::Model),
            (BeforeValue(_), b'"') => Text(Role::OtherValue),
            (BeforeValue(Key::Envelope), b'{') => {
                self.in_envelope = true;
                BeforeKey
            }
            (BeforeValue(_), b'{' | b'[') => Nested(1),
            (BeforeValue(_) | Word, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'+' | b'.' | b'E') => Word,
            (Word | AfterValue, b',') => BeforeKey,
            (Word | AfterValue | BeforeKey, b'}') => self.end_object(),
            _ => Ignored,
        }
    }

    fn begin_line(&mut self) -> State {
        self.held_from = None;
        self.is_named = false;
        self.in_envelope = false;
        State::Line(DATA_FIELD)
    }

    /// Begins a string that may have to be kept back, at the quote just read.
    fn hold(&mut self, role: Role) -> State {
        self.held_from = self.pending.len().checked_sub(1);
        State::Text(role)
    }

    fn end_text(&mut self, role: Role) -> State {
        match role {
            Role::Key => State::BeforeColon(self.key()),
            Role::Model => {
                let is_first = self.replace_name() && !std::mem::replace(&mut self.is_named, true);
                if is_first && self.by_line { State::AfterName } else { State::AfterValue }
            }
            Role::OtherValue => State::AfterValue,
            Role::Nested(depth) => State::Nested(depth),
        }
    }

    fn end_object(&mut self) -> State {
        if std::mem::take(&mut self.in_envelope) { State::AfterValue } else { State::Ignored }
    }

    fn key(&mut self) -> Key {
        let Some(start) = self.held_from.take() else { return Key::Other };
        let name = self.pending.get(start..).unwrap_or_default();
        if says(name, "model") {
            Key::Model
        } else if !self.in_envelope && (says(name, "response") || says(name, "message")) {
            Key::Envelope
        } else {
            Key::Other
        }
    }

    /// Whether it was the name to be replaced.
    fn replace_name(&mut self) -> bool {
        let Some(start) = self.held_from.take() else { return false };
        let is_sent = says(self.pending.get(start..).unwrap_or_default(), &self.sent);
        if is_sent {
            self.pending.truncate(start);
            self.pending.extend_from_slice(&self.asked);
        }
        is_sent
    }
}

/// Whether a JSON string, in its quotes, says this. One that was too long to be held back says nothing.
fn says(string: &[u8], text: &str) -> bool {
    if memchr(b'\\', string).is_some() {
        return serde_json::from_slice(string).is_ok_and(|decoded: String| decoded == text);
    }
    let spelled = string.strip_prefix(b"\"").and_then(|string| string.strip_suffix(b"\""));
    spelled == Some(text.as_bytes())
}

/// How many bytes the rest of the line has, if it is here and no key in it can be `model`, in whatever spelling: most
/// events name it once.
fn dull_line_bytes(bytes: &[u8]) -> usize {
    let line = memchr(b'\n', bytes).and_then(|end| bytes.get(..end)).unwrap_or_default();
    let may_name_it = [&b"model"[..], br"\u"].iter().any(|part| memmem::find(line, part).is_some());
    if may_name_it { 0 } else { line.len() }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const SENT: &str = "sql-lora";
    const ASKED: &str = "lora-request";

    macro_rules! bodies {
        ($($name:literal),*) => {
            [$(($name, body(include_str!(concat!("../../../tests/fixtures/vllm-0.32/", $name, ".http"))))),*]
        };
    }

    /// What stands behind the head, whose lines end in one way or the other.
    fn body(answer: &str) -> &str {
        answer.split_once("\r\n\r\n").or_else(|| answer.split_once("\n\n")).unwrap().1
    }

    fn rewrite<'a>(sent: &str, asked: &str, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let mut answer = AnswerModel::new(sent, asked);
        let mut rewritten = vec![];
        for piece in pieces {
            rewritten.extend(answer.push(piece, false));
            assert!(answer.pending.len() <= answer.longest_string);
        }
        rewritten.extend(answer.push(b"", true));
        rewritten
    }

    /// The same whole, byte by byte, and in two pieces however cut.
    fn check_bytes(sent: &str, asked: &str, answer: &[u8], expected: &[u8]) {
        let same = |rewritten: Vec<u8>, how: &str| {
            assert_eq!(
                String::from_utf8_lossy(&rewritten),
                String::from_utf8_lossy(expected),
                "{how}: {}",
                String::from_utf8_lossy(answer)
            );
            assert_eq!(rewritten, expected);
        };
        same(AnswerModel::new(sent, asked).push(answer, true), "whole");
        same(rewrite(sent, asked, answer.chunks(1)), "byte by byte");
        for cut in 0..=answer.len() {
            let (first, second) = answer.split_at(cut);
            same(rewrite(sent, asked, [first, second]), &format!("cut at {cut}"));
        }
    }

    /// As an answer of its own and as a stream's event.
    fn check(answer: &str, expected: &str) {
        check_bytes(SENT, ASKED, answer.as_bytes(), expected.as_bytes());
        let (event, expected_event) = (format!("data: {answer}\n\n"), format!("data: {expected}\n\n"));
        check_bytes(SENT, ASKED, event.as_bytes(), expected_event.as_bytes());
    }

    fn check_untouched(answer: &str) {
        check(answer, answer);
    }

    #[test]
    fn answers_of_vllm_name_the_model_asked_for_and_change_in_nothing_else() {
        let answers = bodies!(
            "chat",
            "chat_cached",
            "chat_lora_a",
            "chat_stream",
            "chat_stream_usage",
            "comp",
            "comp_stream",
            "comp_stream_usage",
            "orca_chat_TEXT"
        );
        for (name, body) in answers {
            let sent = if name == "chat_lora_a" { "lora-a" } else { "tiny" };
            let expected = body.replace(&format!(r#""model":"{sent}""#), r#""model":"a \"longer\" name""#);
            assert_ne!(body, expected, "{name}");
            check_bytes(sent, "a \"longer\" name", body.as_bytes(), expected.as_bytes());
            check_bytes("another", "a \"longer\" name", body.as_bytes(), body.as_bytes());
        }
    }

    #[test]
    fn answers_of_vllm_that_name_no_model_pass_unchanged() {
        for (_, body) in bodies!("err_503_queue_full", "err_bad_json", "err_unknown_model", "models") {
            check_bytes("tiny", ASKED, body.as_bytes(), body.as_bytes());
        }
    }

    #[test]
    fn the_model_is_replaced_at_the_top_and_below_response_and_message() {
        check(r#"{"id":"1","model":"sql-lora","n":1}"#, r#"{"id":"1","model":"lora-request","n":1}"#);
        for key in ["response", "message", r"\u0072esponse"] {
            check(
                &format!(r#"{{"type":"x","{key}":{{"id":[{{}}],"model":"sql-lora"}},"model":"sql-lora"}}"#),
                &format!(
                    r#"{{"type":"x","{key}":{{"id":[{{}}],"model":"lora-request"}},"model":"lora-request"}}"#
                ),
            );
        }
    }

    #[test]
    fn whitespace_stays_and_hides_nothing() {
        check(
            "  { \"a\" : null ,\t\"model\"\r :  \"sql-lora\" , \"response\" : { \"model\" : \"sql-lora\" } } ",
            "  { \"a\" : null ,\t\"model\"\r :  \"lora-request\" , \"response\" : { \"model\" : \"lora-request\" } } ",
        );
        let pretty = "\n{\n  \"a\": 1\n,\n  \"model\":\n\"sql-lora\"\n}\n";
        check_bytes(SENT, ASKED, pretty.as_bytes(), pretty.replace(SENT, ASKED).as_bytes());
    }

    #[test]
    fn each_of_several_equal_keys_is_replaced() {
        check(
            r#"{"model":"sql-lora","mod\u0065l":"sql-lora"}"#,
            r#"{"model":"lora-request","mod\u0065l":"lora-request"}"#,
        );
        check(
            r#"{"model":"sql-lora","model":"x","model":"sql-lora","message":{},"message":{"model":"sql-lora"}}"#,
            r#"{"model":"lora-request","model":"x","model":"lora-request","message":{},"message":{"model":"lora-request"}}"#,
        );
    }

    #[test]
    fn other_places_are_left_alone() {
        for answer in [
            r#"{"choices":[{"model":"sql-lora","message":{"model":"sql-lora"}}]}"#,
            r#"{"response":{"message":{"model":"sql-lora"},"tools":{"model":"sql-lora"}}}"#,
            r#"{"response":[{"model":"sql-lora"}],"usage":{"model":"sql-lora"}}"#,
            r#"{"model":{"model":"sql-lora"},"model":["sql-lora"],"model":null}"#,
            r#"{"root":"sql-lora","Model":"sql-lora","models":"sql-lora","sql-lora":"model","model":"sql-lora2"}"#,
            r#"{"content":"{\"model\":\"sql-lora\"} \\","text":",\"model\":\"sql-lora\","}"#,
            r#"{"model":"x","content":"data: {\"model\":\"sql-lora\"}"}{"model":"sql-lora"}"#,
        ] {
            check_untouched(answer);
        }
    }

    #[test]
    fn an_envelope_ends_where_its_object_ends() {
        check(
            r#"{"response":{},"message":{"message":{"model":"sql-lora"}},"model":"sql-lora","x":{"model":"sql-lora"}}"#,
            r#"{"response":{},"message":{"message":{"model":"sql-lora"}},"model":"lora-request","x":{"model":"sql-lora"}}"#,
        );
    }

    #[test]
    fn names_are_compared_decoded_and_written_as_json() {
        for spelling in [r"sql-lora", r"sql\u002dlora", r"\u0073\u0071\u006c\u002D\u006c\u006f\u0072\u0061"] {
            check(&format!(r#"{{"model":"{spelling}"}}"#), r#"{"model":"lora-request"}"#);
        }
        check(r#"{"\u006dodel":"sql-lora"}"#, r#"{"\u006dodel":"lora-request"}"#);
        let odd = "q\"\\\n\u{1}é😀";
        for spelling in [r#""q\"\\\n\u0001é😀""#, r#""\u0071\u0022\u005c\u000a\u0001\u00e9\ud83d\ude00""#]
        {
            let answer = format!(r#"{{"model":{spelling},"x":"é"}}"#);
            check_bytes(odd, "ü", answer.as_bytes(), r#"{"model":"ü","x":"é"}"#.as_bytes());
            let expected = r#"{"model":"q\"\\\n\u0001é😀","x":"é"}"#;
            check_bytes(odd, odd, answer.as_bytes(), expected.as_bytes());
        }
        check_bytes("", "a", br#"{"model":""}"#, br#"{"model":"a"}"#);
    }

    #[test]
    fn a_name_or_key_too_long_to_be_meant_passes_without_waiting() {
        let long = "sql-lora".repeat(1000);
        let answer = format!(r#"{{"{long}":"sql-lora","model":"{long}","model":"sql-lora"}}"#);
        let expected = format!(r#"{{"{long}":"sql-lora","model":"{long}","model":"lora-request"}}"#);
        let rewritten = rewrite(SENT, ASKED, answer.as_bytes().chunks(7));
        assert_eq!(String::from_utf8(rewritten).unwrap(), expected);
        assert_eq!(AnswerModel::new(SENT, ASKED).push(answer.as_bytes(), false), expected.as_bytes());
    }

    #[test]
    fn nothing_is_held_back_but_a_string_that_may_be_meant() {
        for (piece, passes) in [
            (r#"{"id":"chat"#, r#"{"id":"chat"#),
            (r#"{"mod"#, "{"),
            (r#"{"model": "sql"#, r#"{"model": "#),
            (r#"{"choices":[{"model":"sql"#, r#"{"choices":[{"model":"sql"#),
            ("data: {\"mod\n", "data: {\"mod\n"),
            ("data: {\"model\":\"sql-lora\"}\n\nda", "data: {\"model\":\"lora-request\"}\n\nda"),
        ] {
            assert_eq!(AnswerModel::new(SENT, ASKED).push(piece.as_bytes(), false), passes.as_bytes());
        }
    }

    #[test]
    fn every_event_of_a_stream_is_rewritten_whatever_its_lines_look_like() {
        let stream = ": hello\r\n\r\nevent: message_start\r\nid: 7\r\ndata: {\"message\":{\"model\":\"sql-lora\"\r\n\
                      data:{\"model\":\"sql-lora\"}\r\n\r\ndata: [DONE]\n\ndata\ndata:\ndata: {\"x\":[\n\
                      data:   {\"x\":1,\"model\":\"sql-lora\"} \n\ndata: {\"model\":\"sql-lora\"}";
        check_bytes(SENT, ASKED, stream.as_bytes(), stream.replace(SENT, ASKED).as_bytes());
        for blank in ["\n", "\r\n\r\n"] {
            let stream = format!("{blank}{stream}");
            check_bytes(SENT, ASKED, stream.as_bytes(), stream.replace(SENT, ASKED).as_bytes());
        }
    }

    #[test]
    fn a_line_begins_anew_wherever_the_one_before_was_cut_off() {
        for cut_off in
            [r#"{"x":"sql-"#, r#"{"x":"\"#, r#"{"model":"sql-"#, r#"{"mod"#, r#"{"x":[{"#, r#"{"message":{"#]
        {
            let stream = |name: &str| {
                format!(
                    "data: {cut_off}\ndata: {{\"message\":{{\"model\":\"{name}\"}},\"model\":\"{name}\"}}\n\n"
                )
            };
            check_bytes(SENT, ASKED, stream(SENT).as_bytes(), stream(ASKED).as_bytes());
        }
    }

    #[test]
    fn lines_that_hold_no_document_pass_unchanged() {
        for stream in [
            "event: {\"model\":\"sql-lora\"}\n\n",
            "datas: {\"model\":\"sql-lora\"}\n\ndat: {\"model\":\"sql-lora\"}\n\n",
            ": x\n data: {\"model\":\"sql-lora\"}\n\n{\"model\":\"sql-lora\"}\n",
            "data: [{\"model\":\"sql-lora\"}]\n\ndata: x{\"model\":\"sql-lora\"}\n\n",
            "data: {\ndata: \"model\":\"sql-lora\"}\n\n",
            "data: {\"model\":\"sql-\nlora\"}\n\n",
        ] {
            check_bytes(SENT, ASKED, stream.as_bytes(), stream.as_bytes());
        }
    }

    #[test]
    fn values_of_any_depth_are_skipped() {
        let deep = |open: &str, close: &str| format!("{}{}", open.repeat(1000), close.repeat(1000));
        for value in [deep("[", "]"), deep("{\"model\":", "}"), deep("[{\"a\":[\"]\",", "]}]")] {
            let answer = format!(r#"{{"a":{value},"model":"sql-lora","b":{value}}}"#);
            let expected = answer.replace(SENT, ASKED);
            assert_eq!(
                rewrite(SENT, ASKED, answer.as_bytes().chunks(1)),
                expected.as_bytes(),
                "{}",
                value.len()
            );
        }
    }

    #[test]
    fn what_follows_a_fault_passes_unchanged() {
        for broken in [
            r#"{"model" "sql-lora"}"#,
            r#"{"model":,"model":"sql-lora"}"#,
            r#"{"a":1 2,"model":"sql-lora"}"#,
            r#"{"a":"b""c","model":"sql-lora"}"#,
            r#"{"a":1],"model":"sql-lora"}"#,
            r#"{"a":nu"ll","model":"sql-lora"}"#,
            r#"{{"model":"sql-lora"}}"#,
            r#"{"a":[}]","model":"sql-lora"}"#,
            r#"{'model':'sql-lora'}"#,
            r#"{model:"sql-lora"}"#,
            r#"{"model":'sql-lora', "model":"sql-lora"}"#,
            r#"{"model":"sql\u00-lora"}"#,
            r#"{"model":"\ud800sql-lora"}"#,
            r#"{"a","model":"sql-lora"}"#,
        ] {
            check_untouched(broken);
        }
        check(r#"{"model":"sql-lora" "model":"sql-lora"}"#, r#"{"model":"lora-request" "model":"sql-lora"}"#);
    }

    #[test]
    fn other_formats_pass_unchanged() {
        for answer in [
            "",
            " ",
            "\n\n",
            "null",
            "[{\"model\":\"sql-lora\"}]",
            "\"model\":\"sql-lora\"",
            "<html>{\"model\":",
        ] {
            check_bytes(SENT, ASKED, answer.as_bytes(), answer.as_bytes());
        }
        let bytes: Vec<u8> = (0..=255).collect();
        check_bytes(SENT, ASKED, &bytes, &bytes);
        check_bytes(SENT, ASKED, b"{\"model\":\"sql-lora\xff\"}", b"{\"model\":\"sql-lora\xff\"}");
        let expected = b"{\"\xff\":\"\xc3\",\"model\":\"lora-request\"}";
        check_bytes(SENT, ASKED, b"{\"\xff\":\"\xc3\",\"model\":\"sql-lora\"}", expected);
    }

    #[test]
    fn an_answer_cut_short_passes_as_far_as_it_came() {
        let answer = r#"{"a":"\"","model":"sql-lora""#;
        for (end, _) in answer.char_indices() {
            check_bytes(SENT, ASKED, &answer.as_bytes()[..end], &answer.as_bytes()[..end]);
        }
    }
}
