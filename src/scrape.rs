//! When each endpoint of a pool is scraped, and what becomes of the answers. Pure: it says what to ask for, and is
//! told what came back.
//!
//! Each endpoint has a schedule of its own and is never asked twice at once. The schedules start spread over one
//! interval, so that the scrapes of many endpoints do not come in a burst.

use std::collections::HashMap;
use std::net::SocketAddr;

use foldhash::fast::FixedState;

use crate::limits::{Limit, LimitsReached};
use crate::load::InFlight;
use crate::metrics::{self, MAX_ADAPTERS, MetricsError, ModelServer};
use crate::pool::{DiscoveredEndpoint, EndpointReading, Reading, Snapshot};

/// Endpoints that fail are asked this many times less often: they cost a time-out each.
const FAILING_INTERVAL_FACTOR: u64 = 4;

/// The longest that a scraper which works, and has endpoints to scrape, has nothing to tell, in milliseconds: twice what one
/// that fails takes from one scrape to the next.
pub fn longest_silence_ms(interval_ms: u64, timeout_ms: u64) -> u64 {
    interval_ms.saturating_mul(FAILING_INTERVAL_FACTOR).saturating_add(timeout_ms).saturating_mul(2)
}

#[derive(Debug)]
struct Target {
    published: EndpointReading,
    due_ms: u64,
    in_progress: bool,
    /// The most this gateway had in flight there of late.
    peak: RecentPeak,
}

/// Time for which a peak of what this gateway had in flight counts at least, and twice that at most, in milliseconds: a
/// server's numbers are those of the end of its last step, and a step may take a quarter of a second.
const PEAK_MS: u64 = 250;

/// The most that was in flight, over the time that is running and the one before.
#[derive(Debug, Default)]
struct RecentPeak {
    running: InFlight,
    before: InFlight,
    started_ms: u64,
}

impl RecentPeak {
    fn observe(&mut self, in_flight: InFlight) {
        self.running = most(self.running, in_flight);
    }

    /// The peak; what is in flight now begins a new time if the one that is running is over.
    fn value(&mut self, in_flight: InFlight, now_ms: u64) -> InFlight {
        self.observe(in_flight);
        let peak = most(self.running, self.before);
        if now_ms.saturating_sub(self.started_ms) >= PEAK_MS {
            self.before = std::mem::replace(&mut self.running, in_flight);
            self.started_ms = now_ms;
        }
        peak
    }
}

/// What is scraped, in the order in which it was listed.
#[derive(Debug)]
struct Targets {
    list: Vec<Target>,
    /// Where each is in the list.
    places: HashMap<SocketAddr, usize, FixedState>,
}

impl Targets {
    fn of(list: Vec<Target>) -> Targets {
        let places = list.iter().enumerate().map(|(place, target)| (target.published.address, place));
        Targets { places: places.collect(), list }
    }

    fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.list.iter().map(|target| target.published.address)
    }

    fn get(&self, address: &SocketAddr) -> Option<&Target> {
        self.list.get(*self.places.get(address)?)
    }

    fn get_mut(&mut self, address: &SocketAddr) -> Option<&mut Target> {
        self.list.get_mut(*self.places.get(address)?)
    }
}

/// The scrapes of one pool.
#[derive(Debug)]
pub struct Scraper {
    server: ModelServer,
    interval_ms: u64,
    max_consecutive_failures: u32,
    targets: Option<Targets>,
    changed: bool,
    /// Which limits were reached.
    pub limits: LimitsReached,
}

/// Why a scrape gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScrapeFailure {
    /// No answer: refused, reset or timed out.
    NoAnswer,
    /// An answer with another status than 200.
    Status(u32),
    /// A page that is of no use.
    Page(MetricsError),
}

impl std::fmt::Display for ScrapeFailure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ScrapeFailure::NoAnswer => write!(formatter, "no answer"),
            ScrapeFailure::Status(status) => write!(formatter, "status {status}"),
            ScrapeFailure::Page(problem) => write!(formatter, "{problem}"),
        }
    }
}

/// What an operator should hear of a scrape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// The first failure after a success.
    Failing(ScrapeFailure),
    /// The failure that puts the endpoint out of the candidates.
    Out(ScrapeFailure),
    /// It answers again and is a candidate again.
    Back,
}

impl Scraper {
    /// A scraper that knows no endpoint yet.
    pub fn new(server: ModelServer, interval_ms: u64, max_consecutive_failures: u32) -> Scraper {
        Scraper {
            server,
            interval_ms,
            max_consecutive_failures,
            targets: None,
            changed: false,
            limits: LimitsReached::default(),
        }
    }

    /// Follows this list of endpoints. What is known of those that stay is kept. Whether others are listed than before.
    pub fn follow(&mut self, endpoints: &[DiscoveredEndpoint], now_ms: u64) -> bool {
        let before = self.targets.take();
        let same_list = before
            .as_ref()
            .is_some_and(|before| before.addresses().eq(endpoints.iter().map(|endpoint| endpoint.address)));
        let known = before.into_iter().flat_map(|before| before.list);
        let mut known: HashMap<SocketAddr, Target> =
            known.map(|target| (target.published.address, target)).collect();
        let count = endpoints.len().max(1) as u64;
        let targets = endpoints.iter().enumerate().map(|(index, endpoint)| {
            let due_ms = now_ms + self.interval_ms * index as u64 / count;
            let mut target =
                known.remove(&endpoint.address).unwrap_or_else(|| Target::new(endpoint.address, due_ms));
            self.changed |= target.published.healthy != endpoint.healthy;
            target.published.healthy = endpoint.healthy;
            target
        });
        self.targets = Some(Targets::of(targets.collect()));
        self.changed |= !same_list;
        !same_list
    }

    /// The endpoints to scrape now; each counts as asked until [`Scraper::answered`].
    pub fn due(&mut self, now_ms: u64) -> Vec<SocketAddr> {
        // What is due later than any is put off was put off by a clock that has gone back since.
        let latest_ms = now_ms.saturating_add(self.interval_ms.saturating_mul(FAILING_INTERVAL_FACTOR));
        let is_due = |target: &&mut Target| target.due_ms <= now_ms || target.due_ms > latest_ms;
        let targets = self.targets.iter_mut().flat_map(|targets| &mut targets.list);
        let due = targets.filter(|target| !target.in_progress).filter(is_due);
        due.map(|target| {
            target.in_progress = true;
            target.published.address
        })
        .collect()
    }

    /// What has changed is not to be told: another scrapes now.
    pub fn forget_changes(&mut self) {
        self.changed = false;
    }

    /// Notes what this gateway has in flight where it has something, so that its own requests can be told from those of
    /// others.
    pub fn observe_in_flight(&mut self, in_flight: impl Iterator<Item = (SocketAddr, InFlight)>) {
        let Some(targets) = &mut self.targets else { return };
        for (address, in_flight) in in_flight {
            if let Some(target) = targets.get_mut(&address) {
                target.peak.observe(in_flight);
            }
        }
    }

    /// A scrape has ended; what an operator should hear of it.
    pub fn answered(
        &mut self,
        address: SocketAddr,
        answer: Result<&[u8], ScrapeFailure>,
        in_flight: InFlight,
        now_ms: u64,
    ) -> Option<News> {
        let (server, interval_ms, limit) = (self.server, self.interval_ms, self.max_consecutive_failures);
        let target = self.targets.as_mut()?.get_mut(&address)?;
        target.in_progress = false;
        self.changed = true;
        match answer.and_then(|page| metrics::read(server, page).map_err(ScrapeFailure::Page)) {
            Ok(metrics) => {
                let adapters = metrics.lora.as_ref().map_or(0, |lora| lora.adapters.len());
                self.limits.add_if(adapters >= MAX_ADAPTERS, Limit::PageAdapters);
                let was_out = target.published.scrape_failures >= limit;
                target.succeed(metrics, in_flight, interval_ms, now_ms);
                was_out.then_some(News::Back)
            }
            Err(failure) => match target.fail(interval_ms, limit, now_ms) {
                failures if failures == limit => Some(News::Out(failure)),
                1 => Some(News::Failing(failure)),
                _ => None,
            },
        }
    }

    /// What is known of the endpoints, as far as they are.
    pub fn endpoints(&self) -> impl Iterator<Item = &EndpointReading> {
        self.targets.iter().flat_map(|targets| &targets.list).map(|target| &target.published)
    }

    /// Whether this is one of the endpoints.
    pub fn has_endpoint(&self, address: &SocketAddr) -> bool {
        self.endpoint(address).is_some()
    }

    /// Whether the last scrape of this endpoint gave something.
    pub fn has_succeeded(&self, address: SocketAddr) -> bool {
        self.endpoint(&address).is_some_and(|endpoint| endpoint.scrape_failures == 0)
    }

    fn endpoint(&self, address: &SocketAddr) -> Option<&EndpointReading> {
        Some(&self.targets.as_ref()?.get(address)?.published)
    }

    /// What to publish, if anything has changed since the last time.
    pub fn take_snapshot(&mut self) -> Option<Snapshot> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let endpoints = self
            .targets
            .as_ref()
            .map(|targets| targets.list.iter().map(|target| target.published.clone()).collect());
        Some(Snapshot { endpoints })
    }
}

fn most(one: InFlight, other: InFlight) -> InFlight {
    InFlight { requests: one.requests.max(other.requests), waiting: one.waiting.max(other.waiting), ..one }
}

impl Target {
    fn new(address: SocketAddr, due_ms: u64) -> Target {
        let published = EndpointReading { address, healthy: true, scrape_failures: 0, reading: None };
        Target { published, due_ms, in_progress: false, peak: RecentPeak::default() }
    }

    /// What others have there is what the server counts beyond the most this gateway had there of late: the
    /// server's numbers are those of its last step, so a request that has just ended may still be among them.
    fn succeed(
        &mut self,
        metrics: metrics::EndpointMetrics,
        in_flight: InFlight,
        interval_ms: u64,
        now_ms: u64,
    ) {
        let own = self.peak.value(in_flight, now_ms);
        let all = metrics.waiting.saturating_add(metrics.running);
        self.published.reading = Some(Reading {
            scraped_ms: now_ms,
            own_waiting: in_flight.waiting,
            foreign_waiting: metrics.waiting.saturating_sub(own.waiting),
            foreign_requests: all.saturating_sub(own.requests),
            metrics,
        });
        self.published.scrape_failures = 0;
        // A server that answers slowly is given a rest of half an interval.
        self.due_ms = (self.due_ms + interval_ms).max(now_ms + interval_ms / 2).min(now_ms + interval_ms);
    }

    fn fail(&mut self, interval_ms: u64, max_consecutive_failures: u32, now_ms: u64) -> u32 {
        let failures = self.published.scrape_failures.saturating_add(1);
        self.published.scrape_failures = failures;
        let factor = if failures > max_consecutive_failures { FAILING_INTERVAL_FACTOR } else { 1 };
        self.due_ms = now_ms + interval_ms * factor;
        failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const PAGE: &[u8] = b"vllm:num_requests_waiting 5\nvllm:num_requests_running 3\n";

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 8000))
    }

    fn listed(count: u8) -> Vec<DiscoveredEndpoint> {
        (1..=count).map(|last| DiscoveredEndpoint { address: address(last), healthy: true }).collect()
    }

    /// A scraper of `count` endpoints, every 50 ms, out after 3 failures.
    fn scraper(count: u8) -> Scraper {
        let mut scraper = Scraper::new(ModelServer::Vllm, 50, 3);
        scraper.follow(&listed(count), 0);
        scraper
    }

    fn succeed(scraper: &mut Scraper, last: u8, in_flight: InFlight, now_ms: u64) -> Option<News> {
        scraper.answered(address(last), Ok(PAGE), in_flight, now_ms)
    }

    fn fail(scraper: &mut Scraper, last: u8, now_ms: u64) -> Option<News> {
        scraper.answered(address(last), Err(ScrapeFailure::NoAnswer), InFlight::default(), now_ms)
    }

    fn published(scraper: &mut Scraper) -> Vec<EndpointReading> {
        scraper.take_snapshot().expect("something has changed").endpoints.expect("endpoints are known")
    }

    fn in_flight(requests: u32, waiting: u32) -> InFlight {
        InFlight { requests, waiting, ..InFlight::default() }
    }

    #[test]
    fn schedules_start_spread_over_one_interval() {
        let mut scraper = scraper(5);
        assert_eq!(scraper.due(0), [address(1)]);
        assert_eq!(scraper.due(9), []);
        assert_eq!(scraper.due(20), [address(2), address(3)]);
        assert_eq!(scraper.due(49), [address(4), address(5)]);
    }

    #[test]
    fn an_endpoint_is_never_asked_twice_at_once() {
        let mut scraper = scraper(1);
        assert_eq!(scraper.due(0), [address(1)]);
        assert_eq!(scraper.due(10_000), []);
        succeed(&mut scraper, 1, InFlight::default(), 10_000);
        assert_eq!(scraper.due(10_024), [], "a slow one is given a rest");
        assert_eq!(scraper.due(10_025), [address(1)]);
    }

    #[test]
    fn an_endpoint_that_answers_at_once_is_asked_at_every_interval() {
        let mut scraper = scraper(1);
        for turn in 0..10 {
            assert_eq!(scraper.due(turn * 50), [address(1)]);
            succeed(&mut scraper, 1, InFlight::default(), turn * 50 + 2);
            assert_eq!(scraper.due(turn * 50 + 49), []);
        }
    }

    #[test]
    fn failures_are_counted_told_once_and_forgotten_at_the_next_answer() {
        let mut scraper = scraper(1);
        let no_answer = ScrapeFailure::NoAnswer;
        assert_eq!(fail(&mut scraper, 1, 0), Some(News::Failing(no_answer.clone())));
        assert_eq!(fail(&mut scraper, 1, 50), None);
        assert_eq!(fail(&mut scraper, 1, 100), Some(News::Out(no_answer)));
        assert_eq!(published(&mut scraper)[0].scrape_failures, 3);
        assert_eq!(fail(&mut scraper, 1, 150), None);
        assert_eq!(scraper.due(349), [], "one that is out is asked less often");
        assert_eq!(scraper.due(350), [address(1)]);
        assert_eq!(succeed(&mut scraper, 1, InFlight::default(), 351), Some(News::Back));
        assert_eq!(published(&mut scraper)[0].scrape_failures, 0);
    }

    #[test]
    fn a_page_of_no_use_is_a_failure_that_keeps_the_last_reading() {
        let mut scraper = scraper(1);
        succeed(&mut scraper, 1, InFlight::default(), 10);
        let news = scraper.answered(address(1), Ok(b"<html>\n"), InFlight::default(), 60);
        assert!(matches!(news, Some(News::Failing(ScrapeFailure::Page(_)))), "{news:?}");
        let endpoint = published(&mut scraper).remove(0);
        assert_eq!(
            (endpoint.scrape_failures, endpoint.reading.map(|reading| reading.scraped_ms)),
            (1, Some(10))
        );
    }

    #[test]
    fn what_others_sent_is_what_this_gateway_did_not() {
        let mut scraper = scraper(1);
        let mut foreign = |in_flight, now_ms| {
            succeed(&mut scraper, 1, in_flight, now_ms);
            let reading = published(&mut scraper).remove(0).reading.expect("read");
            (reading.foreign_waiting, reading.foreign_requests)
        };
        assert_eq!(foreign(in_flight(0, 0), 0), (5, 8));
        assert_eq!(foreign(in_flight(6, 4), 50), (1, 2));
        assert_eq!(
            foreign(in_flight(0, 0), 100),
            (1, 2),
            "those that have just ended may still be counted there"
        );
        foreign(in_flight(0, 0), 50 + PEAK_MS);
        foreign(in_flight(0, 0), 50 + 2 * PEAK_MS);
        assert_eq!(foreign(in_flight(0, 0), 50 + 3 * PEAK_MS), (5, 8));
        assert_eq!(foreign(in_flight(99, 99), 1_000), (0, 0));
    }

    #[test]
    fn requests_that_came_and_went_between_two_scrapes_are_this_gateways() {
        let mut scraper = scraper(1);
        scraper.observe_in_flight([(address(1), in_flight(7, 5))].into_iter());
        succeed(&mut scraper, 1, in_flight(0, 0), 50);
        let reading = published(&mut scraper).remove(0).reading.expect("read");
        assert_eq!((reading.foreign_waiting, reading.foreign_requests), (0, 1));
    }

    #[test]
    fn endpoints_come_go_and_change_their_health_and_what_is_known_of_the_rest_is_kept() {
        let mut scraper = scraper(2);
        succeed(&mut scraper, 2, InFlight::default(), 10);
        published(&mut scraper);
        scraper.follow(&listed(2), 20);
        assert_eq!(scraper.take_snapshot(), None, "nothing has changed");
        scraper.follow(&[listed(3)[1], DiscoveredEndpoint { address: address(9), healthy: false }], 30);
        let endpoints = published(&mut scraper);
        let known: Vec<_> = endpoints.iter().map(|e| (e.address, e.healthy, e.reading.is_some())).collect();
        assert_eq!(known, [(address(2), true, true), (address(9), false, false)]);
        scraper.follow(&listed(2)[1..], 40);
        assert_eq!(published(&mut scraper).len(), 1);
        assert_eq!(fail(&mut scraper, 9, 50), None, "an answer of one that is gone is nobody's");
    }

    #[test]
    fn an_empty_list_is_an_answer_and_no_list_is_none() {
        let mut scraper = Scraper::new(ModelServer::Vllm, 50, 3);
        assert_eq!(scraper.take_snapshot(), None);
        scraper.follow(&[], 0);
        assert_eq!(published(&mut scraper), []);
    }
}
