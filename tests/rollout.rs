//! Rollouts: an endpoint that has just come is not flooded before it has shown that it works, and none that is leaving gets anything.
#![cfg(not(target_family = "wasm"))]

use std::net::SocketAddr;

use inference_picker::config::Config;
use inference_picker::decide::Decision;
use inference_picker::metrics::EndpointMetrics;
use inference_picker::openai::read_request;
use inference_picker::picker::{Outcome, Picker, Sent};
use inference_picker::pool::{EndpointReading, EnvoyHost, HostHealth, Reading, Snapshot};
use serde_json::json;

const START_MS: u64 = 100_000;
/// Prompts have so many tokens, and endpoints compute as many in a millisecond as they are taken to until they are known.
const PROMPT_TOKENS: usize = 400;
const TOKENS_PER_MS: u64 = 8;
const PROMPT_MS: u64 = PROMPT_TOKENS as u64 / TOKENS_PER_MS;
/// The endpoints that were there before, and the one that comes.
const OLD: [usize; 3] = [0, 1, 2];
const NEW: usize = 3;
/// Prompts that wait at each endpoint when it comes: three seconds of work.
const WAITING: usize = 60;

struct World {
    picker: Picker<()>,
    now_ms: u64,
    /// Of each endpoint, in the order in which they were sent.
    waiting: [Vec<Sent>; 4],
    /// Tokens that each has computed.
    computed: [f64; 4],
}

fn address(place: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 8_000 + place as u16))
}

impl World {
    fn new() -> World {
        let document =
            json!({"adminCluster": "a", "scrapeCluster": "s", "pools": [{"name": "p", "cluster": "c"}]});
        let config = Config::parse(document.to_string().as_bytes()).unwrap();
        let picker = Picker::new(config, fastrand::Rng::with_seed(1));
        let computed = [1_000.0, 1_000.0, 1_000.0, 0.0];
        let mut world = World { picker, now_ms: START_MS, waiting: Default::default(), computed };
        world.list(&OLD.map(|place| (place, HostHealth::Healthy)));
        world
    }

    /// These endpoints are there, and have just been scraped.
    fn list(&mut self, endpoints: &[(usize, HostHealth)]) {
        let reading = |&(place, health): &(usize, HostHealth)| {
            let activity = Some(self.computed[place]);
            let metrics = EndpointMetrics { engines: 1, activity, ..EndpointMetrics::default() };
            let reading = Reading {
                scraped_ms: self.now_ms,
                metrics,
                waiting: 0,
                own_waiting: 0,
                external_waiting: 0,
                external_requests: 0,
            };
            EndpointReading {
                host: EnvoyHost { health, ..EnvoyHost::default() },
                reading: Some(reading),
                ..EndpointReading::new(address(place))
            }
        };
        let endpoints = Some(endpoints.iter().map(reading).collect());
        self.picker.apply([(0, Snapshot { endpoints, ..Snapshot::default() })].into_iter());
    }

    /// Sends a prompt; the place of its endpoint.
    fn send(&mut self) -> usize {
        let body = json!({"model": "m", "stream": true, "prompt": "abcd".repeat(PROMPT_TOKENS)}).to_string();
        let resolved = self.picker.prepare(&read_request(body.as_bytes()).unwrap(), None, 0).unwrap();
        let outcome = self.picker.decide(0, &resolved, || (), self.now_ms);
        let Outcome::Decided(Decision::Send(pick)) = outcome else { panic!("not sent: {outcome:?}") };
        let sent = self.picker.send(&pick, self.now_ms);
        let place = (0..4).find(|place| address(*place).to_string() == pick.first_choice()).unwrap();
        self.waiting[place].push(sent);
        place
    }

    /// How many of so many prompts go to the endpoint that has come.
    fn sent_to_new(&mut self, count: usize) -> usize {
        (0..count).filter(|_| self.send() == NEW).count()
    }

    /// Time passes in which each endpoint computes a prompt, the new one several times more slowly.
    fn compute(&mut self, slowness: u64, round: u64) {
        self.now_ms += PROMPT_MS;
        for place in 0..4 {
            let is_done = place != NEW || round.is_multiple_of(slowness);
            if is_done && !self.waiting[place].is_empty() {
                let mut sent = self.waiting[place].remove(0);
                self.picker.first_output(&mut sent, self.now_ms);
                self.picker.end(sent, self.now_ms);
                self.computed[place] += PROMPT_TOKENS as f64;
            }
        }
        self.picker.tick(self.now_ms);
    }

    /// As many prompts wait at each endpoint that was there before.
    fn fill(&mut self) {
        while self.waiting.iter().take(OLD.len()).any(|waiting| waiting.len() < WAITING) {
            self.send();
        }
        (1..5).for_each(|round| self.compute(1, round));
        (0..4 * OLD.len()).for_each(|_| _ = self.send());
    }
}

#[test]
fn an_endpoint_that_has_come_empty_is_not_flooded_before_its_first_output() {
    let mut world = World::new();
    world.fill();
    let healthy = |place| (place, HostHealth::Healthy);
    world.list(&[0, 1, 2, 3].map(healthy));
    // Balanced by what waits alone it would get the next sixty.
    let sent = world.sent_to_new(WAITING);
    assert!((10..=WAITING / 2).contains(&sent), "{sent} of {WAITING}");
}

#[test]
fn it_gets_its_share_as_soon_as_it_has_shown_that_it_is_as_fast_and_a_slow_one_gets_less() {
    let share = |slowness: u64| {
        let mut world = World::new();
        world.fill();
        world.list(&[0, 1, 2, 3].map(|place| (place, HostHealth::Healthy)));
        let mut sent = 0;
        for round in 1..=200 {
            world.compute(slowness, round);
            world.list(&[0, 1, 2, 3].map(|place| (place, HostHealth::Healthy)));
            sent += world.sent_to_new(4);
        }
        (sent, world.waiting[NEW].len())
    };
    let (as_fast, waiting) = share(1);
    assert!((200..=300).contains(&as_fast), "{as_fast} of 800");
    assert!(waiting >= WAITING / 2, "{waiting}");
    let (slow, waiting) = share(4);
    assert!((40..=100).contains(&slow), "{slow} of 800");
    assert!(waiting <= WAITING / 2, "it waits no longer there than elsewhere: {waiting}");
}

#[test]
fn a_burst_is_spread_evenly_over_a_pool_of_which_one_has_just_come() {
    let mut world = World::new();
    world.list(&[0, 1, 2, 3].map(|place| (place, HostHealth::Healthy)));
    assert_eq!(world.sent_to_new(32), 8);
}

#[test]
fn an_endpoint_that_drains_gets_nothing_while_another_one_is_there() {
    let mut world = World::new();
    world.list(&[(0, HostHealth::Healthy), (1, HostHealth::Unhealthy), (2, HostHealth::Healthy)]);
    assert!((0..50).all(|_| world.send() != 1));
    world.list(&[(0, HostHealth::Unhealthy), (1, HostHealth::Healthy), (2, HostHealth::Unhealthy)]);
    assert!((0..50).all(|_| world.send() == 1), "however much waits there");
}
