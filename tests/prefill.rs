//! Disaggregated prefill: which prompts are computed elsewhere than their answers are generated, where, and what that counts.
#![cfg(not(target_family = "wasm"))]

use std::net::SocketAddr;

use inference_picker::config::Config;
use inference_picker::decide::{Decision, Pick, ResolvedRequest};
use inference_picker::openai::{Usage, read_request};
use inference_picker::picker::{Outcome, Picker, Sent};
use inference_picker::pool::{EndpointReading, Snapshot};
use inference_picker::prefill::PromptBy;
use proptest::prelude::*;
use serde_json::{Value, json};

const NOW_MS: u64 = 100_000;
const DECODE: usize = 0;
const PREFILL: usize = 1;
const DECODERS: u8 = 3;
const PREFILLERS: u8 = 2;
/// Bytes of a prompt that is worth it; a token is taken to have four of them.
const LONG: usize = 4_000;
const SHORT: usize = 400;

fn decoder(place: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1 + place], 8000))
}

fn prefiller(place: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 1, 1 + place], 8000))
}

/// One worker in front of three endpoints that decode and two that compute prompts.
struct World(Picker<()>);

impl World {
    /// `more`: of the rule by which prompts are computed elsewhere.
    fn new(strategy: &str, more: Value) -> World {
        let texts = |count, address: fn(u8) -> SocketAddr| -> Vec<String> {
            (0..count).map(|place| address(place).to_string()).collect()
        };
        let mut prefill = json!({"pool": "prefill", "minUncachedTokens": 500});
        prefill.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let document = json!({"pools": [
            {"name": "decode", "cluster": "d", "endpoints": texts(DECODERS, decoder), "routingStrategy": strategy, "prefill": prefill},
            {"name": "prefill", "cluster": "p", "endpoints": texts(PREFILLERS, prefiller), "routingStrategy": strategy},
        ]});
        let config = Config::parse(document.to_string().as_bytes()).unwrap();
        World(Picker::new(config, fastrand::Rng::with_seed(1)))
    }

    /// Of the prefill pool so many endpoints do not answer scrapes.
    fn fail(&mut self, count: u8) {
        let endpoint = |place| EndpointReading {
            scrape_failures: if place < count { 3 } else { 0 },
            ..EndpointReading::new(prefiller(place))
        };
        let endpoints = Some((0..PREFILLERS).map(endpoint).collect());
        self.0.apply([(PREFILL, Snapshot { endpoints, ..Snapshot::default() })].into_iter());
    }

    fn prepare(&mut self, prompt: &str) -> ResolvedRequest {
        let body = json!({"model": "m", "stream": true, "prompt": prompt}).to_string();
        self.0.prepare(&read_request(body.as_bytes()).unwrap(), None, DECODE).unwrap()
    }

    fn decide(&mut self, resolved: &ResolvedRequest) -> Decision {
        match self.0.decide(0, resolved, || (), NOW_MS) {
            Outcome::Decided(decision) => decision,
            Outcome::Waits => panic!("it waits"),
        }
    }

    fn pick(&mut self, prompt: &str) -> Pick {
        let resolved = self.prepare(prompt);
        match self.decide(&resolved) {
            Decision::Send(pick) => pick,
            other => panic!("not sent: {other:?}"),
        }
    }

    /// Sends a prompt; the request, and who computes it.
    fn send(&mut self, prompt: &str) -> (Sent, Option<String>) {
        let pick = self.pick(prompt);
        (self.0.send(&pick, NOW_MS), computed_by(&pick))
    }

    /// Requests in flight, those that wait and their tokens, at each of the endpoints that decode, and then at the others.
    fn loads(&self) -> Vec<(u32, u32, u64)> {
        let addresses = (0..DECODERS).map(decoder).chain((0..PREFILLERS).map(prefiller));
        let loads = addresses.map(|address| self.0.loads().in_flight_at(&address));
        loads.map(|load| (load.requests, load.waiting, load.waiting_tokens)).collect()
    }
}

fn computed_by(pick: &Pick) -> Option<String> {
    match &pick.prompt_by {
        PromptBy::Other(other) => Some(other.address.clone()),
        PromptBy::Itself | PromptBy::Gone { .. } => None,
    }
}

fn text(bytes: usize) -> String {
    "abcdefgh".repeat(bytes / 8)
}

#[test]
fn long_prompts_are_computed_elsewhere_and_short_ones_are_not() {
    for strategy in ["DEFAULT", "PREFIX_CACHE", "LEAST_REQUEST", "ROUND_ROBIN", "RANDOM"] {
        let mut world = World::new(strategy, json!({}));
        let long = world.pick(&text(LONG));
        let by = computed_by(&long).unwrap();
        assert!((0..PREFILLERS).any(|place| prefiller(place).to_string() == by), "{strategy}: {by}");
        assert!(long.explanation.ends_with(&format!(" prefill={by}")), "{}", long.explanation);
        let short = world.pick(&text(SHORT));
        assert_eq!(computed_by(&short), None, "{strategy}");
        assert!(!short.explanation.contains("prefill"), "{}", short.explanation);
    }
}

#[test]
fn what_generates_nothing_and_what_another_pool_may_serve_is_not_computed_elsewhere() {
    let mut world = World::new("DEFAULT", json!({}));
    let generated = world.prepare(&text(LONG));
    for resolved in [
        ResolvedRequest { generates: false, ..generated.clone() },
        ResolvedRequest { is_pool_guessed: true, ..generated.clone() },
    ] {
        let Decision::Send(pick) = world.decide(&resolved) else { panic!("not sent") };
        assert_eq!(pick.prompt_by, PromptBy::Itself);
        assert!(!pick.destinations.contains("10.0.1."), "no request goes to who computes prompts for others");
    }
}

#[test]
fn a_prompt_that_is_cached_where_it_is_sent_is_computed_there() {
    let mut world = World::new("PREFIX_CACHE", json!({}));
    let (mut sent, by) = world.send(&text(LONG));
    assert!(by.is_some());
    world.0.first_output(&mut sent, NOW_MS);
    let usage = Usage { prompt_tokens: 1_000, completion_tokens: 10, cached_tokens: None };
    world.0.answered(&mut sent, DECODE, Some(usage), NOW_MS);
    world.0.end(sent, NOW_MS);
    assert_eq!(world.send(&(text(LONG) + "and a little more")).1, None);
    let other = "something else ".repeat(LONG / 8);
    assert!(world.send(&other).1.is_some(), "of another one nothing is cached");
}

#[test]
fn a_prefix_goes_where_it_was_computed_before() {
    let mut world = World::new("PREFIX_CACHE", json!({"minUncachedTokens": 1}));
    let (mut sent, first) = world.send(&text(LONG));
    world.0.first_output(&mut sent, NOW_MS);
    world.0.end(sent, NOW_MS);
    for place in 0..10 {
        let (sent, by) = world.send(&format!("{}{place}", text(LONG)));
        assert_eq!(by, first);
        world.0.end(sent, NOW_MS);
    }
}

#[test]
fn the_prompt_counts_where_it_is_computed_until_the_first_output_and_the_request_where_it_is_answered() {
    let mut world = World::new("DEFAULT", json!({}));
    let (mut one, by) = world.send(&text(LONG));
    let (other, other_by) = world.send(&text(LONG));
    assert_ne!(by, other_by, "each has one to itself");
    let sums = |world: &World| {
        let loads = world.loads();
        let sum =
            |part: &[(u32, u32, u64)]| part.iter().fold((0, 0), |sum, load| (sum.0 + load.0, sum.1 + load.2));
        (sum(&loads[..3]), sum(&loads[3..]))
    };
    // The two that decode have to compute one token each.
    assert_eq!(sums(&world), ((2, 2), (2, 2 * 1_000)));
    world.0.first_output(&mut one, NOW_MS);
    assert_eq!(sums(&world), ((2, 1), (1, 1_000)));
    world.0.first_output(&mut one, NOW_MS);
    assert_eq!(sums(&world), ((2, 1), (1, 1_000)), "it is given back once");
    world.0.end(other, NOW_MS);
    assert_eq!(sums(&world), ((1, 0), (0, 0)), "of one that failed nothing stays");
    world.0.end(one, NOW_MS);
    assert_eq!(sums(&world), ((0, 0), (0, 0)));
}

#[test]
fn backlog_decides_who_computes_the_next_prompt() {
    let mut world = World::new("DEFAULT", json!({}));
    let (_long, busy) = world.send(&text(10 * LONG));
    for _ in 0..5 {
        assert_ne!(world.send(&text(LONG)).1, busy);
    }
}

#[test]
fn another_endpoint_that_answers_changes_nothing_for_who_computes_the_prompt() {
    let mut world = World::new("PREFIX_CACHE", json!({}));
    let pick = world.pick(&text(LONG));
    let mut sent = world.0.send(&pick, NOW_MS);
    let second = pick.destinations.split(',').nth(1).unwrap();
    assert!(world.0.move_to(&mut sent, DECODE, &pick.destinations, second.as_bytes(), NOW_MS));
    let of_prefill = |world: &World| world.loads()[3..].iter().map(|load| load.2).sum::<u64>();
    assert_eq!(of_prefill(&world), 1_000);
    world.0.first_output(&mut sent, NOW_MS);
    assert_eq!(of_prefill(&world), 0);
    world.0.end(sent, NOW_MS);
    assert!(world.loads().iter().all(|load| *load == (0, 0, 0)));
}

#[test]
fn what_decodes_teaches_nothing_of_how_fast_it_computes_prompts() {
    let mut world = World::new("DEFAULT", json!({}));
    let pick = world.pick(&text(LONG));
    let speed = |world: &World| world.0.loads().prefill_tokens_per_ms(pick.load_id);
    let before = speed(&world);
    let mut sent = world.0.send(&pick, NOW_MS);
    world.0.first_output(&mut sent, NOW_MS + 10_000);
    assert_eq!(speed(&world), before);
    world.0.end(sent, NOW_MS + 10_000);
}

#[test]
fn when_nobody_is_there_who_computes_prompts_the_others_do_or_it_is_said() {
    for (when_gone, is_refused) in [("together", false), ("refuse", true)] {
        let mut world = World::new("DEFAULT", json!({"whenGone": when_gone}));
        world.fail(1);
        assert_eq!(world.send(&text(LONG)).1, Some(prefiller(1).to_string()), "one is left");
        world.fail(PREFILLERS);
        let resolved = world.prepare(&text(LONG));
        match world.decide(&resolved) {
            Decision::Send(pick) => {
                assert!(!is_refused && pick.share.tokens == 1_000, "{when_gone}: {pick:?}");
                assert_eq!(pick.prompt_by, PromptBy::Gone { pool: PREFILL });
                assert!(pick.explanation.ends_with(" prefill=none"), "{}", pick.explanation);
            }
            Decision::Refuse(error) => {
                assert!(is_refused, "{when_gone}: {error:?}");
                assert_eq!((error.status, error.code), (503, "no_prefill_endpoint"));
                assert_eq!(error.dropped_reason, Some("rejected-no-endpoints"));
            }
            other => panic!("{when_gone}: {other:?}"),
        }
        assert_eq!(world.send(&text(SHORT)).1, None, "short ones never need them");
        world.fail(0);
        assert!(world.send(&text(LONG)).1.is_some(), "{when_gone}: they are there again");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Send { bytes: usize },
    Output { which: usize },
    Moved { which: usize },
    Ended { which: usize },
    Fail { count: u8 },
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (8..2 * LONG).prop_map(|bytes| Step::Send { bytes }),
        3 => any::<usize>().prop_map(|which| Step::Output { which }),
        1 => any::<usize>().prop_map(|which| Step::Moved { which }),
        2 => any::<usize>().prop_map(|which| Step::Ended { which }),
        1 => (0..=PREFILLERS).prop_map(|count| Step::Fail { count }),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_each_load_is_counted_once_and_given_back_once(
        steps in prop::collection::vec(any_step(), 1..60),
        by_prefix in any::<bool>(),
    ) {
        let mut world = World::new(if by_prefix { "PREFIX_CACHE" } else { "DEFAULT" }, json!({}));
        // Each with where it goes, and whether its prompt is still being computed elsewhere.
        let mut open: Vec<(Sent, String, bool)> = Vec::new();
        for step in steps {
            match step {
                Step::Send { bytes } => {
                    let pick = world.pick(&text(bytes));
                    let sent = world.0.send(&pick, NOW_MS);
                    open.push((sent, pick.destinations.clone(), computed_by(&pick).is_some()));
                }
                Step::Output { which } if !open.is_empty() => {
                    let place = which % open.len();
                    world.0.first_output(&mut open[place].0, NOW_MS);
                    open[place].2 = false;
                }
                Step::Moved { which } if !open.is_empty() => {
                    let place = which % open.len();
                    let (sent, destinations, _) = &mut open[place];
                    let last = destinations.rsplit(',').next().unwrap().to_owned();
                    world.0.move_to(sent, DECODE, destinations, last.as_bytes(), NOW_MS);
                }
                Step::Ended { which } if !open.is_empty() => {
                    let (sent, ..) = open.swap_remove(which % open.len());
                    world.0.end(sent, NOW_MS);
                }
                Step::Fail { count } => world.fail(count),
                Step::Output { .. } | Step::Moved { .. } | Step::Ended { .. } => {}
            }
            let loads = world.loads();
            let requests = |part: &[(u32, u32, u64)]| part.iter().map(|load| load.0 as usize).sum::<usize>();
            prop_assert_eq!(requests(&loads[..3]), open.len());
            prop_assert_eq!(requests(&loads[3..]), open.iter().filter(|(_, _, elsewhere)| *elsewhere).count());
        }
        for (sent, ..) in open {
            world.0.end(sent, NOW_MS);
        }
        prop_assert!(world.loads().iter().all(|load| *load == (0, 0, 0)));
    }
}
