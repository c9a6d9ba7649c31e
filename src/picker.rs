//! What one worker knows and decides: its pools, what is in flight, what waits, and what was learnt from answers.
//!
//! Contract: no host calls. What the worker receives (requests, answers, snapshots, peers) comes in by methods, what it has
//! decided or learnt goes out as values. The plugin's shell joins it to the host; a simulation joins it to simulated
//! servers.

use std::borrow::Cow;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::rc::Rc;

use crate::admission::{Admission, DrainRate};
use crate::config::{Config, Prefill, SessionAffinity};
use crate::decide::{self, Decision, Pick, ResolvedRequest, SentPrompt};
use crate::empty_pool::EmptyPool;
use crate::fallback::{Candidate, FallbackHealth, Wish};
use crate::first_pass::FirstPass;
use crate::interval::Interval;
use crate::ledger::{Event, Received};
use crate::limits::{Limit, LimitsReached};
use crate::load::{AdapterId, EndpointKey, InFlightRequest, LoadId, LoadTracker};
use crate::metrics::ReportedLoad;
use crate::models::{self, TargetSelector};
use crate::openai::{ApiError, InferenceRequest, Usage};
use crate::pool::{Endpoint, Pool, Snapshot};
use crate::prefill::{PrefillPick, PromptBy};
use crate::prefix::{BLOCK_BYTES, PrefixIndex, PromptBlocks, PromptEvent, PromptKey, Unpublished};
use crate::queue::{Place, Queue};
use crate::scrape::Schedule;
use crate::sessions::{Conversation, Entry, KnownBy, Last, SessionKey, Unanswered, Visit};
use crate::token_estimator::TokenEstimator;

/// One worker's knowledge. `W` is how a request that waits is reached later.
#[derive(Debug)]
pub struct Picker<W> {
    config: Config,
    pools: Vec<PickerPool<W>>,
    loads: LoadTracker,
    selector: TargetSelector,
    sizes: TokenEstimator,
    rng: fastrand::Rng,
    /// What happened to prompts and was not published yet.
    events: Unpublished,
    /// Prompts sent, which numbers them.
    prompts: u64,
    unanswered: Unanswered,
    /// When it is looked at what endpoints have shown of their speed.
    learning: Interval,
    /// When prompts of which nothing is received are looked for.
    expiry: Interval,
    /// When a request may leave a queue for a fallback.
    fallbacks: Interval,
    limits: LimitsReached,
}

/// A pool, and what this worker keeps for it.
#[derive(Debug)]
struct PickerPool<W> {
    pool: Pool,
    drain_rate: DrainRate,
    queue: Queue<(ResolvedRequest, W)>,
    emptiness: EmptyPool,
    fallback_health: FallbackHealth,
    /// When it was last noticed that its scraper had published something.
    received_ms: Option<u64>,
}

/// What becomes of a request that was read.
#[derive(Debug)]
pub enum Outcome {
    /// It is sent, or refused.
    Decided(Decision),
    /// It waits for [`Picker::released`].
    Waits,
}

/// A request that was sent, until it has ended.
#[derive(Debug)]
pub struct Sent {
    in_flight: InFlightRequest,
    prompt: Option<SentPrompt>,
    /// Distinguishes its prompt from others, if it was read.
    digest: Option<u64>,
    /// Where it was sent before, and when.
    passed_over: Vec<LoadId>,
    passed_sent_ms: u64,
    /// The number by which peers know the prompt, until it has been answered or dropped.
    number: Option<u64>,
    /// When a streamed answer had its first output; 0 if it has had none.
    first_output_ms: u64,
    /// The session that it names.
    session: Option<Visit>,
    /// What it has at the endpoint that computes its prompt, if that is another one; until its first output.
    prefill: Option<Box<PrefillSent>>,
    /// The rank of the engine that it names.
    rank: Option<u32>,
}

/// A prompt that is computed elsewhere than its answer is generated.
#[derive(Debug)]
struct PrefillSent {
    in_flight: InFlightRequest,
    /// The number by which peers know the prompt there.
    number: Option<u64>,
}

impl Sent {
    /// The endpoint it counts on.
    pub fn load_id(&self) -> LoadId {
        self.in_flight.load_id()
    }
}

/// A request that need not wait any longer.
#[derive(Debug)]
pub struct Released<W> {
    /// The number it was given.
    pub id: u32,
    /// How it is reached.
    pub waiter: W,
    /// What was decided.
    pub decision: Decision,
    /// The request.
    pub resolved: ResolvedRequest,
}

/// The worker itself, where workers publish to each other of prompts.
const MYSELF: u64 = 0;

/// Time between two looks at what endpoints have shown of their speed, in milliseconds.
const LEARNING_INTERVAL_MS: u64 = 100;

/// Time between two looks for prompts of which nothing is received, in milliseconds.
const EXPIRY_INTERVAL_MS: u64 = 1_000;

/// Time between two requests that leave a queue for a fallback, in milliseconds: the first counts there when the next one is looked
/// at.
const FALLBACK_INTERVAL_MS: u64 = 10;

/// Requests of a queue that are looked at for a fallback, at a time: those that have waited for longest.
const MAX_LOOKS: usize = 32;

/// Times `queue.maxRequests` that may wait until those have been refused whose places were taken.
const MAX_DISPLACING_SHARE: usize = 2;

/// A route leads to a pool that is configured; should it not, Envoy balances.
const NO_POOL: Decision = Decision::Fallback("no such pool");

impl<W> Picker<W> {
    /// A worker that knows nothing but its configuration. `rng` is to be seeded at random; clients must not know it.
    pub fn new(config: Config, mut rng: fastrand::Rng) -> Picker<W> {
        let mut loads = LoadTracker::default();
        let mut pools = Vec::with_capacity(config.pools.len());
        for (place, configured) in config.pools.iter().enumerate() {
            let mut pool = Pool::new(configured, &mut loads, rng.u64(..));
            let models = config.models.iter().filter(|model| model.pool == place);
            let targets = models.flat_map(|model| &model.targets).chain(&configured.default_targets);
            pool.expect_adapters(targets.map(|target| target.name.as_str()));
            pools.push(PickerPool {
                pool,
                drain_rate: DrainRate::default(),
                queue: Queue::default(),
                emptiness: EmptyPool::default(),
                fallback_health: FallbackHealth::default(),
                received_ms: None,
            });
        }
        Picker {
            pools,
            loads,
            selector: TargetSelector::new(&config),
            sizes: TokenEstimator::default(),
            rng,
            events: Unpublished::default(),
            prompts: 0,
            unanswered: Unanswered::default(),
            learning: Interval::new(LEARNING_INTERVAL_MS),
            expiry: Interval::new(EXPIRY_INTERVAL_MS),
            fallbacks: Interval::new(FALLBACK_INTERVAL_MS),
            limits: LimitsReached::default(),
            config,
        }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What is in flight.
    pub fn loads(&self) -> &LoadTracker {
        &self.loads
    }

    /// The same, for who scrapes on this worker's behalf.
    pub fn loads_mut(&mut self) -> &mut LoadTracker {
        &mut self.loads
    }

    /// The pool at a place of the configuration.
    pub fn pool(&self, place: usize) -> Option<&Pool> {
        self.pools.get(place).map(|own| &own.pool)
    }

    /// How many requests wait for the pool at a place of the configuration, in this worker.
    pub fn queued(&self, place: usize) -> usize {
        self.pools.get(place).map_or(0, |own| own.queue.len())
    }

    /// Whether what peers have learnt is of use.
    pub fn learns_prefixes(&self) -> bool {
        self.pools.iter().any(|own| own.pool.prefixes().is_some())
    }

    /// Time has passed; whether what is in flight has changed with it.
    pub fn tick(&mut self, now_ms: u64) -> bool {
        self.receive_failures();
        let changed = self.loads.assume_outputs(now_ms);
        if self.learning.is_due(now_ms) {
            for own in &mut self.pools {
                let endpoints = own.pool.endpoints().unwrap_or_default();
                self.loads.share_speed(endpoints.iter().map(|endpoint| endpoint.load_id));
                own.observe_drain_rate(&self.loads, now_ms);
                own.pool.forget_reported(self.config.metrics_stale_after_ms, now_ms);
            }
        }
        if self.expiry.is_due(now_ms) {
            self.prefixes().for_each(|prefixes| prefixes.expire(now_ms));
            for (own, pool) in self.pools.iter_mut().zip(&self.config.pools) {
                let schedule = Schedule::of(&self.config, pool);
                let silence_ms = schedule.longest_silence_ms(self.config.scrape_timeout_ms);
                let silence_ms = own.pool.stale_after_ms(silence_ms);
                own.look_for_scraper(silence_ms, now_ms);
            }
        }
        changed
    }

    /// Takes over what was scraped, by the pool's place.
    pub fn apply(&mut self, snapshots: impl Iterator<Item = (usize, Snapshot)>) {
        let mut changed = false;
        for (place, snapshot) in snapshots {
            if let Some(own) = self.pools.get_mut(place) {
                changed |= own.pool.apply(snapshot, &mut self.loads);
            }
        }
        // Only then: a snapshot comes with nearly every tick.
        if changed {
            let endpoints = self.pools.iter().flat_map(|own| own.pool.endpoints().unwrap_or_default());
            let addresses: HashSet<SocketAddr> = endpoints.map(Endpoint::address).collect();
            self.loads.keep_only(|address| addresses.contains(address));
        }
    }

    /// Takes over what other workers have published of prompts.
    pub fn receive_all(&mut self, received: &Received, now_ms: u64) {
        if received.is_lost {
            self.limits.add_if(true, Limit::JournalUnread);
            self.prefixes().for_each(|prefixes| prefixes.drop_prompts_of_others(MYSELF));
        }
        for entry in received.entries() {
            match &entry.event {
                Event::Prompt(event) => self.receive(entry.worker, event, now_ms),
                Event::Ended => self.lose(entry.worker),
                // Workers share a table of them.
                Event::Conversation(_) => {}
            }
        }
    }

    /// Takes over what has happened to a prompt at a peer.
    pub fn receive(&mut self, peer: u64, event: &PromptEvent<'_>, now_ms: u64) {
        let key = |number: u64| PromptKey { worker: peer, number };
        match event {
            PromptEvent::Sent { number, address, block_tokens, hashes } => {
                let Some(load_id) = self.loads.known(address) else { return };
                let mut is_left_out = false;
                for prefixes in self.prefixes() {
                    is_left_out |= !prefixes.sent(key(*number), load_id, hashes, *block_tokens, now_ms);
                }
                self.limits.add_if(is_left_out, Limit::PromptsInFlight);
            }
            PromptEvent::Answered { number, other_tokens } => {
                self.prefixes().for_each(|prefixes| prefixes.answered(key(*number), *other_tokens));
            }
            PromptEvent::Dropped { number } => {
                self.prefixes().for_each(|prefixes| prefixes.dropped(key(*number)));
            }
        }
    }

    /// Takes over what other workers have noted of failures in a row.
    fn receive_failures(&mut self) {
        let limit = self.config.max_consecutive_failures;
        for (load_id, failures) in self.loads.take_received_failures() {
            self.pools.iter_mut().for_each(|own| own.pool.receive_failures(load_id, failures, limit));
        }
    }

    /// Has others receive what this worker has noted of failures in a row.
    fn publish_failures(&mut self) {
        for own in &mut self.pools {
            for (load_id, failures) in own.pool.take_failures() {
                self.loads.note_failures(load_id, failures);
            }
        }
    }

    /// A worker has nothing in flight, or is gone: no more is received of its prompts in flight.
    fn lose(&mut self, peer: u64) {
        self.prefixes().for_each(|prefixes| prefixes.drop_prompts_of(peer));
    }

    /// Takes out which limits were reached, and how often.
    pub fn take_limits(&mut self) -> impl Iterator<Item = (Limit, u32)> + '_ {
        let of_pools = self.pools.iter_mut().flat_map(|own| own.pool.limits.take());
        self.limits.take().chain(of_pools)
    }

    /// Takes out what has happened to prompts at this worker, to be published to others. Failures are then among the loads.
    pub fn take_events(&mut self) -> Vec<PromptEvent<'static>> {
        self.publish_failures();
        self.events.take()
    }

    /// Whether something has happened to prompts that was not published yet.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Whether requests wait.
    pub fn has_queued(&self) -> bool {
        self.pools.iter().any(|own| !own.queue.is_empty())
    }

    fn publish(&mut self, event: PromptEvent<'static>, now_ms: u64) {
        self.receive(MYSELF, &event, now_ms);
        self.events.push(event);
    }

    fn prefixes(&mut self) -> impl Iterator<Item = &mut PrefixIndex> {
        self.pools.iter_mut().filter_map(|own| own.pool.prefixes_mut())
    }

    /// Resolves the model of a request on a route to the pool at `route_pool`.
    ///
    /// # Errors
    /// As [`decide::prepare`].
    pub fn prepare(
        &mut self,
        request: &InferenceRequest<'_>,
        user: Option<&[u8]>,
        route_pool: usize,
    ) -> Result<ResolvedRequest, ApiError> {
        let resolved =
            decide::prepare(&self.config, &mut self.selector, &self.sizes, request, user, route_pool)?;
        self.note_resolved(&resolved);
        Ok(resolved)
    }

    /// As [`decide::prepare_again`].
    pub fn prepare_again(
        &mut self,
        request: &InferenceRequest<'_>,
        first: &FirstPass,
        route_pool: usize,
    ) -> ResolvedRequest {
        let resolved = decide::prepare_again(&self.config, &self.sizes, request, first, route_pool);
        self.note_resolved(&resolved);
        resolved
    }

    /// The same request for another pool, if its own is full or gone and a fallback of that serves the model and has room.
    pub fn fall_back(
        &mut self,
        resolved: ResolvedRequest,
        request: &InferenceRequest<'_>,
        user: Option<&[u8]>,
        now_ms: u64,
    ) -> ResolvedRequest {
        self.receive_failures();
        match self.fallback(&resolved, now_ms) {
            Some(pool) => self.prepare_for_fallback(resolved, request, user, pool),
            None => resolved,
        }
    }

    /// A request that is begun anew, as the pool of its first pass has failed to answer it or has had it wait: for the next pool
    /// that has room, or for its own if none has any more. `request` has the model of its first pass.
    ///
    /// # Errors
    /// As [`decide::prepare`].
    pub fn prepare_anew(
        &mut self,
        request: &InferenceRequest<'_>,
        first: &FirstPass,
        user: Option<&[u8]>,
        priority: Option<i32>,
        now_ms: u64,
    ) -> Result<ResolvedRequest, ApiError> {
        self.receive_failures();
        let request = InferenceRequest { model: Cow::Borrowed(&first.model), ..request.clone() };
        let mut own = self.prepare(&request, user, first.own_pool)?;
        own.priority = priority.unwrap_or(own.priority);
        own.was_sent = first.was_sent;
        let wish = Wish { model: &own.model, priority: own.priority, own_pool: own.pool, but: first.pool };
        match self.pool_after_failure(wish, now_ms) {
            Some(pool) => Ok(self.prepare_for_fallback(own, &request, user, pool)),
            None => Ok(own),
        }
    }

    /// The same request for the pool at `pool`, which is another one than its own.
    fn prepare_for_fallback(
        &mut self,
        own: ResolvedRequest,
        request: &InferenceRequest<'_>,
        user: Option<&[u8]>,
        pool: usize,
    ) -> ResolvedRequest {
        match decide::prepare(&self.config, &mut self.selector, &self.sizes, request, user, pool) {
            Ok(other) if other.pool == pool => ResolvedRequest {
                priority: own.priority,
                tenant: own.tenant,
                can_begin_anew: own.can_begin_anew,
                was_sent: own.was_sent,
                fallback_of: Some(own.pool),
                ..other
            },
            _ => own,
        }
    }

    /// The place of the pool that serves a request instead of its own.
    fn fallback(&self, resolved: &ResolvedRequest, now_ms: u64) -> Option<usize> {
        let ResolvedRequest { model, priority, pool, .. } = resolved;
        let own = self.pools.get(*pool)?;
        // As long as it is not known which endpoints it has it is not left.
        let is_known = own.pool.endpoints().is_some();
        let has_room = || self.admission_to(*pool, *priority, now_ms) == Some(Admission::Send);
        if !is_known || has_room() || self.waits_first(own, resolved, now_ms) {
            return None;
        }
        self.next_pool(Wish { model, priority: *priority, own_pool: *pool, but: *pool }, now_ms)
    }

    /// The place of the first fallback that serves a request and has room.
    fn next_pool(&self, wish: Wish<'_>, now_ms: u64) -> Option<usize> {
        self.first_fallback(wish, &[Admission::Send], now_ms)
    }

    /// The place of the fallback that serves a request after a failure: one in whose queue it waits is better than none.
    pub fn pool_after_failure(&self, wish: Wish<'_>, now_ms: u64) -> Option<usize> {
        self.first_fallback(wish, &[Admission::Send, Admission::Wait], now_ms)
    }

    /// The first fallback that does the first possible of these with a request. One that fails as a fallback comes last.
    fn first_fallback(&self, wish: Wish<'_>, admissions: &[Admission], now_ms: u64) -> Option<usize> {
        let pools = self.config.pools.get(wish.own_pool)?.fallback.iter().copied();
        let candidates = pools.filter_map(|place| {
            let is_asked = place != wish.but && models::is_served_by(&self.config, wish.model, place);
            let admission = self.admission_to(place, wish.priority, now_ms).filter(|_| is_asked)?;
            let rank = admissions.iter().position(|wanted| *wanted == admission)?;
            Some((self.fails_as_fallback(place, now_ms), rank, place))
        });
        candidates.min_by_key(|(fails, rank, _)| (*fails, *rank)).map(|(_, _, place)| place)
    }

    fn fails_as_fallback(&self, place: usize, now_ms: u64) -> bool {
        let limit = self.config.max_consecutive_failures;
        self.pools.get(place).is_some_and(|own| own.fallback_health.fails(limit, now_ms))
    }

    /// The pool at this place has answered a request in another one's place.
    pub fn fallback_answered(&mut self, place: usize, is_failure: bool, now_ms: u64) {
        if let Some(own) = self.pools.get_mut(place) {
            own.fallback_health.answered(is_failure, now_ms);
        }
    }

    /// What would become of a request in the pool at `place`; `None`: no endpoint of it may be picked.
    fn admission_to(&self, place: usize, priority: i32, now_ms: u64) -> Option<Admission> {
        let own = self.pools.get(place)?;
        let candidate = Candidate { pool: &own.pool, others_wait: !own.queue.is_empty() };
        candidate.admission(&self.config, priority, &self.loads, now_ms)
    }

    /// Whether it is to wait for its own pool before another one serves it.
    fn waits_first(&self, own: &PickerPool<W>, resolved: &ResolvedRequest, now_ms: u64) -> bool {
        let is_later = self.config.queue.is_some_and(|queue| queue.fallback_after_ms.is_some());
        if !is_later || !resolved.can_begin_anew {
            return false;
        }
        let others_wait = !own.queue.is_empty();
        let (pool, drain_rate) = (&own.pool, &own.drain_rate);
        let admitted =
            decide::admit(&self.config, pool, &self.loads, drain_rate, resolved, others_wait, now_ms);
        admitted == Ok(Admission::Wait) && own.has_room(&self.config, resolved)
    }

    fn note_resolved(&mut self, resolved: &ResolvedRequest) {
        let blocks = resolved.prompt.blocks.as_ref();
        self.limits.add_if(blocks.is_some_and(PromptBlocks::is_cut), Limit::PromptBlocks);
    }

    /// Decides a resolved request, known by `id`; `waiter` is how it is reached should it have to wait.
    pub fn decide(
        &mut self,
        id: u32,
        resolved: &ResolvedRequest,
        waiter: impl FnOnce() -> W,
        now_ms: u64,
    ) -> Outcome {
        self.receive_failures();
        let Some(own) = self.pools.get_mut(resolved.pool) else { return Outcome::Decided(NO_POOL) };
        let others_wait = !own.queue.is_empty();
        let admitted = decide::admit(
            &self.config,
            &own.pool,
            &self.loads,
            &own.drain_rate,
            resolved,
            others_wait,
            now_ms,
        );
        match admitted {
            Err(error) => Outcome::Decided(Decision::Refuse(error)),
            Ok(Admission::Wait) if own.has_room(&self.config, resolved) => {
                let place = own.place_in_queue(&self.config, resolved);
                own.queue.push(place, id, (resolved.clone(), waiter()), now_ms);
                Outcome::Waits
            }
            Ok(Admission::Wait) => {
                self.limits.add_if(true, Limit::QueuedRequests);
                Outcome::Decided(Decision::Refuse(own.queue_full()))
            }
            Ok(_) => Outcome::Decided(self.pick(resolved, now_ms)),
        }
    }

    /// Picks for a request that has been admitted.
    fn pick(&mut self, resolved: &ResolvedRequest, now_ms: u64) -> Decision {
        let rule = self.ready_prefill(resolved, now_ms);
        let Some(own) = self.pools.get_mut(resolved.pool) else { return NO_POOL };
        let asked = (resolved, rule.as_ref());
        let decision = decide::pick(&self.config, &mut own.pool, &self.loads, asked, now_ms, &mut self.rng);
        match decision {
            decision if resolved.is_pool_guessed => self.guessed(decision, resolved.pool, now_ms),
            Decision::Send(pick) => {
                let pick = self.with_fallback(pick, resolved);
                self.with_prefill(pick, resolved, now_ms)
            }
            decision => decision,
        }
    }

    /// Says whose fallback the pool is.
    fn with_fallback(&self, mut pick: Pick, resolved: &ResolvedRequest) -> Pick {
        if let Some(own) = resolved.fallback_of.and_then(|place| self.config.pools.get(place)) {
            pick.explanation.push_str(" fallback_of=");
            pick.explanation.push_str(&own.name);
        }
        pick
    }

    /// The rule by which the prompt of a request that is promised something is computed elsewhere, if an endpoint is there that can.
    fn ready_prefill(&self, resolved: &ResolvedRequest, now_ms: u64) -> Option<Prefill> {
        let may_be_elsewhere = resolved.promised.is_some() && resolved.generates && !resolved.is_pool_guessed;
        let rule = self.config.pools.get(resolved.pool)?.prefill.filter(|_| may_be_elsewhere)?;
        let is_ready = self.pool(rule.pool)?.has_ready(now_ms, self.config.max_consecutive_failures);
        is_ready.then_some(rule)
    }

    /// Has the prompt computed elsewhere than by the endpoint picked, where that is configured and worth it.
    fn with_prefill(&mut self, pick: Pick, resolved: &ResolvedRequest, now_ms: u64) -> Decision {
        let rule = self.config.pools.get(resolved.pool).and_then(|pool| pool.prefill);
        let rule = rule.filter(|rule| resolved.generates && rule.is_worth(pick.share.tokens));
        let Some((rule, own)) = rule.and_then(|rule| Some((rule, self.pools.get_mut(rule.pool)?))) else {
            return Decision::Send(pick);
        };
        let asked = (resolved, pick, &rule);
        let picked =
            decide::pick_prefill(&self.config, &mut own.pool, &self.loads, asked, now_ms, &mut self.rng);
        picked.map_or_else(Decision::Refuse, Decision::Send)
    }

    /// Decides a request without a prompt to be read. `is_pool_guessed`: another pool may be the one that serves it.
    /// `conversation`: the one that it belongs to, if it names one.
    pub fn decide_unread(
        &mut self,
        pool: usize,
        is_pool_guessed: bool,
        conversation: Option<Conversation>,
        now_ms: u64,
    ) -> Decision {
        let decision = self.pick_unread(pool, conversation, now_ms);
        if is_pool_guessed { self.guessed(decision, pool, now_ms) } else { decision }
    }

    fn pick_unread(&mut self, pool: usize, conversation: Option<Conversation>, now_ms: u64) -> Decision {
        self.receive_failures();
        let Some(own) = self.pools.get_mut(pool) else { return NO_POOL };
        decide::pick_unread(&self.config, &mut own.pool, &self.loads, conversation, now_ms, &mut self.rng)
    }

    /// The place of the pool in which the endpoint of this key is: the one at `pool`, if it is there.
    pub fn pool_of_key(&self, key: EndpointKey, pool: usize) -> Option<usize> {
        let load_id = self.loads.known_by_key(key)?;
        let has = |place: &usize| self.pool(*place).is_some_and(|pool| pool.place(load_id).is_some());
        std::iter::once(pool).chain(0..self.pools.len()).find(has)
    }

    /// What is to be remembered of what the endpoint of a request has stored.
    pub fn stored(&self, pool: usize, sent: &Sent, key: SessionKey, now_ms: u64) -> Option<Entry> {
        self.entry(pool, sent.load_id(), key, 0, now_ms)
    }

    /// Notes the session that a resolved request names, with where that was last, and the endpoint that its token is for.
    pub fn set_session(
        &self,
        resolved: &mut ResolvedRequest,
        named: Option<(SessionKey, Option<Last>)>,
        sealed: Option<SocketAddr>,
    ) {
        let affinity = self.config.pools.get(resolved.pool).map(|pool| pool.session_affinity);
        let is_strict = matches!(affinity, Some(SessionAffinity::Strict | SessionAffinity::Token));
        let last = named.and_then(|(key, last)| Some(self.unanswered.known(key, last?)));
        // A strict session is where its last request went, whatever that asked for.
        let continued = last.filter(|_| !is_strict);
        resolved.session = named.map(|(key, _)| Visit::new(key, continued, resolved.prompt.tokens));
        let sealed = sealed.map(|endpoint| Last::at(EndpointKey::of(endpoint)));
        let last = sealed
            .map(|sealed| last.filter(|last| last.endpoint == sealed.endpoint).unwrap_or(sealed))
            .or(last);
        if named.is_some() || sealed.is_some() {
            resolved.conversation.get_or_insert(Conversation { by: KnownBy::Name, last, is_strict });
        }
    }

    /// What is to be remembered of a session whose request goes to an endpoint, before it is known what comes of it: that the
    /// endpoint then has its prompt, and has turned over what of that was not there before.
    pub fn session_sent(&self, pool: usize, sent: &Sent, now_ms: u64) -> Option<Entry> {
        let Visit { key, aside_of } = sent.session?;
        if let Some(Last { endpoint, tokens, turnover_tokens }) = aside_of.map(Last::after_aside) {
            return Some(Entry { key, endpoint, used_ms: now_ms, tokens, turnover_tokens });
        }
        let SentPrompt { prompt, matched_tokens, .. } = sent.prompt.as_ref()?;
        let entry = self.entry(pool, sent.load_id(), key, prompt.tokens, now_ms)?;
        let computed_tokens = prompt.tokens.saturating_sub(*matched_tokens);
        Some(Entry { turnover_tokens: entry.turnover_tokens.wrapping_add(computed_tokens), ..entry })
    }

    fn entry(&self, pool: usize, at: LoadId, key: SessionKey, tokens: u32, now_ms: u64) -> Option<Entry> {
        let turnover_tokens = self.pool(pool)?.endpoint(at)?.turnover_tokens();
        let endpoint = EndpointKey::of(self.loads.address(at)?);
        Some(Entry { key, endpoint, used_ms: now_ms, tokens, turnover_tokens })
    }

    /// Names the best of every other pool behind what was picked for the pool at `pool`. Envoy passes over what its cluster
    /// does not have, so that each pool's route finds a pick of its own.
    fn guessed(&mut self, decision: Decision, pool: usize, now_ms: u64) -> Decision {
        let Decision::Send(mut pick) = decision else { return decision };
        pick.is_pool_guessed = true;
        let others =
            (0..self.pools.len()).filter(|place| *place != pool && !self.config.is_for_prefill(*place));
        for other in others.collect::<Vec<_>>() {
            if let Decision::Send(elsewhere) = self.pick_unread(other, None, now_ms) {
                pick.destinations.push(',');
                pick.destinations.push_str(elsewhere.first_choice());
            }
        }
        Decision::Send(pick)
    }

    /// The place of the pool that has an endpoint of this address: the one at `pool`, if it has.
    pub fn pool_of_endpoint(&self, address: &[u8], pool: usize) -> Option<usize> {
        let has = |place: &usize| self.pool(*place).is_some_and(|pool| pool.endpoint_at(address).is_some());
        std::iter::once(pool).chain(0..self.pools.len()).find(has)
    }

    /// The next request that need not wait any longer, with what was decided: its pool has room, or it has waited too
    /// long.
    pub fn released(&mut self, now_ms: u64) -> Option<Released<W>> {
        let queue = self.config.queue?;
        for own in &mut self.pools {
            own.emptiness.observe(own.pool.is_empty() && queue.while_empty_ms.is_some(), now_ms);
            let max_wait_ms = own.emptiness.max_wait_ms(&queue, now_ms);
            if own.queue.len() > queue.max_requests
                && let Some((id, (resolved, waiter))) = own.queue.pop_lowest()
            {
                self.limits.add_if(true, Limit::QueuedRequests);
                let decision = Decision::Refuse(own.queue_full());
                return Some(Released { id, waiter, decision, resolved });
            }
            if let Some((id, (resolved, waiter))) = own.queue.expired(max_wait_ms, now_ms) {
                let decision = Decision::Refuse(own.timed_out());
                return Some(Released { id, waiter, decision, resolved });
            }
            let is_known = !self.config.reads_metrics() || own.pool.has_metrics();
            let full = || decide::is_saturated(&self.config, &own.pool, &self.loads, now_ms);
            if own.queue.is_empty() || own.emptiness.holds_back(is_known, now_ms) || full() {
                continue;
            }
            if let Some((id, (resolved, waiter))) = own.queue.pop(max_wait_ms, now_ms) {
                let decision = self.pick(&resolved, now_ms);
                return Some(Released { id, waiter, decision, resolved });
            }
        }
        self.released_to_fallback(now_ms)
    }

    /// The next request that has waited for its own pool for as long as it is to, and that another one has room for.
    fn released_to_fallback(&mut self, now_ms: u64) -> Option<Released<W>> {
        let after_ms = self.config.queue?.fallback_after_ms?;
        if !self.has_queued() || !self.fallbacks.is_due(now_ms) {
            return None;
        }
        let is_taken = |place: usize, resolved: &ResolvedRequest| {
            let ResolvedRequest { model, priority, can_begin_anew, .. } = resolved;
            let wish = Wish { model, priority: *priority, own_pool: place, but: place };
            *can_begin_anew && self.next_pool(wish, now_ms).is_some()
        };
        let (place, id) = self.pools.iter().enumerate().find_map(|(place, own)| {
            let mut waited = own.queue.waited(after_ms, now_ms).take(MAX_LOOKS);
            let (id, _) = waited.find(|(_, (resolved, _))| is_taken(place, resolved))?;
            Some((place, id))
        })?;
        let own = self.pools.get_mut(place)?;
        let (resolved, waiter) = own.queue.remove(id)?;
        Some(Released { id, waiter, decision: Decision::BeginAnew(own.timed_out()), resolved })
    }

    /// The client of a request that waits has left.
    pub fn forget(&mut self, pool: usize, id: u32) {
        if let Some(own) = self.pools.get_mut(pool) {
            own.queue.remove(id);
        }
    }

    /// The request goes to the pick: from now on it counts there.
    pub fn send(&mut self, pick: &Pick, now_ms: u64) -> Sent {
        let in_flight = self.loads.start(pick.load_id, pick.share, now_ms);
        let digest = pick.prompt.as_ref().map(|sent| sent.prompt.digest);
        let (prompt, passed_over) = (pick.prompt.clone(), Vec::new());
        let session = pick.session;
        if let Some(Visit { key, .. }) = session {
            self.unanswered.start(key);
        }
        let number = self.publish_sent(prompt.as_ref(), pick.load_id, now_ms);
        let prefill = match &pick.prompt_by {
            PromptBy::Other(other) => Some(Box::new(self.send_prompt(other, prompt.as_ref(), now_ms))),
            PromptBy::Itself | PromptBy::Gone { .. } => None,
        };
        let rank = pick.rank;
        self.rank_changed(pick.load_id, rank, 1);
        let passed_sent_ms = now_ms;
        Sent {
            in_flight,
            prompt,
            digest,
            passed_over,
            passed_sent_ms,
            number,
            first_output_ms: 0,
            session,
            prefill,
            rank,
        }
    }

    /// An engine has so many requests more, or less, if any was named.
    fn rank_changed(&mut self, load_id: LoadId, rank: Option<u32>, change: i32) {
        let Some(rank) = rank else { return };
        let pools = self.pools.iter_mut().map(|own| &mut own.pool);
        pools.filter(|pool| pool.names_ranks()).for_each(|pool| pool.rank_changed(load_id, rank, change));
    }

    fn send_prompt(&mut self, to: &PrefillPick, prompt: Option<&SentPrompt>, now_ms: u64) -> PrefillSent {
        let in_flight = self.loads.start(to.load_id, to.share, now_ms);
        PrefillSent { in_flight, number: self.publish_sent(prompt, to.load_id, now_ms) }
    }

    /// Has others know that a prompt is computed there; gives the number by which they know it.
    fn publish_sent(&mut self, prompt: Option<&SentPrompt>, to: LoadId, now_ms: u64) -> Option<u64> {
        let prompt = &prompt?.prompt;
        let (blocks, address) = prompt.blocks.as_ref().zip(self.loads.address(to))?;
        self.prompts += 1;
        let (number, block_tokens) = (self.prompts, prompt.tokens_in(BLOCK_BYTES));
        let hashes = Cow::Owned(blocks.hashes.clone());
        self.publish(PromptEvent::Sent { number, address, block_tokens, hashes }, now_ms);
        Some(number)
    }

    /// The prompt that is computed elsewhere has been, or is not any more.
    fn end_prefill(&mut self, sent: &mut Sent, is_computed: bool, now_ms: u64) {
        let Some(prefill) = sent.prefill.take() else { return };
        let PrefillSent { in_flight, number } = *prefill;
        if is_computed {
            self.loads.first_output(&in_flight, now_ms);
        }
        self.loads.end(in_flight, now_ms);
        let Some(number) = number else { return };
        let other_tokens = sent.prompt.as_ref().map(|sent| sent.prompt.tokens_behind_blocks());
        let event = match other_tokens.filter(|_| is_computed) {
            Some(other_tokens) => PromptEvent::Answered { number, other_tokens },
            None => PromptEvent::Dropped { number },
        };
        self.publish(event, now_ms);
    }

    fn publish_dropped(&mut self, sent: &mut Sent, now_ms: u64) {
        if let Some(number) = sent.number.take() {
            self.publish(PromptEvent::Dropped { number }, now_ms);
        }
    }

    /// Another endpoint than the one picked has answered: the request counts there from now on. `destinations` are those of
    /// the pick, in whose order they were tried. `false` if the pool has no endpoint of this address.
    pub fn move_to(
        &mut self,
        sent: &mut Sent,
        pool: usize,
        destinations: &str,
        address: &[u8],
        now_ms: u64,
    ) -> bool {
        self.publish_dropped(sent, now_ms);
        // What was matched was matched elsewhere.
        if let Some(prompt) = &mut sent.prompt {
            *prompt = SentPrompt { prompt: Rc::clone(&prompt.prompt), ..SentPrompt::default() };
        }
        let found = |address| Some(self.pool(pool)?.endpoint_at(address)?.load_id);
        let Some(load_id) = found(address) else { return false };
        sent.passed_over =
            passed_over(destinations, address).filter_map(|text| found(text.as_bytes())).collect();
        sent.passed_sent_ms = sent.in_flight.sent_ms();
        self.rank_changed(sent.load_id(), sent.rank, -1);
        self.rank_changed(load_id, sent.rank, 1);
        self.loads.move_to(&mut sent.in_flight, load_id, now_ms);
        sent.number = self.publish_sent(sent.prompt.as_ref(), load_id, now_ms);
        if let Some(prefill) = &mut sent.prefill {
            // It was asked for again, by another one.
            let load_id = prefill.in_flight.load_id();
            self.loads.move_to(&mut prefill.in_flight, load_id, now_ms);
        }
        true
    }

    /// The first output of an answer that is no error: the prompt has been computed.
    pub fn first_output(&mut self, sent: &mut Sent, now_ms: u64) {
        if sent.in_flight.is_streamed() {
            sent.first_output_ms = now_ms;
        }
        self.loads.first_output(&sent.in_flight, now_ms);
        self.end_prefill(sent, true, now_ms);
    }

    /// The answer is complete, and no error; what it says it has cost, if it does.
    pub fn answered(&mut self, sent: &mut Sent, pool: usize, usage: Option<Usage>, now_ms: u64) {
        let Some(SentPrompt { prompt, matched, matched_tokens }) = sent.prompt.take() else { return };
        if let Some(usage) = usage {
            self.learn_generation(sent, usage, now_ms);
            let completion_tokens = Some(usage.completion_tokens);
            let learnt = self.sizes.observe(
                &prompt.model,
                prompt.estimated_tokens,
                usage.prompt_tokens,
                completion_tokens,
            );
            self.limits.add_if(!learnt, Limit::LearntModels);
        }
        let cached_tokens = usage.and_then(|usage| usage.cached_tokens);
        let prefixes = self.pools.get_mut(pool).and_then(|own| own.pool.prefixes_mut());
        if let Some((prefixes, cached_tokens)) = prefixes.zip(cached_tokens) {
            prefixes.correct(sent.load_id(), matched, was_held(matched_tokens, cached_tokens));
        }
        let Some(number) = sent.number.take() else { return };
        let usual_tokens = self.sizes.answer_tokens(&prompt.model);
        let answer_tokens = usage.map_or(usual_tokens, |usage| usage.completion_tokens);
        let other_tokens = prompt.tokens_behind_blocks().saturating_add(answer_tokens);
        self.publish(PromptEvent::Answered { number, other_tokens }, now_ms);
    }

    /// Learns from a streamed answer how long a token takes where it was generated.
    fn learn_generation(&mut self, sent: &Sent, usage: Usage, now_ms: u64) {
        if sent.first_output_ms == 0 {
            return;
        }
        let time_ms = now_ms.saturating_sub(sent.first_output_ms);
        self.loads.tokens_generated(sent.load_id(), usage.completion_tokens.saturating_sub(1), time_ms);
    }

    /// The request is over, however it ended.
    pub fn end(&mut self, mut sent: Sent, now_ms: u64) {
        self.publish_dropped(&mut sent, now_ms);
        self.end_prefill(&mut sent, false, now_ms);
        self.rank_changed(sent.load_id(), sent.rank, -1);
        if let Some(Visit { key, .. }) = sent.session {
            self.unanswered.end(key);
        }
        self.loads.end(sent.in_flight, now_ms);
    }

    /// The endpoint has answered the request.
    pub fn succeeded(&mut self, pool: usize, sent: &Sent, now_ms: u64) {
        if let Some(own) = self.pools.get_mut(pool) {
            own.pool.request_succeeded(sent.load_id(), sent.digest, now_ms);
        }
    }

    /// The endpoint's answer reports its load.
    pub fn load_reported(&mut self, pool: usize, sent: &Sent, reported: ReportedLoad, now_ms: u64) {
        let is_asked = self.config.pools.get(pool).is_some_and(|pool| pool.answers_tell_load);
        if let Some(own) = self.pools.get_mut(pool).filter(|_| is_asked) {
            own.pool.load_reported(sent.load_id(), reported, &self.loads, now_ms);
        }
    }

    /// The endpoint's answer has come to its end.
    pub fn answer_completed(&mut self, pool: usize, sent: &Sent, now_ms: u64) {
        if let Some(own) = self.pools.get_mut(pool) {
            own.pool.answer_completed(sent.load_id(), sent.digest, now_ms);
        }
    }

    /// The endpoint's answer has failed after its first output. Gives its name if it is ejected for a while now.
    pub fn answer_broke_off(&mut self, pool: usize, sent: &Sent, now_ms: u64) -> Option<String> {
        let (limit, sent_ms) = (self.config.max_consecutive_failures, sent.in_flight.sent_ms());
        let pool = &mut self.pools.get_mut(pool)?.pool;
        pool.answer_broke_off(sent.load_id(), sent.digest, sent_ms, now_ms, limit)
    }

    /// The endpoint has failed to answer the request. Gives its name if it is ejected for a while now.
    pub fn failed(&mut self, pool: usize, sent: &Sent, now_ms: u64) -> Option<String> {
        let limit = self.config.max_consecutive_failures;
        self.pools.get_mut(pool)?.pool.request_failed(sent.load_id(), sent.digest, now_ms, limit)
    }

    /// The request was sent to other endpoints first. Why is not published: they failed, or do not have the model, which routes may
    /// retry as well. Gives the names of those that are ejected for a while now.
    pub fn passed_over(&mut self, pool: usize, sent: &Sent, now_ms: u64) -> Vec<String> {
        let first = sent.passed_over.iter();
        first.filter_map(|load_id| self.passed_over_one(pool, sent, *load_id, now_ms)).collect()
    }

    fn passed_over_one(&mut self, pool: usize, sent: &Sent, at: LoadId, now_ms: u64) -> Option<String> {
        let limit = self.config.max_consecutive_failures;
        let pool = &mut self.pools.get_mut(pool)?.pool;
        // What an endpoint's metrics name is not missing there.
        let is_there =
            |model: &AdapterId| pool.endpoint(at).is_some_and(|endpoint| endpoint.has_base_model(*model));
        let Some(model) = sent.in_flight.model().filter(|model| !is_there(model)) else {
            return pool.request_failed(at, sent.digest, now_ms, limit);
        };
        if self.loads.is_missing(at, model) || pool.request_passed_over(at, sent.digest, model, now_ms, limit)
        {
            self.model_missing_at(sent, at, sent.passed_sent_ms, now_ms);
            return None;
        }
        let endpoint = pool.endpoint(at)?;
        (!endpoint.is_candidate(now_ms, limit)).then(|| endpoint.text().to_owned())
    }

    /// The request's endpoint has answered that it does not have the model; so have, then, those that it was sent to before.
    pub fn model_missing(&mut self, sent: &Sent, now_ms: u64) {
        for load_id in &sent.passed_over {
            self.model_missing_at(sent, *load_id, sent.passed_sent_ms, now_ms);
        }
        self.model_missing_at(sent, sent.load_id(), sent.in_flight.sent_ms(), now_ms);
    }

    fn model_missing_at(&mut self, sent: &Sent, at: LoadId, sent_ms: u64, now_ms: u64) {
        let Some(model) = sent.in_flight.model() else { return };
        let fits = self.loads.model_missing(at, model, sent_ms, now_ms);
        self.limits.add_if(!fits, Limit::MissingModels);
    }

    /// A client has left before its request was answered. Gives the endpoint's name if it is ejected for a while
    /// now.
    pub fn abandoned(&mut self, pool: usize, sent: &Sent, now_ms: u64) -> Option<String> {
        let limit = self.config.max_consecutive_failures;
        let pool = &mut self.pools.get_mut(pool)?.pool;
        let endpoint = pool.endpoint(sent.load_id())?;
        let was_candidate = endpoint.is_candidate(now_ms, limit);
        endpoint.is_silent_since(sent.in_flight.sent_ms(), now_ms).then_some(())?;
        let left_alone = pool.request_failed(sent.load_id(), sent.digest, now_ms, limit);
        left_alone.filter(|_| was_candidate)
    }
}

/// Of a pick's destinations those that were tried before the endpoint of this address; only the first if it is none of them.
fn passed_over<'a>(destinations: &'a str, address: &'a [u8]) -> impl Iterator<Item = &'a str> {
    let place = destinations.split(',').position(|text| text.as_bytes() == address);
    destinations.split(',').take(place.unwrap_or(1))
}

/// Whether a server that had so many tokens cached held what was matched. Half of it is enough: what is matched is an
/// estimate.
fn was_held(matched_tokens: u32, cached_tokens: u32) -> bool {
    cached_tokens >= matched_tokens / 2
}

impl<W> PickerPool<W> {
    fn timed_out(&self) -> ApiError {
        if self.pool.is_empty() {
            return ApiError::no_endpoint_yet(&self.pool.name);
        }
        ApiError::queue_timed_out(&self.pool.name, self.drain_rate.retry_after_s())
    }

    fn queue_full(&self) -> ApiError {
        ApiError::queue_full(&self.pool.name, self.drain_rate.retry_after_s())
    }

    /// Whether a request of this priority may wait. In a full queue it takes the place of one of a lower priority, which is
    /// refused by [`Picker::released`]: until then there may be [`MAX_DISPLACING_SHARE`] times as many.
    fn has_room(&self, config: &Config, resolved: &ResolvedRequest) -> bool {
        let Some(queue) = config.queue else { return false };
        let (len, bytes) = (self.queue.len(), self.queue.bytes().saturating_add(resolved.body_bytes));
        let displaces = || self.queue.lowest_priority().is_some_and(|lowest| lowest < resolved.priority);
        let has_place = len < queue.max_requests
            || len < queue.max_requests.saturating_mul(MAX_DISPLACING_SHARE) && displaces();
        has_place && bytes <= queue.max_bytes
    }

    /// Where a request waits: tenants share by tokens; where they are not distinguished, models take turns.
    fn place_in_queue<'a>(&self, config: &Config, resolved: &'a ResolvedRequest) -> Place<'a> {
        let (priority, bytes) = (resolved.priority, resolved.body_bytes);
        if config.fairness.is_some() {
            return Place { priority, lane: resolved.tenant.as_deref(), cost: resolved.prompt.tokens, bytes };
        }
        let has_lane = self.has_lane(config, &resolved.model);
        Place { priority, lane: has_lane.then_some(resolved.model.as_str()), cost: 1, bytes }
    }

    /// Whether requests for this model wait in a lane of their own: a client cannot have invented the name, because it is
    /// published, or, where none are, an endpoint has it.
    fn has_lane(&self, config: &Config, model: &str) -> bool {
        config.publishes(model) || config.models.is_empty() && self.pool.names(model)
    }

    /// Whom the scraper could not reach may long be there again, if there is no scraper any more.
    fn look_for_scraper(&mut self, silence_ms: u64, now_ms: u64) {
        let is_known = self.pool.take_received();
        if !is_known && self.received_ms.is_some_and(|received_ms| now_ms.abs_diff(received_ms) < silence_ms)
        {
            return;
        }
        if !is_known {
            self.pool.forget_scrape_failures();
        }
        self.received_ms = Some(now_ms);
    }

    fn observe_drain_rate(&mut self, loads: &LoadTracker, now_ms: u64) {
        let endpoints = self.pool.endpoints().unwrap_or_default();
        let progress = endpoints.iter().map(|endpoint| loads.own_progress(endpoint.load_id));
        let (waiting, done) = progress.fold((self.queue.len() as u64, 0), |sum, (waiting, done)| {
            (sum.0 + u64::from(waiting), sum.1 + done)
        });
        self.drain_rate.observe(waiting, done, now_ms);
    }
}
