//! Finds what an answer has cost in tokens.
//!
//! Read are the numbers of the object `usage` where it stands
//! - at the top of a document: chat completions, completions, embeddings, responses, messages, and events of streams
//!   (`message_delta`, and each chunk of vLLM's continuous usage statistics), or
//! - in an object right below the top, under `response` (`response.completed`) or `message` (`message_start`).
//!
//! The numbers' names distinguish the APIs ([`Usage`](super::Usage)). Where a name comes more than once, in one document or
//! in several events, the last number counts that is a whole one of at most 32 bits; what is none is passed over, as is
//! `"usage": null`.

use super::counts::Counts;
use super::place::{Seen, Spot};
use super::says::Says;
use crate::openai::json::Token;

impl Counts {
    /// Reads a number where it is one of those.
    pub(super) fn see(&mut self, seen: &Seen<'_>) -> Says {
        match (seen.spot, seen.token) {
            (Spot::Count(count), Token::Word) if self.set(count, seen.text) => Says::Count(count),
            (Spot::Count(_), Token::Word) => Says::More,
            _ => Says::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::openai::{AnswerFormat, AnswerReader, Usage};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    type Account = (Option<Usage>, u32, bool);

    const NONE: Option<Usage> = None;

    fn usage(prompt_tokens: u32, completion_tokens: u32, cached: impl Into<Option<u32>>) -> Option<Usage> {
        Some(Usage { prompt_tokens, completion_tokens, cached_tokens: cached.into() })
    }

    fn read<'a>(format: AnswerFormat, pieces: impl IntoIterator<Item = &'a [u8]>) -> Account {
        let mut answer = AnswerReader::new(format);
        pieces.into_iter().for_each(|piece| assert_eq!(answer.push(piece, false), piece));
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
    fn answers_of_vllm_report_their_usage() {
        let document = AnswerFormat::Document;
        check(document, recorded!("vllm-0.32/chat.http"), (usage(55, 12, 0), 1, true));
        check(document, recorded!("vllm-0.32/chat_cached.http"), (usage(55, 12, 32), 1, true));
        check(document, recorded!("vllm-0.32/chat_lora_a.http"), (usage(55, 6, 0), 1, true));
        check(document, recorded!("vllm-0.32/comp.http"), (usage(8, 8, 0), 1, true));
    }

    #[test]
    fn streams_of_vllm_report_their_usage_if_asked_and_their_output_events() {
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
    fn streams_of_the_other_apis_report_their_usage() {
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
    fn each_event_may_report_it_so_far_and_the_last_one_counts() {
        let event = |text: &str, prompt: &str, completion: &str| {
            format!(
                "data: {{\"choices\":[{{\"text\":\"{text}\"}}],\"usage\":{{\"prompt_tokens\":{prompt},\
                 \"total_tokens\":{completion},\"completion_tokens\":{completion},\
                 \"prompt_tokens_details\":{{\"cached_tokens\":4}}}}}}\n\n"
            )
        };
        let check_reported = |events: &[(&str, &str, &str)], expected| {
            let stream: String =
                events.iter().map(|(text, prompt, output)| event(text, prompt, output)).collect();
            check(AnswerFormat::Events, stream, expected);
        };
        check_reported(&[("a", "8", "1"), ("b", "8", "2"), ("c", "8", "3")], (usage(8, 3, 4), 3, false));
        check_reported(&[("a", "8", "1"), ("b", "9", "12"), ("", "7", "12")], (usage(7, 12, 4), 2, false));
        // What is no number of 32 bits changes nothing, and nothing is taken for what came before it.
        check_reported(
            &[("a", "8", "1"), ("b", "-1", "4294967296"), ("c", "8", "null")],
            (usage(8, 1, 4), 3, false),
        );
        check_reported(
            &[("a", "8", "1"), ("b", "9", "4294967295"), ("c", "8", "2")],
            (usage(8, 2, 4), 3, false),
        );
        let between = "data: {\"usage\":{\"prompt_tokens\":9}}\n\n";
        let stream = [event("a", "8", "1"), between.to_owned(), event("b", "8", "1")].concat();
        check(AnswerFormat::Events, stream, (usage(8, 1, 4), 2, false));
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
                let mut answer = AnswerReader::new(AnswerFormat::Document);
                for piece in document.as_bytes().chunks(1_009) {
                    answer.push(piece, false);
                }
                assert_eq!((answer.usage(), answer.is_complete()), (usage(9, 0, None), true));
            }
        }
    }
}
