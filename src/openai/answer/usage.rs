//! Finds out what an answer has cost in tokens, while it streams by.
//!
//! Read are the numbers of the object `usage` where it stands
//! - at the top of a document: chat completions, completions, embeddings, responses, messages, and events of streams
//!   (`message_delta`, and each chunk of vLLM's continuous usage statistics), or
//! - in an object right below the top, under `response` (`response.completed`) or `message` (`message_start`).
//!
//! The numbers' names tell the APIs apart ([`Usage`]). Where a name comes more than once, in one document or in
//! several events, the last number counts that is a whole one of at most 32 bits; what is none is passed over, as is
//! `"usage": null`. A name spelled with escapes is not recognized; no server writes that.
//!
//! Two things more are told, for answers that name no usage or do not come to an end: how many events carried
//! output, and whether the answer is complete. Broken JSON is no error, and what was read of it counts.
//!
//! In memory are a few words, 32 bytes of the key or value being read, and what the stream's events have in common
//! ([`EventPattern`]), however the answer is cut. A compressed answer is the caller's to keep away.

use std::ops::Range;

use super::counts::{Counts, Usage};
use super::event_lines::{EventLines, Part};
use super::event_pattern::EventPattern;
use super::format::AnswerFormat;
use crate::openai::json::{Bracket, JsonTokens, Token};

/// Depth down to which the way to a value is known: `response.usage.input_tokens_details.cached_tokens`.
const PATH_DEPTH: usize = 4;

/// What the last `data:` line of OpenAI's older APIs holds, in brackets.
const DONE: &[u8] = b"DONE";

/// The types of the last events of OpenAI's responses and Anthropic's messages.
const LAST_EVENTS: [&[u8]; 4] =
    [b"response.completed", b"response.incomplete", b"response.failed", b"message_stop"];

/// The reading of one answer.
#[derive(Debug)]
pub struct AnswerUsage {
    format: AnswerFormat,
    lines: EventLines,
    tokens: JsonTokens,
    /// The keys on the way to the value being read, from the top; in a list [`Name::Other`].
    path: [Name; PATH_DEPTH],
    /// The key of the value being read, at whatever depth.
    key: Name,
    /// Whether output was found in this document.
    has_output: bool,
    pattern: EventPattern,
    counts: Counts,
    output_events: u32,
    complete: bool,
}

/// What a key means to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Usage,
    /// An object that may hold `usage`, too.
    Envelope,
    /// Holds output, in OpenAI's completions.
    Choices,
    /// Is output or holds it, in the events of OpenAI's responses and Anthropic's messages.
    Delta,
    /// A string is output, in one of the two.
    OutputText,
    Type,
    Details,
    Prompt,
    Completion,
    Input,
    Output,
    Cached,
    CacheRead,
    CacheCreation,
    Other,
}

/// What a value says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Nothing,
    /// It is output, or would be if it were not empty.
    Output,
    /// A number of tokens, or that the answer is complete.
    More,
}

impl Name {
    fn of(key: &[u8]) -> Name {
        match key {
            b"usage" => Name::Usage,
            b"response" | b"message" => Name::Envelope,
            b"choices" => Name::Choices,
            b"delta" => Name::Delta,
            b"content" | b"text" | b"reasoning" | b"reasoning_content" | b"refusal" | b"arguments"
            | b"thinking" | b"partial_json" => Name::OutputText,
            b"type" => Name::Type,
            b"prompt_tokens_details" | b"input_tokens_details" => Name::Details,
            b"prompt_tokens" => Name::Prompt,
            b"completion_tokens" => Name::Completion,
            b"input_tokens" => Name::Input,
            b"output_tokens" => Name::Output,
            b"cached_tokens" => Name::Cached,
            b"cache_read_input_tokens" => Name::CacheRead,
            b"cache_creation_input_tokens" => Name::CacheCreation,
            _ => Name::Other,
        }
    }
}

impl AnswerUsage {
    /// For an answer in this format.
    pub fn new(format: AnswerFormat) -> AnswerUsage {
        AnswerUsage {
            format,
            lines: EventLines::new(),
            tokens: JsonTokens::new(),
            path: [Name::Other; PATH_DEPTH],
            key: Name::Other,
            has_output: false,
            pattern: EventPattern::default(),
            counts: Counts::default(),
            output_events: 0,
            complete: false,
        }
    }

    /// Takes the next bytes of the answer.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.format == AnswerFormat::Document {
            self.read(bytes);
            return;
        }
        let mut rest = bytes;
        while let Some(part) = self.lines.next(&mut rest) {
            match part {
                Part::Data(text) if self.tokens.is_fresh() && !rest.is_empty() => self.read_event(text),
                Part::Data(text) => {
                    self.read(text);
                }
                Part::End { .. } => {
                    self.tokens.restart();
                    self.has_output = false;
                }
                Part::Start(_) | Part::Other(_) => {}
            }
        }
    }

    /// What the answer says it has cost, as far as it came. `None` as long as it does not tell the prompt's size.
    pub fn usage(&self) -> Option<Usage> {
        self.counts.usage()
    }

    /// Events with output in them, be it one token or several: text, reasoning, arguments of a tool's call. One for
    /// a document with output in `choices`.
    pub fn output_events(&self) -> u32 {
        self.output_events
    }

    /// Whether the answer has come to its end: the document is closed, or an event says that it was the last
    /// (`[DONE]`, `response.completed` and its like, `message_stop`).
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Takes a document that has come whole, in one line.
    fn read_event(&mut self, document: &[u8]) {
        if let Some(text) = self.pattern.text(document) {
            self.add_output(!text.is_empty());
        } else if let Some(value) = self.read(document) {
            self.pattern.learn(document, value);
        }
    }

    /// Where in `bytes` the value stands that may be output, if it is the only one there that says anything.
    fn read(&mut self, bytes: &[u8]) -> Option<Range<usize>> {
        let mut rest = bytes;
        let mut value_begins = 0;
        let (mut telling, mut output) = (0, None);
        while let Some(token) = self.tokens.next(&mut rest) {
            let place = bytes.len() - rest.len();
            let says = match token {
                Token::Open(bracket) => {
                    self.enter(bracket);
                    Says::Nothing
                }
                Token::Close { .. } => {
                    self.complete |= self.format == AnswerFormat::Document && self.tokens.depth() == 0;
                    Says::Nothing
                }
                Token::Key => {
                    value_begins = place;
                    self.key = Name::of(self.tokens.text());
                    self.set_step(self.key);
                    Says::Nothing
                }
                Token::Text => self.read_text(),
                Token::Word => self.read_word(),
            };
            telling += u32::from(says != Says::Nothing);
            if says == Says::Output {
                output = Some(value_begins..place);
            }
        }
        output.filter(|_| telling == 1)
    }

    /// Passes over what is of no interest in the bracket just opened.
    fn enter(&mut self, bracket: Bracket) {
        let path = self.path;
        let outside = usize::try_from(self.tokens.depth().saturating_sub(1)).unwrap_or(usize::MAX);
        match below_envelope(path.get(..outside).unwrap_or(&path)) {
            [] | [Name::Usage] | [Name::Usage, Name::Details] | [Name::Choices | Name::Delta, ..] => {
                self.set_step(Name::Other);
            }
            _ => self.tokens.skip(bracket),
        }
    }

    /// The last step on the way to what is read now.
    fn set_step(&mut self, name: Name) {
        let place = self.tokens.depth().checked_sub(1).and_then(|place| usize::try_from(place).ok());
        if let Some(step) = place.and_then(|place| self.path.get_mut(place)) {
            *step = name;
        }
    }

    fn read_text(&mut self) -> Says {
        let text = self.tokens.text();
        let [top, ..] = self.path;
        let at_top = self.tokens.depth() == 1;
        match self.key {
            Name::Type if at_top && LAST_EVENTS.contains(&text) => {
                self.complete = true;
                Says::More
            }
            Name::Delta if at_top => self.add_output(!text.is_empty()),
            Name::OutputText if matches!(top, Name::Choices | Name::Delta) => {
                self.add_output(!text.is_empty())
            }
            _ => Says::Nothing,
        }
    }

    fn add_output(&mut self, is_output: bool) -> Says {
        if is_output && !std::mem::replace(&mut self.has_output, true) {
            self.output_events = self.output_events.saturating_add(1);
        }
        Says::Output
    }

    fn read_word(&mut self) -> Says {
        let (path, word) = (self.path, self.tokens.text());
        let depth = usize::try_from(self.tokens.depth()).unwrap_or(usize::MAX);
        let counts = &mut self.counts;
        let count = match below_envelope(path.get(..depth).unwrap_or_default()) {
            [Name::Usage, Name::Prompt] => &mut counts.prompt,
            [Name::Usage, Name::Completion] => &mut counts.completion,
            [Name::Usage, Name::Input] => &mut counts.input,
            [Name::Usage, Name::Output] => &mut counts.output,
            [Name::Usage, Name::CacheRead] => &mut counts.cache_read,
            [Name::Usage, Name::CacheCreation] => &mut counts.cache_creation,
            [Name::Usage, Name::Details, Name::Cached] => &mut counts.cached,
            [Name::Other] if word == DONE => {
                self.complete = true;
                return Says::More;
            }
            _ => return Says::Nothing,
        };
        *count = whole_number(word).or(*count);
        Says::More
    }
}

/// The way from the object that may hold `usage`.
fn below_envelope(path: &[Name]) -> &[Name] {
    match path {
        [Name::Envelope, path @ ..] => path,
        path => path,
    }
}

fn whole_number(word: &[u8]) -> Option<u32> {
    // `parse` would take a plus sign.
    word.first().filter(|byte| byte.is_ascii_digit())?;
    str::from_utf8(word).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    type Account = (Option<Usage>, u32, bool);

    const NONE: Option<Usage> = None;

    fn usage(prompt_tokens: u32, completion_tokens: u32, cached: impl Into<Option<u32>>) -> Option<Usage> {
        Some(Usage { prompt_tokens, completion_tokens, cached_tokens: cached.into() })
    }

    fn read<'a>(format: AnswerFormat, pieces: impl IntoIterator<Item = &'a [u8]>) -> Account {
        let mut answer = AnswerUsage::new(format);
        pieces.into_iter().for_each(|piece| answer.push(piece));
        (answer.usage(), answer.output_events(), answer.is_complete())
    }

    /// The same whole, byte by byte, and in two pieces however cut.
    fn check(format: AnswerFormat, answer: impl AsRef<[u8]>, expected: Account) {
        let answer = answer.as_ref();
        let text = String::from_utf8_lossy(answer);
        assert_eq!(read(format, [answer]), expected, "{text}");
        assert_eq!(read(format, answer.chunks(1)), expected, "{text}");
        for cut in 0..=answer.len() {
            let (first, second) = answer.split_at(cut);
            assert_eq!(read(format, [first, second]), expected, "cut at {cut}: {text}");
        }
    }

    /// As an answer of its own and as a stream's event.
    fn check_document(document: &str, usage: Option<Usage>) {
        check(AnswerFormat::Document, document, (usage, 0, true));
        check(AnswerFormat::Events, format!("data: {document}\n\n"), (usage, 0, false));
    }

    macro_rules! recorded {
        ($name:literal) => {{
            let answer = include_str!(concat!("../../../tests/fixtures/", $name));
            answer.split_once("\r\n\r\n").or_else(|| answer.split_once("\n\n")).unwrap().1
        }};
    }

    #[test]
    fn answers_of_vllm_tell_their_usage() {
        let document = AnswerFormat::Document;
        check(document, recorded!("vllm-0.32/chat.http"), (usage(55, 12, 0), 1, true));
        check(document, recorded!("vllm-0.32/chat_cached.http"), (usage(55, 12, 32), 1, true));
        check(document, recorded!("vllm-0.32/chat_lora_a.http"), (usage(55, 6, 0), 1, true));
        check(document, recorded!("vllm-0.32/comp.http"), (usage(8, 8, 0), 1, true));
    }

    #[test]
    fn streams_of_vllm_tell_their_usage_if_asked_and_their_output_events() {
        let events = AnswerFormat::Events;
        check(events, recorded!("vllm-0.32/chat_stream.http"), (NONE, 12, true));
        check(events, recorded!("vllm-0.32/chat_stream_usage.http"), (usage(55, 12, 32), 12, true));
        check(events, recorded!("vllm-0.32/comp_stream.http"), (NONE, 8, true));
        check(events, recorded!("vllm-0.32/comp_stream_usage.http"), (usage(8, 8, 0), 8, true));
    }

    #[test]
    fn errors_and_lists_of_models_have_no_usage() {
        for answer in [
            recorded!("vllm-0.32/err_503_queue_full.http"),
            recorded!("vllm-0.32/err_bad_json.http"),
            recorded!("vllm-0.32/err_unknown_model.http"),
            recorded!("vllm-0.32/models.http"),
        ] {
            check(AnswerFormat::Document, answer, (NONE, 0, true));
        }
    }

    #[test]
    fn streams_of_the_other_apis_tell_their_usage() {
        let events = AnswerFormat::Events;
        check(
            events,
            include_str!("../../../tests/fixtures/synthetic/messages_stream.txt"),
            (usage(2120, 15, 100), 3, true),
        );
        check(
            events,
            include_str!("../../../tests/fixtures/synthetic/responses_stream.txt"),
            (usage(36, 9, 16), 3, true),
        );
    }

    #[test]
    fn each_api_has_names_of_its_own() {
        check_document(r#"{"usage":{"prompt_tokens":9,"total_tokens":9}}"#, usage(9, 0, None));
        check_document(
            r#"{"usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":4},"output_tokens":2}}"#,
            usage(9, 2, 4),
        );
        check_document(
            r#"{"type":"message","usage":{"input_tokens":9,"cache_creation_input_tokens":20,"cache_read_input_tokens":300,"output_tokens":2}}"#,
            usage(329, 2, 300),
        );
        check_document(
            r#"{"usage":{"input_tokens":9,"input_tokens_details":{"cache_read_input_tokens":300}}}"#,
            usage(9, 0, None),
        );
        check_document(r#"{"response":{"usage":{"input_tokens":9}}}"#, usage(9, 0, None));
        check_document(r#"{"message":{"usage":{"input_tokens":9}}}"#, usage(9, 0, None));
    }

    #[test]
    fn usage_counts_at_its_place_alone() {
        for document in [
            r#"{"choices":[{"usage":{"prompt_tokens":9}}]}"#,
            r#"{"delta":{"usage":{"prompt_tokens":9}}}"#,
            r#"{"usage":[{"prompt_tokens":9}],"x":{"usage":{"prompt_tokens":9}}}"#,
            r#"{"usage":{"prompt_tokens":[9],"x":{"prompt_tokens":9}},"prompt_tokens":9}"#,
            r#"{"response":[{"usage":{"prompt_tokens":9}}],"message":{"message":{"usage":{"prompt_tokens":9}}}}"#,
            r#"{"x":"\"usage\":{\"prompt_tokens\":9}","y":"{\"usage\":{\"prompt_tokens\":9}}"}"#,
            r#"{"usage":null,"Usage":{"prompt_tokens":9},"usage ":{"prompt_tokens":9}}"#,
            r#"{"usage":"{\"prompt_tokens\":9}","prompt_tokens_details":{"cached_tokens":9}}"#,
            r#"{"usage":{"prompt_tokens_details":{"prompt_tokens":9},"completion_tokens":9,"cached_tokens":1}}"#,
            r#"{"usage":{"completion_tokens":9,"input_tokens_details":{"x":{"input_tokens":9}}}}"#,
        ] {
            check_document(document, NONE);
        }
    }

    #[test]
    fn whitespace_and_what_stands_around_hide_nothing() {
        let document = "{\n \"a\" : [ { } , \"\\\"}]\" , 1e5 ] ,\r\n\t\"usage\" : { \"x\" : { \"y\" : [ ] } , \"prompt_tokens\" : 9 } }";
        check(AnswerFormat::Document, document, (usage(9, 0, None), 0, true));
        check_document(&document.replace(['\r', '\n'], " "), usage(9, 0, None));
    }

    #[test]
    fn the_last_number_counts_that_is_a_whole_one_of_32_bits() {
        let numbers = |numbers: &str| {
            let counts = numbers.split(' ').map(|number| format!(r#""prompt_tokens":{number}"#));
            format!(r#"{{"usage":{{{}}}}}"#, counts.collect::<Vec<_>>().join(","))
        };
        check_document(&numbers("1 2"), usage(2, 0, None));
        check_document(&numbers("4294967295"), usage(u32::MAX, 0, None));
        for other in ["4294967296", "-1", "1.0", "1e2", "null", "true", "\"5\"", "[5]", &"9".repeat(1_000)] {
            check_document(&numbers(other), NONE);
            check_document(&numbers(&format!("7 {other}")), usage(7, 0, None));
        }
        check_document(
            r#"{"usage":{"input_tokens":4294967295,"cache_read_input_tokens":1}}"#,
            usage(u32::MAX, 0, 1),
        );
    }

    #[test]
    fn continuous_usage_counts_as_of_its_last_event_even_when_the_answer_is_cut_short() {
        let event = |tokens: u32| {
            let usage = format!(r#"{{"prompt_tokens":8,"total_tokens":9,"completion_tokens":{tokens}}}"#);
            format!("data: {{\"choices\":[{{\"index\":0,\"text\":\"a\"}}],\"usage\":{usage}}}\n\n")
        };
        let stream = format!("{}{}", event(1), event(2));
        check(AnswerFormat::Events, &stream, (usage(8, 2, None), 2, false));
        check(
            AnswerFormat::Events,
            format!("{stream}data: {{\"usage\":null}}\n\n"),
            (usage(8, 2, None), 2, false),
        );
        check(AnswerFormat::Events, &stream[..stream.len() - 20], (usage(8, 1, None), 2, false));
    }

    #[test]
    fn lines_end_in_both_ways_and_other_fields_are_passed_over() {
        let stream = ": usage\n\nevent: x\nid: {\"usage\":{\"prompt_tokens\":1}}\ndata: {\"usage\":{\"prompt_tokens\":9},\n\
                      data:{\"delta\":\"a\"}\nretry: 1\n\ndat: {\"delta\":\"a\"}\ndata\n\ndatas: {\"delta\":\"a\"}\ndata:   [DONE]\n\n";
        check(AnswerFormat::Events, stream, (usage(9, 0, None), 1, true));
        check(AnswerFormat::Events, stream.replace('\n', "\r\n"), (usage(9, 0, None), 1, true));
        check(AnswerFormat::Document, stream, (NONE, 0, false));
    }

    #[test]
    fn a_line_begins_anew_wherever_the_one_before_was_cut_off() {
        for cut_off in
            [r#"{"x":"\"#, r#"{"x":"a"#, r#"{"usage":{"#, r#"{"x":[{"#, r#"{"delta""#, "[", "{} {", "x"]
        {
            let stream = format!(
                "data: {cut_off}\ndata: {{\"\":0,\"delta\":\"a\",\"usage\":{{\"prompt_tokens\":9}}}}\n\n"
            );
            check(AnswerFormat::Events, stream, (usage(9, 0, None), 1, false));
        }
    }

    #[test]
    fn events_count_as_output_when_they_hold_text_of_any_kind() {
        let events = |document: &str, count| {
            check(AnswerFormat::Events, format!("data: {document}\n\n"), (NONE, count, false));
        };
        for output in [
            r#"{"choices":[{"index":0,"delta":{"content":"a"}},{"index":1,"delta":{"content":"b"}}]}"#,
            r#"{"choices":[{"delta":{"content":"","reasoning_content":"a"}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\""}}]}}]}"#,
            r#"{"choices":[{"text":"\n"}]}"#,
            r#"{"type":"response.output_text.delta","delta":"a"}"#,
            r#"{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"a"}}"#,
        ] {
            events(output, 1);
        }
        for other in [
            r#"{"choices":[{"delta":{"role":"assistant","content":""},"logprobs":{"content":["a"]}}]}"#,
            r#"{"choices":[{"text":"","finish_reason":"stop"}]}"#,
            r#"{"choices":[{"text":null}],"text":"a","message":{"content":"a"}}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#,
            r#"{"type":"response.output_text.done","text":"a"}"#,
        ] {
            events(other, 0);
        }
    }

    #[test]
    fn an_answer_is_complete_when_it_says_so() {
        for last in [
            "[DONE]",
            " [ DONE ] ",
            r#"{"type":"message_stop"}"#,
            r#"{"x":1,"type" : "response.incomplete"}"#,
            r#"{"type":"response.failed"}"#,
        ] {
            check(AnswerFormat::Events, format!("data:{last}\n\n"), (NONE, 0, true));
        }
        for other in [
            "",
            "[DONE",
            "DONE",
            "\"[DONE]\"",
            "{\"type\":\"message_stop",
            "{\"x\":{\"type\":\"message_stop\"}}",
        ] {
            check(AnswerFormat::Events, format!("data: {other}\n\n"), (NONE, 0, false));
        }
        check(AnswerFormat::Document, "{\"x\":[{}]", (NONE, 0, false));
    }

    #[test]
    fn hostile_documents_are_read_in_constant_memory() {
        let large = "x".repeat(1_000_000);
        let deep = |open: &str, close: &str| format!("{}{}", open.repeat(100_000), close.repeat(100_000));
        for value in
            [format!("\"{large}\""), format!("{{\"{large}\":1}}"), deep("[", "]"), deep("{\"usage\":", "}")]
        {
            for key in ["x", "choices", "usage", "response", &large] {
                let document = format!(r#"{{"{key}":{value},"usage":{{"prompt_tokens":9}}}}"#);
                let mut answer = AnswerUsage::new(AnswerFormat::Document);
                for piece in document.as_bytes().chunks(1_009) {
                    answer.push(piece);
                    assert!(answer.tokens.text().len() <= 32);
                }
                assert_eq!((answer.usage(), answer.is_complete()), (usage(9, 0, None), true));
            }
        }
    }
}
