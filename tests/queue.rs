//! Who is sent, waits or gives way, where requests wait for a full pool.

use std::net::SocketAddr;

use inference_picker::config::Config;
use inference_picker::decide::Decision;
use inference_picker::metrics::EndpointMetrics;
use inference_picker::openai::read_request;
use inference_picker::picker::{Outcome, Picker};
use inference_picker::pool::{EndpointReading, Reading, Snapshot};

const CONFIGURATION: &str = r#"{"scrapeCluster":"s","queue":{},
    "pools":[{"name":"p","cluster":"c","endpoints":["10.0.0.1:8000","10.0.0.2:8000"]}],
    "models":[{"modelName":"Critical","criticality":"Critical","poolRef":{"name":"p"}},
        {"modelName":"Standard","poolRef":{"name":"p"}},
        {"modelName":"Sheddable","criticality":"Sheddable","poolRef":{"name":"p"}}]}"#;

fn picker() -> Picker<()> {
    Picker::new(Config::parse(CONFIGURATION.as_bytes()).unwrap(), fastrand::Rng::with_seed(1))
}

/// So many requests are queued at each endpoint; the second one's metrics are so old.
fn scraped_late(picker: &mut Picker<()>, waiting: u32, late_ms: u64, now_ms: u64) {
    let endpoint = |number: u8, scraped_ms| {
        let metrics = EndpointMetrics { waiting, ..EndpointMetrics::default() };
        let reading =
            Reading { scraped_ms, metrics, own_waiting: 0, foreign_waiting: 0, foreign_requests: 0 };
        let address = SocketAddr::from(([10, 0, 0, number], 8000));
        EndpointReading { address, healthy: true, scrape_failures: 0, reading: Some(reading) }
    };
    let endpoints = Some(vec![endpoint(1, now_ms), endpoint(2, now_ms - late_ms)]);
    picker.apply([(0, Snapshot { endpoints })].into_iter());
}

fn scraped(picker: &mut Picker<()>, waiting: u32, now_ms: u64) {
    scraped_late(picker, waiting, 0, now_ms);
}

/// What becomes of a request for a model of this criticality.
fn ask(picker: &mut Picker<()>, criticality: &str, now_ms: u64) -> &'static str {
    let body = format!(r#"{{"model":"{criticality}","prompt":"Hi"}}"#);
    let prepared = picker.prepare(&read_request(body.as_bytes()).unwrap(), None, 0).unwrap();
    match picker.decide(1, &prepared, || (), now_ms) {
        Outcome::Waits => "waits",
        Outcome::Decided(Decision::Send(_)) => "sent",
        Outcome::Decided(Decision::Refuse(_)) => "refused",
        Outcome::Decided(Decision::Fallback(_)) => "left to Envoy",
    }
}

#[track_caller]
fn check(picker: &mut Picker<()>, now_ms: u64, expected: [(&str, &str); 3]) {
    for (criticality, outcome) in expected {
        assert_eq!(ask(picker, criticality, now_ms), outcome, "{criticality}");
    }
}

#[test]
fn a_full_pool_lets_critical_requests_through_and_others_wait_or_give_way() {
    let mut picker = picker();
    scraped(&mut picker, 0, 1_000);
    check(&mut picker, 1_000, [("Critical", "sent"), ("Standard", "sent"), ("Sheddable", "sent")]);
    scraped(&mut picker, 50, 1_050);
    check(&mut picker, 1_050, [("Critical", "sent"), ("Standard", "waits"), ("Sheddable", "refused")]);
}

#[test]
fn where_there_is_room_again_nobody_is_sent_before_those_who_wait() {
    let mut picker = picker();
    scraped(&mut picker, 50, 1_000);
    assert_eq!(ask(&mut picker, "Standard", 1_000), "waits");
    scraped(&mut picker, 0, 1_050);
    check(&mut picker, 1_055, [("Critical", "sent"), ("Standard", "waits"), ("Sheddable", "refused")]);
    while picker.released(1_060).is_some() {}
    check(&mut picker, 1_065, [("Critical", "sent"), ("Standard", "sent"), ("Sheddable", "sent")]);
}

#[test]
fn an_endpoint_of_which_nothing_is_heard_any_more_makes_no_room() {
    let mut picker = picker();
    scraped_late(&mut picker, 50, 900, 1_000);
    check(&mut picker, 1_000, [("Critical", "sent"), ("Standard", "waits"), ("Sheddable", "refused")]);
    assert!(picker.released(1_010).is_none());
}
