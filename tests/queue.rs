//! Who is sent, waits or gives way, where requests wait for a full pool.

use std::net::SocketAddr;

use inference_picker::config::Config;
use inference_picker::decide::Decision;
use inference_picker::metrics::EndpointMetrics;
use inference_picker::openai::read_request;
use inference_picker::picker::{Outcome, Picker};
use inference_picker::pool::{EndpointReading, EnvoyHost, HostHealth, Reading, Snapshot};

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
        let reading = Reading {
            scraped_ms,
            waiting: metrics.waiting,
            metrics,
            own_waiting: 0,
            external_waiting: 0,
            external_requests: 0,
        };
        let address = SocketAddr::from(([10, 0, 0, number], 8000));
        EndpointReading { reading: Some(reading), ..EndpointReading::new(address) }
    };
    let endpoints = Some(vec![endpoint(1, now_ms), endpoint(2, now_ms - late_ms)]);
    picker.apply([(0, Snapshot { endpoints, ..Snapshot::default() })].into_iter());
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
        Outcome::Decided(Decision::Refuse(_) | Decision::BeginAnew(_)) => "refused",
        Outcome::Decided(Decision::Fallback(_)) => "left to Envoy",
    }
}

/// One that counts as in flight where it is sent.
const BODY: &[u8] = br#"{"model":"Critical","stream":true,"prompt":"Hi"}"#;

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

/// Two endpoints: the first one's queue is full, the second is as given.
fn scraped_beside(picker: &mut Picker<()>, second: EndpointReading) {
    let metrics = EndpointMetrics { waiting: 50, ..EndpointMetrics::default() };
    let reading = Reading {
        scraped_ms: 1_000,
        waiting: 50,
        metrics,
        own_waiting: 0,
        external_waiting: 0,
        external_requests: 0,
    };
    let first = EndpointReading { reading: Some(reading), ..endpoint(1) };
    picker.apply([(0, Snapshot { endpoints: Some(vec![first, second]), ..Snapshot::default() })].into_iter());
}

fn endpoint(number: u8) -> EndpointReading {
    EndpointReading::new(SocketAddr::from(([10, 0, 0, number], 8000)))
}

#[test]
fn one_whose_metrics_cannot_be_read_is_as_full_as_what_is_in_flight_there() {
    let mut picker = picker();
    scraped_beside(&mut picker, EndpointReading { unreadable_ms: Some(1_000), ..endpoint(2) });
    let mut sent = 0;
    while ask(&mut picker, "Sheddable", 1_000) == "sent" && sent < 100 {
        let prepared = picker.prepare(&read_request(BODY).unwrap(), None, 0).unwrap();
        let Outcome::Decided(Decision::Send(pick)) = picker.decide(1, &prepared, || (), 1_000) else { break };
        picker.send(&pick, 1_000);
        sent += 1;
    }
    assert!((20..100).contains(&sent), "{sent} of them have been sent");
}

#[test]
fn one_that_is_not_picked_makes_no_room() {
    let unhealthy = EnvoyHost { health: HostHealth::Unhealthy, ..EnvoyHost::default() };
    let lower = EnvoyHost { priority: 1, ..EnvoyHost::default() };
    for host in [unhealthy, lower] {
        let mut picker = picker();
        scraped_beside(&mut picker, EndpointReading { host, unreadable_ms: Some(1_000), ..endpoint(2) });
        check(&mut picker, 1_000, [("Critical", "sent"), ("Standard", "waits"), ("Sheddable", "refused")]);
    }
}

#[test]
fn an_endpoint_that_is_not_scraped_any_more_makes_no_room() {
    let mut picker = picker();
    scraped_late(&mut picker, 50, 900, 1_000);
    check(&mut picker, 1_000, [("Critical", "sent"), ("Standard", "waits"), ("Sheddable", "refused")]);
    assert!(picker.released(1_010).is_none());
}

/// Who is next, of requests for these models that wait: the order in which they leave, by their place in the list.
fn leave(configuration: &str, base_model: &str, models: &[&str]) -> Vec<u32> {
    let config = Config::parse(configuration.as_bytes()).unwrap();
    let mut picker: Picker<()> = Picker::new(config, fastrand::Rng::with_seed(1));
    let scraped = |waiting, now_ms| {
        let metrics = EndpointMetrics {
            waiting,
            base_model: Some(base_model.to_owned()),
            ..EndpointMetrics::default()
        };
        let reading = Reading {
            scraped_ms: now_ms,
            waiting: metrics.waiting,
            metrics,
            own_waiting: 0,
            external_waiting: 0,
            external_requests: 0,
        };
        let address = SocketAddr::from(([10, 0, 0, 1], 8000));
        let endpoint = EndpointReading { reading: Some(reading), ..EndpointReading::new(address) };
        [(0, Snapshot { endpoints: Some(vec![endpoint]), ..Snapshot::default() })].into_iter()
    };
    picker.apply(scraped(50, 1_000));
    for (id, model) in (0..).zip(models) {
        let body = format!(r#"{{"model":"{model}","prompt":"Hi"}}"#);
        let prepared = picker.prepare(&read_request(body.as_bytes()).unwrap(), None, 0).unwrap();
        assert!(matches!(picker.decide(id, &prepared, || (), 1_000), Outcome::Waits), "{model}");
    }
    picker.apply(scraped(0, 1_050));
    std::iter::from_fn(|| picker.released(1_050)).map(|released| released.id).collect()
}

#[test]
fn a_client_that_invents_names_of_models_gets_no_more_turns_than_one_that_does_not() {
    let configuration = |models: &str| {
        format!(
            r#"{{"scrapeCluster":"s","queue":{{}},"unknownModels":"passthrough","models":{models},
            "pools":[{{"name":"p","cluster":"c","endpoints":["10.0.0.1:8000"]}}]}}"#
        )
    };
    let published = configuration(r#"[{"modelName":"m","poolRef":{"name":"p"}}]"#);
    let asked = ["x1", "x2", "x3", "base", "m", "m"];
    assert_eq!(leave(&published, "base", &asked), [0, 4, 1, 5, 2, 3], "what is published has a lane");
    let none = configuration("[]");
    assert_eq!(
        leave(&none, "base", &asked),
        [0, 3, 1, 2, 4, 5],
        "what endpoints print has one where nothing is"
    );
    assert_eq!(leave(&none, "other", &asked), [0, 1, 2, 3, 4, 5]);
}

const OBJECTIVES: &str = r#"{"scrapeCluster":"s","queue":{"maxRequests":3},"trustHeaders":true,"fairness":{},
    "pools":[{"name":"p","cluster":"c","endpoints":["10.0.0.1:8000","10.0.0.2:8000"]}],
    "objectives":[{"name":"chat","priority":7},{"name":"batch","priority":-2,"poolRef":{"name":"p"}},{"name":"urgent","priority":100}]}"#;

/// A request that names this objective comes to a full pool.
fn ask_with(picker: &mut Picker<()>, id: u32, objective: &str) -> Outcome {
    let mut prepared = picker.prepare(&read_request(BODY).unwrap(), None, 0).unwrap();
    prepared.priority = picker.config().priority_of(objective, 0);
    picker.decide(id, &prepared, || (), 1_000)
}

fn reason(decision: Decision) -> Option<&'static str> {
    match decision {
        Decision::Refuse(error) => error.dropped_reason,
        _ => None,
    }
}

#[test]
fn what_a_request_names_decides_whether_it_waits_and_in_a_full_queue_the_lowest_gives_way() {
    let config = Config::parse(OBJECTIVES.as_bytes()).unwrap();
    let mut picker: Picker<()> = Picker::new(config, fastrand::Rng::with_seed(1));
    scraped(&mut picker, 50, 1_000);
    assert!(matches!(ask_with(&mut picker, 1, "urgent"), Outcome::Decided(Decision::Send(_))));
    let Outcome::Decided(shed) = ask_with(&mut picker, 2, "batch") else { panic!("it waits") };
    assert_eq!(reason(shed), Some("rejected-saturated"));
    for (id, objective) in [(3, "unknown"), (4, "chat"), (5, "unknown")] {
        assert!(matches!(ask_with(&mut picker, id, objective), Outcome::Waits), "{objective}");
    }
    let Outcome::Decided(full) = ask_with(&mut picker, 6, "unknown") else { panic!("it waits") };
    assert_eq!(reason(full), Some("rejected-saturated"), "no place for one that is no more important");
    assert!(matches!(ask_with(&mut picker, 7, "chat"), Outcome::Waits), "it takes the place of another");
    let displaced = picker.released(1_000).unwrap();
    assert_eq!((displaced.id, reason(displaced.decision)), (5, Some("rejected-saturated")));
    assert!(picker.released(1_000).is_none(), "the others wait on");
    let expired = picker.released(4_000).unwrap();
    assert_eq!((expired.id, reason(expired.decision)), (3, Some("rejected-ttl-expired")));
    scraped(&mut picker, 0, 1_050);
    let left: Vec<u32> = std::iter::from_fn(|| picker.released(1_050)).map(|released| released.id).collect();
    assert_eq!(left, [4, 7]);
}
