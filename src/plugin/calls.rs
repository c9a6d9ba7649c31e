//! What is asked of and changed in the stream at hand. Where the host refuses, that is logged and nothing else: a request
//! is not to fail for it.

use super::host::{self, Buffer, Headers, HostError};
use crate::header_pairs::HeaderPairs;
use crate::log_fields::{LogField, LogFields};
use crate::scrape::ScrapeFailure;

/// All headers; none where the host does not give them.
pub fn headers_of(which: Headers) -> HeaderPairs {
    host::headers(which).unwrap_or_default()
}

/// What Envoy's router adds to every answer of an upstream. An answer without it is Envoy's own: it could not connect (503),
/// or has waited for too long (504).
const UPSTREAM_TIME: &str = "x-envoy-upstream-service-time";

/// The answer to the call that is being reported, at most `most` bytes.
pub fn call_answer(most: usize) -> Result<Vec<u8>, ScrapeFailure> {
    let headers = headers_of(Headers::HttpCallResponse);
    let status = headers.value(":status");
    let status = status.and_then(|status| String::from_utf8_lossy(&status).parse().ok());
    match status {
        Some(503 | 504) if headers.value(UPSTREAM_TIME).is_none() => Err(ScrapeFailure::NoAnswer),
        Some(200) => Ok(host::buffer(Buffer::HttpCallResponseBody, most).ok().flatten().unwrap_or_default()),
        Some(other) => Err(ScrapeFailure::Status(other)),
        None => Err(ScrapeFailure::NoAnswer),
    }
}

/// Publishes a field of the access log, if it is one of these.
pub fn publish_if(fields: LogFields, field: LogField, value: &str) {
    if fields.has(field) {
        publish(field.name(), value);
    }
}

/// Publishes filter state `wasm.NAME`. What a client wrote may not break a log line.
pub fn publish(name: &str, value: &str) {
    let result = if value.contains(char::is_control) {
        host::set_filter_state(name, value.replace(char::is_control, "\u{fffd}").as_bytes())
    } else {
        host::set_filter_state(name, value.as_bytes())
    };
    warn(name, result);
}

/// Logs that the host refused to change this.
pub fn warn(what: &str, result: Result<(), HostError>) {
    if let Err(error) = result {
        log::warn!("the host refused to change {what}: {error:?}");
    }
}
