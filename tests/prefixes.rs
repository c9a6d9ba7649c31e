//! Which start of a prompt is where: claims about the index, held against a naive one, and about picks that go by it.
#![cfg(not(target_family = "wasm"))]

mod prefix_world;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use inference_picker::config::Config;
use inference_picker::decide::{Decision, Pick};
use inference_picker::load::{LoadId, LoadTracker};
use inference_picker::metrics::{CacheConfig, EndpointMetrics};
use inference_picker::openai::{Usage, read_request};
use inference_picker::picker::{Outcome, Picker, Sent};
use inference_picker::pool::{EndpointReading, Reading, Snapshot};
use inference_picker::prefix::{MAX_PROMPT_BLOCKS, PrefixIndex, PromptBlocks, PromptKey};
use prefix_world::{ENOUGH_BLOCKS, Step, Tight, WORKERS, World, address, prompt};
use proptest::prelude::*;
use serde_json::{Value, json};

fn any_prompt() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0..2_u8, 0..8)
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_usize, any_prompt()).prop_map(|(endpoint, letters)| Step::Sent { endpoint, letters }),
        3 => (0..8_usize).prop_map(|which| Step::Answered { which }),
        1 => (0..8_usize).prop_map(|which| Step::Dropped { which }),
        2 => (0..3_usize, any_prompt(), any::<bool>())
            .prop_map(|(endpoint, letters, was_held)| Step::Reported { endpoint, letters, was_held }),
        1 => (0..3_usize).prop_map(|endpoint| Step::Restarted { endpoint }),
        1 => (0..3_usize).prop_map(|endpoint| Step::Replaced { endpoint }),
        1 => (0..WORKERS).prop_map(|worker| Step::Lost { worker }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

    #[test]
    fn a_match_is_the_longest_start_that_a_naive_search_finds(
        steps in prop::collection::vec(any_step(), 0..60),
        asked in prop::collection::vec(any_prompt(), 1..6),
    ) {
        let mut world = World::new(ENOUGH_BLOCKS);
        steps.into_iter().for_each(|step| world.step(step));
        prop_assert_eq!(world.index.len(), world.naive_len());
        for blocks in asked.iter().map(|letters| prompt(letters)) {
            for endpoint in 0..3 {
                prop_assert_eq!(world.matched(endpoint, &blocks), world.naive_match(endpoint, &blocks));
            }
            prop_assert_eq!(world.holders(&blocks), world.matches(&blocks));
        }
    }

    #[test]
    fn an_index_that_is_full_never_exceeds_its_bound_and_matches_no_more_than_was_there(
        steps in prop::collection::vec(any_step(), 0..80),
        asked in prop::collection::vec(any_prompt(), 1..6),
        blocks_max in 1..24_usize,
    ) {
        let mut world = World::new(blocks_max);
        for step in steps {
            world.step(step);
            prop_assert!(world.index.len() <= blocks_max);
        }
        for blocks in asked.iter().map(|letters| prompt(letters)) {
            prop_assert_eq!(world.holders(&blocks), world.matches(&blocks));
            for endpoint in 0..3 {
                let matched = world.matched(endpoint, &blocks);
                prop_assert!(matched <= world.naive_match(endpoint, &blocks));
                // What is found by halving is what would be found block by block.
                for length in 0..=blocks.hashes.len() {
                    let start = PromptBlocks { hashes: blocks.hashes[..length].to_vec(), bytes: 0 };
                    prop_assert_eq!(world.matched(endpoint, &start), matched.min(length));
                }
            }
        }
    }

    #[test]
    fn an_endpoint_with_little_room_drops_exactly_what_a_list_of_single_blocks_would(
        steps in prop::collection::vec(any_step(), 0..120),
        asked in prop::collection::vec(any_prompt(), 1..6),
        tokens_max in 0..2_500_u64,
    ) {
        let mut world = Tight::new(tokens_max);
        steps.into_iter().for_each(|step| world.step(step));
        for blocks in asked.iter().map(|letters| prompt(letters)) {
            prop_assert_eq!(world.matched(&blocks), world.naive_match(&blocks));
        }
    }
}

/// One worker of a gateway, with three endpoints and PREFIX_CACHE.
struct Worker(Picker<()>);

const NOW_MS: u64 = 100_000;

impl Worker {
    fn new(seed: u64) -> Worker {
        let endpoints: Vec<String> = (0..3).map(|endpoint| address(endpoint).to_string()).collect();
        let document = json!({
            "scrapeCluster": "s",
            "pools": [{"name": "p", "cluster": "c", "endpoints": endpoints, "routingStrategy": "PREFIX_CACHE"}],
        });
        let config = Config::parse(document.to_string().as_bytes()).unwrap();
        let mut worker = Worker(Picker::new(config, fastrand::Rng::with_seed(seed)));
        worker.scrape(None);
        worker
    }

    /// Every endpoint is idle, and was seen to start anew then.
    fn scrape(&mut self, restarted_ms: Option<u64>) {
        let cache = CacheConfig { block_size_tokens: 16, capacity_tokens: 60_000 };
        let reading = |endpoint| EndpointReading {
            reading: Some(Reading {
                scraped_ms: NOW_MS,
                metrics: EndpointMetrics { cache: Some(cache.clone()), ..EndpointMetrics::default() },
                waiting: 0,
                own_waiting: 0,
                external_waiting: 0,
                external_requests: 0,
            }),
            restarted_ms,
            ..EndpointReading::new(address(endpoint))
        };
        let snapshot = Snapshot { endpoints: Some((0..3).map(reading).collect()), ..Snapshot::default() };
        self.0.apply([(0, snapshot)].into_iter());
    }

    fn pick(&mut self, body: &Value) -> Pick {
        let body = body.to_string();
        let request = read_request(body.as_bytes()).unwrap();
        let prepared = self.0.prepare(&request, None, 0).unwrap();
        match self.0.decide(0, &prepared, || (), NOW_MS) {
            Outcome::Decided(Decision::Send(pick)) => pick,
            other => panic!("not sent: {other:?}"),
        }
    }

    fn send(&mut self, body: &Value) -> (SocketAddr, Sent) {
        let pick = self.pick(body);
        (first(&pick), self.0.send(&pick, NOW_MS))
    }

    /// Sends a prompt that is answered at once; where it went.
    fn ask(&mut self, body: &Value, cached_tokens: Option<u32>) -> SocketAddr {
        let (endpoint, mut sent) = self.send(body);
        self.0.first_output(&mut sent, NOW_MS);
        let usage = Usage { prompt_tokens: 500, completion_tokens: 10, cached_tokens };
        self.0.answered(&mut sent, 0, Some(usage), NOW_MS);
        self.0.end(sent, NOW_MS);
        endpoint
    }

    /// How much of a prompt is taken to be where it would go.
    fn matched_blocks(&mut self, body: &Value) -> usize {
        self.pick(body).prompt.unwrap().matched.blocks
    }
}

fn first(pick: &Pick) -> SocketAddr {
    pick.destinations.split(',').next().unwrap().parse().unwrap()
}

/// A prompt of about 500 tokens that begins like no other of another name.
fn document(name: &str) -> Value {
    json!({"model": "m", "stream": true, "prompt": name.repeat(2_000 / name.len())})
}

#[test]
fn a_prompt_goes_where_its_start_was_answered() {
    for seed in 0..20 {
        let mut worker = Worker::new(seed);
        let endpoints: HashMap<&str, SocketAddr> =
            ["one ", "two ", "three "].map(|name| (name, worker.ask(&document(name), None))).into();
        for (name, endpoint) in endpoints {
            let question = format!("{} And now?", document(name)["prompt"].as_str().unwrap());
            let pick = worker.pick(&json!({"model": "m", "prompt": question}));
            assert_eq!(first(&pick), endpoint, "{name}: {}", pick.explanation);
            assert!(pick.share.tokens < 80, "{}", pick.explanation);
        }
    }
}

#[test]
fn a_prompt_in_flight_counts_as_cached_where_it_was_sent_until_it_fails() {
    let mut worker = Worker::new(1);
    let (_, sent) = worker.send(&document("one "));
    let blocks = worker.pick(&document("one ")).prompt.unwrap().prompt.blocks.clone().unwrap();
    let prefixes = worker.0.pool(0).unwrap().prefixes().unwrap();
    assert_eq!(prefixes.matched(sent.load_id(), &blocks).blocks, 7);
    worker.0.end(sent, NOW_MS);
    assert_eq!(worker.matched_blocks(&document("one ")), 0, "nothing is learnt from a request that failed");
}

#[test]
fn models_and_salts_share_nothing() {
    let mut worker = Worker::new(1);
    worker.ask(&document("one "), None);
    assert_eq!(worker.matched_blocks(&document("one ")), 7);
    for (field, value) in [("model", "other"), ("cache_salt", "a tenant's")] {
        let mut other = document("one ");
        other[field] = value.into();
        assert_eq!(worker.matched_blocks(&other), 0, "{field}");
    }
}

/// A worker may have slept through what the server's counters were before.
#[test]
fn an_endpoint_that_has_started_anew_has_an_empty_cache() {
    let mut worker = Worker::new(1);
    worker.ask(&document("one "), None);
    worker.scrape(None);
    assert_eq!(worker.matched_blocks(&document("one ")), 7);
    worker.scrape(Some(NOW_MS));
    assert_eq!(worker.matched_blocks(&document("one ")), 0);
    worker.ask(&document("one "), None);
    // Nor does it forget twice, or when another scraper knows nothing of it.
    for restarted_ms in [Some(NOW_MS), None, Some(NOW_MS)] {
        worker.scrape(restarted_ms);
        assert_eq!(worker.matched_blocks(&document("one ")), 7);
    }
}

#[test]
fn an_endpoint_that_says_twice_that_it_had_nothing_cached_is_believed() {
    for (is_found_between, expected) in [(false, [0, 0, 7, 7]), (true, [7; 4])] {
        let mut worker = Worker::new(1);
        let names: Vec<String> = (0..12).map(|number| format!("document {number} ")).collect();
        let mut documents: HashMap<SocketAddr, Vec<Value>> = HashMap::new();
        for document in names.iter().map(|name| document(name)) {
            documents.entry(worker.ask(&document, None)).or_default().push(document);
        }
        let there = documents.into_values().find(|there| there.len() >= 4).unwrap();
        let [first, second, third, fourth, ..] = &there[..] else { unreachable!() };
        let mut exchange = |document: &Value, cached_tokens| {
            worker.ask(document, Some(cached_tokens));
            [first, second, third, fourth].map(|document| worker.matched_blocks(document))
        };
        assert_eq!(exchange(fourth, 450), [7; 4], "it had nearly all");
        assert_eq!(
            exchange(fourth, 0),
            [7; 4],
            "that may be this request's own doing, and it has computed it since"
        );
        if is_found_between {
            assert_eq!(exchange(second, 450), [7; 4]);
        }
        assert_eq!(exchange(third, 0), expected);
    }
}

#[test]
fn workers_that_exchange_prompts_pick_by_the_same_prefixes() {
    let (mut one, mut other) = (Worker::new(1), Worker::new(2));
    let (endpoint, mut sent) = one.send(&document("one "));
    let exchange = |from: &mut Worker, to: &mut Worker| {
        from.0.take_events().iter().for_each(|event| to.0.receive(7, event, NOW_MS));
    };
    exchange(&mut one, &mut other);
    assert_eq!(other.matched_blocks(&document("one ")), 7, "while it is in flight");
    one.0.answered(&mut sent, 0, None, NOW_MS);
    one.0.end(sent, NOW_MS);
    exchange(&mut one, &mut other);
    assert_eq!(
        (other.matched_blocks(&document("one ")), first(&other.pick(&document("one ")))),
        (7, endpoint)
    );
    let (_, failing) = one.send(&document("two "));
    exchange(&mut one, &mut other);
    one.0.end(failing, NOW_MS);
    exchange(&mut one, &mut other);
    assert_eq!(other.matched_blocks(&document("two ")), 0);
}

#[test]
fn what_nobody_has_seen_goes_to_the_same_place_in_every_gateway() {
    for name in ["one ", "two ", "three ", "four ", "five ", "six "] {
        let places: HashSet<SocketAddr> =
            (0..10).map(|seed| first(&Worker::new(seed).pick(&document(name)))).collect();
        assert_eq!(places.len(), 1, "{name}");
    }
    let names: Vec<String> = (0..60).map(|number| format!("document {number} ")).collect();
    let places: HashSet<SocketAddr> =
        names.iter().map(|name| first(&Worker::new(1).pick(&document(name)))).collect();
    assert_eq!(places.len(), 3, "and not all of it to one");
}

#[test]
fn a_hot_prefix_spreads_when_its_endpoint_is_worse_off() {
    let mut worker = Worker::new(1);
    worker.ask(&document("hot "), None);
    let mut shares: HashMap<SocketAddr, usize> = HashMap::new();
    let mut open = Vec::new();
    for _ in 0..300 {
        let (endpoint, sent) = worker.send(&document("hot "));
        *shares.entry(endpoint).or_default() += 1;
        open.push(sent);
    }
    assert_eq!(shares.len(), 3);
    assert!(shares.values().all(|share| *share <= 150), "1.5 times the mean: {shares:?}");
}

/// Room for twelve prompts of a mebibyte.
const BLOCKS_MAX: usize = 50_000;

/// Prompts of a mebibyte in an index with one endpoint: each begins with so many blocks that all have, and no others are
/// the same.
struct LongPrompts {
    index: PrefixIndex,
    id: LoadId,
    shared: usize,
}

impl LongPrompts {
    fn new(shared: usize) -> LongPrompts {
        let id = LoadTracker::default().id(address(0));
        let mut index = PrefixIndex::new(BLOCKS_MAX, 42);
        index.follow([id].into_iter());
        LongPrompts { index, id, shared }
    }

    fn key(number: usize) -> PromptKey {
        PromptKey { worker: 0, number: number as u64 }
    }

    fn prompt(&self, number: usize) -> PromptBlocks {
        let hash = |block: usize| {
            let owner = if block < self.shared { 0 } else { number + 1 };
            ((owner * MAX_PROMPT_BLOCKS + block + 1) as u32).to_le_bytes()
        };
        PromptBlocks { hashes: (0..MAX_PROMPT_BLOCKS).map(hash).collect(), bytes: 1 << 20 }
    }

    /// Whether all of it fits.
    fn send(&mut self, number: usize) -> bool {
        let prompt = self.prompt(number);
        self.index.sent(Self::key(number), self.id, &prompt.hashes, 64, 0)
    }

    fn matched(&self, number: usize) -> usize {
        self.index.matched(self.id, &self.prompt(number)).blocks
    }
}

#[test]
fn what_long_prompts_in_flight_have_in_common_takes_room_once() {
    let mut long = LongPrompts::new(MAX_PROMPT_BLOCKS - 96);
    assert!((0..100).all(|number| long.send(number)), "only what is new counts");
    assert!((0..100).all(|number| long.matched(number) == MAX_PROMPT_BLOCKS));
    assert_eq!(long.index.len(), MAX_PROMPT_BLOCKS - 96 + 100 * 96);
    (0..100).for_each(|number| long.index.answered(LongPrompts::key(number), 0));
    assert!((0..100).all(|number| long.matched(number) == MAX_PROMPT_BLOCKS), "all of them are learnt");
}

#[test]
fn what_is_cached_takes_no_more_room_while_prompts_with_it_are_in_flight() {
    let mut long = LongPrompts::new(0);
    let cached = BLOCKS_MAX * 3 / 4 / MAX_PROMPT_BLOCKS;
    for number in 0..cached {
        assert!(long.send(number));
        long.index.answered(LongPrompts::key(number), 0);
    }
    let before = long.index.len();
    assert!((0..cached).all(|number| long.send(number)));
    assert_eq!((long.index.len(), before), (before, cached * MAX_PROMPT_BLOCKS));
    assert!((cached..cached + 3).all(|number| long.send(number)), "beside them, three that are new");
}

#[test]
fn a_prompt_for_which_there_is_not_enough_room_is_cut_at_its_end() {
    let mut long = LongPrompts::new(0);
    let fit = BLOCKS_MAX / MAX_PROMPT_BLOCKS;
    assert!((0..fit).all(|number| long.send(number)));
    let left = BLOCKS_MAX % MAX_PROMPT_BLOCKS;
    assert!(!long.send(fit), "it is reported that not all of it fits");
    assert_eq!((long.matched(fit), long.index.len()), (left, BLOCKS_MAX));
    assert!(!long.send(fit + 1));
    assert_eq!(long.matched(fit + 1), 0);
    long.index.dropped(LongPrompts::key(0));
    assert!(long.send(fit + 2), "as soon as another has ended there is room again");
    long.index.answered(LongPrompts::key(fit), 0);
    assert_eq!(long.matched(fit), left, "what fitted is learnt");
}

#[test]
fn what_was_cut_takes_room_at_the_endpoint_all_the_same() {
    let mut long = LongPrompts::new(0);
    let fit = BLOCKS_MAX / MAX_PROMPT_BLOCKS;
    assert_eq!((0..=fit).filter(|number| long.send(*number)).count(), fit);
    (0..fit).for_each(|number| long.index.dropped(LongPrompts::key(number)));
    long.index.set_capacity(long.id, (MAX_PROMPT_BLOCKS * 64 + 64) as u64);
    long.index.answered(LongPrompts::key(fit), 0);
    let short = PromptBlocks { hashes: vec![[1; 4]], bytes: 256 };
    for number in [1_000, 1_001] {
        let key = LongPrompts::key(number);
        long.index.sent(key, long.id, &short.hashes, 64, 0);
        long.index.answered(key, 0);
    }
    let left = BLOCKS_MAX % MAX_PROMPT_BLOCKS;
    assert_eq!(long.matched(fit), left, "the room behind it was the first to go");
}

#[test]
fn prompts_in_flight_are_bounded_though_they_are_the_same_blocks() {
    let mut long = LongPrompts::new(MAX_PROMPT_BLOCKS);
    let most = BLOCKS_MAX / 4;
    assert!((0..most).all(|number| long.send(number)));
    assert!(!long.send(most));
    assert_eq!((long.matched(most), long.index.len()), (MAX_PROMPT_BLOCKS, MAX_PROMPT_BLOCKS));
}
