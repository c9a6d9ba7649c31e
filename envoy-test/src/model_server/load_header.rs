//! The ORCA load header: two gauges in the header of an answer, for clients that ask for it.

use super::metrics::PageSource;

/// Names the format a client wants.
pub const FORMAT_HEADER: &str = "endpoint-load-metrics-format";
/// Carries the gauges.
pub const HEADER: &str = "endpoint-load-metrics";

/// The header's value in this format; none for formats nobody knows.
pub fn value(format: &str, source: &PageSource) -> Option<String> {
    let (waiting, usage) = (source.waiting(), source.kv_cache_usage());
    match format {
        "TEXT" => Some(format!(
            "TEXT named_metrics.num_requests_waiting={waiting:?}, named_metrics.kv_cache_usage_perc={usage:?}"
        )),
        "JSON" => Some(format!(
            r#"JSON {{"named_metrics": {{"num_requests_waiting": {waiting:?}, "kv_cache_usage_perc": {usage:?}}}}}"#
        )),
        _ => None,
    }
}
