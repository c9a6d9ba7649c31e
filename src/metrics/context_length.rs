//! How many tokens a prompt and its answer may have at a server whose metrics do not report it, read from its list of models.
//!
//! | server | where in the list of `GET /v1/models` |
//! |---|---|
//! | vLLM | `data[].max_model_len`; `null` for an adapter (0.32) |
//! | llama.cpp | `data[].meta.n_ctx`, that of one slot; there from the moment its model is loaded (llama-cpp-python 0.3.36) |

use serde::Deserialize;

/// Bytes of a list of models that are read: thousands of adapters, of some 500 bytes each.
pub const MAX_LIST_BYTES: usize = 1024 * 1024;

/// Where a server lists its models.
pub const MODELS_PATH: &str = "/v1/models";

#[derive(Deserialize)]
struct List {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    max_model_len: Option<u32>,
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Meta {
    n_ctx: Option<u32>,
}

/// The longest context of a list's models, in tokens. `None` if it reports none, or is no list: cut off at [`MAX_LIST_BYTES`],
/// or another server's.
pub fn read_context_tokens(list: &[u8]) -> Option<u32> {
    let list: List = serde_json::from_slice(list).ok()?;
    let tokens = |model: Model| model.max_model_len.or_else(|| model.meta?.n_ctx);
    list.data.into_iter().filter_map(tokens).filter(|tokens| *tokens > 0).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn real_servers_report_their_context() {
        let vllm = include_str!("../../tests/fixtures/vllm-0.32/models.http");
        let llama_cpp = include_str!("../../tests/fixtures/llama.cpp-0.3.36/models.http");
        for exchange in [vllm, llama_cpp] {
            let (_, body) =
                exchange.replace('\r', "").split_once("\n\n").map(|(a, b)| (a.len(), b.to_owned())).unwrap();
            assert_eq!(read_context_tokens(body.as_bytes()), Some(8_192));
            let whole = body.trim_end().len();
            assert!(
                (0..whole).all(|end| read_context_tokens(&body.as_bytes()[..end]).is_none()),
                "cut anywhere"
            );
        }
    }

    #[test]
    fn the_longest_counts_and_what_is_no_length_does_not() {
        let check =
            |list: &str, expected| assert_eq!(read_context_tokens(list.as_bytes()), expected, "{list}");
        check(
            r#"{"data":[{"max_model_len":4096},{"max_model_len":8192},{"max_model_len":null}]}"#,
            Some(8_192),
        );
        check(r#"{"data":[{"id":"a"}]}"#, None);
        check(r#"{"data":[]}"#, None);
        check(r#"{"data":[{"max_model_len":0}]}"#, None);
        check(r#"{"data":[{"max_model_len":-1}]}"#, None);
        check(r#"{"data":[{"max_model_len":"8192"}]}"#, None);
        check(r#"{"data":[{"max_model_len":99999999999}]}"#, None);
        check(r#"{"data":{}}"#, None);
        check("", None);
    }
}
