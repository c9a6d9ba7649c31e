//! What a stream sends before its prompt is computed is no output: not in the log, and not as a sign of life.

use std::time::Duration;

use crate::gateway::{BODY_MODES, Setup, chat_with};
use crate::histograms::log_times;
use envoy_test::envoy::blocking::wait_for;
use envoy_test::envoy::{Protocol, Request};
use serde_json::json;

/// Streams that begin at once: with `response.created` and `response.in_progress`, and with a role and comments.
fn early_streams() -> [Request; 2] {
    let responses = json!({"model": "tiny", "input": "Which pod?", "max_output_tokens": 2, "stream": true});
    [
        Request::post("/v1/responses").json(&responses),
        chat_with(json!({"model": "tiny", "max_tokens": 2, "stream": true})),
    ]
}

#[test]
fn the_first_output_is_the_first_delta_and_not_the_first_byte() {
    for configuration in BODY_MODES {
        let gateway = Setup::new(configuration).envoy(log_times).start();
        gateway.pods.servers().for_each(|pod| {
            pod.set(|knobs| {
                knobs.speed = 0.01;
                knobs.early_role = true;
                knobs.keep_alive_ms = Some(20);
            });
        });
        for request in early_streams() {
            assert_eq!(gateway.send(request).status, 200, "{configuration}");
        }
        // The first step of these servers takes at least half a second, and the first bytes come at once.
        for line in gateway.envoy.access_log_until(2).unwrap() {
            let ttft_ms: u64 = line["ttft_ms"].as_str().unwrap().parse().unwrap();
            assert!(ttft_ms >= 500, "{configuration}: {line}");
        }
    }
}

/// Clients leave after 1.5 s, and have seen the stream begin. Of forty requests it would get a share of ten.
#[test]
fn a_pod_that_only_begins_its_streams_is_taken_for_one_that_hangs() {
    for configuration in BODY_MODES {
        let gateway = Setup::new(configuration).concurrency(1).start();
        gateway.pods.server(0).set(|knobs| {
            knobs.speed = 0.000_1;
            knobs.early_role = true;
            knobs.keep_alive_ms = Some(100);
        });
        let client = gateway.client(Protocol::Http1);
        wait_for(async {
            for _ in 0..20 {
                for request in early_streams() {
                    let _ = tokio::time::timeout(Duration::from_millis(1_500), client.send(request)).await;
                }
            }
        });
        let sent = gateway.pods.server(0).counters().requests_for("tiny");
        assert!((3..=7).contains(&sent), "{configuration}: {sent} of 40 requests went to the pod that hangs");
        assert!(gateway.envoy.log_text().contains("it does not answer; it is ejected"), "{configuration}");
    }
}
