//! One worker's picker, joined to the host: shared data, scrapes, counters, the log.

use std::net::SocketAddr;

use super::host;
use super::recorder::{GAUGE_INTERVAL_MS, Recorder};
use super::scraping::Scraping;
use super::sessions::Conversations;
use super::shared::{Exchange, SnapshotPlace};
use super::ticks::{BUSY_TICK_MS, IDLE_TICK_MS, QUIET_TICK_MS, Ticks};
use crate::config::{Config, ScrapeBy, SessionAffinity};
use crate::decide::{Decision, Pick, ResolvedRequest};
use crate::first_pass::FirstPass;
use crate::interval::Interval;
use crate::openai::{ApiError, InferenceRequest};
use crate::picker::{Outcome, Picker, Released, Sent};
use crate::pool::Endpoint;
use crate::sessions::{Conversation, Entry, KnownBy, Name, Note, SessionKey, TokenKey};
use crate::stats::RequestLabels;

/// One worker's state, shared by its streams. `W` is how a request that waits is reached later.
pub struct Worker<W> {
    pub picker: Picker<W>,
    snapshots: Vec<SnapshotPlace>,
    exchange: Exchange,
    scraping: Option<Scraping>,
    conversations: Conversations,
    pub recorder: Recorder,
    gauges: Interval,
    /// When snapshots may be read at a pick, and when all is read without one.
    snapshot_reads: Interval,
    reads: Interval,
    /// The count of published snapshots when they were read.
    snapshots_read: Option<u64>,
    pub ticks: Ticks,
}

/// How old what was scraped may be known to a pick, in milliseconds, besides its age when it was published. Reading it at
/// every pick would cost as much as what is in flight.
const SNAPSHOT_READ_MS: u64 = 10;

impl<W> Worker<W> {
    pub fn new(config: Config) -> Worker<W> {
        let me = host::random();
        Worker {
            snapshots: config.pools.iter().map(|pool| SnapshotPlace::new(&config, pool)).collect(),
            exchange: Exchange::new(me),
            scraping: (config.scrape_by == ScrapeBy::Worker).then(|| Scraping::new(&config, me)),
            conversations: Conversations::new(&config),
            recorder: Recorder::new(&config),
            gauges: Interval::new(GAUGE_INTERVAL_MS),
            snapshot_reads: Interval::new(SNAPSHOT_READ_MS),
            reads: Interval::new(IDLE_TICK_MS.into()),
            snapshots_read: None,
            ticks: Ticks::default(),
            picker: Picker::new(config, fastrand::Rng::with_seed(host::random())),
        }
    }

    pub fn config(&self) -> &Config {
        self.picker.config()
    }

    /// Publishes what has changed, takes over what others have published if somebody waits for it, and scrapes if it is this
    /// worker's turn.
    pub fn tick(&mut self, now_ms: u64) {
        self.recorder.flush();
        self.picker.tick(now_ms);
        for place in 0..self.snapshots.len() {
            if let Some(pool) = self.picker.pool(place) {
                self.exchange.member.set_queued(&pool.name, self.picker.queued(place) as u32);
            }
        }
        if self.reads.is_due(now_ms) {
            self.snapshots_read = None;
            self.read(now_ms);
        } else if self.picker.has_queued() {
            self.read(now_ms);
        } else if self.scraping.as_ref().is_some_and(Scraping::is_mine) {
            self.exchange.read(self.picker.loads_mut(), now_ms);
        }
        let events = self.picker.take_events();
        self.exchange.tick(self.picker.loads_mut(), events, now_ms);
        if let Some(scraping) = &mut self.scraping {
            scraping.tick(&mut self.exchange, self.picker.loads_mut(), now_ms);
        }
        if self.gauges.is_due(now_ms) {
            self.write_gauges(now_ms);
            self.recorder.record_limits(self.picker.take_limits());
        }
        self.ticks.set(self.tick_ms());
    }

    /// How long until there is something to do again, in milliseconds.
    fn tick_ms(&self) -> u32 {
        let is_busy = !self.picker.loads().is_own_idle()
            || self.picker.has_queued()
            || self.exchange.member.has_unwritten();
        if is_busy {
            return BUSY_TICK_MS;
        }
        let idle_ms = if self.picker.loads().is_idle() { QUIET_TICK_MS } else { IDLE_TICK_MS };
        self.scraping.as_ref().map_or(idle_ms, |scraping| scraping.tick_ms(idle_ms))
    }

    /// Takes over what others have in flight, what happened to their prompts, and what was scraped.
    fn read(&mut self, now_ms: u64) {
        let published = self.exchange.read(self.picker.loads_mut(), now_ms).snapshots();
        if self.picker.learns_prefixes() {
            self.picker.receive_all(&self.exchange.receive(), now_ms);
        }
        if self.snapshots_read != Some(published) && self.snapshot_reads.is_due(now_ms) {
            self.snapshots_read = Some(published);
            let snapshots = self.snapshots.iter_mut().enumerate();
            self.picker.apply(snapshots.filter_map(|(pool, place)| Some((pool, place.read_new()?))));
        }
    }

    /// Publishes what has changed.
    fn publish(&mut self, now_ms: u64) {
        let events = self.picker.take_events();
        self.exchange.publish(self.picker.loads_mut(), events, now_ms);
        self.ticks.set(BUSY_TICK_MS);
    }

    /// What all workers remember of prompts is about the same, so each writes its own; of what waits, each writes the sum
    /// of all.
    fn write_gauges(&mut self, now_ms: u64) {
        let ledger = self.exchange.read(self.picker.loads_mut(), now_ms);
        let names = self.picker.config().pools.iter().map(|pool| &pool.name);
        let queued: Vec<u32> = names.map(|name| ledger.queued(name)).collect();
        for (place, queued) in queued.into_iter().enumerate() {
            self.recorder.record(|stats| [stats.queued(place, queued)]);
            let prefixes = self.picker.pool(place).and_then(|pool| pool.prefixes());
            let blocks = prefixes.map(|prefixes| prefixes.len());
            self.recorder.record(|stats| blocks.map(|blocks| stats.prefix_blocks(place, blocks)));
        }
    }

    /// This configuration is over, and with it its pools' gauges.
    pub fn end_gauges(&mut self) {
        self.recorder.flush();
        self.recorder.end_gauges();
        if let Some(scraping) = &mut self.scraping {
            scraping.end_gauges();
        }
    }

    pub fn http_call_answered(&mut self, token: u32, now_ms: u64) {
        if let Some(scraping) = &mut self.scraping {
            scraping.answered(token, &mut self.exchange, self.picker.loads_mut(), now_ms);
        }
    }

    /// Decides a resolved request, known by `id`; `waiter` is how it is reached should it have to wait.
    pub fn decide(
        &mut self,
        id: u32,
        resolved: &ResolvedRequest,
        waiter: impl FnOnce() -> W,
        now_ms: u64,
    ) -> Outcome {
        self.read(now_ms);
        let outcome = self.picker.decide(id, resolved, waiter, now_ms);
        match outcome {
            Outcome::Decided(Decision::Send(_)) => self.count_sent(resolved),
            Outcome::Decided(_) => {}
            Outcome::Waits => self.ticks.set(BUSY_TICK_MS),
        }
        outcome
    }

    /// The same request for another pool, where its own is full or gone and has fallbacks.
    pub fn fall_back(
        &mut self,
        resolved: ResolvedRequest,
        request: &InferenceRequest<'_>,
        user: Option<&[u8]>,
        now_ms: u64,
    ) -> ResolvedRequest {
        let own = self.config().pools.get(resolved.pool);
        if own.is_none_or(|own| own.fallback.is_empty()) {
            return resolved;
        }
        self.read(now_ms);
        let resolved = self.picker.fall_back(resolved, request, user, now_ms);
        self.recorder.count(|stats| resolved.fallback_of.map(|own| stats.fell_back(own)));
        resolved
    }

    /// As [`Picker::prepare_anew`].
    pub fn prepare_anew(
        &mut self,
        request: &InferenceRequest<'_>,
        first: &FirstPass,
        user: Option<&[u8]>,
        priority: Option<i32>,
        now_ms: u64,
    ) -> Result<ResolvedRequest, ApiError> {
        self.read(now_ms);
        let resolved = self.picker.prepare_anew(request, first, user, priority, now_ms)?;
        self.recorder.count(|stats| resolved.fallback_of.map(|own| stats.fell_back(own)));
        Ok(resolved)
    }

    /// The client of a request that waits has left.
    pub fn forget(&mut self, pool: usize, id: u32) {
        self.picker.forget(pool, id);
    }

    /// The next request that need not wait any longer.
    pub fn released(&mut self, now_ms: u64) -> Option<Released<W>> {
        let released = self.picker.released(now_ms)?;
        if let Decision::Send(_) = released.decision {
            self.count_sent(&released.resolved);
        }
        Some(released)
    }

    /// Decides a request without a prompt to be read.
    pub fn decide_unread(
        &mut self,
        pool: usize,
        is_pool_guessed: bool,
        conversation: Option<Conversation>,
        now_ms: u64,
    ) -> Decision {
        self.read(now_ms);
        self.picker.decide_unread(pool, is_pool_guessed, conversation, now_ms)
    }

    /// The conversation of a request that names what a server has stored, by its id.
    pub fn stored(&mut self, id: &[u8], now_ms: u64) -> Conversation {
        let last = self.conversations.last(KnownBy::Stored, SessionKey::of_stored(id), now_ms);
        Conversation { by: KnownBy::Stored, last, is_strict: true }
    }

    /// Notes the session that a resolved request names, and the one whose token it has.
    pub fn set_session(
        &mut self,
        resolved: &mut ResolvedRequest,
        name: Option<Name>,
        token: Option<&[u8]>,
        now_ms: u64,
    ) {
        let key = name.and_then(|name| self.conversations.session_key(resolved.pool, name));
        let named = key.map(|key| (key, self.conversations.last(KnownBy::Name, key, now_ms)));
        let sealed = token.and_then(|token| self.opened(resolved.pool, token));
        self.picker.set_session(resolved, named, sealed);
    }

    /// The endpoint that a token is for, where the pool's sessions have tokens.
    fn opened(&self, pool: usize, token: &[u8]) -> Option<SocketAddr> {
        let (key, pool) = self.token_key(pool)?;
        key.open(pool, token)
    }

    /// The token of a session whose request is served by this pool's endpoint, unless the one that it had is for that, too.
    pub fn token(&self, pool: usize, sent: &Sent, held: Option<&[u8]>) -> Option<String> {
        let endpoint = self.picker.loads().address(sent.load_id())?;
        if held.and_then(|held| self.opened(pool, held)) == Some(endpoint) {
            return None;
        }
        let (key, pool) = self.token_key(pool)?;
        let nonce = u128::from(host::random()) << 64 | u128::from(host::random());
        key.seal(pool, endpoint, nonce)
    }

    fn token_key(&self, pool: usize) -> Option<(&TokenKey, &str)> {
        let config = self.config();
        let pool = config.pools.get(pool).filter(|pool| pool.session_affinity == SessionAffinity::Token)?;
        Some((config.session_token_key.as_ref()?, &pool.name))
    }

    /// The endpoint of a request has stored something under this id.
    pub fn has_stored(&mut self, pool: usize, sent: &Sent, id: &[u8], now_ms: u64) {
        let entry = self.picker.stored(pool, sent, SessionKey::of_stored(id), now_ms);
        self.note(KnownBy::Stored, entry);
    }

    fn note(&mut self, by: KnownBy, entry: Option<Entry>) {
        let Some(entry) = entry else { return };
        let forgotten = self.conversations.note(by, &entry);
        self.recorder.count(|stats| stats.sessions_forgotten(forgotten));
        if self.config().peers.is_some() {
            self.exchange.member.publish_conversation(Note { by, entry });
        }
    }

    /// The request goes to the pick, an endpoint of this pool: from now on it counts there, and every worker knows.
    pub fn send(&mut self, pick: &Pick, pool: usize, now_ms: u64) -> Sent {
        let prompt = pick.prompt.as_ref().filter(|sent| sent.prompt.blocks.is_some());
        let prompt = prompt.map(|sent| (sent.prompt.tokens, sent.matched_tokens));
        self.recorder.count(|stats| stats.picked(pool, pick.first_choice(), prompt));
        self.recorder.count(|stats| stats.prompt_by(&pick.prompt_by));
        let sent = self.picker.send(pick, now_ms);
        if let Some((by, outcome)) = pick.conversation {
            self.recorder.count(|stats| [stats.session(pool, by, outcome)]);
        }
        self.note_session(pool, &sent, now_ms);
        self.publish(now_ms);
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
        let is_moved = self.picker.move_to(sent, pool, destinations, address, now_ms);
        if is_moved {
            self.note_session(pool, sent, now_ms);
        }
        is_moved
    }

    /// The session of a request is now where that was sent to.
    fn note_session(&mut self, pool: usize, sent: &Sent, now_ms: u64) {
        let entry = self.picker.session_sent(pool, sent, now_ms);
        self.note(KnownBy::Name, entry);
    }

    pub fn first_output(&mut self, sent: &mut Sent, now_ms: u64) {
        self.picker.first_output(sent, now_ms);
    }

    pub fn end(&mut self, sent: Sent, now_ms: u64) {
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
        for ejected in self.picker.passed_over(pool, sent, now_ms) {
            self.report_ejected(pool, Some(ejected), "requests fail in a row");
        }
    }

    /// The endpoint has answered that it does not have the request's model.
    pub fn model_missing(&mut self, pool: usize, sent: &Sent, now_ms: u64) {
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
        log::warn!("pool={} endpoint={endpoint}: {why}; it is ejected for a while", pool.name);
    }

    /// A worker that has not read anything for a while does so before it looks at a request: which models there are may just
    /// have become known.
    pub fn wake(&mut self) {
        if self.ticks.is_quiet() {
            self.snapshots_read = None;
            self.read(host::now_ms());
        }
    }

    /// What a request is counted under.
    pub fn labels(&mut self, resolved: &ResolvedRequest) -> RequestLabels {
        let target = resolved.target.as_deref().unwrap_or(&resolved.model);
        let pool = self.picker.pool(resolved.pool);
        self.recorder.stats().request_labels(&resolved.model, target, pool)
    }

    /// Counts a request that is sent, unless it was before it was begun anew.
    fn count_sent(&mut self, resolved: &ResolvedRequest) {
        if resolved.was_sent {
            return;
        }
        let labels = self.labels(resolved);
        self.recorder.count(|stats| [stats.request_sent(labels)]);
        if self.picker.config().fairness.is_some() {
            let tenant = resolved.tenant.as_deref().unwrap_or_default();
            self.recorder.count(|stats| [stats.tenant_sent(tenant, resolved.prompt.tokens)]);
        }
    }
}
