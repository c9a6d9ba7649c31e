//! A name for the model that only the gateway knows.

use envoy_test::envoy::Request;

use crate::gateway::{Gateway, chat_body};

/// The name of [`crate::servers::MODEL`] for clients of a gateway with [`Gateway::with_alias`].
pub const ALIAS: &str = "alias";

/// Paths that generate nothing know the alias as well. vLLM itself does not know it.
pub fn an_alias_is_resolved_where_tokens_are_counted(gateway: &Gateway) {
    let mut body = chat_body(ALIAS);
    body.as_object_mut().unwrap().remove("ignore_eos");
    body.as_object_mut().unwrap().remove("max_tokens");
    for (path, count) in [("/v1/messages/count_tokens", "input_tokens"), ("/tokenize", "count")] {
        let request = Request::post(path).json(&body);
        let direct = gateway.servers.client(0).send_blocking(request.clone()).unwrap();
        assert_eq!(direct.status, 404, "{path}: {}", direct.text());
        let answer = gateway.send(request);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert!(answer.json().unwrap()[count].as_u64() > Some(0), "{path}: {}", answer.text());
    }
}
