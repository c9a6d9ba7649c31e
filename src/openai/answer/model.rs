//! Gives the model's name in an answer back as the client asked for it.
//!
//! Replaced is the string under a key `model` that equals the name sent to the servers, escapes decoded, where it
//! stands
//! - at the top of a document: `{"model":"sql-lora"}`, or
//! - in an object right below the top, under `response` (events of the Responses API) or `message` (Anthropic's).
//!
//! Held back is a name that has begun, with the blanks ahead of it. What grows beyond
//! [`MAX_HELD_BYTES`](super::passage::MAX_HELD_BYTES) is no name.

use memchr::memchr;

use super::passage::{Mark, Passage};
use super::place::{Seen, Spot};
use crate::openai::json::{Token, decode_string};

/// Which name is replaced by which.
#[derive(Debug)]
pub(super) struct ModelName {
    sent: String,
    /// The replacement: the client's name as a JSON string.
    asked: Vec<u8>,
    /// Where the value begins that may be the name: behind the colon.
    value_from: Option<Mark>,
}

impl ModelName {
    /// `sent`: the name the servers know; `asked`: the name the client used.
    pub(super) fn new(sent: &str, asked: &str) -> ModelName {
        let asked = serde_json::Value::from(asked).to_string().into_bytes();
        ModelName { sent: sent.to_owned(), asked, value_from: None }
    }

    /// What may not go on yet.
    pub(super) fn held(&self) -> Option<Mark> {
        self.value_from
    }

    /// The token is the last that has come.
    pub(super) fn see(&mut self, seen: &Seen<'_>, passage: &mut Passage<'_>) {
        let value_from = self.value_from.take();
        if seen.spot != Spot::Model {
            return;
        }
        match (seen.token, value_from) {
            (Token::Key, _) => self.value_from = Some(passage.mark()),
            (Token::Text, Some(from)) => self.replace(from, passage),
            _ => {}
        }
    }

    /// A line has ended, and with it its document.
    pub(super) fn end_line(&mut self) {
        self.value_from = None;
    }

    fn replace(&self, from: Mark, passage: &mut Passage<'_>) {
        let Some(value) = passage.since(from) else { return };
        let name = value.trim_ascii_start();
        if says(name, &self.sent) {
            let blanks = value.get(..value.len() - name.len()).unwrap_or_default();
            let replacement = [blanks, &self.asked].concat();
            passage.replace_since(from, &replacement);
        }
    }
}

/// Whether a JSON string, in its quotes, says this.
fn says(string: &[u8], text: &str) -> bool {
    if memchr(b'\\', string).is_some() {
        return decode_string(string).is_some_and(|decoded| decoded == text);
    }
    let spelled = string.strip_prefix(b"\"").and_then(|string| string.strip_suffix(b"\""));
    spelled == Some(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use crate::openai::{AnswerFormat, AnswerReader};
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

    /// As the content type would say it: what begins with a brace is a document.
    fn format(answer: &[u8]) -> AnswerFormat {
        let is_document = answer.trim_ascii_start().starts_with(b"{");
        if is_document { AnswerFormat::Document } else { AnswerFormat::Events }
    }

    fn renaming(format: AnswerFormat, sent: &str, asked: &str) -> AnswerReader {
        let mut answer = AnswerReader::new(format);
        answer.rename_model(sent, asked);
        answer
    }

    fn rewrite<'a>(mut answer: AnswerReader, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let mut rewritten = vec![];
        for piece in pieces {
            rewritten.extend_from_slice(&answer.push(piece, false));
        }
        rewritten.extend_from_slice(&answer.push(b"", true));
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
        let renaming = || renaming(format(answer), sent, asked);
        same(renaming().push(answer, true).into_owned(), "whole");
        same(rewrite(renaming(), answer.chunks(1)), "byte by byte");
        for cut in 0..=answer.len() {
            let (first, second) = answer.split_at(cut);
            same(rewrite(renaming(), [first, second]), &format!("cut at {cut}"));
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
        let rewritten = rewrite(renaming(AnswerFormat::Document, SENT, ASKED), answer.as_bytes().chunks(7));
        assert_eq!(String::from_utf8(rewritten).unwrap(), expected);
        assert_eq!(
            renaming(AnswerFormat::Document, SENT, ASKED).push(answer.as_bytes(), false).as_ref(),
            expected.as_bytes()
        );
    }

    #[test]
    fn nothing_is_held_back_but_a_value_that_may_be_meant() {
        for (piece, passes) in [
            (r#"{"id":"chat"#, r#"{"id":"chat"#),
            (r#"{"mod"#, r#"{"mod"#),
            (r#"{"model": "sql"#, r#"{"model":"#),
            (r#"{"choices":[{"model":"sql"#, r#"{"choices":[{"model":"sql"#),
            ("data: {\"mod\n", "data: {\"mod\n"),
            ("data: {\"model\":\"sql-lora\"}\n\nda", "data: {\"model\":\"lora-request\"}\n\nda"),
        ] {
            assert_eq!(
                renaming(format(piece.as_bytes()), SENT, ASKED).push(piece.as_bytes(), false).as_ref(),
                passes.as_bytes()
            );
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
                rewrite(renaming(AnswerFormat::Document, SENT, ASKED), answer.as_bytes().chunks(1)),
                expected.as_bytes(),
                "{}",
                value.len()
            );
        }
    }

    #[test]
    fn of_broken_json_counts_what_can_still_be_read() {
        for broken in [
            r#"{"model" "sql-lora"}"#,
            r#"{"a":1],"model":"sql-lora"}"#,
            r#"{{"model":"sql-lora"}}"#,
            r#"{"a":[}]","model":"sql-lora"}"#,
            r#"{'model':'sql-lora'}"#,
            r#"{"model":"sql\u00-lora"}"#,
            r#"{"model":"\ud800sql-lora"}"#,
        ] {
            check_untouched(broken);
        }
        for broken in [
            r#"{"model":,"model":"sql-lora"}"#,
            r#"{"a":1 2,"model":"sql-lora"}"#,
            r#"{"a":"b""c","model":"sql-lora"}"#,
            r#"{"a":nu"ll","model":"sql-lora"}"#,
            r#"{model:"sql-lora"}"#,
            r#"{"model":'sql-lora', "model":"sql-lora"}"#,
            r#"{"a","model":"sql-lora"}"#,
        ] {
            check(broken, &broken.replace(r#""sql-lora""#, r#""lora-request""#));
        }
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
