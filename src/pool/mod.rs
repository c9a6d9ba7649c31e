//! A pool as one worker knows it: its endpoints, what was scraped from each, and which of them may be picked.

mod candidates;
mod discovery;
mod endpoint;
mod failed_prompts;
mod levels;
pub mod priority;
mod snapshot;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use foldhash::fast::FixedState;

pub use candidates::{Candidates, EXTERNAL_PROMPT_TOKENS, Lanes, Limits, Part};
pub use discovery::{Discovered, DiscoveredEndpoint, DiscoveryError, EnvoyHost, HostHealth, read_clusters};
pub use endpoint::{AdapterResidency, Endpoint, Freshness};
pub use levels::{Levels, Standing};
pub use snapshot::{EndpointReading, FORMAT, Reading, Snapshot, decode, encode};

use crate::config;
use crate::limits::{Limit, LimitsReached};
use crate::load::{AdapterId, Failures, LoadId, LoadTracker};
use crate::metrics::ReportedLoad;
use crate::prefix::PrefixIndex;
use crate::promise::PromisesAtRisk;

use failed_prompts::FailedPrompts;

/// How many intervals between scrapes metrics last at least: where those are stretched to keep a budget, metrics that are as new
/// as they can be are not taken for old.
pub const STALE_INTERVALS: u64 = 2;

/// The longest that is believed of such an interval, in milliseconds.
const MAX_INTERVAL_MS: u64 = 10_000;

/// Adapters that are remembered; a pod could load more only by printing names that are none.
const MAX_KNOWN_ADAPTERS: usize = 65_536;

/// What one worker knows of a pool.
#[derive(Debug)]
pub struct Pool {
    /// The name, for people.
    pub name: String,
    /// How an endpoint is picked.
    pub routing_strategy: config::RoutingStrategy,
    /// From when on an endpoint is saturated.
    pub saturation: config::Saturation,
    /// Where ROUND_ROBIN goes on, by the place of the level.
    turns: Vec<usize>,
    endpoints: Option<Vec<Endpoint>>,
    /// Where each endpoint is in the list.
    places: HashMap<LoadId, usize, FixedState>,
    candidates: Candidates,
    failed_prompts: FailedPrompts,
    /// Those whose answers broke off.
    broken_prompts: FailedPrompts,
    /// What has changed of endpoints' failures, and was not taken yet to be published to others.
    failures: Vec<(LoadId, Failures)>,
    discovered: bool,
    /// Whether Envoy makes no difference between the endpoints but by their health.
    is_flat: bool,
    /// Whether its cluster has hosts that cannot be named.
    has_unnamed: bool,
    /// Whether nobody is to name them.
    is_external: bool,
    /// Whether requests name the engine that is to run them.
    names_ranks: bool,
    /// Between two scrapes of an endpoint, in milliseconds, by the scraper's word.
    interval_ms: u64,
    /// Whether the scraper has published something since that was last asked.
    has_received: bool,
    /// Whether any endpoint reports adapters.
    serves_adapters: bool,
    known_adapters: HashSet<AdapterId>,
    /// The endpoints' base models, by the ids that adapters of their names would have.
    base_models: HashSet<AdapterId>,
    prefixes: Option<PrefixIndex>,
    contexts: Contexts,
    /// Which limits were reached.
    pub limits: LimitsReached,
    /// How often of late a promise was at risk.
    pub promises_at_risk: PromisesAtRisk,
}

impl Pool {
    /// A pool of which only the configuration is known yet.
    ///
    /// `seed` is to be drawn at random; clients must not know it.
    pub fn new(config: &config::Pool, loads: &mut LoadTracker, seed: u64) -> Pool {
        let endpoints = config.endpoints.as_ref().map(|addresses| {
            addresses.iter().map(|&address| Endpoint::new(address, loads.id(address))).collect()
        });
        let by_prefix = config.routing_strategy == config::RoutingStrategy::PrefixCache;
        let mut pool = Pool {
            name: config.name.clone(),
            routing_strategy: config.routing_strategy,
            saturation: config.saturation,
            turns: Vec::new(),
            discovered: endpoints.is_none(),
            endpoints,
            places: HashMap::default(),
            candidates: Candidates::new(config.routing_strategy),
            failed_prompts: FailedPrompts::default(),
            broken_prompts: FailedPrompts::default(),
            failures: Vec::new(),
            is_flat: true,
            has_unnamed: config.is_external,
            names_ranks: config.data_parallel == config::DataParallel::Ranks,
            is_external: config.is_external,
            interval_ms: 0,
            has_received: false,
            serves_adapters: false,
            known_adapters: HashSet::new(),
            base_models: HashSet::new(),
            contexts: Contexts::default(),
            prefixes: by_prefix.then(|| PrefixIndex::new(config.prefix_blocks_max, seed)),
            limits: LimitsReached::default(),
            promises_at_risk: PromisesAtRisk::default(),
        };
        pool.index_endpoints();
        pool
    }

    /// Which prefixes its endpoints hold, where that decides.
    pub fn prefixes(&self) -> Option<&PrefixIndex> {
        self.prefixes.as_ref()
    }

    /// The same, to be taught.
    pub fn prefixes_mut(&mut self) -> Option<&mut PrefixIndex> {
        self.prefixes.as_mut()
    }

    /// The endpoints; `None` as long as discovery has not answered.
    pub fn endpoints(&self) -> Option<&[Endpoint]> {
        self.endpoints.as_deref()
    }

    /// Whether it has no endpoint; `false` where that is not known.
    pub fn is_empty(&self) -> bool {
        self.endpoints.as_ref().is_some_and(Vec::is_empty) && !self.has_unnamed
    }

    /// Whether the metrics of any endpoint have been read.
    pub fn has_metrics(&self) -> bool {
        self.endpoints.iter().flatten().any(|endpoint| endpoint.reading().is_some())
    }

    /// The endpoints that may be picked, as of the last update.
    pub fn candidates(&self) -> &Candidates {
        &self.candidates
    }

    /// Brings the endpoints that may be picked up to date.
    pub fn update_candidates(&mut self, loads: &LoadTracker, limits: Limits, now_ms: u64) {
        let endpoints = self.endpoints.as_deref().unwrap_or_default();
        let place = |load_id| self.places.get(&load_id).copied();
        let levels = || Levels::of(endpoints, self.is_flat, now_ms, limits.max_consecutive_failures);
        self.candidates.update(endpoints, levels, place, loads, limits, now_ms);
    }

    /// The endpoints that may be picked now.
    pub fn eligible(&self, now_ms: u64, max_failures: u32) -> impl Iterator<Item = &Endpoint> + Clone {
        let endpoints = self.endpoints().unwrap_or_default();
        let levels = Levels::of(endpoints, self.is_flat, now_ms, max_failures);
        endpoints.iter().filter(move |endpoint| levels.level(endpoint, now_ms, max_failures).is_some())
    }

    /// Whether any endpoint may be picked of which nothing says that it would not answer.
    pub fn has_ready(&self, now_ms: u64, max_failures: u32) -> bool {
        let is_ready = |endpoint: &Endpoint| endpoint.standing(now_ms, max_failures) == Standing::Ready;
        !self.has_unnamed && self.endpoints.iter().flatten().any(is_ready)
    }

    /// For how long its metrics count and its scraper may be silent, in milliseconds, where that is configured so.
    pub fn stale_after_ms(&self, configured_ms: u64) -> u64 {
        configured_ms.max(self.interval_ms * STALE_INTERVALS)
    }

    /// Whether its cluster has hosts that cannot be named, so that the balancing is Envoy's.
    pub fn has_unnamed(&self) -> bool {
        self.has_unnamed
    }

    /// The longest prompt that any endpoint takes, in tokens; `None` if one may take any.
    pub fn longest_context_tokens(&self) -> Option<u32> {
        self.contexts.longest_tokens
    }

    /// The places in the list of the candidates whose context is too short for a prompt of so many tokens, while that of others
    /// is not. If it is too short everywhere: of those whose context is not the longest.
    pub fn too_short(&self, prompt_tokens: u32) -> Vec<usize> {
        if self.contexts.shortest_tokens.is_none_or(|shortest| prompt_tokens <= shortest) {
            return Vec::new();
        }
        let context = |endpoint: &Endpoint| endpoint.context_tokens().unwrap_or(u32::MAX);
        let endpoints = self.endpoints.iter().flatten().enumerate();
        let candidates = endpoints.filter(|(place, _)| self.candidates.freshness(*place).is_some());
        let longest = candidates.clone().map(|(_, endpoint)| context(endpoint)).max().unwrap_or(0);
        let needed = prompt_tokens.min(longest);
        candidates.filter(|(_, endpoint)| context(endpoint) < needed).map(|(place, _)| place).collect()
    }

    /// The places in the list of the candidates that do not have this model, as far as is known: none, if none of them has it.
    /// One whose metrics name the model has it, whatever an answer said.
    pub fn lacking(&self, model: AdapterId, loads: &LoadTracker, now_ms: u64) -> Vec<usize> {
        let is_named = |place: usize, freshness| {
            let endpoint = self.endpoints.as_ref().and_then(|endpoints| endpoints.get(place));
            freshness == Freshness::Fresh && endpoint.is_some_and(|endpoint| endpoint.has_base_model(model))
        };
        let lacks = |place: &usize| {
            let freshness = self.candidates.freshness(*place);
            freshness.is_some_and(|freshness| !is_named(*place, freshness))
        };
        let places = loads.lacking(model, now_ms).filter_map(|load_id| self.place(load_id));
        let lacking: Vec<usize> = places.filter(lacks).collect();
        if lacking.is_empty() || lacking.len() < self.candidates.count() { lacking } else { Vec::new() }
    }

    /// Where in the list the endpoint of this load is.
    pub fn place(&self, load_id: LoadId) -> Option<usize> {
        self.places.get(&load_id).copied()
    }

    /// The endpoint of this load.
    pub fn endpoint(&self, load_id: LoadId) -> Option<&Endpoint> {
        self.endpoints.as_ref()?.get(self.place(load_id)?)
    }

    /// Lets the endpoint of this load note how a request there went.
    pub fn note<T>(
        &mut self,
        load_id: LoadId,
        now_ms: u64,
        note: impl FnOnce(&mut Endpoint) -> T,
    ) -> Option<T> {
        let place = self.place(load_id)?;
        self.note_at(place, now_ms, note)
    }

    /// The place behind which somebody's turn is, where the endpoints of a level take turns.
    pub fn turn(&self, level: usize) -> usize {
        self.turns.get(level).copied().unwrap_or(0)
    }

    /// It was the turn of the endpoint at this place; the next is one behind it.
    pub fn turn_taken(&mut self, place: usize) {
        let Some(level) = self.candidates.level(place) else { return };
        if self.turns.len() <= level {
            self.turns.resize(level + 1, 0);
        }
        if let Some(turn) = self.turns.get_mut(level) {
            *turn = place + 1;
        }
    }

    /// Whether requests name the engine that is to run them.
    pub fn names_ranks(&self) -> bool {
        self.names_ranks
    }

    /// An engine of the endpoint of this load has so many requests of this worker more, or less.
    pub fn rank_changed(&mut self, load_id: LoadId, rank: u32, change: i32) {
        let place = self.place(load_id);
        if let Some(endpoint) = place.and_then(|place| self.endpoints.as_mut()?.get_mut(place)) {
            endpoint.rank_changed(rank, change);
        }
    }

    /// A request is sent to the endpoint at this place in the list.
    pub fn picked(&mut self, place: usize, now_ms: u64, max_consecutive_failures: u32) {
        self.note_at(place, now_ms, |endpoint| endpoint.request_sent(now_ms, max_consecutive_failures));
    }

    /// A request was answered by the endpoint of this load; `prompt` is the digest of what was asked, if it was read.
    pub fn request_succeeded(&mut self, load_id: LoadId, prompt: Option<u64>, now_ms: u64) {
        prompt.iter().for_each(|prompt| self.failed_prompts.answered(*prompt));
        self.note(load_id, now_ms, |endpoint| endpoint.request_succeeded(now_ms));
    }

    /// An answer of the endpoint of this load has come to its end.
    pub fn answer_completed(&mut self, load_id: LoadId, prompt: Option<u64>, now_ms: u64) {
        prompt.iter().for_each(|prompt| self.broken_prompts.answered(*prompt));
        self.note(load_id, now_ms, Endpoint::answer_completed);
    }

    /// An answer has failed after its first output, to a request that was sent at `sent_ms`: as [`Pool::request_failed`].
    pub fn answer_broke_off(
        &mut self,
        load_id: LoadId,
        prompt: Option<u64>,
        sent_ms: u64,
        now_ms: u64,
        max_consecutive_failures: u32,
    ) -> Option<String> {
        prompt.is_none_or(|prompt| self.broken_prompts.failed(prompt, load_id)).then_some(())?;
        self.note_failure(load_id, now_ms, max_consecutive_failures, |endpoint| {
            endpoint.answer_broke_off(sent_ms, now_ms, max_consecutive_failures);
        })
    }

    /// A request has failed at the endpoint of this load, which counts unless its prompt fails at others too. Gives the
    /// endpoint's name if it is ejected for a while now.
    pub fn request_failed(
        &mut self,
        load_id: LoadId,
        prompt: Option<u64>,
        now_ms: u64,
        max_consecutive_failures: u32,
    ) -> Option<String> {
        self.blame(load_id, prompt).then_some(())?;
        self.note_failure(load_id, now_ms, max_consecutive_failures, |endpoint| {
            endpoint.request_failed(now_ms, max_consecutive_failures);
        })
    }

    /// Gives the endpoint's name if it is ejected for a while after this.
    fn note_failure(
        &mut self,
        load_id: LoadId,
        now_ms: u64,
        max_consecutive_failures: u32,
        note: impl FnOnce(&mut Endpoint),
    ) -> Option<String> {
        self.note(load_id, now_ms, |endpoint| {
            note(endpoint);
            let is_left_alone = !endpoint.is_candidate(now_ms, max_consecutive_failures);
            is_left_alone.then(|| endpoint.text().to_owned())
        })?
    }

    /// A request for this model was retried elsewhere: as [`Endpoint::request_passed_over`], unless its prompt fails at others
    /// too.
    pub fn request_passed_over(
        &mut self,
        load_id: LoadId,
        prompt: Option<u64>,
        model: AdapterId,
        now_ms: u64,
        max_consecutive_failures: u32,
    ) -> bool {
        let note =
            |endpoint: &mut Endpoint| endpoint.request_passed_over(model, now_ms, max_consecutive_failures);
        self.blame(load_id, prompt) && self.note(load_id, now_ms, note).unwrap_or(false)
    }

    /// Whether the endpoint is to blame for this prompt's failure, as far as is known.
    fn blame(&mut self, load_id: LoadId, prompt: Option<u64>) -> bool {
        prompt.is_none_or(|prompt| self.failed_prompts.failed(prompt, load_id))
    }

    fn note_at<T>(&mut self, place: usize, now_ms: u64, note: impl FnOnce(&mut Endpoint) -> T) -> Option<T> {
        let endpoint = self.endpoints.as_mut()?.get_mut(place)?;
        let before = endpoint.request_failures();
        let noted = note(endpoint);
        if endpoint.request_failures() != before {
            let load_id = endpoint.load_id;
            self.candidates.outdate();
            self.failures.retain(|(other, _)| *other != load_id);
            self.failures.extend(endpoint.note_failures(now_ms).map(|failures| (load_id, failures)));
        }
        Some(noted)
    }

    /// Takes out what has changed of endpoints' failures in a row, to be published to others.
    pub fn take_failures(&mut self) -> Vec<(LoadId, Failures)> {
        std::mem::take(&mut self.failures)
    }

    /// Takes over what another worker has noted of failures, where the endpoint is one of this pool's.
    pub fn receive_failures(&mut self, load_id: LoadId, received: Failures, max_consecutive_failures: u32) {
        let place = self.place(load_id);
        let endpoint = place.and_then(|place| self.endpoints.as_mut()?.get_mut(place));
        if let Some(endpoint) = endpoint {
            endpoint.receive_failures(received, max_consecutive_failures);
            self.candidates.outdate();
        }
    }

    /// The endpoint of this address as Envoy prints it.
    pub fn endpoint_at(&self, address: &[u8]) -> Option<&Endpoint> {
        self.endpoints.as_ref()?.iter().find(|endpoint| endpoint.text().as_bytes() == address)
    }

    /// Takes these models for adapters, should endpoints serve adapters: the targets that are configured.
    pub fn expect_adapters<'a>(&mut self, models: impl Iterator<Item = &'a str>) {
        self.known_adapters.extend(models.map(AdapterId::of));
    }

    /// The adapter of this name, if the model is one and the endpoints serve adapters: known from the configuration or
    /// because an endpoint has had it loaded, and no endpoint's base model. A model of which nothing is known is not taken
    /// for one: it may be another name of the base model, and would gather on few endpoints for nothing.
    pub fn adapter(&self, model: &str) -> Option<AdapterId> {
        let adapter = AdapterId::of(model);
        let is_one = self.known_adapters.contains(&adapter) && !self.base_models.contains(&adapter);
        (self.serves_adapters && is_one).then_some(adapter)
    }

    /// Whether an endpoint's metrics name this model, as its base model or as an adapter. A name that nobody knows,
    /// as clients send them, costs no look at every endpoint.
    pub fn names(&self, model: &str) -> bool {
        let id = AdapterId::of(model);
        if !(self.base_models.contains(&id) || self.known_adapters.contains(&id)) {
            return false;
        }
        let mut readings = self.endpoints.iter().flatten().filter_map(Endpoint::reading);
        readings.any(|reading| {
            let adapters = reading.metrics.lora.iter().flat_map(|lora| &lora.adapters);
            reading.metrics.base_model.iter().chain(adapters).any(|known| known == model)
        })
    }

    /// Takes over what the scraper has published. Where endpoints are configured, only they count; where they are
    /// discovered, the snapshot lists them. What this worker has seen itself (failures in a row) is kept. Returns
    /// whether the list of endpoints is another than before.
    pub fn apply(&mut self, snapshot: Snapshot, loads: &mut LoadTracker) -> bool {
        let Some(readings) = snapshot.endpoints else {
            return false;
        };
        self.has_unnamed = self.is_external || snapshot.has_unnamed && self.discovered;
        self.interval_ms = snapshot.interval_ms.min(MAX_INTERVAL_MS);
        self.has_received = true;
        self.candidates.outdate();
        let changed = self.discovered && self.follow(&readings, loads);
        if changed {
            self.index_endpoints();
        }
        self.read_all(readings);
        let mut hosts = self.endpoints.iter().flatten().map(Endpoint::host);
        self.is_flat = hosts.all(|host| host.priority == 0 && host.health != HostHealth::Degraded);
        self.learn_models();
        self.learn_restarts(loads);
        self.learn_adapters(loads);
        self.learn_caches();
        self.contexts = Contexts::of(self.endpoints.as_deref().unwrap_or_default());
        changed
    }

    /// An answer of the endpoint of this load reports what it has to do; it counts from when the answer's request has ended.
    pub fn load_reported(
        &mut self,
        load_id: LoadId,
        reported: ReportedLoad,
        loads: &LoadTracker,
        now_ms: u64,
    ) {
        self.note(load_id, now_ms, |endpoint| {
            endpoint.load_reported(reported, loads.in_flight(load_id), now_ms)
        });
    }

    /// Forgets what answers reported so long ago.
    pub fn forget_reported(&mut self, stale_after_ms: u64, now_ms: u64) {
        let forget = |endpoint: &mut Endpoint| endpoint.forget_reported(stale_after_ms, now_ms);
        let forgotten = self.endpoints.iter_mut().flatten().map(forget).filter(|forgot| *forgot).count();
        if forgotten > 0 {
            self.candidates.outdate();
        }
    }

    /// Whether the scraper has published something since that was last asked.
    pub fn take_received(&mut self) -> bool {
        std::mem::take(&mut self.has_received)
    }

    /// Endpoints that could not be scraped may be picked again.
    pub fn forget_scrape_failures(&mut self) {
        self.candidates.outdate();
        self.endpoints.iter_mut().flatten().for_each(Endpoint::forget_scrape_failures);
    }

    fn index_endpoints(&mut self) {
        let load_ids = self.endpoints.iter().flatten().map(|endpoint| endpoint.load_id);
        self.places = load_ids.zip(0..).collect();
        if let Some(prefixes) = &mut self.prefixes {
            prefixes.follow(self.endpoints.iter().flatten().map(|endpoint| endpoint.load_id));
        }
    }

    /// A server that has started anew has nothing cached and nothing loaded.
    fn learn_restarts(&mut self, loads: &mut LoadTracker) {
        for endpoint in self.endpoints.iter_mut().flatten() {
            if let Some(seen_ms) = endpoint.take_restart() {
                loads.restarted(endpoint.load_id, seen_ms);
                if let Some(prefixes) = &mut self.prefixes {
                    prefixes.forget(endpoint.load_id);
                }
            }
        }
    }

    /// Learns how large the endpoints' caches are.
    fn learn_caches(&mut self) {
        let Some(prefixes) = &mut self.prefixes else { return };
        for endpoint in self.endpoints.iter().flatten() {
            if let Some(tokens) = endpoint.cache_capacity_tokens() {
                prefixes.set_capacity(endpoint.load_id, tokens);
            }
        }
    }

    /// Learns which base models the endpoints serve: nearly always one, so the same name is hashed once.
    fn learn_models(&mut self) {
        let readings = self.endpoints.iter().flatten().filter_map(Endpoint::reading);
        let mut names: Vec<&str> =
            readings.filter_map(|reading| reading.metrics.base_model.as_deref()).collect();
        names.dedup();
        self.base_models = names.into_iter().map(AdapterId::of).collect();
    }

    /// Remembers the adapters that endpoints have in use, all of them and where.
    fn learn_adapters(&mut self, loads: &mut LoadTracker) {
        self.serves_adapters = self.endpoints.iter().flatten().any(|endpoint| endpoint.lora().is_some());
        let mut left_out = false;
        for endpoint in self.endpoints.iter().flatten() {
            loads.adapters_used(endpoint.load_id, endpoint.adapters());
            for adapter in endpoint.adapters() {
                if self.known_adapters.len() < MAX_KNOWN_ADAPTERS {
                    self.known_adapters.insert(*adapter);
                } else {
                    left_out |= !self.known_adapters.contains(adapter);
                }
            }
        }
        self.limits.add_if(left_out, Limit::KnownAdapters);
    }

    /// Makes the list of endpoints that of the snapshot; whether it was another.
    fn follow(&mut self, readings: &[EndpointReading], loads: &mut LoadTracker) -> bool {
        let known = self.endpoints.get_or_insert_default();
        if in_same_order(known, readings) {
            return false;
        }
        let mut before: HashMap<SocketAddr, Endpoint> =
            known.drain(..).map(|endpoint| (endpoint.address(), endpoint)).collect();
        known.extend(readings.iter().map(|reading| {
            let address = reading.address;
            before.remove(&address).unwrap_or_else(|| Endpoint::new(address, loads.id(address)))
        }));
        true
    }

    fn read_all(&mut self, readings: Vec<EndpointReading>) {
        let Some(endpoints) = &mut self.endpoints else {
            return;
        };
        if in_same_order(endpoints, &readings) {
            for (endpoint, reading) in endpoints.iter_mut().zip(readings) {
                endpoint.read(reading);
            }
            return;
        }
        let mut by_address: HashMap<SocketAddr, EndpointReading> =
            readings.into_iter().map(|reading| (reading.address, reading)).collect();
        for endpoint in endpoints {
            if let Some(reading) = by_address.remove(&endpoint.address()) {
                endpoint.read(reading);
            }
        }
    }
}

/// How long prompts may be.
#[derive(Debug, Default, Clone, Copy)]
struct Contexts {
    /// The least that an endpoint takes, if any reports it.
    shortest_tokens: Option<u32>,
    /// The most that one takes, if there are some and all report it.
    longest_tokens: Option<u32>,
}

impl Contexts {
    fn of(endpoints: &[Endpoint]) -> Contexts {
        let reported = endpoints.iter().map(Endpoint::context_tokens);
        let all: Option<Vec<u32>> = reported.clone().collect();
        Contexts {
            shortest_tokens: reported.flatten().min(),
            longest_tokens: all.and_then(|tokens| tokens.into_iter().max()),
        }
    }
}

/// The common case, in which nothing needs to be looked up: every snapshot but one that follows a change.
fn in_same_order(endpoints: &[Endpoint], readings: &[EndpointReading]) -> bool {
    endpoints.len() == readings.len()
        && endpoints.iter().zip(readings).all(|(endpoint, reading)| endpoint.address() == reading.address)
}
