//! The answers that the plugin gives itself: errors, the list of models, and what it says in place of Envoy.

use memchr::memmem;
use proxy_wasm::types::Action;

use super::calls::{publish, warn};
use super::host::{self, Headers};
use super::recorder::Recorder;
use crate::config::Config;
use crate::header_pairs::HeaderPairs;
use crate::log_fields::LogField;
use crate::openai::{ApiError, LocalReply, list_models};

/// The header that says why a request was dropped, as other gateways of the Gateway API name it.
const DROPPED_REASON_HEADER: &str = "x-llm-d-request-dropped-reason";

/// Answers with an OpenAI error object.
pub fn refuse(recorder: &mut Recorder, error: &ApiError) -> Action {
    recorder.record(|stats| [stats.refused(error.code)]);
    publish(LogField::Decision.name(), &format!("refused: {}", error.code));
    answer_error(error);
    Action::Pause
}

/// The same, uncounted: the client may not get it.
pub fn answer_error(error: &ApiError) {
    let retry_after = error.retry_after_s.map(|seconds| seconds.to_string());
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(retry_after.as_deref().map(|seconds| ("retry-after", seconds)));
    headers.extend(error.dropped_reason.map(|reason| (DROPPED_REASON_HEADER, reason)));
    warn("the answer", host::respond(error.status, error.code, &headers, &error.body()));
}

/// Answers with the list of the published models.
pub fn answer_models(config: &Config) -> Action {
    publish(LogField::Decision.name(), "answered: models");
    let body = list_models(config.model_names());
    warn("the answer", host::respond(200, "models", &[("content-type", "application/json")], &body));
    Action::Pause
}

/// Why Envoy itself or a filter behind this one has answered a pool's request, if it has, in plain text: because of a body
/// larger than Envoy buffers, say, because no endpoint could be reached, or because an operator does not want it served.
pub struct EnvoyReply {
    status: u16,
    /// Envoy's response code details.
    details: String,
}

impl EnvoyReply {
    pub fn new(status: u16, headers: &HeaderPairs) -> Option<EnvoyReply> {
        if status < 400 || !headers.value("content-type")?.starts_with(b"text/plain") {
            return None;
        }
        let details = host::property("response\0code_details").ok().flatten()?;
        let details = String::from_utf8_lossy(&details).into_owned();
        (details != "via_upstream").then_some(EnvoyReply { status, details })
    }

    /// Whether the request was not sent, because a circuit breaker of the cluster was open.
    pub fn is_overflow(&self) -> bool {
        memmem::find(self.details.as_bytes(), b"overflow").is_some()
    }

    /// What to answer instead, when its text is here: clients expect an OpenAI error object.
    pub fn into_reply(self) -> LocalReply {
        LocalReply::new(self.status, self.details)
    }
}

/// Announces an error object in place of Envoy's text; how long it is, only the text's end shows.
pub fn announce_error() {
    warn("content-type", host::set_header(Headers::Response, "content-type", "application/json"));
    warn("content-length", host::remove_header(Headers::Response, "content-length"));
}
