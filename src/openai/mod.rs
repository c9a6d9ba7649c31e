//! The OpenAI API as far as a gateway must know it: which requests carry a prompt, what is in them, and what an
//! error looks like. The only module that knows these formats; it decides nothing.

mod answer_format;
mod answer_model;
mod answer_usage;
mod error;
mod event_lines;
mod event_pattern;
mod fields;
mod hidden_usage;
mod include_usage;
mod json_string;
mod json_tokens;
mod models;
mod parse;
mod prompt;
mod prompt_text;
mod request;
mod rewrite;
mod scan;
mod special_bytes;
mod usage;

pub use answer_format::AnswerFormat;
pub use answer_model::AnswerModel;
pub use answer_usage::AnswerUsage;
pub use error::ApiError;
pub use hidden_usage::HiddenUsage;
pub use include_usage::include_usage;
pub use models::{is_model_list_path, list_models};
pub use prompt_text::PromptParts;
pub use request::{InferenceRequest, MAX_MODEL_NAME_BYTES, read_request};
pub use rewrite::{Edit, apply_edits, model_edits};
pub use usage::Usage;

/// The paths whose JSON POSTs are read, as they end; any prefix may stand before them.
const INFERENCE_PATHS: [&str; 5] =
    ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages"];

/// Whether a POST to this path carries a prompt to be read, if it is JSON: one of the five inference paths.
pub fn is_inference_path(path: &[u8]) -> bool {
    let path = without_query(path);
    INFERENCE_PATHS.iter().any(|known| path.ends_with(known.as_bytes()))
}

/// Whether a body is JSON as it stands: `application/json` or one of the `+json` types, whatever its parameters, or
/// no type at all; and not encoded (compressed).
pub fn is_json(content_type: Option<&[u8]>, content_encoding: Option<&[u8]>) -> bool {
    content_type.is_none_or(is_json_type)
        && content_encoding.is_none_or(|encoding| encoding.trim_ascii().eq_ignore_ascii_case(b"identity"))
}

fn is_json_type(content_type: &[u8]) -> bool {
    let media_type = media_type(content_type);
    let suffix = media_type.len().checked_sub(b"+json".len()).and_then(|start| media_type.get(start..));
    media_type.eq_ignore_ascii_case(b"application/json")
        || suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case(b"+json"))
}

/// A content type without its parameters.
fn media_type(content_type: &[u8]) -> &[u8] {
    content_type.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii()
}

fn without_query(path: &[u8]) -> &[u8] {
    path.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn the_inference_paths_are_known_under_any_prefix() {
        for path in INFERENCE_PATHS {
            assert!(is_inference_path(path.as_bytes()), "{path}");
            assert!(is_inference_path(format!("/team-a/llm{path}?api-version=1").as_bytes()), "{path}");
        }
        for other in
            ["", "/v1/models", "/v1/audio/transcriptions", "/v1/completions/", "/v1/x?y=/v1/completions"]
        {
            assert!(!is_inference_path(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn json_is_known_by_its_type_and_read_only_as_it_stands() {
        let check = |content_type: Option<&str>, encoding: Option<&str>, expected| {
            let json = is_json(content_type.map(str::as_bytes), encoding.map(str::as_bytes));
            assert_eq!(json, expected, "{content_type:?} {encoding:?}");
        };
        check(Some("application/json"), None, true);
        check(Some("Application/JSON; charset=utf-8"), None, true);
        check(Some("application/vnd.api+JSON"), None, true);
        check(None, Some("identity"), true);
        check(Some("multipart/form-data; boundary=x"), None, false);
        check(Some("text/plain"), None, false);
        check(Some(""), None, false);
        check(Some("application/json"), Some("gzip"), false);
    }
}
