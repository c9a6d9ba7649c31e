//! Which pool serves a request when its own is full or gone.

use std::net::SocketAddr;

use inference_picker::config::Config;
use inference_picker::decide::{Decision, ResolvedRequest};
use inference_picker::fallback::is_retriable;
use inference_picker::first_pass::{FirstPass, Head};
use inference_picker::metrics::EndpointMetrics;
use inference_picker::openai::read_request;
use inference_picker::picker::{Outcome, Picker};
use inference_picker::pool::{EndpointReading, Reading, Snapshot};
use serde_json::{Value, json};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const NOW_MS: u64 = 100_000;
/// The pools by their places: the one that routes lead to, and three others.
const OWN: usize = 0;
const SECOND: usize = 1;
const THIRD: usize = 2;
const OUTSIDE: usize = 3;

/// How a pool of two endpoints is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Idle,
    Full,
    Gone,
}

use State::{Full, Gone, Idle};

/// What is kept of a request of the first pool that an internal redirect begins anew.
const REDIRECTED: FirstPass = FirstPass {
    model: String::new(),
    hides_usage: false,
    asks_for_load: false,
    was_sent: false,
    own_pool: OWN,
    pool: OWN,
    head: None,
};

struct World(Picker<()>);

impl World {
    /// Three pools, of which the second does not serve the model `small`, and an outside provider.
    fn new(more: Value) -> World {
        let pool = |name: &str| json!({"name": name, "cluster": name});
        let model = |name: &str, pool: &str, criticality: &str| json!({"modelName": name, "criticality": criticality, "poolRef": {"name": pool}, "targetModels": [{"name": format!("{name}-{pool}")}]});
        let mut own = pool("own");
        own["fallback"] = json!(["second", "third", "outside"]);
        let mut outside = pool("outside");
        outside["external"] = true.into();
        let mut models = vec![model("small", "own", "Sheddable"), model("small", "third", "Critical")];
        for (name, criticality) in
            [("critical", "Critical"), ("standard", "Standard"), ("sheddable", "Sheddable")]
        {
            models.extend(["own", "second", "third", "outside"].map(|pool| model(name, pool, criticality)));
        }
        let mut document = json!({
            "scrapeCluster": "s",
            "adminCluster": "a",
            "pools": [own, pool("second"), pool("third"), outside],
            "models": models,
        });
        document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let config = Config::parse(document.to_string().as_bytes()).unwrap();
        World(Picker::new(config, fastrand::Rng::with_seed(1)))
    }

    fn set(&mut self, states: [State; 3]) {
        for (pool, state) in states.into_iter().enumerate() {
            let endpoint = |last: u8| {
                let waiting = if state == Full { 50 } else { 0 };
                let reading = Reading {
                    scraped_ms: NOW_MS,
                    metrics: EndpointMetrics { waiting, ..EndpointMetrics::default() },
                    waiting,
                    own_waiting: 0,
                    external_waiting: waiting,
                    external_requests: waiting,
                };
                EndpointReading {
                    reading: Some(reading),
                    scrape_failures: if state == Gone { 3 } else { 0 },
                    ..EndpointReading::new(SocketAddr::from(([10, 0, pool as u8, last], 8000)))
                }
            };
            let endpoints = Some(vec![endpoint(1), endpoint(2)]);
            self.0.apply([(pool, Snapshot { endpoints, ..Snapshot::default() })].into_iter());
        }
    }

    fn prepare(&mut self, model: &str) -> ResolvedRequest {
        let body = json!({"model": model, "stream": true, "prompt": "Hello"}).to_string();
        let request = read_request(body.as_bytes()).unwrap();
        let resolved = self.0.prepare(&request, None, OWN).unwrap();
        let resolved = ResolvedRequest { can_begin_anew: true, ..resolved };
        self.0.fall_back(resolved, &request, None, NOW_MS)
    }

    /// The pool, and its name for the model, of a request for `model` that is begun anew because the pool at `but` has failed.
    fn prepare_anew(&mut self, model: &str, but: usize, priority: Option<i32>) -> (usize, Option<String>) {
        let resolved = self.resolve_anew(model, but, priority, false);
        assert_eq!(resolved.fallback_of, (resolved.pool != OWN).then_some(OWN));
        (resolved.pool, resolved.target)
    }

    /// The same request. `was_sent`: to an endpoint of the pool that has failed.
    fn resolve_anew(
        &mut self,
        model: &str,
        but: usize,
        priority: Option<i32>,
        was_sent: bool,
    ) -> ResolvedRequest {
        let sent = json!({"model": format!("{model}-own"), "prompt": "Hello"}).to_string();
        let request = read_request(sent.as_bytes()).unwrap();
        let head = Some(Head { authority: "host".to_owned(), path: "/v1/completions".to_owned() });
        let first = FirstPass { model: model.to_owned(), was_sent, pool: but, head, ..REDIRECTED };
        self.0.prepare_anew(&request, &first, None, priority, NOW_MS).unwrap()
    }

    #[track_caller]
    fn check(&mut self, states: [State; 3], model: &str, pool: usize, target: &str) {
        self.set(states);
        let resolved = self.prepare(model);
        assert_eq!((resolved.pool, resolved.target.as_deref()), (pool, Some(target)), "{states:?} {model}");
        assert_eq!(resolved.fallback_of, (pool != OWN).then_some(OWN), "{states:?} {model}");
        let own_priority = match model {
            "critical" => 100,
            "standard" => 0,
            _ => -1,
        };
        assert_eq!(resolved.priority, own_priority, "it matters as much as in its own pool");
    }
}

#[test]
fn what_would_be_shed_or_wait_goes_to_the_next_pool_under_that_ones_name_for_the_model() {
    let mut world = World::new(json!({"queue": {}}));
    for model in ["critical", "standard", "sheddable", "small"] {
        world.check([Idle, Idle, Idle], model, OWN, &format!("{model}-own"));
    }
    let full = [Full, Idle, Idle];
    world.check(full, "critical", OWN, "critical-own");
    world.check(full, "standard", SECOND, "standard-second");
    world.check(full, "sheddable", SECOND, "sheddable-second");
    world.check(full, "small", THIRD, "small-third");
    World::new(json!({})).check(full, "standard", OWN, "standard-own");
}

#[test]
fn what_has_no_endpoint_goes_to_the_next_pool_however_much_it_matters() {
    let mut world = World::new(json!({}));
    for model in ["critical", "standard", "sheddable"] {
        world.check([Gone, Idle, Idle], model, SECOND, &format!("{model}-second"));
        world.check([Gone, Gone, Idle], model, THIRD, &format!("{model}-third"));
        world.check([Gone, Gone, Gone], model, OUTSIDE, &format!("{model}-outside"));
    }
    world.check([Gone, Full, Idle], "sheddable", THIRD, "sheddable-third");
    world.check([Gone, Full, Full], "sheddable", OUTSIDE, "sheddable-outside");
}

#[test]
fn where_no_pool_has_room_the_own_one_decides() {
    let mut world = World::new(json!({}));
    world.check([Full, Idle, Full], "small", OWN, "small-own");
    let resolved = world.prepare("small");
    let outcome = world.0.decide(0, &resolved, || (), NOW_MS);
    assert!(
        matches!(&outcome, Outcome::Decided(Decision::Refuse(error)) if error.code == "pool_saturated"),
        "{outcome:?}"
    );
}

#[test]
fn the_log_says_whose_fallback_a_pool_is_and_an_outside_provider_is_balanced_by_envoy() {
    let mut world = World::new(json!({}));
    world.set([Gone, Idle, Idle]);
    let mut decide = |states| {
        world.set(states);
        let resolved = world.prepare("standard");
        match world.0.decide(0, &resolved, || (), NOW_MS) {
            Outcome::Decided(decision) => decision,
            Outcome::Waits => panic!("it waits"),
        }
    };
    let Decision::Send(pick) = decide([Gone, Idle, Idle]) else { panic!("not sent") };
    assert!(pick.explanation.ends_with(" fallback_of=own") && pick.destinations.starts_with("10.0.1."));
    assert!(matches!(decide([Gone, Gone, Gone]), Decision::Fallback(_)));
}

#[test]
fn a_pool_of_which_nothing_is_known_yet_is_not_left() {
    let mut world = World::new(json!({}));
    assert_eq!(world.prepare("sheddable").pool, OWN);
}

#[test]
fn what_an_internal_redirect_begins_anew_stays_where_it_has_fallen_back_to() {
    let mut world = World::new(json!({}));
    world.set([Idle, Idle, Idle]);
    let body = r#"{"model":"standard-second","prompt":"Hello"}"#;
    let request = read_request(body.as_bytes()).unwrap();
    let first = FirstPass { model: "standard".to_owned(), pool: SECOND, ..REDIRECTED };
    let resolved = world.0.prepare_again(&request, &first, OWN);
    assert_eq!((resolved.pool, resolved.fallback_of), (SECOND, Some(OWN)));
    assert_eq!(resolved.target.as_deref(), Some("standard-second"));
    let resolved = world.0.prepare_again(&request, &FirstPass { pool: OWN, ..first }, OWN);
    assert_eq!((resolved.pool, resolved.fallback_of), (OWN, None));
}

#[test]
fn what_its_pool_has_failed_to_answer_is_begun_anew_for_the_next_one_that_has_room() {
    let mut world = World::new(json!({"queue": {}}));
    let at = |pool: usize, name: &str| (pool, Some(format!("standard-{name}")));
    for (states, but, expected) in [
        ([Idle, Idle, Idle], OWN, at(SECOND, "second")),
        ([Idle, Full, Idle], OWN, at(THIRD, "third")),
        ([Full, Idle, Idle], SECOND, at(THIRD, "third")),
        ([Gone, Gone, Gone], SECOND, at(OUTSIDE, "outside")),
    ] {
        world.set(states);
        assert_eq!(world.prepare_anew("standard", but, None), expected, "{states:?} {but}");
    }
    world.set([Idle, Idle, Full]);
    let small = |name: &str| Some(format!("small-{name}"));
    assert_eq!(world.prepare_anew("small", OWN, Some(0)), (THIRD, small("third")), "there it may wait");
    assert_eq!(world.prepare_anew("small", OWN, None), (OWN, small("own")), "there it would be shed");
}

#[test]
fn what_was_sent_before_it_was_begun_anew_is_known_whichever_pool_serves_it() {
    for (others, was_sent) in [(Idle, true), (Idle, false), (Gone, true)] {
        let mut world = World::new(json!({}));
        world.set([Idle, others, others]);
        assert!(!world.prepare("standard").was_sent);
        let resolved = world.resolve_anew("standard", OWN, None, was_sent);
        assert_eq!(resolved.was_sent, was_sent, "{others:?}");
    }
}

#[test]
fn a_pool_that_fails_as_a_fallback_comes_behind_the_others_until_it_is_tried_again() {
    let next = |world: &mut World| world.prepare_anew("standard", OWN, None).0;
    let mut world = World::new(json!({"maxConsecutiveFailures": 2, "queue": {}}));
    world.set([Idle, Idle, Idle]);
    let answered = |world: &mut World, is_failure: bool, age_ms: u64| {
        world.0.fallback_answered(SECOND, is_failure, NOW_MS - age_ms);
    };
    answered(&mut world, true, 0);
    assert_eq!(next(&mut world), SECOND, "one failure is none");
    answered(&mut world, false, 0);
    answered(&mut world, true, 0);
    assert_eq!(next(&mut world), SECOND, "not in a row");
    answered(&mut world, true, 0);
    assert_eq!(next(&mut world), THIRD);
    world.set([Idle, Idle, Full]);
    assert_eq!(next(&mut world), OUTSIDE);
    answered(&mut world, true, 5_000);
    assert_eq!(next(&mut world), SECOND, "it is tried again");
    answered(&mut world, true, 0);
    assert_eq!(world.prepare_anew("standard", OUTSIDE, None).0, THIRD, "there it may wait");
    world.set([Idle, Idle, Gone]);
    assert_eq!(world.prepare_anew("standard", OUTSIDE, None).0, SECOND, "nobody else is there");
}

#[test]
fn only_what_no_server_has_begun_to_answer_is_begun_anew() {
    for (status, expected) in
        [(429, true), (503, true), (200, false), (404, false), (500, false), (504, false)]
    {
        assert_eq!(is_retriable(status), expected, "{status}");
    }
}

/// What becomes of a request that waits, by the time that it has waited.
fn released(world: &mut World, waited_ms: u64) -> Option<Decision> {
    world.0.released(NOW_MS + waited_ms).map(|released| released.decision)
}

#[test]
fn a_full_pools_requests_wait_for_it_before_the_next_one_serves_them() {
    let queue = || json!({"queue": {"fallbackAfter": "400ms"}});
    let full = [Full, Idle, Idle];
    let mut world = World::new(queue());
    world.set(full);
    assert_eq!(world.prepare("sheddable").pool, SECOND, "what would be shed does not wait");
    let waits = |world: &mut World, id: u32| {
        let resolved = world.prepare("standard");
        assert_eq!(resolved.pool, OWN);
        assert!(matches!(world.0.decide(id, &resolved, || (), NOW_MS), Outcome::Waits));
    };
    waits(&mut world, 0);
    waits(&mut world, 1);
    assert!(released(&mut world, 399).is_none());
    for waited_ms in [410, 420] {
        let decision = released(&mut world, waited_ms);
        assert!(matches!(&decision, Some(Decision::BeginAnew(error)) if error.status == 429), "{decision:?}");
        assert!(released(&mut world, waited_ms).is_none(), "one at a time, so that it counts there");
    }
    assert_eq!(world.0.queued(OWN), 0);
}

#[test]
fn what_waits_goes_on_waiting_where_no_other_pool_takes_it_or_it_cannot_be_begun_anew() {
    for (can_begin_anew, others) in [(true, Full), (false, Idle)] {
        let mut world = World::new(json!({"queue": {"fallbackAfter": "400ms"}}));
        world.set([Full, others, others]);
        // Only the third pool has it besides.
        let body = r#"{"model":"small","prompt":"Hello"}"#;
        let resolved = world.0.prepare(&read_request(body.as_bytes()).unwrap(), None, OWN).unwrap();
        let resolved = ResolvedRequest { can_begin_anew, priority: 0, ..resolved };
        assert!(matches!(world.0.decide(0, &resolved, || (), NOW_MS), Outcome::Waits));
        assert!(released(&mut world, 450).is_none(), "{others:?}");
    }
}

#[test]
fn without_a_place_in_the_queue_the_next_pool_serves_at_once() {
    let mut world = World::new(json!({"queue": {"fallbackAfter": "400ms", "maxRequests": 1}}));
    world.set([Full, Idle, Idle]);
    let first = world.prepare("standard");
    assert!(matches!(world.0.decide(0, &first, || (), NOW_MS), Outcome::Waits));
    assert_eq!(world.prepare("standard").pool, SECOND);
}
