//! What the body of a request is to be read as, by the request's headers.
//!
//! | path | body | |
//! |---|---|---|
//! | of an API with a prompt | whatever it is called | is read as JSON; JSON by its headers has to be |
//! | any other | JSON | is read if it can be, and names a model |
//! | any other | a multipart form | likewise |
//!
//! Servers differ in what they take for JSON (llama.cpp any type, vLLM any encoding), and what is served has to be read.

use super::{InferenceRequest, multipart, read, read_form};
use crate::openai::content_type::{is_json, is_json_type};
use crate::openai::{Api, ApiError};

/// What is counted of a request whose path is no API's with a prompt, in tokens: to count tokens is no work for the model,
/// and what an image or a sound costs it, its text does not show.
pub const SMALL_REQUEST_TOKENS: u32 = 1;

/// What a POST's body is to be read as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedBody {
    api: Api,
    format: Format,
    /// Whether the request is refused if its body cannot be read; otherwise it passes.
    is_certain: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Format {
    Json,
    Form { boundary: Vec<u8> },
}

impl ExpectedBody {
    /// By the headers of a POST. `None`: it is not read.
    pub fn of(
        path: &[u8],
        content_type: Option<&[u8]>,
        content_encoding: Option<&[u8]>,
    ) -> Option<ExpectedBody> {
        let api = Api::at(path);
        if api.has_prompt() {
            let is_certain = is_json(content_type, content_encoding);
            return Some(ExpectedBody { api, format: Format::Json, is_certain });
        }
        let content_type = content_type?;
        let format = if is_json_type(content_type) {
            Format::Json
        } else {
            Format::Form { boundary: multipart::boundary(content_type)? }
        };
        Some(ExpectedBody { api, format, is_certain: false })
    }

    /// The API that the request is for.
    pub fn api(&self) -> Api {
        self.api
    }

    /// Whether it is a form. Of forms only the model is of interest.
    pub fn is_form(&self) -> bool {
        matches!(self.format, Format::Form { .. })
    }

    /// Whether the request is refused if its body cannot be read, and does not pass.
    pub fn is_certain(&self) -> bool {
        self.is_certain
    }

    /// Reads the body. `None`: it is nothing that is read, and passes.
    ///
    /// # Errors
    /// As [`read_request`](super::read_request), where the body has to be JSON.
    pub fn read<'a>(&self, body: &'a [u8]) -> Result<Option<InferenceRequest<'a>>, ApiError> {
        let read = match &self.format {
            Format::Json => read(body, self.api == Api::OwnCompletions),
            Format::Form { boundary } => return Ok(read_form(body, boundary)),
        };
        match read {
            Err(error) if self.is_certain => Err(error),
            Err(_) => Ok(None),
            Ok(request) if self.api == Api::OwnCompletions => {
                Ok(Some(InferenceRequest { unnamed: None, ..request }))
            }
            Ok(request) if self.api.has_prompt() => Ok(Some(request)),
            Ok(request) => Ok(request.unnamed.is_none().then(|| request.small())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const CHAT: &str = "/v1/chat/completions";
    const JSON: Option<&str> = Some("application/json");
    const FORM: Option<&str> = Some("multipart/form-data; boundary=x");

    fn expected(path: &str, content_type: Option<&str>, encoding: Option<&str>) -> Option<ExpectedBody> {
        ExpectedBody::of(path.as_bytes(), content_type.map(str::as_bytes), encoding.map(str::as_bytes))
    }

    #[test]
    fn what_is_read_goes_by_path_and_type() {
        let check = |path, content_type, encoding, read: Option<(bool, bool)>| {
            let expected = expected(path, content_type, encoding);
            let found = expected.map(|body| (body.is_form(), body.is_certain()));
            assert_eq!(found, read, "{path} {content_type:?} {encoding:?}");
        };
        check(CHAT, JSON, None, Some((false, true)));
        check(CHAT, None, None, Some((false, true)));
        check(CHAT, JSON, Some("gzip"), Some((false, false)));
        check(CHAT, Some("text/plain"), None, Some((false, false)));
        check(CHAT, FORM, None, Some((false, false)));
        check("/tokenize", JSON, None, Some((false, false)));
        check("/tokenize", JSON, Some("gzip"), Some((false, false)));
        check("/tokenize", None, None, None);
        check("/tokenize", Some("text/plain"), None, None);
        check("/v1/audio/transcriptions", FORM, None, Some((true, false)));
        check("/v1/audio/transcriptions", Some("multipart/form-data"), None, None);
    }

    #[test]
    fn what_cannot_be_read_is_refused_or_passes() {
        let read = |path, content_type, body: &'static str| {
            let request = expected(path, content_type, None).unwrap().read(body.as_bytes());
            request.map(|request| request.map(|request| (request.model.into_owned(), request.prompt_tokens)))
        };
        let (named, prompt) = (r#"{"model":"m","prompt":"0123456789abcdef"}"#, r#"{"prompt":"01234567"}"#);
        assert_eq!(read(CHAT, JSON, named), Ok(Some(("m".into(), 4))));
        assert_eq!(read(CHAT, JSON, prompt), Ok(Some((String::new(), 2))));
        assert_eq!(read(CHAT, Some("text/plain"), named), Ok(Some(("m".into(), 4))));
        assert_eq!(read(CHAT, Some("text/plain"), prompt), Ok(Some((String::new(), 2))));
        assert_eq!(read(CHAT, Some("text/plain"), "Hi"), Ok(None));
        assert_eq!(read("/tokenize", JSON, named), Ok(Some(("m".into(), SMALL_REQUEST_TOKENS))));
        assert_eq!(read("/tokenize", JSON, prompt), Ok(None));
        assert_eq!(read("/tokenize", JSON, r#"{"model":7}"#), Ok(None));
        assert_eq!(read("/tokenize", JSON, "{"), Ok(None));
        assert_eq!(read(CHAT, JSON, "{").unwrap_err().code, "invalid_json");
        assert_eq!(read("/generate", JSON, "{").unwrap_err().code, "invalid_json");
        let form = "--x\r\nContent-Disposition: form-data; name=model\r\n\r\nm\r\n--x--";
        assert_eq!(read("/v1/audio/translations", FORM, form), Ok(Some(("m".into(), SMALL_REQUEST_TOKENS))));
        assert_eq!(read("/v1/audio/translations", FORM, "--x--"), Ok(None));
    }

    /// The text by which it is picked, and its tokens.
    fn prompt(path: &str, body: &str) -> (String, u32) {
        let request = expected(path, JSON, None).unwrap().read(body.as_bytes()).unwrap().unwrap();
        let mut text = Vec::new();
        request.prompt.visit(|piece| text.extend_from_slice(piece));
        assert!(request.unnamed.is_none(), "{path} needs no model");
        (String::from_utf8(text).unwrap(), request.prompt_tokens)
    }

    #[test]
    fn the_prompt_of_servers_own_apis_goes_by_their_names() {
        for (path, body, text, tokens) in [
            ("/completion", r#"{"prompt":"01234567","n_predict":9}"#, r#""01234567""#, 2),
            ("/completions", r#"{"prompt":[1,2,3]}"#, "[1,2,3]", 3),
            (
                "/generate",
                r#"{"text":"01234567","sampling_params":{"max_new_tokens":9}}"#,
                r#""01234567""#,
                2,
            ),
            ("/generate", r#"{"input_ids": [1, 2, 3], "stream": true}"#, "[1,2,3]", 3),
            ("/generate_stream", r#"{"inputs":"01234567","parameters":{"top_p":1}}"#, r#""01234567""#, 2),
            ("/", r#"{"inputs":"01234567"}"#, r#""01234567""#, 2),
            ("/inference/v1/generate", r#"{"token_ids":[1,2,3],"model":"m"}"#, "[1,2,3]", 3),
            (
                "/infill",
                r#"{"prompt":"ab","input_suffix":"0123","input_prefix":"4567","input_extra":[{"filename":"f","text":"abc"}]}"#,
                r#"[{"filename":"f","text":"abc"}]"4567""ab""#,
                4,
            ),
        ] {
            assert_eq!(prompt(path, body), (text.to_owned(), tokens), "{path} {body}");
        }
    }

    #[test]
    fn elsewhere_these_names_are_no_prompt() {
        let responses = r#"{"model":"m","input":"01234567","text":{"format":{"type":"json_schema"}}}"#;
        assert_eq!(prompt("/v1/responses", responses), (r#""01234567""#.to_owned(), 2));
    }
}
