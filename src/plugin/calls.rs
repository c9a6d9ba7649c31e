//! What is asked of and changed in the stream at hand. Where the host refuses, that is logged and nothing else: a request
//! is not to fail for it.

use super::host::{self, Headers, HostError, LogLevel};
use crate::header_pairs::HeaderPairs;

/// All headers; none where the host does not tell.
pub fn headers_of(which: Headers) -> HeaderPairs {
    host::headers(which).unwrap_or_default()
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
        host::log(LogLevel::Warn, &format!("inference-picker: the host refused to change {what}: {error:?}"));
    }
}
