//! The host's clock is its monotonic one, which neither an operator nor a time server sets. Should it jump all the same,
//! as on a machine that was moved to another, picks go on, and nothing that was in flight stays there.

use std::net::SocketAddr;

use inference_picker::config::Config;
use inference_picker::decide::Decision;
use inference_picker::lease::{self, Lease, LeaseStep};
use inference_picker::load::InFlight;
use inference_picker::metrics::{EndpointMetrics, ModelServer};
use inference_picker::openai::read_request;
use inference_picker::picker::{Outcome, Picker, Sent};
use inference_picker::pool::{Discovered, EndpointReading, Reading, Snapshot};
use inference_picker::scrape::{Schedule, ScrapeFailure, Scraper};

const CONFIGURATION: &str = r#"{"scrapeCluster":"s","queue":{"maxWait":"10s"},"pools":[{"name":"p","cluster":"c",
    "endpoints":["10.0.0.1:8000","10.0.0.2:8000"],"routingStrategy":"PREFIX_CACHE"}]}"#;
const START_MS: u64 = 10_000_000;
const HOUR_MS: u64 = 3_600_000;
const JUMPS: [(&str, u64); 2] = [("forward", START_MS + HOUR_MS), ("back", START_MS - HOUR_MS)];

struct World {
    picker: Picker<()>,
    in_flight: Vec<Sent>,
}

fn endpoints() -> [SocketAddr; 2] {
    [1, 2].map(|last| SocketAddr::from(([10, 0, 0, last], 8000)))
}

impl World {
    fn new() -> World {
        let config = Config::parse(CONFIGURATION.as_bytes()).unwrap();
        World { picker: Picker::new(config, fastrand::Rng::with_seed(1)), in_flight: Vec::new() }
    }

    /// What the metrics say of both endpoints.
    fn scraped(&mut self, waiting: u32, now_ms: u64) {
        let metrics = EndpointMetrics { waiting, running: 1, ..EndpointMetrics::default() };
        let reading = Reading {
            scraped_ms: now_ms,
            waiting: metrics.waiting,
            metrics,
            own_waiting: 0,
            external_waiting: 0,
            external_requests: 0,
        };
        let reading =
            |address| EndpointReading { reading: Some(reading.clone()), ..EndpointReading::new(address) };
        let snapshot = Snapshot { endpoints: Some(endpoints().map(reading).to_vec()), ..Snapshot::default() };
        self.picker.apply([(0, snapshot)].into_iter());
    }

    /// The second endpoint cannot be scraped.
    fn unreachable(&mut self) {
        let endpoint =
            |(address, scrape_failures)| EndpointReading { scrape_failures, ..EndpointReading::new(address) };
        let snapshot = Snapshot {
            endpoints: Some(endpoints().into_iter().zip([0, 3]).map(endpoint).collect()),
            ..Snapshot::default()
        };
        self.picker.apply([(0, snapshot)].into_iter());
    }

    /// Sends a request if it is to be sent; whether it was.
    fn ask(&mut self, now_ms: u64) -> bool {
        self.picker.tick(now_ms);
        let body = format!(r#"{{"model":"m","stream":true,"prompt":"{}"}}"#, "Once upon a time ".repeat(40));
        let prepared = self.picker.prepare(&read_request(body.as_bytes()).unwrap(), None, 0).unwrap();
        let Outcome::Decided(Decision::Send(pick)) = self.picker.decide(1, &prepared, || (), now_ms) else {
            return false;
        };
        self.in_flight.push(self.picker.send(&pick, now_ms));
        true
    }

    fn end_all(&mut self, now_ms: u64) {
        for mut sent in self.in_flight.drain(..) {
            self.picker.first_output(&mut sent, now_ms);
            self.picker.answered(&mut sent, 0, None, now_ms);
            self.picker.end(sent, now_ms);
        }
    }

    fn left_in_flight(&self) -> u32 {
        endpoints().iter().map(|address| self.picker.loads().in_flight_at(address).requests).sum()
    }
}

#[test]
fn picks_go_on_and_nothing_stays_in_flight() {
    for (jump, later_ms) in JUMPS {
        let mut world = World::new();
        world.scraped(0, START_MS);
        assert!((0..10).all(|_| world.ask(START_MS)));
        assert!((0..10).all(|_| world.ask(later_ms)), "{jump}: before the next scrape");
        world.scraped(0, later_ms);
        assert!((0..10).all(|step| world.ask(later_ms + step)), "{jump}: after it");
        world.end_all(later_ms + 10);
        assert_eq!(world.left_in_flight(), 0, "{jump}");
        for address in endpoints() {
            let load_id = world.picker.loads().known(&address).unwrap();
            let speed = world.picker.loads().prefill_tokens_per_ms(load_id);
            assert!(speed.is_finite() && speed > 0.0, "{jump}: {speed} tokens a millisecond");
        }
    }
}

#[test]
fn whom_nobody_can_scrape_is_picked_again_when_nobody_scrapes_any_more() {
    for (jump, later_ms) in JUMPS {
        let mut world = World::new();
        let busy = |world: &World| {
            endpoints().map(|address| world.picker.loads().in_flight_at(&address).requests > 0)
        };
        world.unreachable();
        assert!((0..10).all(|step| world.ask(START_MS + step * 100)));
        assert_eq!(busy(&world), [true, false], "{jump}: while it is scraped");
        world.unreachable();
        assert!((0..10).all(|_| world.ask(later_ms)));
        assert_eq!(busy(&world), [true, false], "{jump}: it was heard since");
        assert!((0..30).all(|step| world.ask(later_ms + step * 100)));
        assert_eq!(busy(&world), [true, true], "{jump}");
    }
}

#[test]
fn what_waits_does_not_wait_for_ever() {
    for (jump, later_ms) in JUMPS {
        let mut world = World::new();
        world.scraped(50, START_MS);
        assert!(!world.ask(START_MS), "{jump}: it waits");
        world.scraped(0, later_ms);
        let released = world.picker.released(later_ms).map(|released| released.decision);
        // Nobody knows how long it has waited: it is refused.
        assert!(matches!(released, Some(Decision::Refuse(_))), "{jump}: {released:?}");
    }
}

#[test]
fn the_lease_is_taken_by_who_comes_and_endpoints_are_scraped() {
    for (jump, later_ms) in JUMPS {
        let LeaseStep::Claim(lease) = lease::step(None, 1, START_MS) else { panic!("nobody has it") };
        let claim = lease::step(Some(lease), 2, later_ms);
        let until_ms = later_ms + lease::LEASE_MS;
        assert_eq!(claim, LeaseStep::Claim(Lease { holder: 2, until_ms }), "{jump}");

        let mut scraper = Scraper::new(ModelServer::Vllm, Schedule::new(50, 2_000), 3);
        scraper.follow(&Discovered::at(endpoints()), START_MS);
        for address in scraper.due(START_MS + 50) {
            scraper.answered(address, Err(ScrapeFailure::NoAnswer), InFlight::default(), START_MS + 50);
        }
        assert_eq!(scraper.due(later_ms), endpoints(), "{jump}");
    }
}
