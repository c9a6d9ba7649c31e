//! Whether an answer says that it failed, whatever its status, and whose fault that is.
//!
//! Servers send the status before they compute anything, so what fails later can only be reported in the body:
//! - an object or text `error` at the top: events of OpenAI's completions and Anthropic's messages, and JSON documents;
//! - `response.failed`, with `response.error`, and `{"type":"error","code":…}` of OpenAI's responses;
//! - `"object":"error"` at the top, vLLM's before 0.10;
//! - an event whose line says `event: error`, whatever its data.

use super::counts::whole_number;
use super::place::{Seen, Spot};
use crate::openai::json::Token;

/// Status codes are below this.
const STATUS_END: u16 = 600;

/// That an answer failed, by what it says itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerFailure {
    /// The status code that it names, in digits or by the name of the error; `None` if it names none that is known.
    pub code: Option<u16>,
}

impl AnswerFailure {
    /// Whether it is the endpoint that failed: its code is 5xx or 429, or it names none. Others are the client's fault.
    pub fn blames_endpoint(self) -> bool {
        !matches!(self.code, Some(400..=428 | 430..=499))
    }
}

/// What one answer has said of its failure.
#[derive(Debug, Default)]
pub(super) struct FailureReader {
    /// Whether this document reports a failure.
    is_reported: bool,
    named: NamedCodes,
    reported: Option<AnswerFailure>,
}

/// The codes that a document names, the best first.
#[derive(Debug, Default, Clone, Copy)]
struct NamedCodes {
    digits: Option<u16>,
    code: Option<u16>,
    kind: Option<u16>,
}

impl FailureReader {
    /// What has been reported so far.
    pub(super) fn failure(&self) -> Option<AnswerFailure> {
        self.reported
    }

    /// What an answer's document says.
    pub(super) fn see(&mut self, seen: &Seen<'_>) {
        let text = seen.text;
        match (seen.spot, seen.token) {
            (Spot::Error, Token::Open(_)) => self.is_reported = true,
            (Spot::Error, Token::Text) => self.is_reported |= !text.is_empty(),
            (Spot::Type, Token::Text) => self.is_reported |= matches!(text, b"error" | b"response.failed"),
            (Spot::Object, Token::Text) => self.is_reported |= text == b"error",
            (Spot::ErrorCode, Token::Text | Token::Word) => {
                self.named.digits = digits(text).or(self.named.digits);
                self.named.code = status_of(text).or(self.named.code);
            }
            (Spot::ErrorType, Token::Text) => self.named.kind = status_of(text).or(self.named.kind),
            _ => {}
        }
    }

    /// The document is over: says whether it reported a failure. `is_error`: it is the data of an event that is called so.
    pub(super) fn end_document(&mut self, is_error: bool) -> bool {
        let named = std::mem::take(&mut self.named);
        let has_failed = std::mem::take(&mut self.is_reported) || is_error;
        if has_failed {
            self.reported = Some(AnswerFailure { code: named.digits.or(named.code).or(named.kind) });
        }
        has_failed
    }

    /// The answer ended without any output.
    pub(super) fn end_without_output(&mut self) {
        self.reported = self.reported.or(Some(AnswerFailure { code: None }));
    }
}

/// A status code in digits.
fn digits(text: &[u8]) -> Option<u16> {
    let code = u16::try_from(whole_number(text)?).ok()?;
    (100..STATUS_END).contains(&code).then_some(code)
}

/// The status code that goes with an error of this name, at OpenAI, Anthropic, vLLM, SGLang, llama.cpp and TGI.
fn status_of(name: &[u8]) -> Option<u16> {
    Some(match name {
        b"invalid_request_error"
        | b"BadRequestError"
        | b"invalid_prompt"
        | b"context_length_exceeded"
        | b"exceed_context_size_error"
        | b"validation" => 400,
        b"authentication_error" | b"invalid_api_key" => 401,
        b"permission_error" => 403,
        b"not_found_error" | b"NotFoundError" | b"model_not_found" => 404,
        b"request_too_large" => 413,
        b"rate_limit_error" | b"rate_limit_exceeded" | b"insufficient_quota" | b"overloaded" => 429,
        b"api_error" | b"server_error" | b"InternalServerError" => 500,
        b"not_supported_error" => 501,
        b"unavailable_error" | b"ServiceUnavailableError" => 503,
        b"timeout_error" => 504,
        b"overloaded_error" => 529,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::{AnswerFormat, AnswerReader};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const OUTPUT: &str = "data: {\"choices\":[{\"text\":\"a\"}]}\n\n";

    /// The code of the failure, if there is one, the same whole and byte by byte.
    fn check(format: AnswerFormat, answer: &str, expected: Option<Option<u16>>) {
        let read = |length: usize| {
            let mut reader = AnswerReader::new(format);
            answer.as_bytes().chunks(length).for_each(|piece| {
                reader.push(piece, false);
            });
            reader.push(b"", true);
            reader.failure().map(|failure| failure.code)
        };
        assert_eq!((read(1), read(usize::MAX)), (expected, expected), "{answer}");
    }

    /// At a stream's beginning, behind output, and, if it has no lines of its own, as a document.
    fn check_failure(event: &str, expected: Option<u16>) {
        let stream = if event.starts_with('{') { format!("data: {event}\n\n") } else { event.to_owned() };
        check(AnswerFormat::Events, &stream, Some(expected));
        check(AnswerFormat::Events, &format!("{OUTPUT}{stream}data: [DONE]\n\n"), Some(expected));
        if event.starts_with('{') {
            check(AnswerFormat::Document, event, Some(expected));
        }
    }

    #[test]
    fn an_answer_fails_if_it_says_so_and_names_a_code_in_digits_or_by_a_name() {
        check_failure(
            r#"{"error":{"message":"a","type":"InternalServerError","param":null,"code":503}}"#,
            Some(503),
        );
        check_failure(r#"{"error":{"code":"429","message":"a"}}"#, Some(429));
        check_failure(r#"{"error":{"code":"context_length_exceeded","type":"server_error"}}"#, Some(400));
        check_failure(r#"{"type":"error","error":{"type":"overloaded_error","message":"a"}}"#, Some(529));
        check_failure(r#"{"type":"error","code":"server_error","message":"a"}"#, Some(500));
        check_failure(
            r#"{"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded"}}}"#,
            Some(429),
        );
        check_failure(r#"{"type":"response.failed","response":{"error":null}}"#, None);
        check_failure(r#"{"object":"error","message":"a","type":"BadRequestError","code":400}"#, Some(400));
        check_failure(r#"{"error":"a","error_type":"validation"}"#, Some(400));
        check_failure(r#"{"\u0065rror":{"c\u006fde":500}}"#, Some(500));
        check_failure(r#"{"error":{"code":99,"type":"what"}}"#, None);
        check_failure("event: error\r\ndata: {\"message\":\"a\"}\r\n\r\n", None);
        check_failure(
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\"}}\n\n",
            Some(500),
        );
        check_failure("event:error\ndata: oh no\n\n", None);
    }

    #[test]
    fn an_answer_without_output_has_failed_when_it_is_over() {
        for stream in [
            "",
            ": keep-alive\n\n",
            "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\ndata: [DONE]\n\n",
        ] {
            check(AnswerFormat::Events, stream, Some(None));
        }
        check(AnswerFormat::Document, " ", Some(None));
    }

    #[test]
    fn other_answers_have_not() {
        for document in [
            r#"{"choices":[{"message":{"content":"a"}}],"error":null}"#,
            r#"{"choices":[{"text":"a"}],"error":"","object":"list","code":500}"#,
            r#"{"choices":[{"text":"{\"error\":{}}","error":{"code":500}}]}"#,
            r#"{"type":"response.completed","response":{"error":null,"code":500}}"#,
            r#"{"status":"failed"}"#,
        ] {
            check(AnswerFormat::Document, document, None);
            check(AnswerFormat::Events, &format!("event: errors\ndata: {document}\n\n"), None);
        }
    }

    #[test]
    fn the_clients_own_faults_blame_no_endpoint() {
        for (code, blames_endpoint) in [
            (None, true),
            (Some(400), false),
            (Some(404), false),
            (Some(429), true),
            (Some(500), true),
            (Some(529), true),
        ] {
            assert_eq!(AnswerFailure { code }.blames_endpoint(), blames_endpoint, "{code:?}");
        }
    }
}
