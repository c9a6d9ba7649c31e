//! The OpenAI API as far as a gateway must know it: which requests carry a prompt, what is in them, and what an
//! error looks like. The only module that knows these formats; it decides nothing.

mod answer_model;
mod error;
mod models;
mod prompt;
mod request;
mod rewrite;

pub use answer_model::AnswerModel;
pub use error::ApiError;
pub use models::{is_model_list_request, list_models};
pub use request::{InferenceRequest, MAX_MODEL_NAME_BYTES, read_request};
pub use rewrite::replace_model;

/// The paths whose JSON POSTs are read, as they end; any prefix may stand before them.
const INFERENCE_PATHS: [&str; 5] =
    ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages"];

/// Whether a request carries a prompt to be read: a JSON POST to one of the five inference paths.
///
/// A request without `content-type` counts as JSON; one with an encoded (compressed) body does not.
pub fn is_inference_request(
    method: &[u8],
    path: &[u8],
    content_type: Option<&[u8]>,
    content_encoding: Option<&[u8]>,
) -> bool {
    let path = path.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
    method == b"POST"
        && INFERENCE_PATHS.iter().any(|known| path.ends_with(known.as_bytes()))
        && content_type.is_none_or(is_json)
        && content_encoding.is_none_or(|encoding| encoding.trim_ascii().eq_ignore_ascii_case(b"identity"))
}

/// `application/json` and the `+json` types, whatever their parameters.
fn is_json(content_type: &[u8]) -> bool {
    let media_type = content_type.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    let media_type = media_type.to_ascii_lowercase();
    media_type == b"application/json" || media_type.ends_with(b"+json")
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn check(method: &str, path: &str, content_type: Option<&str>, encoding: Option<&str>, expected: bool) {
        let actual = is_inference_request(
            method.as_bytes(),
            path.as_bytes(),
            content_type.map(str::as_bytes),
            encoding.map(str::as_bytes),
        );
        assert_eq!(actual, expected, "{method} {path} {content_type:?} {encoding:?}");
    }

    #[test]
    fn json_posts_to_the_inference_paths_are_read_under_any_prefix() {
        for path in INFERENCE_PATHS {
            check("POST", path, Some("application/json"), None, true);
            check(
                "POST",
                &format!("/team-a/llm{path}?api-version=1"),
                Some("Application/JSON; charset=utf-8"),
                None,
                true,
            );
        }
        check("POST", "/v1/completions", None, Some("identity"), true);
        check("POST", "/v1/completions", Some("application/vnd.api+json"), None, true);
    }

    #[test]
    fn anything_else_is_not_read() {
        check("GET", "/v1/models", None, None, false);
        check("GET", "/v1/chat/completions", Some("application/json"), None, false);
        check("POST", "/v1/audio/transcriptions", Some("multipart/form-data; boundary=x"), None, false);
        check("POST", "/v1/completions", Some("multipart/form-data; boundary=x"), None, false);
        check("POST", "/v1/completions", Some("text/plain"), None, false);
        check("POST", "/v1/completions", Some("application/json"), Some("gzip"), false);
        check("POST", "/v1/completions/", Some("application/json"), None, false);
        check("POST", "/v1/models?x=/v1/completions", Some("application/json"), None, false);
        check("POST", "", None, None, false);
    }
}
