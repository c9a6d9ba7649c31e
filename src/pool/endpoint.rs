//! One endpoint: what was scraped from it, how fresh that is, and whether requests to it fail.

use std::net::SocketAddr;

use super::{EndpointReading, EnvoyHost, HostHealth, Limits, Reading, Standing};
use crate::hash::{fnv1a, mix};
use crate::load::{AdapterId, Failures, InFlight, LoadId, LoadTracker};
use crate::metrics::{LoraState, ReportedLoad};
use crate::sessions::Last;

/// Milliseconds an endpoint stays out after requests to it failed in a row; doubled each time it fails again.
const FIRST_EJECTION_MS: u64 = 1_000;
/// The longest it stays out before another request tries it.
const MAX_EJECTION_MS: u64 = 30_000;
/// How long a request has gone unanswered when its client's leaving says something of the endpoint, in milliseconds:
/// clients that complete what is being typed leave sooner, and often.
const TELLING_SILENCE_MS: u64 = 1_000;

/// Of so many requests sent to an endpoint without a queue, one is taken to be queued.
const BATCHED_OF_ONE_QUEUED: u32 = 4;

/// How far the scraped numbers of an endpoint can be believed. The order is that of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Freshness {
    /// Scraped within the limit.
    Fresh,
    /// It answers scrapes, but with no metrics that can be read, or has not been asked yet: only what this gateway has in flight
    /// there counts.
    Unreadable,
    /// Older than the limit, or never answered: the same, and nothing shows that it is there.
    Stale,
}

impl Freshness {
    /// Whether it was scraped within the limit: it is picked as if there were no others but those.
    pub fn is_known(self) -> bool {
        self != Freshness::Stale
    }
}

/// What an endpoint would have to do to run an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdapterResidency {
    /// Nothing: it is loaded, or is being loaded for a request in flight.
    Loaded,
    /// Load it.
    FreeSlot,
    /// Load it in place of one without requests.
    IdleSlot,
    /// Wait until no request for another one runs any more, then load it in its place.
    NoSlot,
}

/// What only a scrape can report of an endpoint's load.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct ExternalLoad {
    /// Queued requests that this gateway did not send.
    pub waiting: u32,
    /// All requests there that this gateway did not send.
    pub requests: u32,
    /// Whether its server has computed nothing yet.
    pub is_unproven: bool,
    /// Share of the KV cache in use, 0..=1; 0 where metrics do not report it.
    pub kv_cache_utilization: f32,
}

impl ExternalLoad {
    fn of(reading: &Reading) -> ExternalLoad {
        let utilization = reading.metrics.kv_cache_utilization.unwrap_or(0.0);
        ExternalLoad {
            waiting: reading.external_waiting,
            requests: reading.external_requests,
            is_unproven: reading.metrics.activity == Some(0.0),
            // Whoever writes to shared data can put any number there.
            kv_cache_utilization: if (0.0..=1.0).contains(&utilization) { utilization } else { 0.0 },
        }
    }
}

/// Of the tokens that a server finds in its prefix cache, the part that was about to leave it. A cache drops what was unused for
/// longest; what is computed takes its place, and what is found moves to the end of the line, so that something else is next.
/// Most of what is found is found time and again, and was at the end already. With 0, agents with DEFAULT wait a fifth to two
/// thirds longer, with 1 twice as long; 0.45 is about as good.
const REVIVED_SHARE: f64 = 0.3;

/// One model server of a pool.
#[derive(Debug)]
pub struct Endpoint {
    /// Its place among the loads.
    pub load_id: LoadId,
    /// A hash of its address, for rendezvous choices.
    pub address_hash: u64,
    address: SocketAddr,
    text: String,
    host: EnvoyHost,
    scrape_failures: u32,
    unreadable_ms: Option<u64>,
    restarted_ms: Option<u64>,
    /// Whether its server said that it takes no requests when it was last scraped.
    is_resting: bool,
    request_failures: u32,
    /// Answers in a row that broke off after their first output, and when the last one did.
    broken_answers: u32,
    broken_ms: Option<u64>,
    /// The one model of which all of these were, if that is all that is known of them.
    failed_model: Option<AdapterId>,
    ejected_until_ms: u64,
    /// When one of these was last noted.
    failures_noted_ms: u64,
    /// When it last answered a request of this worker.
    answered_ms: Option<u64>,
    reading: Option<Reading>,
    /// What its last answer reported of the load of others, and when.
    reported: Option<(ExternalLoad, u64)>,
    adapters: Vec<AdapterId>,
    /// By how many of this worker's requests each of its engines has more than when it was last scraped, or fewer, where they name
    /// them.
    rank_changes: Vec<i32>,
    /// Whether its server has started anew, and nobody has taken notice yet.
    has_restarted: bool,
}

impl Endpoint {
    /// An endpoint of which nothing is known.
    pub fn new(address: SocketAddr, load_id: LoadId) -> Endpoint {
        let text = address.to_string();
        Endpoint {
            load_id,
            address_hash: fnv1a(text.as_bytes()),
            address,
            text,
            host: EnvoyHost::default(),
            scrape_failures: 0,
            unreadable_ms: None,
            restarted_ms: None,
            is_resting: false,
            request_failures: 0,
            broken_answers: 0,
            broken_ms: None,
            failed_model: None,
            ejected_until_ms: 0,
            failures_noted_ms: 0,
            answered_ms: None,
            reading: None,
            reported: None,
            adapters: Vec::new(),
            rank_changes: Vec::new(),
            has_restarted: false,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How it stands in a rendezvous choice by this key: the endpoint with the highest of these is chosen, alike in all workers and
    /// gateways.
    pub fn rendezvous_score(&self, key: u64) -> u64 {
        mix(key ^ self.address_hash)
    }

    /// How Envoy knows it.
    pub(super) fn host(&self) -> &EnvoyHost {
        &self.host
    }

    /// What Envoy calls it, and so the pick header.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the last good scrape said.
    pub fn reading(&self) -> Option<&Reading> {
        self.reading.as_ref()
    }

    /// What its last good scrape said of the load that others are, if that can be believed; else what an answer reported; else that
    /// there is none.
    pub(super) fn external(&self, freshness: Freshness) -> ExternalLoad {
        let believed = self.reading().filter(|_| freshness == Freshness::Fresh);
        let reported = || self.reported.map_or(ExternalLoad::default(), |(external, _)| external);
        believed.map_or_else(reported, ExternalLoad::of)
    }

    /// An answer reports its load, where this gateway has so much in flight there. How many run there it does not report.
    pub(super) fn load_reported(&mut self, reported: ReportedLoad, in_flight: InFlight, now_ms: u64) {
        let waiting = reported.waiting.saturating_sub(in_flight.waiting);
        let external = ExternalLoad {
            waiting,
            requests: waiting,
            kv_cache_utilization: reported.kv_cache_utilization,
            ..ExternalLoad::default()
        };
        self.reported = Some((external, now_ms));
    }

    /// Forgets what an answer reported so long ago; whether there was any.
    pub(super) fn forget_reported(&mut self, stale_after_ms: u64, now_ms: u64) -> bool {
        let is_stale =
            self.reported.is_some_and(|(_, reported_ms)| now_ms.abs_diff(reported_ms) >= stale_after_ms);
        if is_stale {
            self.reported = None;
        }
        is_stale
    }

    /// How far its numbers can be believed at `now_ms`.
    pub fn freshness(&self, now_ms: u64, stale_after_ms: u64) -> Freshness {
        let is_recent = |moment_ms: u64| now_ms.abs_diff(moment_ms) < stale_after_ms;
        if self.reading().is_some_and(|reading| is_recent(reading.scraped_ms)) {
            Freshness::Fresh
        } else if self.unreadable_ms.is_some_and(is_recent) || self.is_unasked() {
            Freshness::Unreadable
        } else {
            Freshness::Stale
        }
    }

    /// Whether no scrape of it has ended yet. A large pool's first round takes seconds, in which those that were scraped first would
    /// get all requests if the others stood behind them.
    fn is_unasked(&self) -> bool {
        self.reading.is_none() && self.unreadable_ms.is_none() && self.scrape_failures == 0
    }

    /// Milliseconds since its metrics were read, or until: those that are dated later than now would otherwise be fresh for
    /// ever.
    pub fn scrape_age_ms(&self, now_ms: u64) -> Option<u64> {
        self.reading().map(|reading| now_ms.abs_diff(reading.scraped_ms))
    }

    /// Whether requests may go there: Envoy holds it healthy, it can be reached, and its requests do not fail in a row.
    pub fn is_candidate(&self, now_ms: u64, max_consecutive_failures: u32) -> bool {
        self.standing(now_ms, max_consecutive_failures) <= Standing::Resting
    }

    /// How it stands among the others.
    pub(super) fn standing(&self, now_ms: u64, max_consecutive_failures: u32) -> Standing {
        let scrapes_fail = self.scrape_failures >= max_consecutive_failures;
        // One that is ejected for longer than any is was so by a clock that has gone back since.
        let left_ms = self.ejected_until_ms.saturating_sub(now_ms);
        let requests_fail =
            self.failures() >= max_consecutive_failures && (1..=MAX_EJECTION_MS).contains(&left_ms);
        match self.host.health {
            HostHealth::Unhealthy | HostHealth::Excluded => Standing::Unhealthy,
            _ if scrapes_fail || requests_fail => Standing::Failing,
            _ if self.is_resting => Standing::Resting,
            _ => Standing::Ready,
        }
    }

    /// How many requests to it have failed in a row, and until when it is ejected for that.
    pub(super) fn request_failures(&self) -> (u32, u64) {
        (self.failures(), self.ejected_until_ms)
    }

    /// What others are to know of its failures, which have just changed. Nothing where it may be that it does not have a model.
    pub(super) fn note_failures(&mut self, now_ms: u64) -> Option<Failures> {
        self.failures_noted_ms = now_ms;
        let failures =
            Failures { noted_ms: now_ms, requests: self.request_failures, answers: self.broken_answers };
        self.failed_model.is_none().then_some(failures)
    }

    /// Takes over what another worker has noted of its failures, if that is news.
    pub(super) fn receive_failures(&mut self, received: Failures, max_consecutive_failures: u32) {
        if received.noted_ms < self.failures_noted_ms {
            return;
        }
        self.failures_noted_ms = received.noted_ms;
        self.request_failures = received.requests;
        self.broken_answers = received.answers;
        self.failed_model = None;
        self.rest(received.noted_ms, max_consecutive_failures);
    }

    /// Of the failures of either kind those that are more: an output says nothing of answers that break off behind it.
    fn failures(&self) -> u32 {
        self.request_failures.max(self.broken_answers)
    }

    /// Until when it is a candidate or none, and its metrics are fresh or stale, as at `now_ms`, if nothing is received from it.
    pub(super) fn standing_until_ms(&self, now_ms: u64, limits: Limits) -> u64 {
        let stale_after_ms = limits.metrics_stale_after_ms;
        let received_ms =
            self.reading().map(|reading| reading.scraped_ms).into_iter().chain(self.unreadable_ms);
        let fresh_ms =
            received_ms.zip(stale_after_ms.into_iter().cycle()).flat_map(|(received_ms, after_ms)| {
                [received_ms.saturating_sub(after_ms).saturating_add(1), received_ms.saturating_add(after_ms)]
            });
        let ejected_ms = [self.ejected_until_ms.saturating_sub(MAX_EJECTION_MS), self.ejected_until_ms];
        let ahead = fresh_ms.chain(ejected_ms).filter(|ms| *ms > now_ms);
        ahead.min().unwrap_or(u64::MAX)
    }

    /// Tokens its KV cache has room for, if its metrics report it.
    pub fn cache_capacity_tokens(&self) -> Option<u64> {
        let cache = self.reading()?.metrics.cache.as_ref()?;
        (cache.capacity_tokens > 0).then_some(cache.capacity_tokens)
    }

    /// Tokens that a prompt and its answer may have there, if its metrics report it; that does not grow stale.
    pub fn context_tokens(&self) -> Option<u32> {
        self.reading()?.metrics.context_tokens.filter(|tokens| *tokens > 0)
    }

    /// Tokens in one block of its prefix cache; 1 where its metrics do not report it.
    pub fn cache_block_tokens(&self) -> u32 {
        let cache = self.reading().and_then(|reading| reading.metrics.cache.as_ref());
        cache.map_or(1, |cache| cache.block_size_tokens).max(1)
    }

    /// How many tokens its cache has turned over since it was started, as far as its metrics show: those that were computed, and
    /// [`REVIVED_SHARE`] of those that were found.
    fn turned_over(&self) -> Option<u64> {
        let metrics = &self.reading()?.metrics;
        let found = metrics.prefix_cache_hits.unwrap_or(0.0);
        let computed = (metrics.prefix_cache_queries? - found).max(0.0);
        Some((computed + found * REVIVED_SHARE) as u64)
    }

    /// The low bits of the same; 0 where its metrics do not report it.
    pub fn turnover_tokens(&self) -> u32 {
        self.turned_over().unwrap_or(0) as u32
    }

    /// Whether its cache has turned over as much as it has room for since what was noted of a conversation, so that nothing of that
    /// is left there; not, where its metrics do not report it. What the conversation's own last request was to turn over may not
    /// be reported yet: that is at most what it then had. A count that is lower by more is that of a server started anew.
    pub fn has_turned_over_since(&self, last: Last) -> bool {
        let Some((now, capacity)) = self.turned_over().zip(self.cache_capacity_tokens()) else {
            return false;
        };
        let is_awaited = last.turnover_tokens.wrapping_sub(now as u32) <= last.tokens;
        !is_awaited && u64::from((now as u32).wrapping_sub(last.turnover_tokens)) >= capacity
    }

    /// When its server has started anew, in milliseconds, if it has since the last time this was asked.
    pub(super) fn take_restart(&mut self) -> Option<u64> {
        self.restarted_ms.filter(|_| std::mem::take(&mut self.has_restarted))
    }

    /// The adapters it had in use at the last scrape.
    pub fn adapters(&self) -> &[AdapterId] {
        &self.adapters
    }

    /// Whether its metrics name this as its base model.
    pub fn has_base_model(&self, model: AdapterId) -> bool {
        let name = self.reading().and_then(|reading| reading.metrics.base_model.as_deref());
        name.is_some_and(|name| AdapterId::of(name) == model)
    }

    /// What it would have to do to run this adapter.
    pub fn adapter_residency(&self, adapter: AdapterId, loads: &LoadTracker) -> AdapterResidency {
        if self.adapters.contains(&adapter) || loads.has_adapter(self.load_id, adapter) {
            return AdapterResidency::Loaded;
        }
        let mut running: Vec<AdapterId> =
            self.adapters.iter().copied().chain(loads.adapters(self.load_id)).collect();
        running.sort_unstable();
        running.dedup();
        // One that reports no adapters beside others that do may yet load its first.
        let Some(lora) = self.lora() else { return AdapterResidency::FreeSlot };
        // Of adapters that the server does not name, at most one for each of others' requests runs.
        let unnamed = self.reading().map_or(0, |reading| reading.external_requests as usize);
        let in_use = (lora.slots_in_use as usize).min(running.len() + unnamed).max(running.len());
        let idle_slots = (lora.slots as usize).saturating_sub(in_use);
        let recent = loads.recent_adapters(self.load_id).filter(|recent| !running.contains(recent));
        let mut free_slots = idle_slots;
        for idle in recent.take(idle_slots) {
            if idle == adapter {
                return AdapterResidency::Loaded;
            }
            free_slots -= 1;
        }
        match idle_slots {
            0 => AdapterResidency::NoSlot,
            _ if free_slots > 0 => AdapterResidency::FreeSlot,
            _ => AdapterResidency::IdleSlot,
        }
    }

    /// Requests queued there, as far as can be known: those of the last scrape, and those that this gateway has sent
    /// since; where there was no queue, one in `BATCHED_OF_ONE_QUEUED` of them, because most go straight into the
    /// batch. Several engines share them. Those that have left the queue since are seen at the next scrape. Where metrics
    /// cannot be read all of this gateway's are as if sent since. `None` where nothing was received from it.
    pub fn queue_depth(&self, in_flight: InFlight, now_ms: u64, stale_after_ms: u64) -> Option<u32> {
        let reading = match self.freshness(now_ms, stale_after_ms) {
            Freshness::Fresh => self.reading()?,
            Freshness::Unreadable => return Some(in_flight.waiting / BATCHED_OF_ONE_QUEUED),
            Freshness::Stale => return None,
        };
        let sent_since =
            in_flight.waiting.saturating_sub(reading.own_waiting) / reading.metrics.engines.max(1);
        Some(match reading.waiting {
            0 => sent_since / BATCHED_OF_ONE_QUEUED,
            waiting => waiting.saturating_add(sent_since),
        })
    }

    /// The requests of each of its engines, as far as this worker knows; empty unless it has several.
    pub fn rank_loads(&self) -> Vec<u32> {
        let scraped = self.reading().map(|reading| reading.metrics.ranks.as_slice()).unwrap_or_default();
        let changes = self.rank_changes.iter().copied().chain(std::iter::repeat(0));
        scraped.iter().zip(changes).map(|(requests, change)| requests.saturating_add_signed(change)).collect()
    }

    /// The engine of this rank has so many requests of this worker more, or less.
    pub(super) fn rank_changed(&mut self, rank: u32, change: i32) {
        let ranks = self.reading().map_or(0, |reading| reading.metrics.ranks.len());
        self.rank_changes.resize(ranks, 0);
        if let Some(changed) = self.rank_changes.get_mut(rank as usize) {
            *changed = changed.saturating_add(change);
        }
    }

    /// An answer has come to its end.
    pub fn answer_completed(&mut self) {
        self.broken_answers = 0;
    }

    /// An answer to a request that was sent at `sent_ms` has failed after its first output. Those that were on their way
    /// when the last one did are of the same failure: a server that dies takes all of them with it.
    pub fn answer_broke_off(&mut self, sent_ms: u64, now_ms: u64, max_consecutive_failures: u32) {
        if self.broken_ms.is_some_and(|broken_ms| sent_ms < broken_ms) {
            return;
        }
        self.broken_ms = Some(now_ms);
        self.broken_answers = self.broken_answers.saturating_add(1);
        self.rest(now_ms, max_consecutive_failures);
    }

    /// A request to it was answered.
    pub fn request_succeeded(&mut self, now_ms: u64) {
        self.request_failures = 0;
        self.answered_ms = Some(now_ms);
    }

    /// Whether a client that has sent a request there at `sent_ms`, and leaves before there was an answer, says something of
    /// it: that took long, and nothing else has been answered since, so that it is the endpoint that says nothing. Clients
    /// that leave an endpoint that works say something of themselves.
    pub fn is_silent_since(&self, sent_ms: u64, now_ms: u64) -> bool {
        let was_silent = self.answered_ms.is_none_or(|answered_ms| answered_ms < sent_ms);
        was_silent && now_ms.saturating_sub(sent_ms) >= TELLING_SILENCE_MS
    }

    /// A request for this model was retried elsewhere, which does not show why: it failed, or the model is missing. As long as
    /// other models' do not fail as well, it is taken for missing from `max_consecutive_failures` on; whether it is.
    pub fn request_passed_over(
        &mut self,
        model: AdapterId,
        now_ms: u64,
        max_consecutive_failures: u32,
    ) -> bool {
        let is_first = self.request_failures == 0;
        let failed_model = Some(model).filter(|_| is_first || self.failed_model == Some(model));
        self.request_failures = self.request_failures.saturating_add(1);
        self.failed_model = failed_model;
        let is_missing = failed_model.is_some() && self.request_failures >= max_consecutive_failures;
        if is_missing {
            self.request_failures = 0;
        } else {
            self.rest(now_ms, max_consecutive_failures);
        }
        is_missing
    }

    /// A request to it failed: no answer, or a server error. From `max_consecutive_failures` on it is ejected
    /// for a while, twice as long each time, and then tried with whatever request comes.
    pub fn request_failed(&mut self, now_ms: u64, max_consecutive_failures: u32) {
        self.failed_model = None;
        self.request_failures = self.request_failures.saturating_add(1);
        self.rest(now_ms, max_consecutive_failures);
    }

    /// A request is sent there. One that was ejected is tried with one request at a time: it may still hang.
    pub fn request_sent(&mut self, now_ms: u64, max_consecutive_failures: u32) {
        self.rest(now_ms, max_consecutive_failures);
    }

    /// Leaves it alone for a while from now on, if its requests fail in a row.
    fn rest(&mut self, now_ms: u64, max_consecutive_failures: u32) {
        let Some(beyond) = self.failures().checked_sub(max_consecutive_failures) else {
            return;
        };
        let ejection_ms = FIRST_EJECTION_MS.saturating_mul(1 << beyond.min(10)).min(MAX_EJECTION_MS);
        self.ejected_until_ms = now_ms.saturating_add(ejection_ms);
    }

    /// Takes over what the scraper says of it.
    pub(super) fn read(&mut self, published: EndpointReading) {
        if self.host.name != published.host.name {
            self.text = published.host.name.clone().unwrap_or_else(|| self.address.to_string());
        }
        self.host = published.host;
        self.scrape_failures = published.scrape_failures;
        self.unreadable_ms = published.unreadable_ms;
        if published.restarted_ms > self.restarted_ms {
            self.restarted_ms = published.restarted_ms;
            self.has_restarted = self.reading().is_some();
        }
        self.set_reading(published.reading);
        let rests = self.reading().is_some_and(|reading| reading.metrics.is_resting);
        self.is_resting = rests && self.unreadable_ms.is_none();
    }

    /// Nobody says any more that it cannot be scraped, or that it takes no requests.
    pub(super) fn forget_scrape_failures(&mut self) {
        self.scrape_failures = 0;
        self.is_resting = false;
    }

    fn set_reading(&mut self, reading: Option<Reading>) {
        let scraped_ms = |reading: &Option<Reading>| reading.as_ref().map(|reading| reading.scraped_ms);
        if scraped_ms(&reading) != scraped_ms(&self.reading) {
            self.rank_changes.clear();
        }
        self.reading = reading;
        self.adapters =
            self.lora().iter().flat_map(|lora| &lora.adapters).map(|name| AdapterId::of(name)).collect();
    }

    /// What it last reported of adapters, if it serves any.
    pub(super) fn lora(&self) -> Option<&LoraState> {
        self.reading.as_ref()?.metrics.lora.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{LoadTracker, RequestLoad};
    use crate::metrics::{EndpointMetrics, LoraState};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn endpoint() -> Endpoint {
        let address = "10.0.0.1:8000".parse().unwrap();
        Endpoint::new(address, LoadTracker::default().id(address))
    }

    /// These metrics, read at 0 ms, with no requests but its own.
    fn reading(metrics: EndpointMetrics) -> Reading {
        let waiting = metrics.waiting;
        Reading { scraped_ms: 0, metrics, waiting, own_waiting: 0, external_waiting: 0, external_requests: 0 }
    }

    #[test]
    fn metrics_are_fresh_until_the_limit_and_stale_when_there_are_none() {
        let mut endpoint = endpoint();
        assert_eq!(endpoint.freshness(0, 500), Freshness::Unreadable, "nobody has asked it");
        endpoint.scrape_failures = 1;
        assert_eq!(endpoint.freshness(0, 500), Freshness::Stale);
        endpoint.set_reading(Some(Reading { scraped_ms: 1_000, ..reading(EndpointMetrics::default()) }));
        assert_eq!(endpoint.freshness(1_499, 500), Freshness::Fresh);
        assert_eq!(endpoint.freshness(1_500, 500), Freshness::Stale);
        assert_eq!(
            endpoint.freshness(900, 500),
            Freshness::Fresh,
            "a clock that went back a little makes nothing old"
        );
        assert_eq!(endpoint.freshness(500, 500), Freshness::Stale, "nothing of the future is fresh for ever");
    }

    #[test]
    fn a_kv_cache_cannot_be_used_by_less_than_nothing_or_more_than_all() {
        let mut endpoint = endpoint();
        for (reported, believed) in
            [(0.25, 0.25), (1.0, 1.0), (1.5, 0.0), (-1.0, 0.0), (f32::INFINITY, 0.0), (f32::NAN, 0.0)]
        {
            let metrics =
                EndpointMetrics { kv_cache_utilization: Some(reported), ..EndpointMetrics::default() };
            endpoint.set_reading(Some(reading(metrics)));
            assert_eq!(endpoint.external(Freshness::Fresh).kv_cache_utilization, believed, "{reported}");
        }
    }

    /// Where "a" is at an endpoint of so many slots, with `in_use` by its metrics, after requests for `served` have come and
    /// ended there and while one for each of `in_flight` runs.
    #[track_caller]
    fn check_adapter(
        slots: u32,
        in_use: &[&str],
        served: &[&str],
        in_flight: &[&str],
        expected: AdapterResidency,
    ) {
        let mut loads = LoadTracker::default();
        let address = "10.0.0.1:8000".parse().unwrap();
        let mut endpoint = Endpoint::new(address, loads.id(address));
        let lora = LoraState::named(in_use.iter().map(|name| name.to_string()).collect(), slots);
        let metrics = EndpointMetrics { lora: Some(lora), ..EndpointMetrics::default() };
        endpoint.set_reading(Some(reading(metrics)));
        let mut start = |name: &&str| {
            let adapter = Some(AdapterId::of(name));
            let share = RequestLoad { tokens: 1, adapter, model: adapter, streamed: true };
            loads.start(endpoint.load_id, share, 0)
        };
        let tickets: Vec<_> = served.iter().map(&mut start).collect();
        let _running: Vec<_> = in_flight.iter().map(&mut start).collect();
        tickets.into_iter().for_each(|ticket| loads.end(ticket, 0));
        let found = endpoint.adapter_residency(AdapterId::of("a"), &loads);
        assert_eq!(found, expected, "{slots} {in_use:?} {served:?} {in_flight:?}");
    }

    #[test]
    fn an_adapter_is_where_it_runs_or_was_used_last() {
        check_adapter(2, &["a"], &[], &[], AdapterResidency::Loaded);
        check_adapter(2, &["b"], &[], &["a"], AdapterResidency::Loaded);
        check_adapter(2, &["b"], &["a"], &[], AdapterResidency::Loaded);
        check_adapter(2, &[], &["a", "b"], &[], AdapterResidency::Loaded);
        check_adapter(2, &[], &["a", "b", "c"], &[], AdapterResidency::IdleSlot);
        check_adapter(2, &[], &["a", "b"], &["b", "c"], AdapterResidency::NoSlot);
        check_adapter(2, &["b"], &["a", "c"], &[], AdapterResidency::IdleSlot);
        check_adapter(2, &["b"], &[], &["b"], AdapterResidency::FreeSlot);
        check_adapter(2, &[], &["b", "b"], &[], AdapterResidency::FreeSlot);
        check_adapter(2, &["b", "c"], &["a"], &[], AdapterResidency::NoSlot);
        check_adapter(0, &[], &["a"], &[], AdapterResidency::NoSlot);
    }

    #[test]
    fn slots_whose_adapters_are_not_named_are_in_use_as_far_as_others_have_requests() {
        let check = |external_requests: u32, expected: AdapterResidency| {
            let mut loads = LoadTracker::default();
            let address = "10.0.0.1:8000".parse().unwrap();
            let mut endpoint = Endpoint::new(address, loads.id(address));
            let lora = LoraState { slots: 3, slots_in_use: 2, ..LoraState::default() };
            let metrics = EndpointMetrics { lora: Some(lora), ..EndpointMetrics::default() };
            endpoint.set_reading(Some(Reading { external_requests, ..reading(metrics) }));
            for adapter in ["b", "c"] {
                let adapter = Some(AdapterId::of(adapter));
                let share = RequestLoad { tokens: 1, adapter, model: adapter, streamed: true };
                let ticket = loads.start(endpoint.load_id, share, 0);
                loads.end(ticket, 0);
            }
            assert_eq!(
                endpoint.adapter_residency(AdapterId::of("a"), &loads),
                expected,
                "{external_requests}"
            );
        };
        check(0, AdapterResidency::FreeSlot);
        check(2, AdapterResidency::IdleSlot);
        check(9, AdapterResidency::IdleSlot);
    }

    #[test]
    fn an_engine_has_what_the_page_says_and_what_has_changed_since() {
        let mut endpoint = endpoint();
        let read = |ranks: &[u32], scraped_ms| {
            let metrics = EndpointMetrics { ranks: ranks.to_vec(), ..EndpointMetrics::default() };
            Some(Reading { scraped_ms, ..reading(metrics) })
        };
        endpoint.rank_changed(0, 1);
        assert_eq!(endpoint.rank_loads(), [] as [u32; 0]);
        endpoint.set_reading(read(&[2, 0], 10));
        [(0, 1), (1, 1), (1, -1), (1, -1), (7, 1)].iter().for_each(|(rank, change)| {
            endpoint.rank_changed(*rank, *change);
        });
        endpoint.set_reading(read(&[2, 0], 10));
        assert_eq!(endpoint.rank_loads(), [3, 0], "none has fewer than none");
        endpoint.set_reading(read(&[3, 1, 1], 60));
        assert_eq!(endpoint.rank_loads(), [3, 1, 1], "the page has it now");
    }

    #[test]
    fn requests_sent_since_the_scrape_count_as_queued_fully_only_where_there_is_a_queue() {
        let mut endpoint = endpoint();
        let mut check = |waiting: u32, sent_since: u32, expected: u32| {
            let metrics = EndpointMetrics { waiting, ..EndpointMetrics::default() };
            endpoint.set_reading(Some(Reading { own_waiting: 2, ..reading(metrics) }));
            let in_flight = InFlight { waiting: 2 + sent_since, ..InFlight::default() };
            assert_eq!(
                endpoint.queue_depth(in_flight, 10, 500),
                Some(expected),
                "{waiting} and {sent_since}"
            );
        };
        check(0, 0, 0);
        check(0, 19, 4);
        check(1, 3, 4);
        let metrics = EndpointMetrics { engines: 4, ..EndpointMetrics::default() };
        endpoint.set_reading(Some(Reading { waiting: 1, ..reading(metrics) }));
        let in_flight = InFlight { waiting: 9, ..InFlight::default() };
        assert_eq!(endpoint.queue_depth(in_flight, 10, 500), Some(3), "engines share what is sent");
        assert_eq!(endpoint.queue_depth(InFlight::default(), 10_000, 500), None, "stale");
    }

    #[test]
    fn requests_that_fail_in_a_row_keep_it_out_longer_each_time_until_one_succeeds() {
        let mut endpoint = endpoint();
        endpoint.request_failed(0, 2);
        assert!(endpoint.is_candidate(0, 2));
        endpoint.request_failed(0, 2);
        assert!(!endpoint.is_candidate(999, 2));
        assert!(endpoint.is_candidate(1_000, 2));
        endpoint.request_failed(1_000, 2);
        assert!(!endpoint.is_candidate(2_999, 2));
        endpoint.request_succeeded(1_001);
        assert!(endpoint.is_candidate(1_001, 2));
    }

    #[test]
    fn one_that_was_left_alone_is_tried_with_one_request_at_a_time() {
        let mut endpoint = endpoint();
        (0..2).for_each(|_| endpoint.request_failed(0, 2));
        assert!(endpoint.is_candidate(1_000, 2));
        endpoint.request_sent(1_000, 2);
        assert!(!endpoint.is_candidate(1_999, 2), "the request may hang");
        assert!(endpoint.is_candidate(2_000, 2), "or have been forgotten");
        endpoint.request_succeeded(1_500);
        endpoint.request_sent(1_500, 2);
        assert!(endpoint.is_candidate(1_500, 2));
    }

    /// Whether it is ejected at 20,000 ms, of requests (sent, left) of which none was answered, if it last answered
    /// another at `answered_ms`.
    #[track_caller]
    fn check_abandoned(requests: &[(u64, u64)], answered_ms: u64, left_alone: bool) {
        let mut endpoint = endpoint();
        endpoint.request_succeeded(answered_ms);
        for (sent_ms, left_ms) in requests {
            if endpoint.is_silent_since(*sent_ms, *left_ms) {
                endpoint.request_failed(*left_ms, 2);
            }
        }
        assert_eq!(!endpoint.is_candidate(20_000, 2), left_alone, "{requests:?} {answered_ms}");
    }

    #[test]
    fn clients_that_leave_count_where_they_have_waited_for_long_and_nobody_was_answered_meanwhile() {
        check_abandoned(&[(17_000, 19_500), (18_000, 20_000)], 16_999, true);
        check_abandoned(&[(17_000, 19_500)], 16_999, false);
        check_abandoned(&[(17_000, 19_500), (19_001, 20_000)], 16_999, false);
        check_abandoned(&[(17_000, 19_500), (18_000, 20_000)], 17_000, false);
        check_abandoned(&[(17_000, 19_500), (18_000, 20_000)], 19_000, false);
        check_abandoned(&[(19_000, 17_000), (20_000, 18_000)], 0, false);
    }

    #[test]
    fn no_number_of_failures_keeps_it_out_for_longer_than_the_limit() {
        let mut endpoint = endpoint();
        for _ in 0..100 {
            endpoint.request_failed(0, 1);
        }
        assert!(endpoint.is_candidate(MAX_EJECTION_MS, 1));
        endpoint.request_failed(3_600_000, 1);
        assert!(!endpoint.is_candidate(3_600_000, 1));
        assert!(endpoint.is_candidate(0, 1), "the clock has gone back");
    }
}
