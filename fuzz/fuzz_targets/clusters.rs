//! An answer of Envoy's admin, or of whoever answers in its place: bounded, and read the same however it is written.
#![no_main]

use inference_picker::config::MAX_ENDPOINTS;
use inference_picker::pool::read_clusters;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const CLUSTER: &str = "pool";

fuzz_target!(|answer: &[u8]| {
    check(answer);
    // The same bytes as the one cluster's hosts, in an answer that is right around them.
    let open = br#"{"cluster_statuses":[{"name":"other"},{"name":"pool","host_statuses":["#;
    check(&[open, answer, b"]}]}"].concat());
});

fn check(answer: &[u8]) {
    let Ok(discovered) = read_clusters(answer, CLUSTER) else { return };
    assert!(discovered.endpoints.len() + discovered.unnamed <= MAX_ENDPOINTS);
    // A name goes into a header, between commas.
    let names = discovered.endpoints.iter().filter_map(|endpoint| endpoint.host.name.as_deref());
    names.for_each(|name| assert!(name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')));
    // What serde_json's tree cannot hold (numbers out of range, very deep nesting) is passed over by the reader.
    if let Ok(tree) = serde_json::from_slice::<Value>(answer) {
        assert_eq!(read_clusters(tree.to_string().as_bytes(), CLUSTER), Ok(discovered));
    }
}
