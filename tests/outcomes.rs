//! What becomes of an endpoint by what it answers: models that it does not have, and requests that fail there.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use inference_picker::config::Config;
use inference_picker::decide::Decision;
use inference_picker::ledger::{Ledger, Member};
use inference_picker::metrics::{EndpointMetrics, LoraState};
use inference_picker::openai::read_request;
use inference_picker::peers::{Page, Question};
use inference_picker::picker::{Outcome, Picker, Sent};
use inference_picker::pool::{EndpointReading, Reading, Snapshot};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const STRATEGIES: [&str; 5] = ["DEFAULT", "PREFIX_CACHE", "LEAST_REQUEST", "ROUND_ROBIN", "RANDOM"];
const ENDPOINTS: usize = 4;

fn address(place: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1 + place as u8], 8000))
}

/// One worker, and what its clock shows.
struct World {
    picker: Picker<()>,
    now_ms: u64,
    /// When each endpoint was seen to start anew.
    restarted_ms: [Option<u64>; ENDPOINTS],
    /// Makes prompts that differ.
    asked: u32,
}

/// A request that was sent, and the pick's endpoints.
struct Asked {
    sent: Sent,
    destinations: String,
}

impl Asked {
    fn first(&self) -> usize {
        let first = self.destinations.split(',').next().unwrap();
        (0..ENDPOINTS).find(|place| address(*place).to_string() == first).unwrap()
    }
}

impl World {
    fn new(strategy: &str) -> World {
        let document = format!(
            r#"{{"scrapeCluster":"s","adminCluster":"a","pools":[{{"name":"p","cluster":"c","routingStrategy":"{strategy}"}}]}}"#
        );
        let config = Config::parse(document.as_bytes()).unwrap();
        let picker = Picker::new(config, fastrand::Rng::with_seed(1));
        let mut world = World { picker, now_ms: 100_000, restarted_ms: [None; ENDPOINTS], asked: 0 };
        world.scrape(|_, _| ());
        world
    }

    /// Every endpoint is scraped, and says what `edit` makes of an idle one that serves `base`.
    fn scrape(&mut self, edit: impl Fn(usize, &mut EndpointMetrics)) {
        let endpoint = |place| {
            let lora = LoraState::named(vec!["known".to_owned()], 4);
            let mut metrics = EndpointMetrics {
                base_model: Some("base".to_owned()),
                lora: Some(lora),
                ..EndpointMetrics::default()
            };
            edit(place, &mut metrics);
            let reading = Reading {
                scraped_ms: self.now_ms,
                waiting: 0,
                metrics,
                own_waiting: 0,
                external_waiting: 0,
                external_requests: 0,
            };
            EndpointReading {
                reading: Some(reading),
                restarted_ms: self.restarted_ms[place],
                ..EndpointReading::new(address(place))
            }
        };
        let endpoints = Some((0..ENDPOINTS).map(endpoint).collect());
        self.picker.apply([(0, Snapshot { endpoints, ..Snapshot::default() })].into_iter());
    }

    fn ask_for(&mut self, model: &str, prompt: &str) -> Asked {
        let body = format!(r#"{{"model":"{model}","stream":true,"prompt":"{prompt}"}}"#);
        let prepared = self.picker.prepare(&read_request(body.as_bytes()).unwrap(), None, 0).unwrap();
        let outcome = self.picker.decide(1, &prepared, || (), self.now_ms);
        let Outcome::Decided(Decision::Send(pick)) = outcome else { panic!("not sent: {outcome:?}") };
        Asked { sent: self.picker.send(&pick, self.now_ms), destinations: pick.destinations }
    }

    fn ask(&mut self, model: &str) -> Asked {
        self.asked += 1;
        self.ask_for(model, &format!("prompt {}", self.asked))
    }

    fn serve(&mut self, mut asked: Asked) {
        self.now_ms += 1;
        self.picker.first_output(&mut asked.sent, self.now_ms);
        self.picker.succeeded(0, &asked.sent, self.now_ms);
        self.picker.end(asked.sent, self.now_ms);
    }

    fn say_missing(&mut self, asked: Asked) {
        self.now_ms += 1;
        self.picker.succeeded(0, &asked.sent, self.now_ms);
        self.picker.model_missing(&asked.sent, self.now_ms);
        self.picker.end(asked.sent, self.now_ms);
    }

    fn fail(&mut self, asked: Asked) {
        self.now_ms += 1;
        self.picker.failed(0, &asked.sent, self.now_ms);
        self.picker.end(asked.sent, self.now_ms);
    }

    /// Its answer has output.
    fn begin(&mut self, asked: &mut Asked) {
        self.now_ms += 1;
        self.picker.first_output(&mut asked.sent, self.now_ms);
        self.picker.succeeded(0, &asked.sent, self.now_ms);
    }

    /// Its answer, which had output, breaks off.
    fn break_off(&mut self, asked: Asked) {
        self.now_ms += 1;
        self.picker.answer_broke_off(0, &asked.sent, self.now_ms);
        self.picker.end(asked.sent, self.now_ms);
    }

    /// Its answer, which had output, comes to its end.
    fn complete(&mut self, asked: Asked) {
        self.picker.answer_completed(0, &asked.sent, self.now_ms);
        self.picker.end(asked.sent, self.now_ms);
    }

    /// So many requests one after the other, of which the answers of these endpoints break off; how many did.
    fn break_many(&mut self, count: usize, breaks: impl Fn(usize) -> bool) -> usize {
        let mut broken = 0;
        for _ in 0..count {
            let mut asked = self.ask("base");
            self.begin(&mut asked);
            if breaks(asked.first()) {
                broken += 1;
                self.break_off(asked);
            } else {
                self.complete(asked);
            }
        }
        broken
    }

    /// So many requests, of which those are answered that go to an endpoint that `has` the model; how many did not.
    fn ask_many(&mut self, count: usize, model: &str, has: impl Fn(usize) -> bool) -> usize {
        let mut missed = 0;
        for _ in 0..count {
            let asked = self.ask(model);
            if has(asked.first()) {
                self.serve(asked);
            } else {
                missed += 1;
                self.say_missing(asked);
            }
        }
        missed
    }

    /// Where forty requests that are answered go.
    fn seen(&mut self, model: &str) -> BTreeSet<usize> {
        (0..40)
            .map(|_| {
                let asked = self.ask(model);
                let first = asked.first();
                self.serve(asked);
                first
            })
            .collect()
    }

    /// What this worker, the first of its gateway, has published.
    fn ledger(&mut self) -> Ledger {
        let (mut ledger, mut member) = (Ledger::new(9, self.now_ms), Member::new(1));
        member.collect(self.picker.loads_mut(), vec![]);
        member.write(&mut ledger, self.picker.loads_mut(), self.now_ms);
        ledger
    }

    fn read(&mut self, ledger: &Ledger) {
        Member::new(2).read(ledger, self.picker.loads_mut(), self.now_ms);
    }
}

fn all() -> BTreeSet<usize> {
    (0..ENDPOINTS).collect()
}

fn half() -> BTreeSet<usize> {
    [2, 3].into()
}

#[test]
fn whatever_the_strategy_those_without_the_model_are_asked_once_and_named_no_more() {
    for strategy in STRATEGIES {
        let mut world = World::new(strategy);
        assert!(world.ask_many(100, "other", |place| place >= 2) <= 2, "{strategy}");
        let asked = world.ask("other");
        assert_eq!(asked.destinations.split(',').count(), 2, "{strategy}: {}", asked.destinations);
        world.serve(asked);
        assert_eq!(world.seen("other"), half(), "{strategy}");
        assert!(
            !world.seen("another").is_disjoint(&[0, 1].into()),
            "{strategy}: other models are asked for there"
        );
        // Whoever asks for the path alone.
        assert!(
            matches!(world.picker.decide_unread(0, false, None, world.now_ms), Decision::Send(_)),
            "{strategy}"
        );
        world.now_ms += 2_000;
        assert!(
            world.ask_many(100, "other", |place| place >= 2) <= 2,
            "{strategy}: once more, and not for twice as long"
        );
        world.now_ms += 1_000;
        assert_eq!(world.ask_many(100, "other", |place| place >= 2), 0, "{strategy}");
    }
}

#[test]
fn what_none_of_them_has_is_asked_of_all() {
    for strategy in STRATEGIES {
        let mut world = World::new(strategy);
        assert_eq!(world.ask_many(20, "other", |_| false), 20, "{strategy}");
        assert_eq!(world.ask("other").destinations.split(',').count(), 3, "{strategy}");
    }
}

#[test]
fn an_answer_a_restart_and_metrics_that_name_the_model_end_it_at_once() {
    let mut world = World::new("DEFAULT");
    world.ask_many(20, "other", |place| place >= 2);
    world.now_ms += 1_000;
    assert_eq!(world.seen("other"), all(), "those that are asked again have it");
    world.ask_many(20, "other", |place| place >= 2);
    assert_eq!(world.seen("other"), half());
    world.restarted_ms[0] = Some(world.now_ms);
    world.scrape(|_, _| ());
    assert_eq!(world.seen("other"), [0, 2, 3].into(), "it has started anew");
    world.scrape(|place, metrics| {
        if place == 1 {
            metrics.base_model = Some("other".to_owned());
        }
    });
    assert_eq!(world.seen("other"), all(), "its metrics name it");
}

#[test]
fn an_adapter_counts_as_being_loaded_only_until_an_answer_says_otherwise() {
    let mut world = World::new("DEFAULT");
    let asked = world.ask("known");
    let at = asked.sent.load_id();
    let is_there = |world: &World| world.picker.loads().adapters(at).count() > 0;
    let is_recent = |world: &World| world.picker.loads().recent_adapters(at).count() > 1;
    assert!(is_there(&world));
    let behind = world.picker.loads().recent_adapters(at).count();
    world.say_missing(asked);
    assert!(!is_there(&world) && !is_recent(&world));
    assert!(world.picker.loads().recent_adapters(at).count() < behind, "nor was it the one used last");
}

/// What one worker notes is in its gateway's ledger, in its page, and with that in other gateways' ledgers.
#[test]
fn all_workers_of_all_gateways_know_what_one_of_them_was_answered() {
    let mut worker = World::new("DEFAULT");
    worker.ask_many(20, "other", |place| place >= 2);
    let mut near = World::new("DEFAULT");
    near.now_ms = worker.now_ms;
    let ledger = worker.ledger();
    near.read(&ledger);
    assert_eq!(near.seen("other"), half());
    assert!(!near.seen("another").is_disjoint(&[0, 1].into()), "other models are asked for there");
    // Another machine's clock shows another time.
    let page = Page::of(&ledger, &Question::default(), |_| None, worker.now_ms);
    let published = Page::from_bytes(&page.to_bytes()).unwrap();
    let mut far = World::new("DEFAULT");
    far.now_ms = 7_000_000;
    far.scrape(|_, _| ());
    let mut received = Ledger::new(8, far.now_ms);
    published.by_clock(far.now_ms).notes.into_iter().for_each(|note| received.note(note, true));
    far.read(&received);
    assert_eq!(far.seen("other"), half());
    far.now_ms += 1_000;
    far.scrape(|_, _| ());
    assert!(!far.seen("other").is_disjoint(&[0, 1].into()), "they are asked again");
}

/// Workers that share a ledger; each reads it ahead of a request and writes it behind.
struct Workers {
    workers: Vec<(World, Member)>,
    ledger: Ledger,
    now_ms: u64,
}

impl Workers {
    fn new(count: u64) -> Workers {
        let worker = |id| (World::new("DEFAULT"), Member::new(id));
        let workers: Vec<(World, Member)> = (1..=count).map(worker).collect();
        Workers { workers, ledger: Ledger::new(9, 100_000), now_ms: 100_000 }
    }

    /// One of them asks, and `outcome` is what comes of it at the endpoint.
    fn ask(&mut self, place: usize, outcome: impl FnOnce(&mut World, Asked, usize)) -> usize {
        let count = self.workers.len();
        let (world, member) = &mut self.workers[place % count];
        world.now_ms = self.now_ms;
        // Endpoints are asked in turn, whoever asks.
        world.asked = self.now_ms as u32;
        self.ledger.refresh(self.now_ms);
        member.read(&self.ledger, world.picker.loads_mut(), self.now_ms);
        let asked = world.ask("base");
        let first = asked.first();
        outcome(world, asked, first);
        let events = world.picker.take_events();
        member.collect(world.picker.loads_mut(), events);
        let written = member.write(&mut self.ledger, world.picker.loads_mut(), world.now_ms);
        member.written(&written, &self.ledger);
        self.now_ms = world.now_ms;
        first
    }

    /// So many requests, each at the next worker; how many of them endpoint 0 got, which does this with them.
    fn ask_many(&mut self, count: usize, outcome: fn(&mut World, Asked)) -> usize {
        let ask = |place| {
            self.ask(place, |world, mut asked, first| match first {
                0 => outcome(world, asked),
                _ => {
                    world.begin(&mut asked);
                    world.complete(asked);
                }
            })
        };
        (0..count).map(ask).filter(|first| *first == 0).count()
    }
}

#[test]
fn workers_count_the_failures_of_an_endpoint_together() {
    for count in [1, 2, 16] {
        for outcome in [World::fail, |world: &mut World, mut asked: Asked| {
            world.begin(&mut asked);
            world.break_off(asked);
        }] {
            let mut workers = Workers::new(count);
            // All of it takes less time than the first ejection.
            assert_eq!(workers.ask_many(100, outcome), 3, "{count} workers");
            workers.now_ms += 1_000;
            let tried = workers.ask_many(20, outcome);
            assert_eq!(tried, 1, "{count} workers: one request tries it, and not one of each");
            workers.now_ms += 2_000;
            let complete = |world: &mut World, mut asked: Asked| {
                world.begin(&mut asked);
                world.complete(asked);
            };
            assert!(workers.ask_many(100, complete) > 5, "{count} workers: it is there again");
        }
    }
}

/// Requests for these models in turn, each prompt another, all retried elsewhere when endpoint 0 comes first; who then gets
/// requests for the first of them, and for another one.
fn after_retries(models: &[&str]) -> (BTreeSet<usize>, BTreeSet<usize>) {
    let mut world = World::new("ROUND_ROBIN");
    for model in models.iter().cycle().take(40) {
        let mut asked = world.ask(model);
        let destinations = asked.destinations.clone();
        if asked.first() == 0 {
            world.now_ms += 1;
            let next = destinations.split(',').nth(1).unwrap();
            assert!(world.picker.move_to(&mut asked.sent, 0, &destinations, next.as_bytes(), world.now_ms));
            world.picker.passed_over(0, &asked.sent, world.now_ms);
        }
        world.serve(asked);
    }
    (world.seen(models[0]), world.seen("another"))
}

#[test]
fn retries_of_one_model_are_taken_for_a_missing_model_and_those_of_several_for_failures() {
    let without_first: BTreeSet<usize> = [1, 2, 3].into();
    assert_eq!(after_retries(&["other"]), (without_first.clone(), all()));
    assert_eq!(after_retries(&["one", "two", "three"]), (without_first.clone(), without_first.clone()));
    assert_eq!(
        after_retries(&["base"]),
        (without_first.clone(), without_first),
        "its metrics name the model"
    );
}

/// Forty requests that fail at endpoints 0 to `broken`, each with the prompt of this name; who is left.
fn after_failures(broken: usize, prompt: impl Fn(usize) -> String) -> BTreeSet<usize> {
    let mut world = World::new("ROUND_ROBIN");
    for number in 0..40 {
        let asked = world.ask_for("base", &prompt(number));
        if asked.first() < broken { world.fail(asked) } else { world.serve(asked) }
    }
    world.seen("base")
}

#[test]
fn an_endpoint_that_fails_leaves_after_three_requests_whether_they_are_alike_or_not() {
    let left: BTreeSet<usize> = [1, 2, 3].into();
    assert_eq!(after_failures(1, |number| format!("prompt {number}")), left);
    assert_eq!(after_failures(1, |_| "the same".to_owned()), left);
    assert_eq!(after_failures(2, |number| format!("prompt {number}")), half());
}

#[test]
fn a_prompt_that_fails_everywhere_takes_no_more_than_one_endpoint_away() {
    assert!(after_failures(ENDPOINTS, |_| "poison".to_owned()).len() >= ENDPOINTS - 1);
    assert!(after_failures(ENDPOINTS, |number| format!("poison {}", number % 2)).len() >= ENDPOINTS - 2);
    let mut world = World::new("PREFIX_CACHE");
    for number in 0..200 {
        // Beside it there is other traffic.
        let asked = world.ask_for("base", "poison");
        world.fail(asked);
        if number % 10 == 0 {
            let asked = world.ask("base");
            world.serve(asked);
        }
    }
    assert!(world.seen("base").len() >= ENDPOINTS - 1);
}

/// An output says nothing of answers that break off behind it.
#[test]
fn an_endpoint_whose_answers_break_off_is_left_alone_and_tried_again() {
    for strategy in STRATEGIES {
        let mut world = World::new(strategy);
        assert_eq!(world.break_many(100, |place| place == 0), 3, "{strategy}");
        world.now_ms += 1_000;
        assert_eq!(
            world.break_many(100, |place| place == 0),
            1,
            "{strategy}: one is tried, and not for twice as long"
        );
        world.now_ms += 2_000;
        assert_eq!(world.break_many(100, |_| false), 0, "{strategy}");
        assert_eq!(world.seen("base"), all(), "{strategy}: an answer that was completed ends it");
    }
}

#[test]
fn one_that_dies_with_all_its_answers_has_failed_once() {
    let mut world = World::new("DEFAULT");
    let mut asked: Vec<Asked> = (0..40).map(|_| world.ask("base")).collect();
    asked.iter_mut().for_each(|asked| world.begin(asked));
    for asked in asked {
        if asked.first() == 0 { world.break_off(asked) } else { world.complete(asked) }
    }
    assert_eq!(world.seen("base"), all(), "as soon as it is there again");
}

#[test]
fn answers_that_are_completed_in_between_end_a_row_of_broken_ones() {
    let mut world = World::new("ROUND_ROBIN");
    for _ in 0..5 {
        assert_eq!(world.break_many(8, |place| place == 0), 2);
        world.break_many(4, |_| false);
    }
    assert_eq!(world.seen("base"), all());
}

/// A prompt at which every server dies in the middle of its answer.
#[test]
fn a_prompt_whose_answer_breaks_off_everywhere_takes_one_endpoint_away_at_most() {
    let mut world = World::new("DEFAULT");
    for _ in 0..40 {
        let mut asked = world.ask_for("base", "poison");
        world.begin(&mut asked);
        world.break_off(asked);
    }
    assert!(world.seen("base").len() >= ENDPOINTS - 1);
}
