//! Performs the scrapes that [`crate::scrape`] asks for, with what discovery lists, and publishes what comes of them.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use super::calls::call_answer;
use super::discovery::Discovery;
use super::host::{self, HostResult};
use super::peers::PeersAsking;
use super::recorder::{GAUGE_INTERVAL_MS, Recorder};
use super::sessions;
use super::shared::{Exchange, LeasePlace, SnapshotPlace};
use super::ticks::{BUSY_TICK_MS, IDLE_SCRAPER_TICK_MS, IDLE_TICK_MS};
use crate::config::{self, Config, ScrapeBy, WhenGone};
use crate::interval::Interval;
use crate::ledger::Ledger;
use crate::load::LoadTracker;
use crate::metrics::{MAX_LIST_BYTES, MAX_PAGE_BYTES, MODELS_PATH};
use crate::pool::Discovered;
use crate::scrape::{Budget, Demand, News, Schedule, ScrapeFailure, Scraper};

/// The companion service: it scrapes, and knows the workers' loads so that it can separate theirs from others'.
pub struct Service {
    scraping: Scraping,
    exchange: Exchange,
    loads: LoadTracker,
}

impl Service {
    pub fn new(config: &Config) -> Service {
        let me = host::random();
        Service {
            scraping: Scraping::new(config, me),
            exchange: Exchange::new(me),
            loads: LoadTracker::default(),
        }
    }

    /// Does what is due; the time until the next tick, in milliseconds.
    pub fn tick(&mut self, now_ms: u64) -> u32 {
        self.exchange.read(&mut self.loads, now_ms);
        self.scraping.tick(&mut self.exchange, &mut self.loads, now_ms);
        self.scraping.tick_ms(IDLE_TICK_MS)
    }

    pub fn http_call_answered(&mut self, token: u32, now_ms: u64) {
        if self.scraping.answered(token, &mut self.exchange, &mut self.loads, now_ms) {
            self.loads.keep_only(|address| self.scraping.has_endpoint(address));
        }
    }
}

/// Scraping and discovery of all pools.
pub struct Scraping {
    timeout_ms: u64,
    pools: Vec<PoolScraping>,
    calls: HashMap<u32, Call>,
    budget: Budget,
    recorder: Recorder,
    peers: Option<PeersAsking>,
}

struct PoolScraping {
    name: String,
    metrics: config::Metrics,
    lease: Option<LeasePlace>,
    /// Whether this one scrapes the pool.
    is_mine: bool,
    snapshot: SnapshotPlace,
    scraper: Scraper,
    /// `None` where there is no admin to ask.
    discovery: Option<Discovery>,
    /// The endpoints that are configured; `None`: those of the cluster.
    configured: Option<Vec<SocketAddr>>,
    /// Who computes its prompts.
    prefill: Option<config::Prefill>,
    /// Its hosts as Envoy listed them last; `None` until it has, unless they are configured.
    listed: Option<Discovered>,
    /// Whether the cluster had hosts that cannot be named when it was last looked at.
    has_unnamed: bool,
    /// When gauges are written, and of which endpoints they were.
    gauges: Interval,
    gauged: HashSet<SocketAddr>,
}

/// A call that has not been answered, with the pool's place.
enum Call {
    /// And when it was made.
    Scrape(usize, SocketAddr, u64),
    Models(usize, SocketAddr),
    Discovery(usize),
}

impl Scraping {
    pub fn new(config: &Config, me: u64) -> Scraping {
        let mut scraping = Scraping {
            timeout_ms: config.scrape_timeout_ms,
            pools: config.pools.iter().map(|pool| PoolScraping::new(config, pool, me)).collect(),
            calls: HashMap::new(),
            budget: Budget::new(config.scrape_budget),
            recorder: Recorder::new(config),
            peers: PeersAsking::new(config, me),
        };
        for place in 0..config.pools.len() {
            scraping.follow(place, host::now_ms());
        }
        scraping
    }

    /// Whether something is scraped here, so that what is in flight is to be known at every tick.
    pub fn is_mine(&self) -> bool {
        self.pools.iter().any(|pool| pool.is_mine)
    }

    /// How long until it is to be asked again what is due, in milliseconds, by a worker that ticks that often without it.
    pub fn tick_ms(&self, otherwise_ms: u32) -> u32 {
        let asks = self.peers.as_ref().is_some_and(PeersAsking::is_mine);
        let busy = self.pools.iter().any(|pool| pool.is_mine && pool.scraper.is_busy());
        match self.is_mine() {
            _ if asks || busy => BUSY_TICK_MS,
            true => IDLE_SCRAPER_TICK_MS,
            false => otherwise_ms,
        }
    }

    /// Starts what is due and publishes what has changed.
    pub fn tick(&mut self, exchange: &mut Exchange, loads: &mut LoadTracker, now_ms: u64) {
        if let Some(peers) = &mut self.peers {
            peers.tick(exchange, loads, now_ms);
            self.recorder.record_limits(peers.limits().take());
        }
        let started_us = host::now_us();
        self.stretch(now_ms);
        let (may_publish, mut publishing_us) = (self.budget.allows_snapshot(now_ms), 0);
        for index in 0..self.pools.len() {
            let Some(pool) = self.pools.get_mut(index) else {
                return;
            };
            if !pool.is_mine(now_ms) {
                // Another worker may scrape the prefill endpoints of a pool that is scraped here.
                if self.computes_for_mine(index) {
                    self.discover(index, now_ms);
                }
                continue;
            }
            pool.scraper.observe_in_flight(loads.all_in_flight());
            if may_publish || pool.scraper.is_slower_than_configured() {
                publishing_us += pool.publish(exchange, loads, now_ms);
            }
            pool.write_gauges(index, loads, &mut self.recorder, now_ms);
            self.recorder.record_limits(pool.scraper.limits.take());
            self.discover(index, now_ms);
            self.scrape(index, loads, now_ms);
            self.ask_for_models(index, now_ms);
        }
        if publishing_us > 0 {
            self.budget.snapshot_written(publishing_us, now_ms);
        }
        self.budget.spend(host::now_us().saturating_sub(started_us));
    }

    /// Whether this pool computes the prompts of one that is scraped here, which leaves its endpoints out.
    fn computes_for_mine(&self, index: usize) -> bool {
        let is_its = |pool: &PoolScraping| pool.prefill.is_some_and(|prefill| prefill.pool == index);
        self.pools.iter().any(|pool| pool.is_mine && is_its(pool))
    }

    /// Has all pools keep to the budget.
    fn stretch(&mut self, now_ms: u64) {
        let mut demand = Demand::default();
        let mine = || self.pools.iter().filter(|pool| pool.is_mine);
        mine().for_each(|pool| demand += pool.scraper.demand());
        let stretch = self.budget.stretch(demand, now_ms);
        self.pools.iter_mut().for_each(|pool| pool.scraper.set_stretch(stretch));
    }

    /// A call has been answered, or has failed; calls of others are not known here. Whether other endpoints are listed since.
    pub fn answered(
        &mut self,
        token: u32,
        exchange: &mut Exchange,
        loads: &mut LoadTracker,
        now_ms: u64,
    ) -> bool {
        match self.calls.remove(&token) {
            Some(Call::Scrape(index, address, called_ms)) => {
                let started_us = host::now_us();
                let page = call_answer(MAX_PAGE_BYTES + 1);
                self.scraped(index, address, page, called_ms, loads, now_ms);
                self.budget.answered(host::now_us().saturating_sub(started_us));
                false
            }
            Some(Call::Models(index, address)) => {
                let list = call_answer(MAX_LIST_BYTES + 1).ok();
                if let Some(pool) = self.pools.get_mut(index) {
                    pool.scraper.listed(address, list.as_deref());
                }
                false
            }
            Some(Call::Discovery(index)) => self.discovered(index, now_ms),
            None => {
                if let Some(peers) = &mut self.peers {
                    peers.answered(token, exchange, loads, now_ms);
                }
                false
            }
        }
    }

    /// This configuration is over, and with it its endpoints' gauges.
    pub fn end_gauges(&mut self) {
        self.recorder.end_gauges();
    }

    fn has_endpoint(&self, address: &SocketAddr) -> bool {
        self.pools.iter().any(|pool| pool.scraper.has_endpoint(address))
    }

    fn discover(&mut self, index: usize, now_ms: u64) {
        let Some(pool) = self.pools.get_mut(index) else { return };
        let Some(discovery) = &mut pool.discovery else { return };
        match discovery.ask(now_ms) {
            Some(Ok(token)) => {
                self.calls.insert(token, Call::Discovery(index));
            }
            Some(Err(error)) => {
                let problem = format!("cluster `{}` cannot be called: {error:?}", discovery.admin_cluster);
                pool.discovery_failed(index, &problem, &mut self.recorder);
            }
            None => {}
        }
    }

    fn scrape(&mut self, index: usize, loads: &mut LoadTracker, now_ms: u64) {
        let Some(pool) = self.pools.get_mut(index) else { return };
        let Some(cluster) = &pool.metrics.cluster else { return };
        let due = pool.scraper.due(now_ms);
        if due.is_empty() {
            return;
        }
        let (started_us, mut failed) = (host::now_us(), Vec::new());
        for address in due {
            let (metrics, page_address) = (&pool.metrics, pool.metrics.address_of(address));
            match get(cluster, metrics, &metrics.path, page_address, self.timeout_ms) {
                Ok(token) => {
                    self.calls.insert(token, Call::Scrape(index, address, now_ms));
                }
                Err(_) => failed.push(address),
            }
        }
        self.budget.asked(host::now_us().saturating_sub(started_us));
        for address in failed {
            self.scraped(index, address, Err(ScrapeFailure::NoAnswer), now_ms, loads, now_ms);
        }
    }

    /// Asks for the lists of models that are due; one that cannot be asked for is due again later.
    fn ask_for_models(&mut self, index: usize, now_ms: u64) {
        let Some(pool) = self.pools.get_mut(index) else { return };
        let Some(cluster) = &pool.metrics.cluster else { return };
        for endpoint in pool.scraper.lists_due(now_ms) {
            let call = get(cluster, &pool.metrics, MODELS_PATH, endpoint, self.timeout_ms);
            if let Ok(token) = call {
                self.calls.insert(token, Call::Models(index, endpoint));
            }
        }
    }

    fn scraped(
        &mut self,
        index: usize,
        address: SocketAddr,
        page: Result<Vec<u8>, ScrapeFailure>,
        called_ms: u64,
        loads: &LoadTracker,
        now_ms: u64,
    ) {
        let Some(pool) = self.pools.get_mut(index) else {
            return;
        };
        let in_flight = loads.in_flight_at(&address);
        let page = page.as_deref().map_err(Clone::clone);
        if let Some(news) = pool.scraper.answered(address, page, in_flight, now_ms) {
            report(&pool.name, address, &news);
        }
        for address in pool.scraper.take_restarted() {
            let forgotten = sessions::forget(address);
            self.recorder.record(|stats| stats.sessions_forgotten(forgotten));
        }
        let duration_ms = now_ms.saturating_sub(called_ms);
        let succeeded = pool.scraper.has_succeeded(address);
        self.recorder.record(|stats| stats.scraped(index, duration_ms, succeeded));
    }

    fn discovered(&mut self, index: usize, now_ms: u64) -> bool {
        let Some(pool) = self.pools.get_mut(index) else { return false };
        let Some(discovery) = &mut pool.discovery else { return false };
        match discovery.answered() {
            Ok(discovered) => {
                pool.list(discovered);
                self.follow(index, now_ms)
            }
            Err(problem) => {
                pool.discovery_failed(index, &problem, &mut self.recorder);
                false
            }
        }
    }

    /// Follows what is listed of a pool, and so of those whose prompts it computes; whether others are than before.
    fn follow(&mut self, index: usize, now_ms: u64) -> bool {
        let computes_for = |pool: &PoolScraping| pool.prefill.is_some_and(|prefill| prefill.pool == index);
        let pools = self.pools.iter().enumerate();
        let affected = pools.filter(|(place, pool)| *place == index || computes_for(pool));
        let usable = affected.filter_map(|(place, pool)| Some((place, self.usable(pool)?)));
        let usable: Vec<_> = usable.collect();
        let mut changed = false;
        for (place, usable) in usable {
            if let Some(pool) = self.pools.get_mut(place) {
                changed |= pool.scraper.follow(&usable, now_ms);
            }
        }
        changed
    }

    /// The hosts of a pool that may answer requests, once they are known.
    fn usable(&self, pool: &PoolScraping) -> Option<Discovered> {
        let listed = pool.listed.clone()?;
        let prefill = pool.prefill.and_then(|rule| Some((rule, self.pools.get(rule.pool)?.listed.as_ref()?)));
        Some(match prefill {
            Some((rule, prefill)) => listed.without_prefill(prefill, rule.when_gone == WhenGone::Together),
            None => listed,
        })
    }
}

impl PoolScraping {
    fn new(config: &Config, pool: &config::Pool, me: u64) -> PoolScraping {
        let scraper =
            Scraper::new(pool.model_server, Schedule::of(config, pool), config.max_consecutive_failures);
        PoolScraping {
            name: pool.name.clone(),
            metrics: pool.metrics.clone(),
            lease: (config.scrape_by == ScrapeBy::Worker).then(|| LeasePlace::new(config, pool, me)),
            is_mine: false,
            snapshot: SnapshotPlace::new(config, pool),
            scraper,
            discovery: Discovery::new(config, &pool.cluster),
            configured: pool.endpoints.clone(),
            prefill: pool.prefill,
            listed: pool.endpoints.as_ref().map(|endpoints| Discovered::at(endpoints.iter().copied())),
            has_unnamed: false,
            gauges: Interval::new(GAUGE_INTERVAL_MS),
            gauged: HashSet::new(),
        }
    }

    /// Remembers what Envoy lists.
    fn list(&mut self, discovered: Discovered) {
        let discovered = match &self.configured {
            Some(configured) => discovered.of_configured(configured),
            None => discovered,
        };
        let had_unnamed = std::mem::replace(&mut self.has_unnamed, discovered.unnamed > 0);
        if self.has_unnamed && !had_unnamed {
            log::warn!(
                "pool={}: {} hosts have no ip:port by which a pick could name them; Envoy balances this pool",
                self.name,
                discovered.unnamed
            );
        }
        self.listed = Some(discovered);
    }

    /// Whether the pool is this one's to scrape. Who begins to takes the endpoints over of which another has written gauges.
    fn is_mine(&mut self, now_ms: u64) -> bool {
        let is_mine = self.lease.as_mut().is_none_or(|lease| lease.is_held(now_ms));
        let was_mine = std::mem::replace(&mut self.is_mine, is_mine);
        if is_mine && !was_mine {
            let endpoints = self.snapshot.read_new().and_then(|snapshot| snapshot.endpoints);
            self.scraper.remember(endpoints.as_deref().unwrap_or_default());
            self.gauged = endpoints.iter().flatten().map(|endpoint| endpoint.address).collect();
        }
        if !is_mine {
            self.scraper.forget_changes();
        }
        is_mine
    }

    /// Publishes to workers what was scraped, if that is still due; the time that has taken, in microseconds.
    fn publish(&mut self, exchange: &mut Exchange, loads: &mut LoadTracker, now_ms: u64) -> u64 {
        let started_us = host::now_us();
        let Some(snapshot) = self.scraper.take_snapshot() else { return 0 };
        for endpoint in snapshot.endpoints.iter().flatten() {
            loads.id(endpoint.address);
        }
        self.snapshot.write(&snapshot);
        exchange.publish_with(loads, Vec::new(), Ledger::snapshot_published, now_ms);
        host::now_us().saturating_sub(started_us)
    }

    /// Writes what is believed of each endpoint, once in a while; of those that have gone, that nothing is there.
    fn write_gauges(&mut self, place: usize, loads: &LoadTracker, recorder: &mut Recorder, now_ms: u64) {
        if !self.gauges.is_due(now_ms) {
            return;
        }
        let before = std::mem::take(&mut self.gauged);
        for endpoint in self.scraper.endpoints() {
            let in_flight = loads.in_flight_at(&endpoint.address);
            recorder.record(|stats| stats.endpoint(place, endpoint, in_flight, now_ms));
            self.gauged.insert(endpoint.address);
        }
        for gone in before.difference(&self.gauged) {
            recorder.record(|stats| stats.endpoint_gone(place, gone));
        }
    }

    /// Counts it, and says once that discovery fails; it goes on trying.
    fn discovery_failed(&mut self, place: usize, problem: &str, recorder: &mut Recorder) {
        recorder.record(|stats| [stats.discovery_failed(place)]);
        if let Some(discovery) = &mut self.discovery
            && discovery.failed()
        {
            log::warn!(
                "pool={}: discovery of cluster {} failed: {problem}; the last known endpoints stay",
                self.name,
                discovery.cluster
            );
        }
    }
}

/// Asks for what is at this address and path, through the cluster and with the headers for metrics; gives the call's token.
fn get(
    cluster: &str,
    metrics: &config::Metrics,
    path: &str,
    address: SocketAddr,
    timeout_ms: u64,
) -> HostResult<u32> {
    let address = address.to_string();
    let destination = ("x-envoy-original-dst-host", address.as_str());
    let configured = metrics.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let headers: Vec<(&str, &str)> = std::iter::once(destination).chain(configured).collect();
    host::http_get(cluster, path, &address, &headers, timeout_ms)
}

fn report(pool: &str, address: SocketAddr, news: &News) {
    let (level, what) = match news {
        News::Failing(ScrapeFailure::NoAnswer) => (
            log::Level::Info,
            "no answer to a scrape; its last metrics count until they are stale".to_owned(),
        ),
        News::Failing(failure) => (
            log::Level::Warn,
            format!("metrics cannot be read: {failure}; picks count its in-flight requests only"),
        ),
        News::Out(failure) => (
            log::Level::Warn,
            format!("metrics cannot be read: {failure}; it gets no requests until it answers"),
        ),
        News::Back => (log::Level::Info, "it answers again, and gets requests again".to_owned()),
        News::Readable => (log::Level::Info, "metrics are read again".to_owned()),
    };
    log::log!(level, "pool={pool} endpoint={address}: {what}");
}
