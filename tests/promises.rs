//! Promises: where requests go that are promised a time, and what becomes of those whose promise nobody would keep.
#![cfg(not(target_family = "wasm"))]

use std::net::SocketAddr;

use inference_picker::config::Config;
use inference_picker::decide::{Decision, Pick};
use inference_picker::metrics::EndpointMetrics;
use inference_picker::openai::{ApiError, Usage, read_request};
use inference_picker::picker::{Outcome, Picker};
use inference_picker::pool::{EndpointReading, Reading, Snapshot};
use inference_picker::promise::{Promise, Promised};
use serde_json::{Value, json};

const NOW_MS: u64 = 100_000;
/// Speeds that are not known yet are 8 tokens a millisecond, and what others have queued counts for 512 tokens each.
const QUEUED_MS: f64 = 512.0 / 8.0;
const STANDARD: i32 = 0;
const SHEDDABLE: i32 = -1;

/// Tokens of a prompt that another endpoint computes, where there is one.
const LONG: usize = 2_000;

/// An endpoint that computes the prompts of others.
fn prefiller(place: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 1, 1], 8_000 + place as u16))
}

fn address(place: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 8_000 + place as u16))
}

/// What an endpoint's metrics say: what others have queued there, and the part of the KV cache that is used.
type Pod = (u32, f32);

/// One worker in front of endpoints with these metrics.
struct World(Picker<()>);

impl World {
    fn new(pods: &[Pod], pool: Value) -> World {
        World::with_prefillers(pods, &[(0, 0.0)], pool, "DEFAULT")
    }

    /// With a second pool of this strategy, `q`, which may compute the first one's prompts.
    fn with_prefillers(pods: &[Pod], prefillers: &[Pod], pool: Value, strategy: &str) -> World {
        let endpoints: Vec<String> = (0..pods.len()).map(|place| address(place).to_string()).collect();
        let mut fields = json!({"name": "p", "cluster": "c", "endpoints": endpoints, "saturation": {"queueDepth": 100_000}});
        fields.as_object_mut().unwrap().extend(pool.as_object().unwrap().clone());
        let addresses: Vec<String> =
            (0..prefillers.len()).map(|place| prefiller(place).to_string()).collect();
        let prefill =
            json!({"name": "q", "cluster": "d", "endpoints": addresses, "routingStrategy": strategy});
        let document = json!({"scrapeCluster": "s", "pools": [fields, prefill]});
        let config = Config::parse(document.to_string().as_bytes()).unwrap();
        let mut world = World(Picker::new(config, fastrand::Rng::with_seed(1)));
        world.read(0, address, pods);
        world.read(1, prefiller, prefillers);
        world
    }

    /// The metrics of a pool's endpoints are read.
    fn read(&mut self, pool: usize, address: fn(usize) -> SocketAddr, pods: &[Pod]) {
        let endpoints = pods.iter().enumerate().map(|(place, pod)| reading(address(place), *pod)).collect();
        let snapshot = Snapshot { endpoints: Some(endpoints), ..Snapshot::default() };
        self.0.apply([(pool, snapshot)].into_iter());
    }

    /// Decides a request with a prompt of so many tokens, whose headers came a while ago.
    fn decide(&mut self, tokens: usize, promise: Promise, priority: i32, waited_ms: u64) -> Decision {
        let body = json!({"model": "m", "stream": true, "prompt": "abcd".repeat(tokens)}).to_string();
        let mut resolved = self.0.prepare(&read_request(body.as_bytes()).unwrap(), None, 0).unwrap();
        resolved.priority = priority;
        resolved.promised = Some(Promised { promise, began_ms: NOW_MS - waited_ms });
        match self.0.decide(0, &resolved, || (), NOW_MS) {
            Outcome::Decided(decision) => decision,
            Outcome::Waits => panic!("it waits"),
        }
    }

    fn pick(&mut self, promise: Promise, waited_ms: u64) -> Pick {
        match self.decide(8, promise, STANDARD, waited_ms) {
            Decision::Send(pick) => pick,
            other => panic!("not sent: {other:?}"),
        }
    }

    fn shed(&mut self, promise: Promise) -> Option<ApiError> {
        match self.decide(8, promise, SHEDDABLE, 0) {
            Decision::Send(_) => None,
            Decision::Refuse(error) => Some(error),
            other => panic!("neither sent nor refused: {other:?}"),
        }
    }

    /// An endpoint gives an answer of so many tokens, each of which takes so long.
    fn answer(&mut self, place: usize, tokens: u32, per_token_ms: u64) {
        let pick = loop {
            let Decision::Send(pick) = self.decide(8, Promise::default(), STANDARD, 0) else {
                panic!("not sent")
            };
            if pick.first_choice() == address(place).to_string() {
                break pick;
            }
        };
        let mut sent = self.0.send(&pick, NOW_MS);
        self.0.first_output(&mut sent, NOW_MS + 1);
        let usage = Usage { prompt_tokens: 8, completion_tokens: tokens, cached_tokens: None };
        let ended_ms = NOW_MS + 1 + per_token_ms * u64::from(tokens - 1);
        self.0.answered(&mut sent, 0, Some(usage), ended_ms);
        self.0.end(sent, ended_ms);
    }
}

fn reading(address: SocketAddr, (waiting, kv): Pod) -> EndpointReading {
    let metrics = EndpointMetrics { waiting, kv_cache_utilization: Some(kv), ..EndpointMetrics::default() };
    let reading = Reading {
        scraped_ms: NOW_MS,
        waiting,
        metrics,
        own_waiting: 0,
        external_waiting: waiting,
        external_requests: waiting,
    };
    EndpointReading { reading: Some(reading), ..EndpointReading::new(address) }
}

fn first_token(ms: f64) -> Promise {
    Promise { first_token_us: Some((ms * 1_000.0) as u32), per_token_us: None }
}

/// In front of these endpoints a request that is promised its first token after so long goes to one of them.
#[track_caller]
fn check(pods: &[Pod], promised_ms: f64, waited_ms: u64, expected: &[usize], word: &str) {
    let pick = World::new(pods, json!({})).pick(first_token(promised_ms), waited_ms);
    let expected: Vec<String> = expected.iter().map(|place| address(*place).to_string()).collect();
    assert!(expected.iter().any(|address| *address == pick.first_choice()), "{}", pick.explanation);
    assert!(pick.explanation.contains(&format!(" promise={word} expected_ms=")), "{}", pick.explanation);
}

#[test]
fn the_fullest_endpoint_that_keeps_the_promise_serves_and_if_none_does_the_cheapest() {
    let pods = [(50, 0.0), (10, 0.0), (0, 0.0), (0, 0.0)];
    check(&pods, 500.0 * QUEUED_MS, 0, &[0], "kept");
    check(&pods, 100.0 * QUEUED_MS, 0, &[1], "kept");
    check(&pods, QUEUED_MS, 0, &[2, 3], "kept");
    check(&pods, 0.5, 0, &[2, 3], "missed");
    // A quarter more than expected and a step must be a sixth of what is promised.
    check(&pods, 398.0 * QUEUED_MS, 0, &[1], "kept");
    check(&pods, 399.0 * QUEUED_MS, 0, &[0], "kept");
}

#[test]
fn endpoints_that_keep_the_promise_with_little_time_to_spare_are_picked_by_cost() {
    let pods = [(20, 0.0), (10, 0.0), (50, 0.0)];
    check(&pods, 30.0 * QUEUED_MS, 0, &[1], "kept");
    // A quarter more than expected and a step must do.
    check(&[(50, 0.0), (60, 0.0)], 67.0 * QUEUED_MS, 0, &[0], "kept");
    check(&[(50, 0.0), (60, 0.0)], 66.0 * QUEUED_MS, 0, &[0], "missed");
}

#[test]
fn the_cheapest_endpoint_is_picked_if_it_is_in_time_without_time_to_spare() {
    // At the latest the first token comes after 37.5 QUEUED_MS and a step at the cheaper endpoint, after 20 at the other one.
    let pods = [(10, 0.5), (16, 0.0)];
    check(&pods, 30.0 * QUEUED_MS, 0, &[0], "missed");
    check(&pods, 45.0 * QUEUED_MS, 0, &[0], "kept");
    check(&pods, 150.0 * QUEUED_MS, 0, &[1], "kept");
}

#[test]
fn the_time_that_a_request_has_waited_is_taken_off_its_promise() {
    let pods = [(50, 0.0), (10, 0.0), (0, 0.0)];
    let promised_ms = 399.0 * QUEUED_MS;
    check(&pods, promised_ms, 0, &[0], "kept");
    check(&pods, promised_ms, 3_000, &[1], "kept");
    check(&pods, promised_ms, 26_000, &[2], "missed");
    let pick = World::new(&pods, json!({})).pick(first_token(promised_ms), 3_000);
    let expected_ms = pick.forecast.unwrap().first_token_ms;
    assert_eq!(expected_ms, 3_000 + (10.0 * QUEUED_MS + 1.0) as u64, "from the request's headers on");
}

#[test]
fn the_fuller_an_endpoints_kv_cache_the_less_it_is_believed_to_keep_and_full_it_keeps_no_promise() {
    check(&[(10, 0.5), (0, 0.1)], 240.0 * QUEUED_MS, 0, &[1], "kept");
    check(&[(10, 0.3), (0, 0.1)], 240.0 * QUEUED_MS, 0, &[0], "kept");
    check(&[(10, 0.8), (0, 0.1)], 1_000.0 * QUEUED_MS, 0, &[1], "kept");
    check(&[(10, 0.79), (0, 0.1)], 1_000.0 * QUEUED_MS, 0, &[0], "kept");
}

#[test]
fn who_gives_way_is_shed_with_retry_after_when_nobody_would_keep_its_promise() {
    let mut world = World::new(&[(50, 0.1), (100, 0.1)], json!({}));
    for (promised_ms, retry_after_s) in [(1_000.0, 3), (3_000.0, 1), (1.0, 4)] {
        let error = world.shed(first_token(promised_ms)).unwrap();
        assert_eq!((error.status, error.code), (429, "promise_not_kept"));
        assert_eq!(
            (error.retry_after_s, error.dropped_reason),
            (Some(retry_after_s), Some("rejected-saturated"))
        );
    }
    assert_eq!(world.shed(first_token(6_000.0)), None);
    assert_eq!(world.shed(Promise::default()), None);
    let mut hopeless = World::new(&[(50_000, 0.1)], json!({}));
    assert_eq!(hopeless.shed(first_token(1.0)).unwrap().retry_after_s, Some(60));
}

#[test]
fn who_would_have_no_time_to_spare_is_shed_while_promises_to_others_are_at_risk() {
    let mut world = World::new(&[(50, 0.1)], json!({}));
    let barely = first_token(4_000.0);
    assert_eq!(world.shed(barely), None);
    for _ in 0..100 {
        world.pick(barely, 0);
    }
    assert_eq!(world.shed(barely).unwrap().code, "promise_not_kept");
    assert_eq!(world.shed(first_token(6_000.0)), None, "its own promise is not at risk");
    for _ in 0..100 {
        world.pick(first_token(6_000.0), 0);
    }
    assert_eq!(world.shed(barely), None, "others have had time to spare of late");
}

#[test]
fn further_tokens_are_promised_by_what_was_seen_and_an_endpoint_with_nothing_to_do_is_tried() {
    let per_token = |ms: u32| Promise { first_token_us: None, per_token_us: Some(ms * 1_000) };
    let mut world = World::new(&[(0, 0.1), (1, 0.1)], json!({}));
    world.answer(0, 11, 30);
    let word = |world: &mut World, ms| {
        let pick = world.pick(per_token(ms), 0);
        (pick.first_choice() == address(0).to_string(), pick.explanation.contains(" promise=kept"))
    };
    assert_eq!(word(&mut world, 30), (true, true), "nothing runs there");
    // Now something does.
    let pick = world.pick(Promise::default(), 0);
    let _sent = world.0.send(&pick, NOW_MS);
    assert_eq!(word(&mut world, 30), (true, true), "it was as fast as that");
    assert_eq!(word(&mut world, 29), (false, true), "of the other one nothing is known");
}

#[test]
fn promises_count_where_picks_go_by_time() {
    for (pool, strategy) in [
        (json!({"routingStrategy": "RANDOM"}), "DEFAULT"),
        (json!({"routingStrategy": "LEAST_REQUEST"}), "DEFAULT"),
        (json!({"prefill": {"pool": "q"}}), "RANDOM"),
    ] {
        let pods = [(50, 0.1), (50, 0.1)];
        let mut world = World::with_prefillers(&pods, &[(0, 0.0)], pool.clone(), strategy);
        assert_eq!(world.shed(first_token(1.0)), None, "{pool}");
        let pick = world.pick(first_token(1.0), 0);
        assert!(pick.forecast.is_none() && !pick.explanation.contains("promise"), "{}", pick.explanation);
    }
}

#[test]
fn a_prompt_does_not_leave_what_is_cached_of_it_to_fill_a_gap() {
    let mut world = World::new(&[(0, 0.1), (0, 0.1)], json!({"routingStrategy": "PREFIX_CACHE"}));
    let send = |world: &mut World, promise| match world.decide(2_000, promise, STANDARD, 0) {
        Decision::Send(pick) => (world.0.send(&pick, NOW_MS), pick.first_choice().to_owned()),
        other => panic!("not sent: {other:?}"),
    };
    let (mut sent, first) = send(&mut world, Promise::default());
    world.0.first_output(&mut sent, NOW_MS);
    world.0.answered(&mut sent, 0, None, NOW_MS);
    world.0.end(sent, NOW_MS);
    // The other one has something to do, and would do as well.
    let other = (0..2).map(|place| address(place).to_string()).find(|other| *other != first).unwrap();
    loop {
        let Decision::Send(pick) = world.decide(8, Promise::default(), STANDARD, 0) else {
            panic!("not sent")
        };
        world.0.send(&pick, NOW_MS);
        if pick.first_choice() == other {
            break;
        }
    }
    assert_eq!(send(&mut world, first_token(60_000.0)).1, first);
}

/// Two busy endpoints that generate, and others that compute long prompts.
fn divided(prefillers: &[Pod]) -> World {
    World::with_prefillers(&[(50, 0.1), (50, 0.1)], prefillers, json!({"prefill": {"pool": "q"}}), "DEFAULT")
}

/// A long prompt whose first token is promised after so long is computed by one of these, and expected after so long.
#[track_caller]
fn check_divided(prefillers: &[Pod], promised_ms: f64, by: usize, expected: (&str, u64)) {
    let mut world = divided(prefillers);
    let decision = world.decide(LONG, first_token(promised_ms), STANDARD, 0);
    let Decision::Send(pick) = decision else { panic!("not sent: {decision:?}") };
    let (word, expected_ms) = expected;
    let end = format!(" prefill={} promise={word} expected_ms={expected_ms}", prefiller(by));
    assert!(pick.explanation.ends_with(&end), "{} {end}", pick.explanation);
    assert_eq!(pick.forecast.unwrap().first_token_ms, expected_ms);
}

#[test]
fn the_first_token_of_a_prompt_that_is_computed_elsewhere_is_that_endpoints() {
    let prefillers = [(20, 0.1), (0, 0.1)];
    let alone_ms = LONG as u64 / 8;
    check_divided(&prefillers, 280.0 * QUEUED_MS, 0, ("kept", (20.0 * QUEUED_MS) as u64 + alone_ms));
    check_divided(&prefillers, 20.0 * QUEUED_MS, 1, ("kept", alone_ms));
    check_divided(&prefillers, 1.0, 1, ("missed", alone_ms));
    // What is short is computed where it is answered.
    let short = divided(&prefillers).pick(first_token(20.0 * QUEUED_MS), 0);
    let end = format!(" promise=missed expected_ms={}", (50.0 * QUEUED_MS) as u64 + 1);
    assert!(short.explanation.ends_with(&end), "{}", short.explanation);
}

#[test]
fn who_gives_way_is_shed_when_nobody_would_compute_its_prompt_in_time() {
    let mut world = divided(&[(20, 0.1), (50, 0.1)]);
    assert!(matches!(world.decide(LONG, first_token(60.0 * QUEUED_MS), SHEDDABLE, 0), Decision::Send(_)));
    let decision = world.decide(LONG, first_token(10.0 * QUEUED_MS), SHEDDABLE, 0);
    let Decision::Refuse(error) = decision else { panic!("not refused: {decision:?}") };
    assert_eq!((error.status, error.code), (429, "promise_not_kept"));
}

#[test]
fn where_nobody_computes_prompts_for_others_each_endpoint_is_expected_to_compute_its_own() {
    let mut world = divided(&[(0, 0.1)]);
    let gone = EndpointReading { scrape_failures: 3, ..EndpointReading::new(prefiller(0)) };
    let snapshot = Snapshot { endpoints: Some(vec![gone]), ..Snapshot::default() };
    world.0.apply([(1, snapshot)].into_iter());
    let decision = world.decide(LONG, first_token(20.0 * QUEUED_MS), STANDARD, 0);
    let Decision::Send(pick) = decision else { panic!("not sent: {decision:?}") };
    let expected_ms = (50.0 * QUEUED_MS) as u64 + LONG as u64 / 8;
    let end = format!(" promise=missed expected_ms={expected_ms} prefill=none");
    assert!(pick.explanation.ends_with(&end), "{}", pick.explanation);
    assert_eq!(pick.forecast.unwrap().first_token_ms, expected_ms);
}
