//! A metrics page from a server nobody trusts: any bytes; the same bytes as lines between valid ones, where lines of no
//! interest must not change what is read; and the same as a label's value, which must not change what is read either.
#![no_main]

use inference_picker::metrics::{MAX_ADAPTERS, MAX_PAGE_BYTES, MetricsError, ModelServer, read};
use libfuzzer_sys::fuzz_target;

const NEEDED: &[u8] =
    b"vllm:num_requests_waiting{engine=\"0\"} 7\nvllm:num_requests_running{engine=\"0\"} 1\n";

fuzz_target!(|page: &[u8]| {
    for server in ModelServer::ALL {
        check_bounds(server, page);
    }
    let with_needed = [NEEDED, page, b"\n"].concat();
    assert_eq!(read(ModelServer::Vllm, &with_needed), read(ModelServer::Vllm, &with_noise(&with_needed)));
    check_label(&String::from_utf8_lossy(page));
});

/// A page whose label holds any text says what it says with any other.
fn check_label(text: &str) {
    let escaped = text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    let page = format!(
        "vllm:num_requests_waiting{{engine=\"0\",model_name=\"{escaped}\"}} 7\n\
         vllm:num_requests_running{{model_name=\"{escaped}\"}} 1\n"
    );
    let metrics = read(ModelServer::Vllm, page.as_bytes());
    if page.len() <= MAX_PAGE_BYTES {
        let metrics = metrics.unwrap();
        assert_eq!((metrics.waiting, metrics.running, metrics.base_model.as_deref()), (7, 1, Some(text)));
    }
}

fn check_bounds(server: ModelServer, page: &[u8]) {
    match read(server, page) {
        Ok(metrics) => {
            assert!(is_gzip(page) || is_whole(page));
            assert!(metrics.kv_cache_utilization.is_none_or(|share| (0.0..=1.0).contains(&share)));
            assert!(
                metrics.lora.is_none_or(|lora| {
                    lora.adapters.len() <= 2 * MAX_ADAPTERS && lora.adapters.is_sorted()
                })
            );
            assert!(metrics.prefix_cache_hits.is_none_or(|tokens| tokens.is_finite() && tokens >= 0.0));
        }
        Err(error) => assert!(is_gzip(page) || (error == MetricsError::Incomplete) != is_whole(page)),
    }
}

fn is_gzip(page: &[u8]) -> bool {
    page.starts_with(&[0x1f, 0x8b, 8])
}

fn is_whole(page: &[u8]) -> bool {
    page.ends_with(b"\n") || page.ends_with(b"\n# EOF")
}

/// A comment and a sample of another metric behind every line.
fn with_noise(page: &[u8]) -> Vec<u8> {
    let noise = b"# vllm:num_requests_waiting 9\nvllm:num_requests_waiting_by_reason{a=\"} 1\"} 9\n";
    page.split_inclusive(|byte| *byte == b'\n').flat_map(|line| [line, noise]).flatten().copied().collect()
}
