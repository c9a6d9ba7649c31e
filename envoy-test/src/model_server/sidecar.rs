//! What stands beside a server that decodes, and has prompts computed elsewhere: llm-d's routing sidecar, as it is read in
//! llm-d-router's `pkg/sidecar/proxy` of 21 August 2026 (ebab6879, after v0.10). It was not run, nor was a transfer between two
//! servers: the times of one are assumed.
//!
//! A request that names a prefill endpoint in [`HEADER`] is sent there first, as one for a single token that is not streamed.
//! When that is answered the server behind the sidecar fetches what was computed, and generates. Where the prefill
//! endpoint cannot be reached or answers with 5xx the server computes the prompt itself; any other error is the answer.
//! Requests without the header pass.

use std::net::SocketAddr;
use std::time::Duration;

use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::api::Api;
use super::response::{Body, json as json_response};
use crate::envoy::{Client, Protocol, Request};

/// The header that names the prefill endpoint, `ip:port`.
pub const HEADER: &str = "x-prefiller-host-port";

/// The sidecar of a server.
#[derive(Debug, Clone, PartialEq)]
pub struct Sidecar {
    /// How long it takes to fetch what was computed elsewhere, whatever it is.
    pub transfer_base_ms: f64,
    /// The same for each token: 128 KB of KV cache (a model of 8B) at 25 GB/s.
    pub transfer_token_ms: f64,
}

impl Default for Sidecar {
    fn default() -> Self {
        Self { transfer_base_ms: 2.0, transfer_token_ms: 0.005 }
    }
}

/// Who computes a prompt.
pub enum ComputedBy {
    /// The server itself.
    Itself,
    /// Somebody else has.
    Other,
    /// Nobody: this is the answer.
    Refused(Response<Body>),
}

impl Sidecar {
    /// Has the prompt of a request computed at `prefiller`, the header's value.
    pub async fn prefill(&self, api: Api, body: &Value, prefiller: &str) -> ComputedBy {
        let Ok(address) = prefiller.parse::<SocketAddr>() else { return ComputedBy::Itself };
        let request = Request::post(api.path()).json(&for_prefill(body));
        match Client::new(address, Protocol::Http1).send(request).await {
            Ok(answer) if answer.status < 400 => ComputedBy::Other,
            Ok(answer) if answer.status < 500 => {
                let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_REQUEST);
                ComputedBy::Refused(json_response(status, answer.text()))
            }
            _ => ComputedBy::Itself,
        }
    }

    /// How long it takes to fetch so many tokens.
    pub fn transfer_time(&self, tokens: usize) -> Duration {
        Duration::from_secs_f64((self.transfer_base_ms + self.transfer_token_ms * tokens as f64) / 1000.0)
    }
}

/// The request that is sent to the prefill endpoint: for one token, which nobody reads.
fn for_prefill(body: &Value) -> Value {
    let mut body = body.clone();
    if let Some(fields) = body.as_object_mut() {
        fields.remove("stream_options");
        for name in ["max_tokens", "max_completion_tokens", "max_output_tokens"] {
            if fields.contains_key(name) {
                fields.insert(name.to_owned(), json!(1));
            }
        }
        fields.insert("max_tokens".to_owned(), json!(1));
        fields.insert("stream".to_owned(), json!(false));
        fields.insert("kv_transfer_params".to_owned(), json!({"do_remote_decode": true}));
    }
    body
}
