//! What only llama.cpp answers so.

use envoy_test::envoy::Request;
use serde_json::json;

use crate::answers::check_refused;
use crate::gateway::{Gateway, completion_body};
use crate::servers::MODEL;

/// A prompt that has no room in a slot, a path that the model is not for, and one that there is not.
pub fn what_llama_cpp_refuses_is_said_in_its_own_words(gateway: &Gateway) {
    let mut too_long = completion_body(MODEL);
    too_long["prompt"] = "word ".repeat(4_000).into();
    let embeddings = json!({"model": MODEL, "input": "Hi"});
    check_refused(
        gateway,
        &[
            (Request::post("/v1/completions").json(&too_long), 400, "exceed_context_size_error"),
            (Request::post("/v1/embeddings").json(&embeddings), 501, "--embeddings"),
            (Request::post("/v1/chat/completions/").json(&completion_body(MODEL)), 404, "File Not Found"),
        ],
    );
}
