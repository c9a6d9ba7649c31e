//! Reads an inference request: the model and where it stands in the bytes, the stream flag, the prompt's size.
//!
//! The whole body is checked and the spans of the few fields that matter are handed out; the client's bytes are
//! never written anew, so key order, numbers and unknown fields survive a change of the model's name. There are two
//! readers: `scan` is fast and knows ordinary requests only; `parse` decides about all others and says what is wrong
//! with them.

use std::borrow::Cow;
use std::ops::Range;

mod expected;
mod fields;
mod include_usage;
mod multipart;
mod parse;
mod prompt;
mod prompt_text;
mod rewrite;
mod scan;

use super::ApiError;
use crate::hash::digest;
pub use expected::{ExpectedBody, SMALL_REQUEST_TOKENS};
pub use fields::Names;
pub use include_usage::include_usage;
pub use multipart::MAX_BOUNDARY_BYTES;
pub use prompt_text::PromptParts;
pub use rewrite::{Edit, apply_edits, model_edits};

/// Bytes of a model's name. Names end up in logs and filter state; real ones are paths at worst.
pub const MAX_MODEL_NAME_BYTES: usize = 1024;

/// The mark by which some clients say that a text is UTF-8. Python's `json` and llama.cpp's reader pass over it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What a gateway needs to know of an inference request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InferenceRequest<'a> {
    /// The model asked for, decoded; empty where none is named. Where the key is there twice the last one counts, as in
    /// the servers.
    pub model: Cow<'a, str>,
    /// Why no model is named, for where one must be; otherwise what to make of it is for the servers to decide, as always in
    /// their own APIs.
    pub unnamed: Option<ApiError>,
    /// Where the model's value stands in the body, quotes included: every top-level occurrence, in order.
    pub model_spans: Vec<Range<usize>>,
    /// Whether the body is a form, where a value stands as it is, and not JSON.
    pub is_form: bool,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// The prompt's size in estimated tokens, at least 1.
    pub prompt_tokens: u32,
    /// Tokens that the prompt has whatever the tokenizer is; 0 where that is not known, as of several prompts in one request.
    pub least_tokens: u32,
    /// The raw text of `user`, if it is a string: who asks, to distinguish users and for nothing else.
    pub user: Option<&'a str>,
    /// Where the value of `stream_options` stands in the body, if it is there: the last one, as in the servers.
    pub stream_options: Option<Range<usize>>,
    /// The raw text of `cache_salt`: prompts with different salts share nothing in a server's prefix cache.
    pub cache_salt: &'a [u8],
    /// What it says of the conversation that it belongs to.
    pub names: Names<'a>,
    /// Distinguishes this request from others: the same again has the same.
    pub digest: u64,
    /// The size of its body.
    pub body_bytes: usize,
    /// What the prompt is made of.
    pub prompt: PromptParts<'a>,
}

impl InferenceRequest<'_> {
    /// One whose prompt is not of interest.
    fn small(self) -> Self {
        let Self { model, model_spans, is_form, user, names, digest, body_bytes, .. } = self;
        let prompt_tokens = SMALL_REQUEST_TOKENS;
        let known = Self { model, model_spans, is_form, user, names, ..Self::default() };
        Self { digest, body_bytes, prompt_tokens, ..known }
    }
}

/// Reads the body of an inference request.
///
/// # Errors
/// 400 with the place, when the body is not a JSON object.
pub fn read_request(body: &[u8]) -> Result<InferenceRequest<'_>, ApiError> {
    read(body, false)
}

/// Reads the body of a request; `is_own`: of a server's own API, where the prompt goes by other names, too.
fn read(body: &[u8], is_own: bool) -> Result<InferenceRequest<'_>, ApiError> {
    let json = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let read = scan::read_fields(json).map_or_else(|| parse::read_fields(json), Ok);
    let mut fields = read.map_err(not_json)?;
    if is_own {
        fields.take_own_prompt();
    }
    let (model, unnamed) = match model_name(fields.model) {
        Ok(name) => (name, None),
        Err(error) => (Cow::default(), Some(error)),
    };
    let least_tokens = fields.least_tokens();
    let mut request = InferenceRequest {
        model,
        unnamed,
        model_spans: fields.model_spans,
        is_form: false,
        stream: fields.stream,
        prompt_tokens: fields.prompt.tokens(),
        least_tokens,
        user: fields.user.filter(|user| user.starts_with('"')),
        stream_options: fields.stream_options,
        cache_salt: fields.cache_salt.unwrap_or_default(),
        names: fields.names,
        digest: digest(body),
        body_bytes: body.len(),
        prompt: fields.prompt_parts,
    };
    let before = body.len() - json.len();
    if before > 0 {
        for span in request.model_spans.iter_mut().chain(&mut request.stream_options) {
            *span = span.start + before..span.end + before;
        }
    }
    Ok(request)
}

/// The request in a multipart form with this boundary. `None`: it is no form, or names no model.
fn read_form<'a>(body: &'a [u8], boundary: &[u8]) -> Option<InferenceRequest<'a>> {
    let model_spans = multipart::model_spans(body, boundary)?;
    let model = str::from_utf8(body.get(model_spans.last()?.clone())?).ok()?;
    if !(1..=MAX_MODEL_NAME_BYTES).contains(&model.len()) {
        return None;
    }
    let request = InferenceRequest {
        model: Cow::Borrowed(model),
        model_spans,
        is_form: true,
        digest: digest(body),
        body_bytes: body.len(),
        ..InferenceRequest::default()
    };
    Some(request.small())
}

fn not_json(error: serde_json::Error) -> ApiError {
    ApiError::bad_request(
        format!("The request body is not a JSON object that can be read: {error}."),
        None,
        "invalid_json",
    )
}

fn model_name(value: Option<&str>) -> Result<Cow<'_, str>, ApiError> {
    let refuse = |message: &str, code| Err(ApiError::bad_request(message.to_owned(), Some("model"), code));
    let Some(value) = value else {
        return refuse(
            "The request has no `model`; name the model to use, as in {\"model\": \"NAME\", …}.",
            "missing_model",
        );
    };
    match serde_json::from_str::<Name>(value) {
        Ok(Name(name)) if name.is_empty() => {
            refuse("`model` is empty; name the model to use.", "invalid_model")
        }
        Ok(Name(name)) if name.len() > MAX_MODEL_NAME_BYTES => {
            refuse(&format!("`model` is longer than {MAX_MODEL_NAME_BYTES} bytes."), "invalid_model")
        }
        Ok(Name(name)) => Ok(name),
        Err(_) => refuse("`model` must be a string that names the model to use.", "invalid_model"),
    }
}

#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn what_a_prompt_has_at_least_is_known_of_one_prompt_that_is_not_cut() {
        let check = |fields: &str, expected: u32| {
            let body = format!(r#"{{"model":"m",{fields}}}"#);
            assert_eq!(read_request(body.as_bytes()).unwrap().least_tokens, expected, "{fields:.60}");
            assert_eq!(parse::read_fields(body.as_bytes()).unwrap().least_tokens(), expected, "{fields:.60}");
        };
        let text = "a".repeat(12_800);
        check(&format!(r#""prompt":"{text}""#), 100);
        check(&format!(r#""messages":[{{"role":"","content":"{text}"}}]"#), 100);
        check(&format!(r#""instructions":"{text}","input":"{text}""#), 200);
        check(r#""prompt":[1, 2, 3]"#, 3);
        check(r#""prompt":[ 1,2]"#, 2);
        check(r#""prompt":"Once""#, 0);
        check(r#""prompt":[]"#, 0);
        // Several prompts, of which each may fit; and numbers beside others.
        check(&format!(r#""prompt":["{text}","{text}"]"#), 0);
        check(r#""prompt":[[1,2,3],[4,5]]"#, 0);
        check(r#""tools":[7],"prompt":[1,2]"#, 0);
        // Or the server cuts it.
        for cut in [r#""truncate_prompt_tokens":100"#, r#""truncation":"auto""#, r#""truncate":true"#] {
            check(&format!(r#""prompt":"{text}",{cut}"#), 0);
        }
    }

    fn check(body: &str, model: &str, stream: bool, prompt_tokens: u32) {
        let request = read_request(body.as_bytes()).unwrap_or_else(|error| panic!("{body}: {error:?}"));
        assert_eq!(
            (&*request.model, request.stream, request.prompt_tokens),
            (model, stream, prompt_tokens),
            "{body}"
        );
        let last = request.model_spans.last().unwrap().clone();
        assert_eq!(serde_json::from_str::<String>(&body[last]).unwrap(), model, "{body}");
    }

    fn refused(body: &[u8], code: &str, words: &str) {
        let error = read_request(body).expect_err("refused");
        assert_eq!((error.status, error.code), (400, code), "{error:?}");
        assert!(error.message.contains(words), "{error:?}");
    }

    #[test]
    fn recorded_requests_give_model_stream_flag_and_prompt_size() {
        macro_rules! recorded {
            ($name:literal) => {
                include_str!(concat!("../../../tests/fixtures/vllm-0.32/", $name, ".req.json"))
            };
        }
        check(recorded!("chat"), "tiny", false, 23);
        check(recorded!("chat_stream"), "tiny", true, 23);
        check(recorded!("chat_lora_a"), "lora-a", false, 23);
        check(recorded!("comp"), "tiny", false, 4);
        check(recorded!("comp_stream_usage"), "tiny", true, 4);
        refused(recorded!("err_bad_json").as_bytes(), "invalid_json", "line 1 column 36");
    }

    #[test]
    fn every_form_of_prompt_counts() {
        check(r#"{"model":"m","prompt":["abcd","efgh"]}"#, "m", false, 2);
        check(r#"{"model":"m","prompt":[1,2,3]}"#, "m", false, 3);
        check(r#"{"model":"m","input":"abcd","instructions":"efgh"}"#, "m", false, 2);
        check(r#"{"system":"abcd","messages":[],"model":"m","stream":false}"#, "m", false, 1);
        check(r#"{"model":"m","tools":[{"function":{"name":"weat"}}],"messages":[]}"#, "m", false, 1);
        check(r#"{"model":"m"}"#, "m", false, 1);
    }

    #[test]
    fn the_last_top_level_model_counts_and_nested_ones_do_not() {
        check(r#"{"model":"a","x":{"model":"b"},"model":"c"}"#, "c", false, 1);
        let request = read_request(br#"{"model":"a","model":"c"}"#).unwrap();
        assert_eq!(request.model_spans, [9..12, 21..24]);
    }

    #[test]
    fn escaped_names_and_keys_are_decoded() {
        check(r#"{"model":"a\u002fb\"c"}"#, "a/b\"c", false, 1);
        check(r#"{"mod\u0065l":"m","str\u0065am":true}"#, "m", true, 1);
        check("\n\t{ \"model\" : \"m\" , \"stream\" : true }\r\n", "m", true, 1);
    }

    #[test]
    fn what_is_not_a_json_object_is_refused_with_its_place() {
        refused(b"", "invalid_json", "line 1 column 0");
        refused(b"hello", "invalid_json", "line 1 column 1");
        refused(b"[1]", "invalid_json", "a JSON object");
        refused(b"{\"model\":\"m\"} x", "invalid_json", "trailing characters");
        refused(b"{\"model\":\"m\",}", "invalid_json", "column 14");
        refused(b"{\"model\":\"m\",\"prompt\":\"\xff\"}", "invalid_json", "unicode");
        refused(format!("{{\"x\":{}", "[".repeat(100_000)).as_bytes(), "invalid_json", "EOF");
        refused(
            format!("{{{}\"model\":\"m\"}}", "\"model\":1,".repeat(16)).as_bytes(),
            "invalid_json",
            "too often",
        );
    }

    fn unnamed(body: &str, code: &str, words: &str) {
        let request = read_request(body.as_bytes()).unwrap_or_else(|error| panic!("{body}: {error:?}"));
        assert_eq!((&*request.model, request.prompt_tokens), ("", 2), "{body}");
        let error = request.unnamed.unwrap_or_else(|| panic!("{body} names a model"));
        assert_eq!((error.status, error.code), (400, code), "{error:?}");
        assert!(error.message.contains(words), "{error:?}");
    }

    #[test]
    fn a_request_that_names_no_model_is_read_and_says_why_it_names_none() {
        let with = |model: &str| format!(r#"{{"model":{model},"prompt":"01234567"}}"#);
        unnamed(r#"{"prompt":"01234567"}"#, "missing_model", "no `model`");
        for no_string in ["null", "7", r#"["m"]"#, r#"{"name":"m"}"#, r#""\ud800""#] {
            unnamed(&with(no_string), "invalid_model", "must be a string");
        }
        unnamed(&with(r#""""#), "invalid_model", "empty");
        unnamed(&with(&format!("{:?}", "m".repeat(1025))), "invalid_model", "longer than 1024");
        check(&with(&format!("{:?}", "m".repeat(1024))), &"m".repeat(1024), false, 2);
    }

    #[test]
    fn a_byte_order_mark_is_passed_over_and_places_count_from_the_start() {
        let body = "\u{feff}{\"model\":\"m\",\"stream_options\":{},\"prompt\":\"01234567\"}";
        check(body, "m", false, 2);
        let request = read_request(body.as_bytes()).unwrap();
        assert_eq!(request.model_spans.first(), Some(&(12..15)));
        assert_eq!(request.stream_options, Some(33..35));
        check("\u{feff}{\"mod\\u0065l\":\"m\"}", "m", false, 1);
        refused("\u{feff}\u{feff}{\"model\":\"m\"}".as_bytes(), "invalid_json", "expected value");
        refused(b"\xef\xbb{\"model\":\"m\"}", "invalid_json", "expected value");
    }

    #[test]
    fn deep_nesting_is_passed_over_without_recursion() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        check(&format!(r#"{{"x":{deep},"model":"m","messages":{deep}}}"#), "m", false, 1);
    }

    #[test]
    fn a_user_is_known_by_a_string_only() {
        let user = |body: &'static str| read_request(body.as_bytes()).unwrap().user;
        assert_eq!(user(r#"{"model":"m","user":"ann"}"#), Some("\"ann\""));
        assert_eq!(user(r#"{"model":"m","user":{"id":1}}"#), None);
        assert_eq!(user(r#"{"model":"m"}"#), None);
    }

    #[test]
    fn the_last_stream_options_count() {
        let options = |body: &'static str| {
            let span = read_request(body.as_bytes()).unwrap().stream_options;
            span.map(|span| &body[span])
        };
        assert_eq!(options(r#"{"model":"m","stream_options" : {"a": 1} }"#), Some(r#"{"a": 1}"#));
        assert_eq!(options(r#"{"stream_options":{},"stream\u005foptions":null,"model":"m"}"#), Some("null"));
        assert_eq!(options(r#"{"model":"m","x":{"stream_options":{}}}"#), None);
    }

    #[test]
    fn lone_surrogates_in_a_prompt_are_the_servers_business() {
        check(r#"{"model":"m","prompt":"\ud800"}"#, "m", false, 1);
    }
}
