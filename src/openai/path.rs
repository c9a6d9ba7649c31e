//! Which requests are read, by their path.

/// The paths whose JSON POSTs are read, as they end; any prefix may stand before them.
const INFERENCE_PATHS: [&str; 5] =
    ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages"];

/// Whether a POST to this path carries a prompt to be read, if it is JSON: one of the five inference paths.
pub fn is_inference_path(path: &[u8]) -> bool {
    let path = without_query(path);
    INFERENCE_PATHS.iter().any(|known| path.ends_with(known.as_bytes()))
}

/// A path without its query.
pub(super) fn without_query(path: &[u8]) -> &[u8] {
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
}
