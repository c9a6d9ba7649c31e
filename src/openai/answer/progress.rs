//! How far an answer has come: whether its first output is here, how many events had output, whether it is complete.
//!
//! A stream may begin long before its prompt is computed. The first output of one is the first event with
//! - a text that is not empty, in `choices`, `delta` or `content_block`: of the output, of the reasoning, of a refusal, of
//!   what a tool is called with; or a part of an image or of sound;
//! - the call of a tool;
//! - a finish reason (`finish_reason`, `stop_reason`, `response.completed`, `response.incomplete`), or a part that is done
//!   (`response.output_item.done` and its like);
//! - or anything of another API: its object has neither `choices` nor a `type`, or its data is no object at all.
//!
//! So comments, `ping`, `message_start`, `response.created`, `response.in_progress`, `response.queued`, items and blocks
//! that are only begun, and chunks with nothing but a role are none. Of a document it is the first byte that is no blank.

use super::failure::FailureReader;
use super::place::{Seen, Spot};
use super::says::Says;
use crate::openai::json::Token;

/// What the last `data:` line of OpenAI's older APIs holds, in brackets.
const DONE: &[u8] = b"DONE";

/// The reading of one answer.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub failure: FailureReader,
    document: Document,
    output_events: u32,
    has_output: bool,
    complete: bool,
}

/// What is known of the document being read.
#[derive(Debug, Default)]
struct Document {
    /// Whether output was found in it.
    has_output: bool,
    /// Whether it is one of the APIs that are known, or says nothing.
    is_known: bool,
    is_closed: bool,
}

impl Progress {
    /// Whether the answer's first output is here.
    pub(super) fn has_output(&self) -> bool {
        self.has_output
    }

    pub(super) fn output_events(&self) -> u32 {
        self.output_events
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Events came that are like one with output, so many of them with a text that is not empty.
    pub(super) fn count_alike(&mut self, outputs: u32) {
        self.output_events = self.output_events.saturating_add(outputs);
        self.has_output |= outputs > 0;
    }

    /// What an answer's document says.
    pub(super) fn see(&mut self, seen: &Seen<'_>) -> Says {
        self.failure.see(seen);
        match seen.token {
            Token::Text => self.see_text(seen),
            Token::Word => self.see_word(seen),
            Token::Key => self.see_key(seen),
            Token::Close { empty } => self.see_end(seen.spot, empty),
            Token::Open(_) => Says::Nothing,
        }
    }

    fn see_text(&mut self, seen: &Seen<'_>) -> Says {
        let is_text = !seen.text.is_empty();
        match seen.spot {
            Spot::OutputText | Spot::Delta | Spot::Image => self.add_text(is_text),
            Spot::Type => self.see_type(seen.text),
            Spot::FinishReason | Spot::StopReason => self.add_other(is_text),
            Spot::BlockType => self.add_other(seen.text.ends_with(b"tool_use")),
            _ => Says::Nothing,
        }
    }

    fn see_word(&mut self, seen: &Seen<'_>) -> Says {
        if seen.spot != Spot::Element || seen.text != DONE {
            return Says::Nothing;
        }
        self.complete = true;
        self.document.is_known = true;
        Says::More
    }

    fn see_key(&mut self, seen: &Seen<'_>) -> Says {
        let is_known = matches!(seen.spot, Spot::Choices | Spot::Type | Spot::Error | Spot::Usage);
        self.document.is_known |= is_known && seen.depth == 1;
        Says::Nothing
    }

    /// A bracket is closed. `empty`: nothing was in it.
    fn see_end(&mut self, spot: Spot, empty: bool) -> Says {
        match spot {
            Spot::Document => {
                self.document.is_closed = true;
                self.document.is_known |= empty;
            }
            Spot::ToolCalls => self.has_output |= !empty,
            _ => {}
        }
        Says::Nothing
    }

    /// The types of the events of OpenAI's responses and Anthropic's messages.
    fn see_type(&mut self, text: &[u8]) -> Says {
        let (is_last, is_output) = match text {
            b"response.completed" | b"response.incomplete" => (true, true),
            b"response.failed" | b"message_stop" => (true, false),
            _ => (false, text.ends_with(b".done")),
        };
        self.complete |= is_last;
        self.add_other(is_output).or_more(is_last)
    }

    /// A text that is output, unless it is empty.
    fn add_text(&mut self, is_output: bool) -> Says {
        if is_output && !std::mem::replace(&mut self.document.has_output, true) {
            self.output_events = self.output_events.saturating_add(1);
        }
        self.has_output |= is_output;
        Says::Output
    }

    /// What else is output, and no text.
    fn add_other(&mut self, is_output: bool) -> Says {
        self.has_output |= is_output;
        Says::Nothing.or_more(is_output)
    }

    /// A stream's `data:` line has ended. `is_blank`: nothing was in it; `is_error`: its event is called so.
    pub(super) fn end_line(&mut self, is_blank: bool, is_error: bool) {
        let has_failed = self.failure.end_document(is_error);
        self.has_output |= !is_blank && !has_failed && !self.document.is_known;
        self.document = Document::default();
    }

    /// More of an answer that is one document is here. `is_blank`: nothing but whitespace so far.
    pub(super) fn read_document(&mut self, is_blank: bool) {
        self.has_output |= !is_blank;
        if self.document.is_closed {
            self.complete = true;
            self.failure.end_document(false);
        }
    }

    /// The server has ended the answer.
    pub(super) fn end(&mut self) {
        if !self.has_output {
            self.failure.end_without_output();
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::openai::{AnswerFormat, AnswerReader};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// The same whole and byte by byte; and what begins an answer is no first output before its last byte but one.
    fn check(format: AnswerFormat, answer: &str, has_output: bool) {
        let mut whole = AnswerReader::new(format);
        whole.push(answer.as_bytes(), false);
        let mut cut = AnswerReader::new(format);
        answer.as_bytes().chunks(1).for_each(|piece| {
            cut.push(piece, false);
        });
        assert_eq!((whole.has_output(), cut.has_output()), (has_output, has_output), "{answer}");
        assert!(whole.failure().is_none() && cut.failure().is_none(), "{answer}");
    }

    fn check_event(document: &str, has_output: bool) {
        check(AnswerFormat::Events, &format!("event: x\ndata: {document}\n\n"), has_output);
    }

    #[test]
    fn a_stream_that_has_only_begun_has_no_output() {
        for document in [
            "",
            " ",
            "{}",
            r#"{"type":"response.created","response":{"status":"in_progress","output":[],"error":null,"usage":null}}"#,
            r#"{"type":"response.in_progress","response":{"output":[{"content":[{"text":"a"}]}]}}"#,
            r#"{"type":"response.queued","response":{}}"#,
            r#"{"type":"response.output_item.added","item":{"type":"function_call","name":"f","arguments":""}}"#,
            r#"{"type":"response.content_part.added","part":{"type":"output_text","text":""}}"#,
            r#"{"type":"response.output_text.delta","delta":""}"#,
            r#"{"type":"ping"}"#,
            r#"{"type":"message_start","message":{"content":[],"usage":{"input_tokens":9}}}"#,
            r#"{"type":"content_block_start","content_block":{"type":"text","text":""}}"#,
            r#"{"type":"content_block_start","content_block":{"type":"thinking","thinking":"","signature":""}}"#,
            r#"{"choices":[{"index":0,"delta":{"role":"assistant"},"finish_reason":null}]}"#,
            r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":"","tool_calls":[]}}],"usage":null}"#,
            r#"{"choices":[{"index":0,"text":"","logprobs":null,"finish_reason":null}]}"#,
            r#"{"choices":[]}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":9}}"#,
            "[DONE]",
        ] {
            check_event(document, false);
        }
        for stream in
            ["", "\n\n", ": keep-alive\n\n", "event: ping\n\n", "retry: 3000\nid: 1\n\n", "data\n\n"]
        {
            check(AnswerFormat::Events, stream, false);
        }
    }

    #[test]
    fn what_only_a_computed_prompt_can_have_is_output() {
        for document in [
            r#"{"choices":[{"delta":{"content":"a"}}]}"#,
            r#"{"choices":[{"delta":{"content":null,"reasoning":"a"}}]}"#,
            r#"{"choices":[{"delta":{"reasoning_content":"a"}}]}"#,
            r#"{"choices":[{"delta":{"refusal":"a"}}]}"#,
            r#"{"choices":[{"delta":{"audio":{"transcript":"a"}}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"id":"1","function":{"name":"f","arguments":""}}]}}]}"#,
            r#"{"choices":[{"text":"a"}]}"#,
            r#"{"choices":[{"d\u0065lta":{},"finish_reason":"stop"}]}"#,
            r#"{"type":"response.output_text.delta","delta":"a"}"#,
            r#"{"type":"response.reasoning_text.delta","delta":"a"}"#,
            r#"{"type":"response.function_call_arguments.delta","delta":"{"}"#,
            r#"{"type":"response.output_item.done","item":{}}"#,
            r#"{"type":"response.image_generation_call.partial_image","partial_image_b64":"a"}"#,
            r#"{"type":"response.completed","response":{}}"#,
            r#"{"type":"response.incomplete","response":{}}"#,
            r#"{"type":"content_block_start","content_block":{"type":"tool_use","name":"f","input":{}}}"#,
            r#"{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"a"}}"#,
            r#"{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"{"}}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#,
            // Of no API that is known.
            r#"{"token":{"text":"a"}}"#,
            "a",
            "[1]",
        ] {
            check_event(document, true);
        }
    }

    #[test]
    fn the_first_byte_of_a_document_is_output_that_is_no_blank() {
        check(AnswerFormat::Document, " \n\n", false);
        check(AnswerFormat::Document, "\n{", true);
    }
}
