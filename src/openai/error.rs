//! Answers the gateway makes itself, as OpenAI error objects: `{"error":{"message","type","param","code"}}`.
//! OpenAI's clients turn them into their own exceptions by status and read `message`, `param` and `code`.

use serde::Serialize;

/// When a client is to try again whose request has waited for a first endpoint in vain, in seconds.
const EMPTY_RETRY_AFTER_S: u64 = 10;

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: u32,
    /// For the person who reads it: what is wrong and what to change.
    pub message: String,
    /// The request's field that is wrong.
    pub param: Option<&'static str>,
    /// A fixed word for programs; also the reason in Envoy's response details.
    pub code: &'static str,
    /// When to try again, in seconds: the header `retry-after`.
    pub retry_after_s: Option<u64>,
    /// Why a request was dropped that was right, in the words of the Gateway API's inference gateways: the header
    /// `x-llm-d-request-dropped-reason`.
    pub dropped_reason: Option<&'static str>,
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: Body<'a>,
}

#[derive(Serialize)]
struct Body<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'static str>,
    code: &'static str,
}

impl ApiError {
    fn new(status: u32, message: String, param: Option<&'static str>, code: &'static str) -> ApiError {
        ApiError { status, message, param, code, retry_after_s: None, dropped_reason: None }
    }

    /// 400: the body is not what the API takes.
    pub fn bad_request(message: String, param: Option<&'static str>, code: &'static str) -> ApiError {
        ApiError::new(400, message, param, code)
    }

    /// 400: a body to be read, on a connection that is to become another protocol's and so has no end.
    pub fn upgrade_not_served() -> ApiError {
        let message = "A request with a JSON body cannot ask for an upgrade; open a WebSocket with GET.";
        ApiError::bad_request(message.to_owned(), None, "upgrade_not_served")
    }

    /// 400: more tokens than any model server of the pool takes.
    pub fn prompt_too_long(pool: &str, longest_tokens: u32) -> ApiError {
        let message = format!(
            "The prompt is too long: with its answer it may have {longest_tokens} tokens, the longest context of a model \
             server of pool `{pool}`; send less."
        );
        ApiError::bad_request(message, None, "context_length_exceeded")
    }

    /// 404: no such model here.
    pub fn unknown_model(model: &str) -> ApiError {
        let message = format!("The model `{model}` does not exist here. GET /v1/models lists the models.");
        ApiError::new(404, message, Some("model"), "model_not_found")
    }

    /// 413: the body is larger than the gateway reads.
    pub fn body_too_large(limit_bytes: usize) -> ApiError {
        let message =
            format!("The request body is larger than the {limit_bytes} bytes this gateway reads; send less.");
        ApiError::new(413, message, None, "request_too_large")
    }

    /// 429: the pool is full, and this request gives way.
    pub fn saturated(pool: &str, retry_after_s: u64) -> ApiError {
        let message = format!("Every model server of pool `{pool}` is busy; try again in {retry_after_s} s.");
        let error = ApiError::new(429, message, None, "pool_saturated");
        let dropped_reason = Some("rejected-saturated");
        ApiError { retry_after_s: Some(retry_after_s), dropped_reason, ..error }
    }

    /// 429: nobody would keep what the request is promised, and it gives way.
    pub fn promise_not_kept(pool: &str, retry_after_s: u64) -> ApiError {
        let message = format!(
            "No model server of pool `{pool}` would answer as soon as this request is promised; try again in \
             {retry_after_s} s."
        );
        ApiError { message, code: "promise_not_kept", ..ApiError::saturated(pool, retry_after_s) }
    }

    /// 429: the request has waited for as long as it may.
    pub fn queue_timed_out(pool: &str, retry_after_s: u64) -> ApiError {
        let dropped_reason = Some("rejected-ttl-expired");
        ApiError { dropped_reason, ..ApiError::queue_full(pool, retry_after_s) }
    }

    /// 429: the queue is full.
    pub fn queue_full(pool: &str, retry_after_s: u64) -> ApiError {
        ApiError { code: "queue_timeout", ..ApiError::saturated(pool, retry_after_s) }
    }

    /// 503: the pool has no endpoint at all.
    pub fn no_endpoint(pool: &str) -> ApiError {
        let message = format!("No model server is available in pool `{pool}`; try again later.");
        let error = ApiError::new(503, message, None, "no_endpoint");
        ApiError { dropped_reason: Some("rejected-no-endpoints"), ..error }
    }

    /// 503: the pool has got no endpoint for as long as the request may wait for one.
    pub fn no_endpoint_yet(pool: &str) -> ApiError {
        let message =
            format!("No model server has come up in pool `{pool}`; try again in {EMPTY_RETRY_AFTER_S} s.");
        let retry_after_s = Some(EMPTY_RETRY_AFTER_S);
        ApiError { message, retry_after_s, ..ApiError::no_endpoint(pool) }
    }

    /// 503: nobody is there who computes long prompts.
    pub fn no_prefill_endpoint(pool: &str) -> ApiError {
        let message =
            format!("No model server of pool `{pool}` is available to compute the prompt; try again later.");
        ApiError { message, code: "no_prefill_endpoint", ..ApiError::no_endpoint(pool) }
    }

    /// What the gateway answers that is not this plugin's doing.
    pub fn from_gateway(status: u32, message: String, code: &'static str) -> ApiError {
        ApiError::new(status, message, None, code)
    }

    /// The answer's body.
    pub fn body(&self) -> Vec<u8> {
        let kind = match self.status {
            429 => "rate_limit_error",
            ..500 => "invalid_request_error",
            _ => "server_error",
        };
        let body = Body { message: &self.message, kind, param: self.param, code: self.code };
        serde_json::to_vec(&Envelope { error: body }).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn the_body_is_an_openai_error_object_whatever_the_model_is_called() {
        let body = ApiError::unknown_model("a\"b\n\u{0}c").body();
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let error = &value["error"];
        assert!(error["message"].as_str().unwrap().contains("a\"b\n\u{0}c"));
        assert_eq!(error["type"], "invalid_request_error");
        assert_eq!(error["param"], "model");
        assert_eq!(error["code"], "model_not_found");
    }
}
