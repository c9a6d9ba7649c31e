//! Whether an answer with status 404 is about the model, or about the path.
//!
//! Servers that lack a model say so in JSON: vLLM with `"param":"model"` and before 0.10 without an `error` around it, its
//! Messages API with a message alone; OpenAI with the code `model_not_found`; LMDeploy, Ollama and llama.cpp's router with a
//! message that has the word in it. A path that a server does not know is `{"detail":"Not Found"}` with FastAPI (vLLM,
//! SGLang, LMDeploy, TensorRT-LLM), "File Not Found" with llama.cpp, and nothing at all with TGI; and vLLM says 404 of a
//! response that it has not stored. None of these may take a model away.

use memchr::memmem;
use serde_json::Value;

/// Bytes of such an answer that are read. Some list the models that there are; what is longer says that there are many.
const MAX_NOT_FOUND_BYTES: usize = 4_096;

/// The body of an answer with status 404, as it comes.
#[derive(Debug)]
pub struct NotFound {
    head: Vec<u8>,
    is_readable: bool,
}

impl NotFound {
    /// Nothing of it has come. `is_encoded`: it is compressed, so that nothing can be read of it.
    pub fn new(is_encoded: bool) -> NotFound {
        NotFound { head: Vec::new(), is_readable: !is_encoded }
    }

    /// Of so many more bytes, the first ones that are to be pushed.
    pub fn wanted(&self, bytes: usize) -> usize {
        if self.is_readable { bytes.min(MAX_NOT_FOUND_BYTES + 1 - self.head.len()) } else { 0 }
    }

    /// More of it has come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.head.extend_from_slice(bytes.get(..self.wanted(bytes.len())).unwrap_or_default());
        self.is_readable &= self.head.len() <= MAX_NOT_FOUND_BYTES;
    }

    /// Whether it says that the model is not there. One that cannot be read says so by its status.
    pub fn is_about_model(&self) -> bool {
        !self.is_readable || serde_json::from_slice(&self.head).is_ok_and(|answer| names_model(&answer))
    }
}

fn names_model(answer: &Value) -> bool {
    let error = answer.get("error").unwrap_or(answer);
    let text = |name: &str| error.get(name).and_then(Value::as_str);
    let words = [error.as_str(), text("message"), text("detail")];
    text("param") == Some("model")
        || text("code") == Some("model_not_found")
        || words.into_iter().flatten().any(has_word_model)
}

fn has_word_model(words: &str) -> bool {
    memmem::find(words.to_ascii_lowercase().as_bytes(), b"model").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// Whole, and byte by byte.
    #[track_caller]
    fn check(body: &str, is_encoded: bool, is_about_model: bool) {
        for size in [1, body.len().max(1)] {
            let mut answer = NotFound::new(is_encoded);
            for bytes in body.as_bytes().chunks(size) {
                answer.push(bytes);
            }
            assert_eq!(answer.is_about_model(), is_about_model, "{size} {body}");
            assert!(answer.head.len() <= MAX_NOT_FOUND_BYTES + 1);
        }
    }

    #[test]
    fn servers_that_do_not_have_the_model_say_so() {
        let recorded = include_str!("../../tests/fixtures/vllm-0.32/err_unknown_model.http");
        check(recorded.split_once("\r\n\r\n").unwrap().1, false, true);
        for body in [
            r#"{"object":"error","message":"The model `nope` does not exist.","type":"NotFoundError","param":null,"code":404}"#,
            r#"{"type":"error","error":{"type":"NotFoundError","message":"The model `nope` does not exist."}}"#,
            r#"{"error":{"message":"No such thing.","type":"invalid_request_error","param":null,"code":"model_not_found"}}"#,
            r#"{"error":"model 'nope' not found"}"#,
            r#"{"detail":"Model nope is not loaded"}"#,
        ] {
            check(body, false, true);
        }
    }

    #[test]
    fn paths_that_servers_do_not_know_and_other_things_that_are_not_there_say_nothing_of_the_model() {
        for body in [
            "",
            "404 page not found",
            "<html>no such model</html>",
            r#"{"detail":"Not Found"}"#,
            r#"{"error":{"code":404,"message":"File Not Found","type":"not_found_error"}}"#,
            r#"{"error":{"message":"Response with id 'resp_1' not found.","type":"invalid_request_error","param":"response_id","code":404}}"#,
            r#"{"model":"tiny","error":{"message":"Not Found"}}"#,
            r#"{"error":{"message":"The model `no"#,
            "[404]",
            "null",
        ] {
            check(body, false, false);
        }
    }

    #[test]
    fn what_cannot_be_read_is_taken_at_its_status() {
        check("\u{1f}compressed", true, true);
        check(&format!(r#"{{"error":{{"message":"{}"}}}}"#, "x".repeat(5_000)), false, true);
        check(&format!(r#"{{"detail":"{}"}}"#, "x".repeat(4_000)), false, false);
    }
}
