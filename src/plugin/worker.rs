//! One worker's picker, joined to the host: shared data, scrapes, counters, the log.

use super::host::{self, LogLevel};
use super::recorder::{GAUGE_INTERVAL_MS, Recorder};
use super::scraping::Scraping;
use super::shared::{Exchange, QueuedPlace, SnapshotPlace};
use crate::config::{Config, ScrapeBy};
use crate::decide::{Decision, Pick, Prepared};
use crate::interval::Interval;
use crate::picker::{Outcome, Picker, Released, Sent};
use crate::pool::Endpoint;
use crate::stats::RequestLabels;

/// One worker's state, shared by its streams. `W` is how a request that waits is reached later.
pub struct Worker<W> {
    pub picker: Picker<W>,
    snapshots: Vec<SnapshotPlace>,
    exchange: Exchange,
    queued: QueuedPlace,
    scraping: Option<Scraping>,
    pub recorder: Recorder,
    gauges: Interval,
    /// Whether the load has changed since it was published.
    dirty: bool,
}

impl<W> Worker<W> {
    pub fn new(config: Config) -> Worker<W> {
        let me = host::random();
        Worker {
            snapshots: config.pools.iter().map(|pool| SnapshotPlace::new(&config, pool)).collect(),
            exchange: Exchange::new(me),
            queued: QueuedPlace::new(&config, me),
            scraping: (config.scrape_by == ScrapeBy::Worker).then(|| Scraping::new(&config, me)),
            recorder: Recorder::new(&config),
            gauges: Interval::new(GAUGE_INTERVAL_MS),
            dirty: false,
            picker: Picker::new(config, fastrand::Rng::with_seed(host::random())),
        }
    }

    pub fn config(&self) -> &Config {
        self.picker.config()
    }

    /// Exchanges with the peers what is in flight and what was sent where, takes over new snapshots, and scrapes if it is this
    /// worker's turn.
    pub fn tick(&mut self, now_ms: u64) {
        self.dirty |= self.picker.tick(now_ms);
        if let Some(batch) = self.picker.take_events() {
            self.exchange.tell(&batch);
            self.dirty = true;
        }
        self.exchange.tick(self.picker.loads_mut(), std::mem::take(&mut self.dirty), now_ms);
        self.exchange.take_lost().into_iter().for_each(|peer| self.picker.lose(peer));
        if self.picker.learns_prefixes() {
            for (peer, batch) in self.exchange.take_told() {
                batch.events.iter().for_each(|event| self.picker.hear(peer, event, now_ms));
            }
        }
        if let Some(scraping) = &mut self.scraping {
            scraping.tick(self.picker.loads_mut(), now_ms);
        }
        let snapshots = self.snapshots.iter_mut().enumerate();
        self.picker.apply(snapshots.filter_map(|(pool, place)| Some((pool, place.read_new()?))));
        let queued = (0..self.snapshots.len()).map(|place| self.picker.queued(place) as u32);
        self.queued.tell(queued.collect(), now_ms);
        if self.gauges.is_due(now_ms) {
            self.write_gauges(now_ms);
            self.recorder.record_limits(self.picker.take_limits());
            self.recorder.record_limits(self.exchange.limits.take());
        }
    }

    /// What all workers remember of prompts is about the same, so each writes its own; of what waits, each writes the sum
    /// of what all have told.
    fn write_gauges(&mut self, now_ms: u64) {
        let told = self.queued.told(now_ms);
        for (place, queued) in (0..self.config().pools.len()).zip(told) {
            self.recorder.record(|stats| [stats.queued(place, queued)]);
            let prefixes = self.picker.pool(place).and_then(|pool| pool.prefixes());
            let blocks = prefixes.map(|prefixes| prefixes.len());
            self.recorder.record(|stats| blocks.map(|blocks| stats.prefix_blocks(place, blocks)));
        }
    }

    /// This configuration is over, and with it its pools' gauges.
    pub fn end_gauges(&mut self) {
        self.recorder.end_gauges();
        if let Some(scraping) = &mut self.scraping {
            scraping.end_gauges();
        }
    }

    pub fn http_call_answered(&mut self, token: u32, now_ms: u64) {
        if let Some(scraping) = &mut self.scraping {
            scraping.answered(token, self.picker.loads(), now_ms);
        }
    }

    /// Decides a prepared request, known by `id`; `waiter` is how it is reached should it have to wait.
    pub fn decide(
        &mut self,
        id: u32,
        prepared: &Prepared,
        waiter: impl FnOnce() -> W,
        now_ms: u64,
    ) -> Outcome {
        self.exchange.read_peers(self.picker.loads_mut(), now_ms);
        let outcome = self.picker.decide(id, prepared, waiter, now_ms);
        match outcome {
            Outcome::Decided(Decision::Send(_)) => self.count_sent(prepared),
            Outcome::Decided(_) => {}
            Outcome::Waits => self.exchange.introduce(self.picker.loads(), now_ms),
        }
        outcome
    }

    /// The client of a request that waits has left.
    pub fn forget(&mut self, pool: usize, id: u32) {
        self.picker.forget(pool, id);
    }

    /// The next request that need not wait any longer.
    pub fn released(&mut self, now_ms: u64) -> Option<Released<W>> {
        let released = self.picker.released(now_ms)?;
        if let Decision::Send(_) = released.decision {
            self.count_sent(&released.prepared);
        }
        Some(released)
    }

    /// Decides a request without a prompt to be read.
    pub fn decide_unread(&mut self, pool: usize, is_pool_guessed: bool, now_ms: u64) -> Decision {
        self.exchange.read_peers(self.picker.loads_mut(), now_ms);
        self.picker.decide_unread(pool, is_pool_guessed, now_ms)
    }

    /// The request goes to the pick, an endpoint of this pool: from now on it counts there, and every worker knows.
    pub fn send(&mut self, pick: &Pick, pool: usize, now_ms: u64) -> Sent {
        let prompt = pick.prompt.as_ref().filter(|sent| sent.prompt.blocks.is_some());
        let prompt = prompt.map(|sent| (sent.prompt.tokens, sent.matched_tokens));
        self.recorder.record(|stats| stats.picked(pool, pick.first_choice(), prompt));
        let sent = self.picker.send(pick, now_ms);
        self.exchange.publish(self.picker.loads(), now_ms);
        sent
    }

    /// As [`Picker::move_to`].
    pub fn move_to(
        &mut self,
        sent: &mut Sent,
        pool: usize,
        destinations: &str,
        address: &[u8],
        now_ms: u64,
    ) -> bool {
        self.dirty = true;
        self.picker.move_to(sent, pool, destinations, address, now_ms)
    }

    pub fn first_output(&mut self, sent: &Sent, now_ms: u64) {
        self.dirty = true;
        self.picker.first_output(sent, now_ms);
    }

    pub fn end(&mut self, sent: Sent, now_ms: u64) {
        self.dirty = true;
        self.picker.end(sent, now_ms);
    }

    /// The endpoint has failed to answer the request.
    pub fn failed(&mut self, pool: usize, sent: &Sent, now_ms: u64) {
        let ejected = self.picker.failed(pool, sent, now_ms);
        self.report_ejected(pool, ejected, "requests fail in a row");
    }

    /// The endpoint's answer had output, and failed.
    pub fn answer_broke_off(&mut self, pool: usize, sent: &Sent, now_ms: u64) {
        let ejected = self.picker.answer_broke_off(pool, sent, now_ms);
        self.report_ejected(pool, ejected, "its answers break off");
    }

    /// The endpoint's answer began as a good one, and says that it failed. `had_output`: when it had output.
    pub fn answer_failed(&mut self, pool: usize, sent: &Sent, had_output: bool, now_ms: u64) {
        if had_output {
            self.answer_broke_off(pool, sent, now_ms);
        } else {
            self.failed(pool, sent, now_ms);
        }
        let endpoint = self.endpoint_of(pool, sent);
        self.recorder.record(|stats| [stats.answer_failed(pool, &endpoint)]);
    }

    /// The request was sent to other endpoints before.
    pub fn passed_over(&mut self, pool: usize, sent: &Sent, now_ms: u64) {
        self.dirty = true;
        for ejected in self.picker.passed_over(pool, sent, now_ms) {
            self.report_ejected(pool, Some(ejected), "requests fail in a row");
        }
    }

    /// The endpoint has answered that it does not have the request's model.
    pub fn model_missing(&mut self, pool: usize, sent: &Sent, now_ms: u64) {
        self.dirty = true;
        self.picker.model_missing(sent, now_ms);
        let endpoint = self.endpoint_of(pool, sent);
        self.recorder.record(|stats| [stats.model_missing(pool, &endpoint)]);
    }

    /// The name of the request's endpoint.
    fn endpoint_of(&self, pool: usize, sent: &Sent) -> String {
        let endpoint = self.picker.pool(pool).and_then(|pool| pool.endpoint(sent.load_id()));
        endpoint.map_or("", Endpoint::text).to_owned()
    }

    /// A client has left before its request was answered.
    pub fn abandoned(&mut self, pool: usize, sent: &Sent, now_ms: u64) {
        let ejected = self.picker.abandoned(pool, sent, now_ms);
        self.report_ejected(pool, ejected, "it does not answer");
    }

    fn report_ejected(&self, pool: usize, endpoint: Option<String>, why: &str) {
        let (Some(endpoint), Some(pool)) = (endpoint, self.picker.pool(pool)) else { return };
        let message = format!(
            "inference-picker: pool {}: endpoint {endpoint}: {why}; it is left alone for a while",
            pool.name
        );
        host::log(LogLevel::Warn, &message);
    }

    /// What a request is counted under.
    pub fn labels(&mut self, prepared: &Prepared) -> RequestLabels {
        let target = prepared.target.as_deref().unwrap_or(&prepared.model);
        let pool = self.picker.pool(prepared.pool);
        self.recorder.stats().request_labels(&prepared.model, target, pool)
    }

    fn count_sent(&mut self, prepared: &Prepared) {
        let labels = self.labels(prepared);
        self.recorder.record(|stats| [stats.request_sent(labels)]);
    }
}
