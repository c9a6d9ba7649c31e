//! When each endpoint of a pool is scraped, and what becomes of the answers. Pure: it says what to ask for, and is
//! gets what came back.
//!
//! Each endpoint has a schedule of its own and is never asked twice at once. The schedules start spread over one
//! interval, so that the scrapes of many endpoints do not come in a burst. One without requests is asked less often: what its
//! page says does not change until there are some. Where all that would take more than its share of a core, intervals are
//! stretched: see `budget`.
//!
//! An endpoint that answers anything is there; only scrapes that nobody answers put it out of the candidates. What its page
//! says of the requests of others is believed as far as this gateway's own do not explain it, see `Believed`.

mod budget;
mod context_lengths;

use std::collections::HashMap;
use std::net::SocketAddr;

use foldhash::fast::FixedState;

use crate::config::{self, Config, MAX_ENDPOINTS};
use crate::limits::{Limit, LimitsReached};
use crate::load::InFlight;
use crate::metrics::{self, EndpointMetrics, MAX_ADAPTERS, MetricsError, ModelServer};
use crate::pool::{Discovered, EndpointReading, Reading, STALE_INTERVALS, Snapshot};

use context_lengths::ContextLength;

pub use budget::{Budget, Demand, Stretch};

/// Endpoints that fail are asked this many times less often: they cost a time-out each.
const FAILING_INTERVAL_FACTOR: u64 = 4;

/// Endpoints without requests are asked this many times less often, as long as their metrics are not half as old as stale
/// ones by then. Requests that others begin to send there are seen that much later, and so is a server that is gone.
const IDLE_INTERVAL_FACTOR: u64 = 10;

/// The share of the age at which metrics are stale that passes between two scrapes of an idle endpoint, at most.
const IDLE_SHARE_OF_STALE: u64 = 4;

/// The longest to which an interval is stretched to keep the budget, in milliseconds: beyond it, the budget gives way.
const MAX_STRETCHED_INTERVAL_MS: u64 = 10_000;

/// While intervals are stretched, how many times what would be due in the meantime, if they were spread evenly, is asked at
/// once: endpoints that all begin to have requests in one moment are not asked in one moment.
const MAX_BURST: f64 = 2.0;

/// Lists of models that are asked for at once, for each pool and tick.
const MAX_LISTS_AT_ONCE: usize = 4;

/// How often endpoints are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    interval_ms: u64,
    idle_interval_ms: u64,
    stale_after_ms: u64,
}

impl Schedule {
    /// Every `interval_ms` milliseconds, where metrics are stale after `stale_after_ms`.
    pub fn new(interval_ms: u64, stale_after_ms: u64) -> Schedule {
        let idle_interval_ms = interval_ms.saturating_mul(IDLE_INTERVAL_FACTOR);
        let longest_ms = stale_after_ms / IDLE_SHARE_OF_STALE;
        let idle_interval_ms = idle_interval_ms.min(longest_ms).max(interval_ms);
        Schedule { interval_ms, idle_interval_ms, stale_after_ms }
    }

    /// As it is configured for a pool.
    pub fn of(config: &Config, pool: &config::Pool) -> Schedule {
        Schedule::new(pool.metrics.interval_ms, config.metrics_stale_after_ms)
    }

    /// The same, stretched; none becomes longer than [`MAX_STRETCHED_INTERVAL_MS`] by it.
    fn stretched(self, stretch: Stretch) -> Schedule {
        let stretched = |ms: u64, by: f64| ((ms as f64 * by) as u64).min(MAX_STRETCHED_INTERVAL_MS).max(ms);
        Schedule {
            interval_ms: stretched(self.interval_ms, stretch.busy),
            idle_interval_ms: stretched(self.idle_interval_ms, stretch.idle),
            ..self
        }
    }

    /// The longest from one scrape to the next, in milliseconds.
    fn longest_ms(self) -> u64 {
        self.interval_ms.saturating_mul(FAILING_INTERVAL_FACTOR).max(self.idle_interval_ms)
    }

    /// The longest that a scraper which works, and has endpoints to scrape, has nothing to publish, in milliseconds: twice the
    /// longest from one scrape to the next, where each may take `timeout_ms`.
    pub fn longest_silence_ms(self, timeout_ms: u64) -> u64 {
        self.longest_ms().saturating_add(timeout_ms).saturating_mul(2)
    }
}

#[derive(Debug)]
struct Target {
    published: EndpointReading,
    due_ms: u64,
    in_progress: bool,
    /// Scrapes in a row that gave no metrics, for whatever reason.
    failures: u32,
    /// The most this gateway had in flight there of late.
    peak: RecentPeak,
    /// When it was last seen to have something in flight there, by the count of such looks.
    busy_look: u64,
    /// What its server had counted at its last good page, be it before it was listed anew.
    counted: Option<f64>,
    /// The figures of its last page, and when they became so.
    figures: Option<Figures>,
    changed_ms: u64,
    context: ContextLength,
}

/// Time for which a peak of what this gateway had in flight counts at least, and twice that at most, in milliseconds: a
/// server's numbers are those of the end of its last step, and a step may take a quarter of a second. While the page stands
/// still, it counts on.
const PEAK_MS: u64 = 250;

/// From when on gauges are taken to have been left behind where a server leaves them so, in milliseconds: SGLang writes its
/// gauges anew every 40 steps of a batch, and a step takes a hundredth of a second or a few.
const LEFT_BEHIND_MS: u64 = 5_000;

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

    /// The peak; what is in flight now begins a new time if the one that is running is over, and the peak need not be held
    /// for a page that stands still.
    fn value(&mut self, in_flight: InFlight, is_held: bool, now_ms: u64) -> InFlight {
        self.observe(in_flight);
        let peak = most(self.running, self.before);
        if !is_held && now_ms.saturating_sub(self.started_ms) >= PEAK_MS {
            self.before = std::mem::replace(&mut self.running, in_flight);
            self.started_ms = now_ms;
        }
        peak
    }
}

/// What is believed of a page.
///
/// ```text
/// requests of others = what the page counts − the most that this gateway had there since its figures last changed
/// queue              = what the page counts where the next request goes, but at most the queued ones of others + this
///                      gateway's in flight now
/// KV cache           = what the page says; nothing if it stands still, and none of the requests it counts can be there
/// ```
///
/// A page that stands still while it counts requests may have been left behind by requests that have ended: a server's
/// numbers are those of its last step, and SGLang's may stay for half a minute. What of them was this gateway's is known to
/// have ended; the rest is believed, and of a server that leaves gauges behind only for as long as one that works may take
/// to write them anew.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Believed {
    waiting: u32,
    external_waiting: u32,
    external_requests: u32,
    kv_cache_utilization: Option<f32>,
}

impl Believed {
    /// Of a page whose figures have `stood_ms`, 0 if they are new, and where this gateway had at most `own` since.
    fn of(
        server: ModelServer,
        page: &EndpointMetrics,
        own: InFlight,
        in_flight: InFlight,
        stood_ms: u64,
    ) -> Believed {
        let is_left_behind = server.leaves_gauges_behind() && stood_ms >= LEFT_BEHIND_MS;
        let of_others = |counted: u32, own: u32| if is_left_behind { 0 } else { counted.saturating_sub(own) };
        let all = requests(page);
        let external_requests = of_others(all, own.requests);
        let external_waiting = of_others(page.waiting, own.waiting);
        let is_empty = all > 0 && stood_ms > 0 && external_requests == 0 && in_flight.requests == 0;
        Believed {
            waiting: page.next_queue.min(external_waiting.saturating_add(in_flight.requests)),
            external_waiting,
            external_requests,
            kv_cache_utilization: page.kv_cache_utilization.map(|share| if is_empty { 0.0 } else { share }),
        }
    }
}

/// Requests that a page counts.
fn requests(page: &EndpointMetrics) -> u32 {
    page.waiting.saturating_add(page.running)
}

/// By what two pages of a server are known to be of one moment.
#[derive(Debug, PartialEq)]
struct Figures {
    waiting: u32,
    running: u32,
    kv_cache_utilization: Option<f32>,
    prefix_cache_queries: Option<f64>,
    activity: Option<f64>,
}

impl Figures {
    /// Of what a server counts ahead of its gauges nothing says how old these are.
    fn of(server: ModelServer, page: &EndpointMetrics) -> Figures {
        let &EndpointMetrics { waiting, running, kv_cache_utilization, .. } = page;
        let counted = Some(page).filter(|_| !server.counts_ahead_of_gauges());
        let prefix_cache_queries = counted.and_then(|page| page.prefix_cache_queries);
        let activity = counted.and_then(|page| page.activity);
        Figures { waiting, running, kv_cache_utilization, prefix_cache_queries, activity }
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
    schedule: Schedule,
    max_consecutive_failures: u32,
    targets: Option<Targets>,
    /// What servers had counted that are not listed now, or were not by this scraper: by that it is known when one of the same
    /// address is another.
    counted_before: HashMap<SocketAddr, f64, FixedState>,
    /// Endpoints that are others than before, and were not taken out yet.
    restarted: Vec<SocketAddr>,
    /// By how much intervals are stretched, and the longest interval that was published.
    stretch: Stretch,
    reported_interval_ms: u64,
    /// Endpoints with requests, and without, when it was last looked at who is due, and when that was.
    counted: (u32, u32),
    looked_ms: u64,
    /// How often it was looked at what is in flight.
    looks: u64,
    has_unnamed: bool,
    changed: bool,
    /// Which limits were reached.
    pub limits: LimitsReached,
}

/// Why a scrape gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScrapeFailure {
    /// No answer: refused, reset or timed out.
    NoAnswer,
    /// An answer of the server with another status than 200.
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

/// What a scrape reports to an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// The first failure after a success.
    Failing(ScrapeFailure),
    /// The failure that puts the endpoint out of the candidates.
    Out(ScrapeFailure),
    /// It answers again and is a candidate again.
    Back,
    /// Its metrics can be read again.
    Readable,
}

impl Scraper {
    /// A scraper that knows no endpoint yet.
    pub fn new(server: ModelServer, schedule: Schedule, max_consecutive_failures: u32) -> Scraper {
        Scraper {
            server,
            schedule,
            max_consecutive_failures,
            targets: None,
            counted_before: HashMap::default(),
            restarted: Vec::new(),
            stretch: Stretch::NONE,
            reported_interval_ms: 0,
            counted: (0, 0),
            looked_ms: 0,
            looks: 0,
            has_unnamed: false,
            changed: false,
            limits: LimitsReached::default(),
        }
    }

    /// Follows these hosts. What is known of endpoints that stay is kept. Whether others are listed than before.
    pub fn follow(&mut self, discovered: &Discovered, now_ms: u64) -> bool {
        let endpoints = &discovered.endpoints;
        let has_unnamed = discovered.unnamed > 0;
        self.changed |= std::mem::replace(&mut self.has_unnamed, has_unnamed) != has_unnamed;
        let before = self.targets.take();
        let same_list = before
            .as_ref()
            .is_some_and(|before| before.addresses().eq(endpoints.iter().map(|endpoint| endpoint.address)));
        let known = before.into_iter().flat_map(|before| before.list);
        let mut known: HashMap<SocketAddr, Target> =
            known.map(|target| (target.published.address, target)).collect();
        let count = endpoints.len().max(1) as u64;
        let targets = endpoints.iter().enumerate().map(|(index, endpoint)| {
            let due_ms = now_ms + self.schedule.interval_ms * index as u64 / count;
            let mut target =
                known.remove(&endpoint.address).unwrap_or_else(|| Target::new(endpoint.address, due_ms));
            target.counted = target.counted.or(self.counted_before.remove(&endpoint.address));
            self.changed |= target.published.host != endpoint.host;
            target.published.host = endpoint.host.clone();
            target
        });
        self.targets = Some(Targets::of(targets.collect()));
        let gone = known.into_iter().filter_map(|(address, target)| Some((address, target.counted?)));
        for (address, counted) in gone {
            self.count_before(address, counted);
        }
        self.changed |= !same_list;
        !same_list
    }

    /// What another scraper has published last.
    pub fn remember(&mut self, endpoints: &[EndpointReading]) {
        for endpoint in endpoints {
            let reading = endpoint.reading.as_ref();
            let Some(counted) = reading.and_then(|reading| reading.metrics.prefix_cache_queries) else {
                continue;
            };
            match self.targets.as_mut().and_then(|targets| targets.get_mut(&endpoint.address)) {
                Some(target) => target.counted = target.counted.or(Some(counted)),
                None => self.count_before(endpoint.address, counted),
            }
        }
    }

    fn count_before(&mut self, address: SocketAddr, counted: f64) {
        if self.counted_before.len() < MAX_ENDPOINTS {
            self.counted_before.insert(address, counted);
        }
    }

    /// Takes out the endpoints whose servers are others than before: they count less.
    pub fn take_restarted(&mut self) -> Vec<SocketAddr> {
        std::mem::take(&mut self.restarted)
    }

    /// The endpoints to scrape now; each counts as asked until [`Scraper::answered`].
    pub fn due(&mut self, now_ms: u64) -> Vec<SocketAddr> {
        // What is due later than any is put off was put off by a clock that has gone back since.
        let latest_ms = now_ms.saturating_add(self.schedule.longest_ms());
        let (schedule, looks) = (self.schedule.stretched(self.stretch), self.looks);
        let interval_ms = self.schedule.interval_ms;
        let [mut busy_left, mut idle_left] = self.most_at_once(now_ms);
        let (mut busy, mut idle) = (0, 0);
        let is_due = |target: &&mut Target| {
            let is_idle = target.is_idle(looks);
            let (count, own_ms) = match is_idle {
                true => (&mut idle, schedule.idle_interval_ms),
                false => (&mut busy, schedule.interval_ms),
            };
            *count += 1;
            let due_ms = target.due_ms.saturating_add(own_ms.saturating_sub(interval_ms));
            !target.in_progress && (due_ms <= now_ms || target.due_ms > latest_ms)
        };
        let targets = self.targets.iter_mut().flat_map(|targets| &mut targets.list);
        let due = targets.filter(is_due).filter_map(|target| {
            let left = if target.is_idle(looks) { &mut idle_left } else { &mut busy_left };
            *left = left.checked_sub(1)?;
            target.in_progress = true;
            Some(target.published.address)
        });
        let due = due.collect();
        (self.counted, self.looked_ms) = ((busy, idle), now_ms);
        due
    }

    /// How many are asked at once at most, of those with requests and of those without: a thousand idle ones that are due in
    /// one moment do not hold up a busy one.
    fn most_at_once(&self, now_ms: u64) -> [usize; 2] {
        if self.stretch == Stretch::NONE {
            return [usize::MAX; 2];
        }
        let Demand { busy, idle } = self.demand();
        let passed_s = now_ms.saturating_sub(self.looked_ms) as f64 / 1e3;
        let most = |per_s: f64| (MAX_BURST * per_s * passed_s).ceil() as usize;
        [most(busy / self.stretch.busy), most(idle / self.stretch.idle)]
    }

    /// Scrapes a second that would be made without a budget, as it was last looked at who is due.
    pub fn demand(&self) -> Demand {
        let (busy, idle) = self.counted;
        let per_s = |count: u32, interval_ms: u64| f64::from(count) * 1e3 / interval_ms.max(1) as f64;
        Demand {
            busy: per_s(busy, self.schedule.interval_ms),
            idle: per_s(idle, self.schedule.idle_interval_ms),
        }
    }

    /// Stretches intervals by this from now on.
    pub fn set_stretch(&mut self, stretch: Stretch) {
        self.stretch = stretch;
        self.changed |= self.is_slower_than_configured();
    }

    /// Whether metrics are read less often than was published, so that they would be taken for stale.
    pub fn is_slower_than_configured(&self) -> bool {
        self.stretch != Stretch::NONE && self.longest_interval_ms() > self.reported_interval_ms
    }

    /// The longest from one scrape of an endpoint to the next that is meant now, in milliseconds.
    fn longest_interval_ms(&self) -> u64 {
        let (busy, idle) = self.counted;
        let schedule = self.schedule.stretched(self.stretch);
        let of = |count: u32, interval_ms: u64| if count > 0 { interval_ms } else { 0 };
        of(busy, schedule.interval_ms).max(of(idle, schedule.idle_interval_ms))
    }

    /// The endpoints whose lists of models are to be read now, a few at a time; each counts as asked.
    pub fn lists_due(&mut self, now_ms: u64) -> Vec<SocketAddr> {
        if !self.server.lists_context() {
            return Vec::new();
        }
        let targets = self.targets.iter_mut().flat_map(|targets| &mut targets.list);
        let answering = targets.filter(|target| target.failures == 0 && target.published.reading.is_some());
        let due =
            answering.filter_map(|target| target.context.is_due(now_ms).then_some(target.published.address));
        due.take(MAX_LISTS_AT_ONCE).collect()
    }

    /// An endpoint has answered with its list of models, or not.
    pub fn listed(&mut self, address: SocketAddr, list: Option<&[u8]>) {
        let Some(target) = self.targets.as_mut().and_then(|targets| targets.get_mut(&address)) else {
            return;
        };
        target.context.answered(list.and_then(metrics::read_context_tokens));
        if let Some(reading) = &mut target.published.reading {
            let tokens = target.context.tokens();
            self.changed |= reading.metrics.context_tokens != tokens;
            reading.metrics.context_tokens = tokens;
        }
    }

    /// What has changed is not to be published: another scrapes now.
    pub fn forget_changes(&mut self) {
        self.changed = false;
    }

    /// Notes what this gateway has in flight where it has something, so that its own requests can be distinguished from those of
    /// others.
    pub fn observe_in_flight(&mut self, in_flight: impl Iterator<Item = (SocketAddr, InFlight)>) {
        self.looks += 1;
        let Some(targets) = &mut self.targets else { return };
        for (address, in_flight) in in_flight {
            if let Some(target) = targets.get_mut(&address) {
                target.peak.observe(in_flight);
                target.busy_look = self.looks;
            }
        }
    }

    /// Whether an endpoint has requests, or is not known to have none.
    pub fn is_busy(&self) -> bool {
        let targets = self.targets.iter().flat_map(|targets| &targets.list);
        targets.into_iter().any(|target| !target.is_idle(self.looks))
    }

    /// A scrape has ended; what it reports to an operator.
    pub fn answered(
        &mut self,
        address: SocketAddr,
        answer: Result<&[u8], ScrapeFailure>,
        in_flight: InFlight,
        now_ms: u64,
    ) -> Option<News> {
        let (server, limit) = (self.server, self.max_consecutive_failures);
        let interval_ms = self.schedule.interval_ms;
        let target = self.targets.as_mut()?.get_mut(&address)?;
        target.in_progress = false;
        self.changed = true;
        let was_out = target.published.scrape_failures >= limit;
        match answer.and_then(|page| metrics::read(server, page).map_err(ScrapeFailure::Page)) {
            Ok(metrics) => {
                let adapters = metrics.lora.as_ref().map_or(0, |lora| lora.adapters.len());
                self.limits.add_if(adapters >= MAX_ADAPTERS, Limit::PageAdapters);
                if target.has_restarted(&metrics, now_ms) {
                    self.restarted.push(address);
                }
                target.succeed(server, metrics, in_flight, interval_ms, now_ms);
                let failed = std::mem::take(&mut target.failures) > 0;
                match failed {
                    _ if was_out => Some(News::Back),
                    true => Some(News::Readable),
                    false => None,
                }
            }
            Err(failure) => {
                target.failures = target.failures.saturating_add(1);
                let is_first = target.failures == 1;
                if failure == ScrapeFailure::NoAnswer {
                    target.unreachable(interval_ms, limit, now_ms);
                } else {
                    target.unreadable(interval_ms, now_ms);
                }
                match target.published.scrape_failures {
                    failures if failures == limit => Some(News::Out(failure)),
                    0 if was_out => Some(News::Back),
                    _ => is_first.then_some(News::Failing(failure)),
                }
            }
        }
    }

    /// What is known of the endpoints, as far as they are.
    pub fn endpoints(&self) -> impl Iterator<Item = &EndpointReading> {
        self.targets.iter().flat_map(|targets| &targets.list).map(|target| &target.published)
    }

    /// Whether this is one of the endpoints.
    pub fn has_endpoint(&self, address: &SocketAddr) -> bool {
        self.target(address).is_some()
    }

    /// Whether the last scrape of this endpoint gave something.
    pub fn has_succeeded(&self, address: SocketAddr) -> bool {
        self.target(&address).is_some_and(|target| target.failures == 0)
    }

    fn target(&self, address: &SocketAddr) -> Option<&Target> {
        self.targets.as_ref()?.get(address)
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
        let interval_ms = self.longest_interval_ms();
        let is_late = interval_ms.saturating_mul(STALE_INTERVALS) > self.schedule.stale_after_ms;
        self.limits.add_if(is_late && self.stretch != Stretch::NONE, Limit::ScrapeBudget);
        self.reported_interval_ms = interval_ms;
        Some(Snapshot { endpoints, has_unnamed: self.has_unnamed, interval_ms })
    }
}

fn most(one: InFlight, other: InFlight) -> InFlight {
    InFlight { requests: one.requests.max(other.requests), waiting: one.waiting.max(other.waiting), ..one }
}

impl Target {
    fn new(address: SocketAddr, due_ms: u64) -> Target {
        Target {
            published: EndpointReading::new(address),
            due_ms,
            in_progress: false,
            failures: 0,
            peak: RecentPeak::default(),
            busy_look: 0,
            counted: None,
            figures: None,
            changed_ms: 0,
            context: ContextLength::default(),
        }
    }

    fn succeed(
        &mut self,
        server: ModelServer,
        mut metrics: EndpointMetrics,
        in_flight: InFlight,
        interval_ms: u64,
        now_ms: u64,
    ) {
        let figures = Some(Figures::of(server, &metrics));
        let stands_still = self.figures == figures;
        if !stands_still {
            (self.figures, self.changed_ms) = (figures, now_ms);
        }
        let own = self.peak.value(in_flight, stands_still && requests(&metrics) > 0, now_ms);
        let stood_ms = now_ms.saturating_sub(self.changed_ms);
        let believed = Believed::of(server, &metrics, own, in_flight, stood_ms);
        metrics.kv_cache_utilization = believed.kv_cache_utilization;
        metrics.context_tokens = metrics.context_tokens.or(self.context.tokens());
        self.published.reading = Some(Reading {
            scraped_ms: now_ms,
            waiting: believed.waiting,
            own_waiting: in_flight.waiting,
            external_waiting: believed.external_waiting,
            external_requests: believed.external_requests,
            metrics,
        });
        self.published.scrape_failures = 0;
        self.published.unreadable_ms = None;
        self.rest(interval_ms, now_ms);
    }

    /// Whether its server counts less than it did, which it only does when it has started anew.
    fn has_restarted(&mut self, metrics: &EndpointMetrics, now_ms: u64) -> bool {
        let (before, now) = (self.counted, metrics.prefix_cache_queries);
        self.counted = now.or(before);
        let restarted = before.zip(now).is_some_and(|(before, now)| now < before);
        if restarted {
            self.published.restarted_ms = Some(now_ms);
        }
        if restarted || self.failures > 0 {
            self.context.restarted();
        }
        restarted
    }

    /// Whether its last page counted no requests, and this gateway has none there, as it was last looked at.
    fn is_idle(&self, looks: u64) -> bool {
        let is_empty = self.published.reading.as_ref().is_some_and(|reading| requests(&reading.metrics) == 0);
        is_empty && self.failures == 0 && self.busy_look < looks
    }

    /// A server that answers slowly is given a rest of half an interval.
    fn rest(&mut self, interval_ms: u64, now_ms: u64) {
        self.due_ms = (self.due_ms + interval_ms).max(now_ms + interval_ms / 2).min(now_ms + interval_ms);
    }

    /// It is there, but its metrics cannot be read.
    fn unreadable(&mut self, interval_ms: u64, now_ms: u64) {
        self.published.scrape_failures = 0;
        self.published.unreadable_ms = Some(now_ms);
        self.rest(interval_ms, now_ms);
    }

    fn unreachable(&mut self, interval_ms: u64, max_consecutive_failures: u32, now_ms: u64) {
        let failures = self.published.scrape_failures.saturating_add(1);
        self.published.scrape_failures = failures;
        let factor = if failures > max_consecutive_failures { FAILING_INTERVAL_FACTOR } else { 1 };
        self.due_ms = now_ms + interval_ms * factor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{EnvoyHost, HostHealth};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const PAGE: &[u8] = b"vllm:num_requests_waiting 5\nvllm:num_requests_running 3\n";

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 8000))
    }

    fn listed(lasts: impl IntoIterator<Item = u8>) -> Discovered {
        Discovered::at(lasts.into_iter().map(address))
    }

    /// A scraper of `count` endpoints, every 50 ms, out after 3 failures.
    fn scraper(count: u8) -> Scraper {
        let mut scraper = Scraper::new(ModelServer::Vllm, Schedule::new(50, 2_000), 3);
        scraper.follow(&listed(1..=count), 0);
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

    /// When an endpoint that prints no requests is asked again, and has so many of this gateway's in flight by then.
    fn check_next(requests: u32, prints: &[u8], next_ms: u64) {
        let mut scraper = scraper(1);
        scraper.due(0);
        scraper.answered(address(1), Ok(prints), InFlight::default(), 0);
        for now_ms in 1..=next_ms {
            let in_flight = (requests > 0).then_some((address(1), in_flight(requests, 0)));
            scraper.observe_in_flight(in_flight.into_iter());
            assert_eq!(scraper.is_busy(), next_ms == 50);
            assert_eq!(scraper.due(now_ms).len(), usize::from(now_ms == next_ms), "{requests} {now_ms}");
        }
    }

    #[test]
    fn an_endpoint_without_requests_is_asked_less_often() {
        let idle: &[u8] = b"vllm:num_requests_waiting 0\nvllm:num_requests_running 0\n";
        check_next(0, idle, 500);
        check_next(1, idle, 50);
        check_next(0, PAGE, 50);
    }

    /// When each of so many busy endpoints is asked within two seconds, every 50 ms if intervals are not stretched.
    fn asked_ms(count: u8, stretch: Stretch) -> HashMap<SocketAddr, Vec<u64>> {
        let mut scraper = scraper(count);
        let mut asked: HashMap<SocketAddr, Vec<u64>> = HashMap::new();
        for now_ms in (0..2_000).step_by(10) {
            scraper.set_stretch(stretch);
            for address in scraper.due(now_ms) {
                asked.entry(address).or_default().push(now_ms);
                scraper.answered(address, Ok(PAGE), InFlight::default(), now_ms);
            }
        }
        asked
    }

    #[test]
    fn all_intervals_are_stretched_evenly() {
        for (busy, scrapes) in [(1.0, 39..=40), (4.0, 9..=11), (16.0, 2..=3)] {
            let asked = asked_ms(20, Stretch { busy, idle: 1.0 });
            assert!(
                asked.len() == 20 && asked.values().all(|times| scrapes.contains(&times.len())),
                "{busy}"
            );
        }
    }

    #[test]
    fn endpoints_that_begin_to_have_requests_in_one_moment_are_not_asked_in_one_moment() {
        let mut scraper = scraper(100);
        let idle: &[u8] = b"vllm:num_requests_waiting 0\nvllm:num_requests_running 0\n";
        scraper.set_stretch(Stretch { busy: 20.0, idle: 20.0 });
        for now_ms in (0..30_000).step_by(10) {
            scraper.observe_in_flight(std::iter::empty());
            for address in scraper.due(now_ms) {
                scraper.answered(address, Ok(idle), InFlight::default(), now_ms);
            }
        }
        let most = (30_000..31_100).step_by(10).map(|now_ms| {
            let busy = (1..=100).map(|last| (address(last), in_flight(1, 1)));
            scraper.observe_in_flight(busy);
            let due = scraper.due(now_ms);
            due.iter().for_each(|address| _ = scraper.answered(*address, Ok(PAGE), in_flight(1, 1), now_ms));
            due.len()
        });
        let most: Vec<usize> = most.collect();
        // 100 in a second are one in 10 ms.
        assert!(most.iter().all(|due| *due <= 2) && most.iter().sum::<usize>() >= 100, "{most:?}");
    }

    #[test]
    fn a_list_of_models_reports_the_context_until_the_server_has_restarted_and_reported_another() {
        let mut scraper = scraper(1);
        let context =
            |scraper: &mut Scraper| published(scraper)[0].reading.as_ref().unwrap().metrics.context_tokens;
        let page = |tokens: u32| {
            format!(
                "vllm:num_requests_waiting 0\nvllm:num_requests_running 0\nvllm:prefix_cache_queries_total {tokens}\n"
            )
        };
        let read = |scraper: &mut Scraper, tokens: u32, now_ms: u64| {
            scraper.answered(address(1), Ok(page(tokens).as_bytes()), InFlight::default(), now_ms);
        };
        assert_eq!(scraper.lists_due(0), [], "it has answered nothing yet");
        read(&mut scraper, 100, 0);
        assert_eq!((scraper.lists_due(10), scraper.lists_due(20)), (vec![address(1)], vec![]));
        scraper.listed(address(1), Some(br#"{"data":[{"max_model_len":8192}]}"#));
        assert_eq!(context(&mut scraper), Some(8_192));
        read(&mut scraper, 200, 50);
        assert_eq!((context(&mut scraper), scraper.lists_due(60)), (Some(8_192), vec![]));
        read(&mut scraper, 10, 100);
        assert_eq!(scraper.lists_due(110), [address(1)], "its counters have fallen");
        assert_eq!(context(&mut scraper), Some(8_192));
        scraper.listed(address(1), Some(br#"{"data":[{"max_model_len":4096}]}"#));
        assert_eq!(context(&mut scraper), Some(4_096));
    }

    #[test]
    fn an_endpoint_has_started_anew_when_its_counters_have_fallen() {
        let mut scraper = scraper(1);
        for (now_ms, tokens, expected) in
            [(0, 100, None), (50, 200, None), (100, 10, Some(100)), (150, 20, Some(100))]
        {
            let page = format!(
                "vllm:num_requests_waiting 0\nvllm:num_requests_running 0\nvllm:prefix_cache_queries_total {tokens}\n"
            );
            scraper.answered(address(1), Ok(page.as_bytes()), InFlight::default(), now_ms);
            assert_eq!(published(&mut scraper)[0].restarted_ms, expected, "{tokens} tokens");
        }
    }

    /// 99 endpoints without requests of which all are due in one moment, and one with some behind them in the list.
    #[test]
    fn many_idle_endpoints_that_are_due_do_not_hold_up_a_busy_one() {
        let mut scraper = scraper(100);
        let idle: &[u8] = b"vllm:num_requests_waiting 0\nvllm:num_requests_running 0\n";
        for address in scraper.due(49) {
            scraper.answered(address, Ok(idle), InFlight::default(), 49);
        }
        scraper.set_stretch(Stretch { busy: 2.0, idle: 10.0 });
        let (mut asked, mut most_idle) = (Vec::new(), 0);
        for now_ms in (10_000..16_000).step_by(10) {
            scraper.observe_in_flight([(address(100), in_flight(1, 1))].into_iter());
            let due = scraper.due(now_ms);
            most_idle = most_idle.max(due.iter().filter(|due| **due != address(100)).count());
            for address in due {
                asked.extend((address == self::address(100)).then_some(now_ms));
                scraper.answered(address, Ok(idle), in_flight(1, 1), now_ms);
            }
        }
        assert!(asked.windows(2).all(|pair| pair[1] - pair[0] <= 110), "{asked:?}");
        assert!(asked.len() > 50 && (1..=4).contains(&most_idle), "{} {most_idle}", asked.len());
    }

    #[test]
    fn how_long_metrics_count_is_published_at_once_and_counted_if_it_is_longer_than_configured() {
        let mut scraper = scraper(1);
        scraper.due(0);
        succeed(&mut scraper, 1, InFlight::default(), 0);
        let published_ms =
            |scraper: &mut Scraper| scraper.take_snapshot().map(|snapshot| snapshot.interval_ms);
        assert_eq!(published_ms(&mut scraper), Some(50));
        for (stretch, interval_ms, is_late) in [(10.0, 500, false), (30.0, 1_500, true), (1e9, 10_000, true)]
        {
            scraper.set_stretch(Stretch { busy: stretch, idle: 1.0 });
            assert!(scraper.is_slower_than_configured());
            assert_eq!(published_ms(&mut scraper), Some(interval_ms));
            assert!(!scraper.is_slower_than_configured());
            let reached: Vec<_> = scraper.limits.take().collect();
            assert_eq!(reached, if is_late { vec![(Limit::ScrapeBudget, 1)] } else { vec![] });
        }
        assert_eq!(published_ms(&mut scraper), None);
    }

    #[test]
    fn the_metrics_of_an_idle_endpoint_never_grow_stale() {
        let idle_ms = |interval_ms, stale_ms| Schedule::new(interval_ms, stale_ms).idle_interval_ms;
        assert_eq!([idle_ms(50, 2_000), idle_ms(50, 400), idle_ms(50, 60)], [500, 100, 50]);
    }

    #[test]
    fn failures_are_counted_reported_once_and_forgotten_at_the_next_answer() {
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
    fn who_answers_anything_is_there() {
        let no_page = ScrapeFailure::Page(MetricsError::Missing {
            server: ModelServer::Vllm,
            metric: metrics::Metric::Waiting,
        });
        let too_large = ScrapeFailure::Page(MetricsError::TooLarge { bytes: 3 << 20 });
        let answers: [(Result<&[u8], ScrapeFailure>, ScrapeFailure); 4] = [
            (Err(ScrapeFailure::Status(500)), ScrapeFailure::Status(500)),
            (Err(ScrapeFailure::Status(401)), ScrapeFailure::Status(401)),
            (Ok(b"<html>\n"), no_page),
            (Ok(&vec![b'\n'; 3 << 20]), too_large),
        ];
        for (answer, failure) in answers {
            let mut scraper = scraper(1);
            succeed(&mut scraper, 1, InFlight::default(), 10);
            let mut answer_at =
                |now_ms| scraper.answered(address(1), answer.clone(), InFlight::default(), now_ms);
            assert_eq!(answer_at(60), Some(News::Failing(failure)));
            assert!((2..10).all(|turn| answer_at(10 + 50 * turn).is_none()), "it is said once");
            assert!(!scraper.has_succeeded(address(1)));
            let endpoint = published(&mut scraper).remove(0);
            let read_ms = endpoint.reading.map(|reading| reading.scraped_ms);
            assert_eq!((endpoint.scrape_failures, endpoint.unreadable_ms, read_ms), (0, Some(460), Some(10)));
            assert_eq!(scraper.due(510), [address(1)], "it is asked as often as others");
            assert_eq!(succeed(&mut scraper, 1, InFlight::default(), 511), Some(News::Readable));
            assert_eq!(published(&mut scraper)[0].unreadable_ms, None);
        }
    }

    #[test]
    fn one_that_was_out_is_back_with_any_answer() {
        let mut scraper = scraper(1);
        for turn in 0..3 {
            fail(&mut scraper, 1, turn * 50);
        }
        let answer = Err(ScrapeFailure::Status(503));
        assert_eq!(scraper.answered(address(1), answer, InFlight::default(), 200), Some(News::Back));
        assert_eq!(published(&mut scraper)[0].scrape_failures, 0);
    }

    /// What is believed of pages of (waiting, running, tokens generated), each scraped 50 ms after the last or later, while so
    /// many requests of this gateway are in flight: (queue, queued of others, requests of others, percent of the KV cache).
    #[track_caller]
    fn check_believed(
        server: ModelServer,
        pages: &[(u64, (u32, u32, u32), u32)],
        expected: (u32, u32, u32, u32),
    ) {
        let prefix = match server {
            ModelServer::Sglang => "sglang:",
            ModelServer::Lmdeploy => "lmdeploy:",
            _ => "vllm:",
        };
        let mut scraper = Scraper::new(server, Schedule::new(50, 2_000), 3);
        scraper.follow(&listed([1]), 0);
        for (now_ms, (waiting, running, tokens), own) in pages {
            let names = match server {
                ModelServer::Sglang => ["num_queue_reqs", "num_running_reqs", "token_usage"],
                ModelServer::Lmdeploy => {
                    ["num_requests_waiting", "num_requests_running", "gpu_cache_usage_perc"]
                }
                _ => ["num_requests_waiting", "num_requests_running", "kv_cache_usage_perc"],
            };
            let values = names.iter().zip([waiting.to_string(), running.to_string(), "0.5".to_owned()]);
            let lines: String = values.map(|(name, value)| format!("{prefix}{name} {value}\n")).collect();
            let page = format!("{lines}{prefix}generation_tokens_total {tokens}\n");
            let news = scraper.answered(address(1), Ok(page.as_bytes()), in_flight(*own, *own), *now_ms);
            assert_eq!(news, None);
        }
        let reading = published(&mut scraper).remove(0).reading.unwrap();
        let kv_percent = (reading.metrics.kv_cache_utilization.unwrap() * 100.0) as u32;
        let believed = (reading.waiting, reading.external_waiting, reading.external_requests, kv_percent);
        assert_eq!(believed, expected, "{server:?} {pages:?}");
    }

    #[test]
    fn gauges_that_stay_when_the_last_request_has_ended_are_no_load() {
        for server in [ModelServer::Vllm, ModelServer::Sglang] {
            let busy = (6, 4, 1_000);
            check_believed(server, &[(0, busy, 10)], (6, 0, 0, 50));
            // For as long as the page stands still, however long that is.
            check_believed(server, &[(0, busy, 10), (50, busy, 0)], (0, 0, 0, 0));
            check_believed(server, &[(0, busy, 10), (50, busy, 0), (4_000, busy, 0)], (0, 0, 0, 0));
            // Those of this gateway that have come since are all that can be there.
            check_believed(server, &[(0, busy, 10), (4_000, busy, 2)], (2, 0, 0, 50));
            // What it had not sent itself is others'.
            check_believed(server, &[(0, busy, 3), (50, busy, 0), (4_000, busy, 0)], (3, 3, 7, 50));
        }
    }

    #[test]
    fn who_works_has_the_load_it_counts() {
        let pages: Vec<_> = (0..20).map(|turn| (turn * 500, (6, 4, turn as u32), 0)).collect();
        for server in [ModelServer::Vllm, ModelServer::Sglang] {
            check_believed(server, &pages, (6, 6, 10, 50));
        }
    }

    /// LMDeploy writes its gauges every ten seconds, and its counters with each token.
    #[test]
    fn gauges_that_are_older_than_the_counters_beside_them_are_those_of_requests_that_may_have_ended() {
        let pages: Vec<_> =
            (0..20).map(|turn| (turn * 500, (6, 4, turn as u32), if turn == 0 { 10 } else { 2 })).collect();
        check_believed(ModelServer::Lmdeploy, &pages, (2, 0, 0, 50));
        check_believed(ModelServer::Vllm, &pages, (6, 4, 8, 50));
    }

    #[test]
    fn gauges_that_others_left_behind_count_only_where_a_server_may_still_be_at_its_step() {
        let pages = [(0, (6, 4, 9), 0), (4_950, (6, 4, 9), 0)];
        let later = [(0, (6, 4, 9), 0), (5_000, (6, 4, 9), 0)];
        check_believed(ModelServer::Sglang, &pages, (6, 6, 10, 50));
        check_believed(ModelServer::Sglang, &later, (0, 0, 0, 0));
        check_believed(ModelServer::Vllm, &later, (6, 6, 10, 50));
    }

    #[test]
    fn what_others_sent_is_what_this_gateway_did_not() {
        let mut scraper = scraper(1);
        let mut external = |in_flight, now_ms| {
            // The server works.
            let page = format!("{}vllm:generation_tokens_total {now_ms}\n", String::from_utf8_lossy(PAGE));
            scraper.answered(address(1), Ok(page.as_bytes()), in_flight, now_ms);
            let reading = published(&mut scraper).remove(0).reading.expect("read");
            (reading.external_waiting, reading.external_requests)
        };
        assert_eq!(external(in_flight(0, 0), 0), (5, 8));
        assert_eq!(external(in_flight(6, 4), 50), (1, 2));
        assert_eq!(
            external(in_flight(0, 0), 100),
            (1, 2),
            "those that have just ended may still be counted there"
        );
        external(in_flight(0, 0), 50 + PEAK_MS);
        external(in_flight(0, 0), 50 + 2 * PEAK_MS);
        assert_eq!(external(in_flight(0, 0), 50 + 3 * PEAK_MS), (5, 8));
        assert_eq!(external(in_flight(99, 99), 1_000), (0, 0));
    }

    #[test]
    fn requests_that_came_and_went_between_two_scrapes_are_this_gateways() {
        let mut scraper = scraper(1);
        scraper.observe_in_flight([(address(1), in_flight(7, 5))].into_iter());
        succeed(&mut scraper, 1, in_flight(0, 0), 50);
        let reading = published(&mut scraper).remove(0).reading.expect("read");
        assert_eq!((reading.external_waiting, reading.external_requests), (0, 1));
    }

    #[test]
    fn endpoints_come_go_and_change_their_health_and_what_is_known_of_the_rest_is_kept() {
        let mut scraper = scraper(2);
        succeed(&mut scraper, 2, InFlight::default(), 10);
        published(&mut scraper);
        scraper.follow(&listed([1, 2]), 20);
        assert_eq!(scraper.take_snapshot(), None, "nothing has changed");
        let mut others = listed([2, 9]);
        others.endpoints[1].host = EnvoyHost { health: HostHealth::Unhealthy, priority: 1, name: None };
        scraper.follow(&others, 30);
        let endpoints = published(&mut scraper);
        let known: Vec<_> = endpoints
            .iter()
            .map(|e| (e.address, e.host.health, e.host.priority, e.reading.is_some()))
            .collect();
        let expected =
            [(address(2), HostHealth::Healthy, 0, true), (address(9), HostHealth::Unhealthy, 1, false)];
        assert_eq!(known, expected);
        scraper.follow(&listed([2]), 40);
        assert_eq!(published(&mut scraper).len(), 1);
        assert_eq!(fail(&mut scraper, 9, 50), None, "an answer of one that is gone is nobody's");
    }

    #[test]
    fn an_empty_list_is_an_answer_and_no_list_is_none() {
        let mut scraper = Scraper::new(ModelServer::Vllm, Schedule::new(50, 2_000), 3);
        assert_eq!(scraper.take_snapshot(), None);
        scraper.follow(&Discovered::default(), 0);
        assert_eq!(published(&mut scraper), []);
    }
}
