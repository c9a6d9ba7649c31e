//! The load that a server reports with an answer: the header of ORCA, the Open Request Cost Aggregation, in its text form.
//! vLLM sends it with answers that are not streamed, where the request asks for it:
//!
//! ```text
//! endpoint-load-metrics: TEXT named_metrics.num_requests_waiting=0.0, named_metrics.kv_cache_usage_perc=0.0
//! ```

/// The header of a request by which it asks for the load.
pub const LOAD_FORMAT_HEADER: &str = "endpoint-load-metrics-format";
/// Its value for the form that is read here.
pub const LOAD_FORMAT: &str = "TEXT";
/// The header of an answer that reports it.
pub const LOAD_HEADER: &str = "endpoint-load-metrics";

/// The load that an answer reports.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReportedLoad {
    /// Requests queued.
    pub waiting: u32,
    /// Share of the KV cache in use, 0..=1; 0 where it is not reported.
    pub kv_cache_utilization: f32,
}

/// Reads the header's value. `None` where it is in another form, or does not report the queue.
pub fn read_load(value: &[u8]) -> Option<ReportedLoad> {
    let text = std::str::from_utf8(value).ok()?.strip_prefix(LOAD_FORMAT)?.strip_prefix(' ')?;
    let reported = |name: &str| {
        let mut pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        let (_, value) =
            pairs.find(|(metric, _)| metric.trim().strip_prefix("named_metrics.") == Some(name))?;
        value.trim().parse::<f64>().ok().filter(|value| *value >= 0.0 && value.is_finite())
    };
    let waiting = reported("num_requests_waiting").filter(|waiting| *waiting <= f64::from(u32::MAX))?;
    let share = reported("kv_cache_usage_perc").unwrap_or(0.0);
    Some(ReportedLoad { waiting: waiting as u32, kv_cache_utilization: share.min(1.0) as f32 })
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn the_text_form_reports_the_queue_and_the_cache_and_other_values_report_nothing() {
        let check = |value: &[u8], reported: Option<(u32, f32)>| {
            let read = read_load(value).map(|load| (load.waiting, load.kv_cache_utilization));
            assert_eq!(read, reported, "{}", String::from_utf8_lossy(value));
        };
        check(
            b"TEXT named_metrics.num_requests_waiting=7.0, named_metrics.kv_cache_usage_perc=0.25",
            Some((7, 0.25)),
        );
        check(b"TEXT cpu=1,named_metrics.num_requests_waiting=3", Some((3, 0.0)));
        check(
            b"TEXT named_metrics.kv_cache_usage_perc=9, named_metrics.num_requests_waiting=0",
            Some((0, 1.0)),
        );
        for waiting in ["-1", "NaN", "inf", "1e99", "", "x", "1;"] {
            check(format!("TEXT named_metrics.num_requests_waiting={waiting}").as_bytes(), None);
        }
        for other in [
            &b"JSON {\"named_metrics\": {\"num_requests_waiting\": 0.0}}"[..],
            b"TEXT",
            b"TEXT ",
            b"TEXT named_metrics.kv_cache_usage_perc=0.5",
            b"TEXT num_requests_waiting=1",
            b"",
            b"TEXT \xff",
        ] {
            check(other, None);
        }
    }
}
