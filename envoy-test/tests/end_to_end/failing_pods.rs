//! Pods that die or fail under load, and what clients see of it.

use std::collections::HashSet;
use std::time::Duration;

use crate::gateway::{ALL, BODY_MODES, CLUSTER, Gateway, STOP_ITERATION, Setup, chat, chat_with, until};
use crate::log::first_pick;
use envoy_test::envoy::blocking::wait_for;
use envoy_test::envoy::{Protocol, Response};
use envoy_test::load::{Load, Seen};
use envoy_test::model_server::{FailInside, InnerFailure};
use serde_json::json;

/// Eight clients, each sending one request after the other, while `act` runs.
fn under_load(gateway: &Gateway, act: impl FnOnce()) -> Seen {
    let client = gateway.client(Protocol::Http1);
    let patience = Duration::from_secs(30);
    Load { client, clients: 8, patience, request: &|| chat("tiny") }.during(|_| act())
}

#[test]
fn when_a_pod_dies_under_load_no_request_fails_and_soon_none_is_sent_there() {
    for configuration in ALL {
        let gateway = Setup::new(configuration).start();
        let dead = gateway.pods.addresses()[0].to_string();
        let seen = under_load(&gateway, || {
            std::thread::sleep(Duration::from_millis(500));
            gateway.pods.server(0).set(|knobs| knobs.refuse = true);
            std::thread::sleep(Duration::from_secs(2));
        });
        assert_eq!(seen.complaints(), Vec::<String>::new(), "{configuration}");
        assert!(seen.good > 20, "{configuration}: {} answers", seen.good);
        let lines = gateway.envoy.access_log_until(seen.good).unwrap();
        let retried = lines.iter().filter(|line| line["upstream"] != first_pick(line)).count();
        assert!(lines.iter().all(|line| line["upstream"] != dead.as_str() || first_pick(line) == dead));
        // The tail of the log is from the last second.
        let late = &lines[lines.len() - seen.good / 4..];
        assert!(
            late.iter().all(|line| first_pick(line) != dead),
            "{configuration}: still picked; {retried} retried"
        );
    }
}

#[test]
fn a_pod_that_comes_back_gets_requests_again() {
    let gateway = Setup::new(STOP_ITERATION).start();
    gateway.pods.server(0).set(|knobs| knobs.refuse = true);
    until("nothing goes there", || gateway.shares(&gateway.burst(vec![chat("tiny"); 9]))[0] == 0);
    gateway.pods.server(0).set(|knobs| knobs.refuse = false);
    until("it is back", || gateway.shares(&gateway.burst(vec![chat("tiny"); 16]))[0] > 0);
}

/// A pod whose metrics are those of an idle server and whose requests fail at once must not draw the traffic.
#[test]
fn a_pod_that_fails_fast_does_not_attract_traffic() {
    let gateway = Setup::new(STOP_ITERATION).concurrency(1).start();
    gateway.pods.server(0).set(|knobs| knobs.fail_status = Some(500));
    for _ in 0..60 {
        gateway.send(chat("tiny"));
    }
    let failed = gateway.pods.server(0).counters().failed;
    assert!((1..=6).contains(&failed), "{failed} of 60 requests went to the pod that fails");
    gateway.pods.server(0).set(|knobs| knobs.fail_status = None);
    until("it is tried again", || gateway.shares(&gateway.burst(vec![chat("tiny"); 16]))[0] > 0);
}

/// Nor one whose answers break off behind their first output, or report there that they have failed. Of sixty requests it would
/// get a share of fifteen.
#[test]
fn a_pod_whose_answers_break_off_is_ejected() {
    for configuration in BODY_MODES {
        for is_reported in [false, true] {
            let gateway = Setup::new(configuration).concurrency(1).start();
            gateway.pods.server(0).set(|knobs| {
                let how = InnerFailure::Error { code: Some(500) };
                knobs.fail_inside = is_reported.then_some(FailInside { after_tokens: 3, how });
                knobs.die_mid_stream = (!is_reported).then_some(3);
            });
            let client = gateway.client(Protocol::Http1);
            let stream = chat_with(json!({"model": "tiny", "max_tokens": 8, "stream": true}));
            wait_for(async {
                for _ in 0..60 {
                    let _ = client.send(stream.clone()).await;
                }
            });
            let sent = gateway.pods.server(0).counters().requests_for("tiny");
            assert!((3..=9).contains(&sent), "{configuration}, {is_reported}: {sent} of 60 went there");
            assert!(
                gateway.envoy.log_text().contains("its answers break off"),
                "{configuration}, {is_reported}"
            );
        }
    }
}

/// Clients that leave in the middle of an answer say nothing of its pod.
#[test]
fn a_pod_is_not_ejected_because_clients_leave_its_answers() {
    let gateway = Setup::new(STOP_ITERATION).concurrency(1).start();
    let long = chat_with(json!({"model": "tiny", "max_tokens": 2_000, "stream": true}));
    wait_for(async {
        for _ in 0..40 {
            let mut stream = gateway.client(Protocol::Http1).open(long.clone()).await.unwrap();
            stream.next_chunk().await.unwrap();
        }
    });
    assert!(!gateway.envoy.log_text().contains("it is ejected"));
}

/// Nor one that takes requests and answers none: it is idle whenever their clients have left, and they leave late enough
/// to say something of it. Of eighty requests it would get a share of twenty.
#[test]
fn a_pod_that_hangs_does_not_attract_requests_for_long() {
    for configuration in BODY_MODES {
        let gateway = Setup::new(configuration).concurrency(1).start();
        gateway.pods.server(0).set(|knobs| knobs.hang = true);
        let client = gateway.client(Protocol::Http1);
        wait_for(async {
            for _ in 0..80 {
                let _ = tokio::time::timeout(Duration::from_millis(1_500), client.send(chat("tiny"))).await;
            }
        });
        let sent = gateway.pods.server(0).counters().requests_for("tiny");
        assert!(
            (3..=10).contains(&sent),
            "{configuration}: {sent} of 80 requests went to the pod that hangs"
        );
        assert!(gateway.envoy.log_text().contains("it does not answer; it is ejected"), "{configuration}");
    }
}

/// A client that sends again and again what every pod fails at takes no more than one of them away from all others.
#[test]
fn a_prompt_that_fails_at_every_pod_takes_one_of_them_away_at_most() {
    for configuration in BODY_MODES {
        let gateway = Setup::new(configuration).concurrency(1).start();
        gateway.pods.servers().for_each(|pod| pod.set(|knobs| knobs.fail_guided = true));
        let poison = chat_with(json!({"model": "tiny", "max_tokens": 4, "guided_regex": "foo**"}));
        for _ in 0..40 {
            assert_eq!(gateway.send(poison.clone()).status, 500);
        }
        let failed: Vec<u64> = gateway.pods.servers().map(|pod| pod.counters().failed).collect();
        assert!(failed.iter().filter(|failed| **failed > 0).count() >= 3, "{configuration}: {failed:?}");
        let log = gateway.envoy.log_text();
        let ejected = log.lines().filter(|line| line.contains("it is ejected"));
        let ejected: HashSet<&str> = ejected.filter_map(|line| line.split("endpoint ").nth(1)).collect();
        assert!(ejected.len() <= 1, "{configuration}: {ejected:?}");
        let shares = gateway.shares(&gateway.burst(vec![chat("tiny"); 32]));
        assert!(shares.iter().filter(|share| **share > 0).count() >= 3, "{configuration}: {shares:?}");
    }
}

/// Nor one that says that it is full as some servers do, with 429: Text Generation Inference does, vLLM says 503.
#[test]
fn a_pod_that_says_429_is_passed_over_as_one_that_says_503() {
    for status in [429, 503] {
        let gateway = Setup::new(STOP_ITERATION).concurrency(1).start();
        gateway.pods.server(0).set(|knobs| knobs.fail_status = Some(status));
        let answers: Vec<Response> = (0..60).map(|_| gateway.send(chat("tiny"))).collect();
        assert!(answers.iter().all(|answer| answer.status == 200), "{status}: the next of the pick answers");
        let asked = gateway.pods.server(0).counters().failed;
        assert!((1..=8).contains(&asked), "{status}: {asked} of 60 requests went to the pod that is full");
    }
}

#[test]
fn when_all_pods_fail_they_are_still_tried() {
    let gateway = Setup::new(STOP_ITERATION).start();
    let all = |status| {
        for index in 0..4 {
            gateway.pods.server(index).set(|knobs| knobs.fail_status = status);
        }
    };
    all(Some(500));
    for _ in 0..20 {
        assert_eq!(gateway.send(chat("tiny")).status, 500);
    }
    all(None);
    assert_eq!(gateway.send(chat("tiny")).status, 200);
}

/// What clients that leave had in flight is given back: afterwards a burst is spread evenly.
#[test]
fn clients_that_leave_leave_no_load_behind() {
    let gateway = Setup::new(STOP_ITERATION).concurrency(1).start();
    let long = chat_with(json!({"model": "tiny", "max_tokens": 2_000, "stream": true}));
    wait_for(async {
        for _ in 0..21 {
            let mut stream = gateway.client(Protocol::Http1).open(long.clone()).await.unwrap();
            stream.next_chunk().await.unwrap();
        }
    });
    let in_flight = || gateway.pods.servers().map(|pod| pod.counters().in_flight).sum::<u64>();
    until("the pods know that they have left", || in_flight() == 0);
    gateway.wait_until_scraped();
    gateway.send(chat("tiny"));
    let lines = gateway.envoy.access_log_until(22).unwrap();
    let decision = lines.last().unwrap()["decision"].as_str().unwrap();
    assert!(decision.contains("in_flight=0 waiting_tokens=0 "), "{decision}");
    assert!(!gateway.envoy.log_text().contains("it is ejected"), "that they left says nothing of the pods");
}

/// A request that a circuit breaker of the cluster holds back has reached no pod, though one was picked for it.
#[test]
fn what_a_circuit_breaker_holds_back_says_nothing_of_the_pods() {
    for configuration in BODY_MODES {
        let gateway = Setup::new(configuration).concurrency(1).start_with(|envoy, _| {
            envoy.cluster(CLUSTER)["circuit_breakers"] = json!({"thresholds": [{"max_requests": 1}]});
        });
        let answers = gateway.burst(vec![chat_with(json!({"model": "tiny", "max_tokens": 200})); 24]);
        let refused: Vec<&Response> = answers.iter().filter(|answer| answer.status == 503).collect();
        assert!(refused.len() >= 12, "{configuration}: {}", refused.len());
        assert!(refused.iter().all(|answer| answer.text().contains("overflow")), "{}", refused[0].text());
        assert!(!gateway.envoy.log_text().contains("it is ejected"), "{configuration}");
    }
}
