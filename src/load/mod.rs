//! What this gateway has in flight on each endpoint, over all its workers, and what that teaches about the endpoint.
//!
//! Of the requests sent to an endpoint and not yet ended, [`InFlight`] sums up:
//! - `requests`: all of them;
//! - `waiting`: those that have had no output yet;
//! - `waiting_tokens`: the prompt tokens of those, of which the endpoint works off the oldest ones first.
//!
//! Besides, it is known which adapters have requests in flight there, and which had some last: an endpoint loads an adapter
//! with its first request, which a scrape shows only later, and keeps it, which no scrape shows. From the times of first
//! outputs follows how fast it computes prompts; until there are some, it is taken to be as fast as the pool's other endpoints.
//!
//! A worker counts its own. What all workers have is the [ledger](crate::ledger)'s to sum up, from which [`LoadTracker`] receives
//! what others have.

mod changes;
mod endpoint_load;
mod failures;
mod in_flight;
mod missing_models;
mod recent_adapters;
mod tracked_endpoint;

use std::collections::HashMap;
use std::net::SocketAddr;

use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};

use crate::decayed_ratio::DecayedRatio;

use changes::Changes;
pub use endpoint_load::{EndpointKey, EndpointLoad};
use failures::NotedFailures;
pub use failures::{FailureNote, Failures};
pub use in_flight::{InFlight, Oldest};
use missing_models::MissingModels;
pub use missing_models::{Missing, MissingNote};
pub use tracked_endpoint::DEFAULT_PREFILL_TOKENS_PER_MS;
use tracked_endpoint::{TrackedEndpoint, USUAL_SPEED_WEIGHT_MS};

/// The place of an endpoint in the [`LoadTracker`]; holds until [`LoadTracker::keep_only`] drops the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LoadId(usize);

/// An adapter, by a hash of its name that is the same in every worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AdapterId(u64);

impl AdapterId {
    /// The adapter of this name.
    pub fn of(name: &str) -> AdapterId {
        AdapterId(crate::hash::fnv1a(name.as_bytes()))
    }

    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    pub(crate) fn from_bits(bits: u64) -> AdapterId {
        AdapterId(bits)
    }
}

/// What a request adds to the load of the endpoint it is sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLoad {
    /// The prompt tokens that the endpoint has to compute.
    pub tokens: u32,
    /// The adapter it needs, if any.
    pub adapter: Option<AdapterId>,
    /// The model it names, by the id that an adapter of this name has; `None` if it was not read or names none.
    pub model: Option<AdapterId>,
    /// Whether the answer is streamed, so that its first output is seen.
    pub streamed: bool,
}

/// How fast an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    /// Prompt tokens that it computes in a millisecond; above zero.
    pub prefill_tokens_per_ms: f64,
    /// Milliseconds that a token of an answer takes behind the first; 0 if none was seen.
    pub per_token_ms: f64,
}

/// One request's part of the load; give it back with [`LoadTracker::end`].
#[derive(Debug, PartialEq, Eq)]
pub struct InFlightRequest {
    id: LoadId,
    /// Distinguishes it from the others that wait there.
    number: u64,
    sent_ms: u64,
    load: RequestLoad,
    /// Whether it was sent elsewhere first, so that its time says nothing of this endpoint's speed.
    is_moved: bool,
}

impl InFlightRequest {
    /// The endpoint it counts on.
    pub fn load_id(&self) -> LoadId {
        self.id
    }

    /// The model it names, if it was read.
    pub fn model(&self) -> Option<AdapterId> {
        self.load.model
    }

    /// Whether its answer is streamed, so that its first output is seen.
    pub fn is_streamed(&self) -> bool {
        self.load.streamed
    }

    /// When it was sent, in milliseconds.
    pub fn sent_ms(&self) -> u64 {
        self.sent_ms
    }
}

/// How long what a worker has noted is published, in milliseconds: until all workers have read it, of which those in a quiet
/// gateway read once a second.
const PUBLISHED_FOR_MS: u64 = 1_500;

/// Whether what was noted then is still to be published to others, who all read what was published well within that time.
fn is_published(noted_ms: u64, now_ms: u64) -> bool {
    now_ms.abs_diff(noted_ms) < PUBLISHED_FOR_MS
}

/// The load of every endpoint as one worker knows it.
#[derive(Debug, Default)]
pub struct LoadTracker {
    rows: Vec<Option<TrackedEndpoint>>,
    ids: HashMap<SocketAddr, LoadId, FixedState>,
    keys: HashMap<EndpointKey, LoadId, FixedState>,
    added: u64,
    /// Where this worker has requests in flight.
    busy: Vec<LoadId>,
    /// Where others have some, and how often that has been received.
    received: Vec<LoadId>,
    rounds: u64,
    /// Where what this worker has in flight has changed since it was last taken to be published.
    unpublished: Vec<LoadId>,
    changes: Changes,
    missing: MissingModels,
    failures: NotedFailures,
}

impl LoadTracker {
    /// The place of an endpoint, made when it is new.
    pub fn id(&mut self, address: SocketAddr) -> LoadId {
        if let Some(&id) = self.ids.get(&address) {
            return id;
        }
        self.added += 1;
        let row = Some(TrackedEndpoint::new(address));
        let index = self.rows.iter().position(Option::is_none).unwrap_or(self.rows.len());
        match self.rows.get_mut(index) {
            Some(free) => *free = row,
            None => self.rows.push(row),
        }
        self.ids.insert(address, LoadId(index));
        self.keys.insert(EndpointKey::of(address), LoadId(index));
        LoadId(index)
    }

    /// The endpoint's address, unless it is gone.
    pub fn address(&self, id: LoadId) -> Option<SocketAddr> {
        self.row(id).map(|row| row.address)
    }

    /// The place of the endpoint of this address, if it has one.
    pub fn known(&self, address: &SocketAddr) -> Option<LoadId> {
        self.ids.get(address).copied()
    }

    /// The place of the endpoint of this key, if it has one.
    pub fn known_by_key(&self, key: EndpointKey) -> Option<LoadId> {
        self.keys.get(&key).copied()
    }

    /// What all workers have in flight on an endpoint.
    pub fn in_flight(&self, id: LoadId) -> InFlight {
        self.row(id).map_or(InFlight::default(), TrackedEndpoint::in_flight)
    }

    /// What this worker has in flight on an endpoint.
    pub fn own(&self, id: LoadId) -> InFlight {
        self.row(id).map_or(InFlight::default(), TrackedEndpoint::own)
    }

    /// How many changes of loads there have been, ever.
    pub fn changes(&self) -> u64 {
        self.changes.count()
    }

    /// Where they were, after the first `count`; `None` if that is too long ago to be known.
    pub fn changes_since(&self, count: u64) -> Option<&[LoadId]> {
        self.changes.since(count)
    }

    /// What all workers have in flight on the endpoint of this address.
    pub fn in_flight_at(&self, address: &SocketAddr) -> InFlight {
        self.ids.get(address).map(|&id| self.in_flight(id)).unwrap_or_default()
    }

    /// What all workers have in flight, endpoint by endpoint, where there is something; some endpoints come twice.
    pub fn all_in_flight(&self) -> impl Iterator<Item = (SocketAddr, InFlight)> {
        let ids = self.busy.iter().chain(&self.received);
        ids.filter_map(|id| self.row(*id)).map(|row| (row.address, row.in_flight()))
    }

    /// How fast an endpoint computes prompts, in tokens a millisecond, as far as this worker has seen; above zero.
    pub fn prefill_tokens_per_ms(&self, id: LoadId) -> f64 {
        self.row(id).map_or(DEFAULT_PREFILL_TOKENS_PER_MS, TrackedEndpoint::prefill_tokens_per_ms)
    }

    /// How fast an endpoint is, as far as this worker has seen.
    pub fn speed(&self, id: LoadId) -> Speed {
        let per_token_ms = self.row(id).map_or(0.0, TrackedEndpoint::per_token_ms);
        Speed { prefill_tokens_per_ms: self.prefill_tokens_per_ms(id), per_token_ms }
    }

    /// A streamed answer of an endpoint had so many tokens behind its first, in so long.
    pub fn tokens_generated(&mut self, id: LoadId, tokens: u32, time_ms: u64) {
        self.change(id, |row| row.tokens_generated(tokens, time_ms));
    }

    /// These endpoints serve the same: each is taken to be as fast as all of them together have been seen to be, until it
    /// has been seen for a while itself.
    ///
    /// ```text
    /// usual speed = (DEFAULT_PREFILL_TOKENS_PER_MS × USUAL_SPEED_WEIGHT_MS + Σ tokens) ÷ (USUAL_SPEED_WEIGHT_MS + Σ their time)
    /// speed       = (usual speed × USUAL_SPEED_WEIGHT_MS + tokens) ÷ (USUAL_SPEED_WEIGHT_MS + their time)
    /// ```
    ///
    /// An endpoint that had to prove itself against a default that is far off would look slow, or fast, beside those that
    /// have, and would be passed over, or flooded.
    pub fn share_speed(&mut self, ids: impl Iterator<Item = LoadId> + Clone) {
        let mut all = DecayedRatio::new(DEFAULT_PREFILL_TOKENS_PER_MS, USUAL_SPEED_WEIGHT_MS, f64::INFINITY);
        for row in ids.clone().filter_map(|id| self.row(id)) {
            let (tokens, time_ms) = row.seen_prefill();
            all.observe(tokens, time_ms);
        }
        let usual_tokens_per_ms = all.value();
        for id in ids {
            if self.row(id).is_some_and(|row| row.usual_tokens_per_ms() != usual_tokens_per_ms) {
                self.change(id, |row| row.set_usual_speed(usual_tokens_per_ms));
            }
        }
    }

    /// Whether any worker has a request for this adapter in flight there.
    pub fn has_adapter(&self, id: LoadId, adapter: AdapterId) -> bool {
        self.adapters(id).any(|known| known == adapter)
    }

    /// The adapters with requests in flight there, some of them perhaps twice.
    pub fn adapters(&self, id: LoadId) -> impl Iterator<Item = AdapterId> {
        self.row(id).into_iter().flat_map(TrackedEndpoint::adapters)
    }

    /// The adapters that were last used there, as far as this worker knows, the one used last first; among them those with
    /// requests in flight.
    pub fn recent_adapters(&self, id: LoadId) -> impl Iterator<Item = AdapterId> {
        self.row(id).into_iter().flat_map(|row| row.recent_adapters().iter())
    }

    /// Metrics say that these adapters are in use there.
    pub fn adapters_used(&mut self, id: LoadId, adapters: &[AdapterId]) {
        if !adapters.is_empty() {
            self.change(id, |row| row.adapters_used(adapters));
        }
    }

    /// The endpoint's server has started anew, as was seen at `seen_ms`: what was loaded is gone, and what was missing may be
    /// there.
    pub fn restarted(&mut self, id: LoadId, seen_ms: u64) {
        self.change(id, TrackedEndpoint::forget_recent_adapters);
        self.missing.restarted(id, seen_ms);
    }

    /// Where this model is missing and is not to be asked for now.
    pub fn lacking(&self, model: AdapterId, now_ms: u64) -> impl Iterator<Item = LoadId> {
        self.missing.lacking(model, now_ms)
    }

    /// Whether the endpoint has said that it does not have this model, and not otherwise since.
    pub fn is_missing(&self, id: LoadId, model: AdapterId) -> bool {
        self.missing.is_known(id, model)
    }

    /// An endpoint has answered a request sent at `sent_ms` that it does not have the model: nor does it load it, as it was
    /// taken to. `false` if another one had to be forgotten for it.
    pub fn model_missing(&mut self, id: LoadId, model: AdapterId, sent_ms: u64, now_ms: u64) -> bool {
        self.change_own(id, |row| row.forget_adapter(model));
        self.missing.missing(id, model, sent_ms, now_ms)
    }

    /// This worker's requests there that wait for their first output, and how many no longer do, ever.
    pub fn own_progress(&self, id: LoadId) -> (u32, u64) {
        self.row(id).map_or((0, 0), TrackedEndpoint::own_progress)
    }

    /// A request is sent to an endpoint.
    pub fn start(&mut self, id: LoadId, load: RequestLoad, now_ms: u64) -> InFlightRequest {
        if let Some(model) = load.model {
            self.missing.asked(id, model, now_ms);
        }
        let number = self.change_own(id, |row| row.start(load, now_ms)).unwrap_or(0);
        InFlightRequest { id, number, sent_ms: now_ms, load, is_moved: false }
    }

    /// The request has gone to another endpoint than it was meant for.
    pub fn move_to(&mut self, request: &mut InFlightRequest, id: LoadId, now_ms: u64) {
        let moved = InFlightRequest { is_moved: true, ..self.start(id, request.load, now_ms) };
        self.end(std::mem::replace(request, moved), now_ms);
    }

    /// The request has its first output: its prompt is done with.
    pub fn first_output(&mut self, request: &InFlightRequest, now_ms: u64) {
        if let Some(model) = request.load.model {
            self.missing.served(request.id, model, now_ms);
        }
        let seen = request.load.streamed && !request.is_moved;
        self.change_own(request.id, |row| row.first_output(request.number, seen, now_ms));
    }

    /// The request is over, however it ended.
    pub fn end(&mut self, request: InFlightRequest, now_ms: u64) {
        self.change_own(request.id, |row| row.end(request.number, request.load.adapter, now_ms));
    }

    /// Takes prompts for done whose answers are not streamed, once the endpoint has had the time; whether there were
    /// any. Nothing else would show it before their end.
    pub fn assume_outputs(&mut self, now_ms: u64) -> bool {
        let is_due = |id: &&LoadId| self.row(**id).is_some_and(|row| row.has_output_due(now_ms));
        let due: Vec<LoadId> = self.busy.iter().filter(is_due).copied().collect();
        for id in &due {
            self.change_own(*id, |row| row.assume_outputs(now_ms));
        }
        !due.is_empty()
    }

    /// Whether this worker has nothing in flight.
    pub fn is_own_idle(&self) -> bool {
        self.busy.is_empty()
    }

    /// Whether no worker has anything in flight, as far as is known.
    pub fn is_idle(&self) -> bool {
        self.all_in_flight().all(|(_, in_flight)| in_flight.is_idle())
    }

    /// Whether what this worker has in flight has changed since it was last taken.
    pub fn has_unpublished(&self) -> bool {
        !self.unpublished.is_empty()
    }

    /// What this worker has in flight where that has changed since it was last taken.
    pub fn take_unpublished(&mut self) -> Vec<(EndpointKey, EndpointLoad)> {
        let ids = std::mem::take(&mut self.unpublished);
        let mut taken = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some(row) = self.rows.get_mut(id.0).and_then(Option::as_mut) {
                row.is_unpublished = false;
                taken.push((row.key, row.own_load()));
            }
        }
        taken
    }

    /// Takes over what others have in flight, endpoint by endpoint, in place of what was known of that.
    pub fn set_others(&mut self, others: impl Iterator<Item = (EndpointKey, EndpointLoad)>) {
        let before = std::mem::take(&mut self.received);
        self.rounds += 1;
        for (key, load) in others {
            let Some(&id) = self.keys.get(&key) else { continue };
            self.received.push(id);
            self.receive(id, load);
        }
        for id in before {
            if self.row(id).is_some_and(|row| row.received_round != self.rounds) {
                self.receive(id, EndpointLoad::default());
                self.forget_received(id);
            }
        }
    }

    /// Takes over what others have in flight on one endpoint, in place of what was known of that.
    pub fn set_others_at(&mut self, key: EndpointKey, load: EndpointLoad) {
        let Some(&id) = self.keys.get(&key) else { return };
        if self.row(id).is_some_and(|row| row.received_round != self.rounds) {
            self.received.push(id);
        }
        self.receive(id, load);
    }

    /// How many endpoints have been added, ever.
    pub fn endpoints_added(&self) -> u64 {
        self.added
    }

    /// What this worker has noted of models that endpoints do not have, for the others to receive.
    pub fn missing_noted(&self, now_ms: u64) -> impl Iterator<Item = MissingNote> {
        let noted = self.missing.published(now_ms);
        noted.filter_map(|(id, model, missing)| {
            Some(MissingNote { endpoint: self.row(id)?.key, model, missing })
        })
    }

    /// Another worker has noted this of a model.
    pub fn receive_missing(&mut self, note: &MissingNote, now_ms: u64) {
        let Some(&id) = self.keys.get(&note.endpoint) else { return };
        if self.missing.receive(id, note.model, note.missing, now_ms) {
            self.change_own(id, |row| row.forget_adapter(note.model));
        }
    }

    /// This worker has noted how many requests to an endpoint have failed in a row.
    pub fn note_failures(&mut self, id: LoadId, failures: Failures) {
        self.failures.note(id, failures);
    }

    /// What this worker has noted of failures, for the others to receive.
    pub fn failures_noted(&self, now_ms: u64) -> impl Iterator<Item = FailureNote> {
        let noted = self.failures.published(now_ms);
        noted.filter_map(|(id, failures)| Some(FailureNote { endpoint: self.row(id)?.key, failures }))
    }

    /// Another worker has noted this of failures.
    pub fn receive_failures(&mut self, note: &FailureNote, now_ms: u64) {
        if let Some(&id) = self.keys.get(&note.endpoint) {
            self.failures.receive(id, note.failures, now_ms);
        }
    }

    /// What others have noted of failures since this was last asked.
    pub fn take_received_failures(&mut self) -> impl Iterator<Item = (LoadId, Failures)> {
        self.failures.take_received()
    }

    /// Forgets the endpoints that are gone and have nothing of this worker's in flight.
    pub fn keep_only(&mut self, known: impl Fn(&SocketAddr) -> bool) {
        for slot in &mut self.rows {
            if let Some(row) = slot
                && row.own().is_idle()
                && !row.is_unpublished
                && !known(&row.address)
            {
                self.ids.remove(&row.address);
                self.keys.remove(&row.key);
                *slot = None;
            }
        }
        let rows = &self.rows;
        let is_known = |id: LoadId| rows.get(id.0).is_some_and(Option::is_some);
        self.missing.keep_only(is_known);
        self.failures.keep_only(is_known);
    }

    fn row(&self, id: LoadId) -> Option<&TrackedEndpoint> {
        self.rows.get(id.0)?.as_ref()
    }

    /// Changes what this worker knows of an endpoint, or has in flight there.
    fn change<T>(&mut self, id: LoadId, change: impl FnOnce(&mut TrackedEndpoint) -> T) -> Option<T> {
        let row = self.rows.get_mut(id.0)?.as_mut()?;
        let was_idle = row.own().is_idle();
        let changed = change(row);
        match (was_idle, row.own().is_idle()) {
            (true, false) => self.busy.push(id),
            (false, true) => self.busy.retain(|busy| *busy != id),
            _ => {}
        }
        self.changes.note(id);
        Some(changed)
    }

    /// The same where what this worker has in flight there is changed, which others are to know.
    fn change_own<T>(&mut self, id: LoadId, change: impl FnOnce(&mut TrackedEndpoint) -> T) -> Option<T> {
        let changed = self.change(id, change)?;
        let row = self.rows.get_mut(id.0)?.as_mut()?;
        if !std::mem::replace(&mut row.is_unpublished, true) {
            self.unpublished.push(id);
        }
        Some(changed)
    }

    /// It is not among those where others have something.
    fn forget_received(&mut self, id: LoadId) {
        if let Some(row) = self.rows.get_mut(id.0).and_then(Option::as_mut) {
            row.received_round = 0;
        }
    }

    /// Others have this in flight there.
    fn receive(&mut self, id: LoadId, load: EndpointLoad) {
        let Some(row) = self.rows.get_mut(id.0).and_then(Option::as_mut) else { return };
        row.received_round = self.rounds;
        if row.set_others(load) {
            self.changes.note(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 8000))
    }

    fn load(requests: u32, waiting: u32, waiting_tokens: u64) -> InFlight {
        InFlight { requests, waiting, waiting_tokens, ..InFlight::default() }
    }

    /// The sums alone.
    fn sums(load: InFlight) -> (u32, u32, u64) {
        (load.requests, load.waiting, load.waiting_tokens)
    }

    fn request_load(tokens: u32, adapter: Option<AdapterId>) -> RequestLoad {
        RequestLoad { tokens, adapter, model: None, streamed: true }
    }

    #[test]
    fn tokens_are_given_back_at_the_first_output_and_the_request_at_its_end() {
        let mut tracker = LoadTracker::default();
        let id = tracker.id(address(1));
        let request = tracker.start(id, request_load(100, None), 0);
        let other = tracker.start(id, request_load(7, None), 0);
        assert_eq!(sums(tracker.in_flight(id)), (2, 2, 107));
        tracker.first_output(&request, 0);
        tracker.first_output(&request, 0);
        assert_eq!(sums(tracker.in_flight(id)), (2, 1, 7));
        tracker.end(request, 0);
        tracker.end(other, 0);
        assert_eq!(sums(tracker.in_flight(id)), (0, 0, 0));
    }

    #[test]
    fn a_request_that_went_elsewhere_counts_there() {
        let mut tracker = LoadTracker::default();
        let (meant, served) = (tracker.id(address(1)), tracker.id(address(2)));
        let mut request = tracker.start(meant, request_load(10, None), 0);
        tracker.move_to(&mut request, served, 0);
        assert_eq!(
            (sums(tracker.in_flight(meant)), sums(tracker.in_flight(served))),
            ((0, 0, 0), (1, 1, 10))
        );
        tracker.end(request, 0);
        assert_eq!(sums(tracker.in_flight(served)), (0, 0, 0));
    }

    #[test]
    fn the_time_that_a_request_has_lost_elsewhere_says_nothing_of_who_serves_it() {
        let mut tracker = LoadTracker::default();
        let (hung, served) = (tracker.id(address(1)), tracker.id(address(2)));
        let mut request = tracker.start(hung, request_load(500, None), 0);
        let before = tracker.prefill_tokens_per_ms(served);
        tracker.move_to(&mut request, served, 0);
        tracker.first_output(&request, 1_050);
        assert_eq!(tracker.prefill_tokens_per_ms(served), before);
        let own = tracker.start(served, request_load(500, None), 2_000);
        tracker.first_output(&own, 3_000);
        assert!(tracker.prefill_tokens_per_ms(served) < before);
    }

    #[test]
    fn a_first_output_shows_that_those_ahead_are_done_whose_outputs_are_not_seen() {
        let mut tracker = LoadTracker::default();
        let id = tracker.id(address(1));
        let unseen = tracker.start(id, RequestLoad { streamed: false, ..request_load(10_000, None) }, 0);
        let seen = tracker.start(id, request_load(100, None), 1);
        tracker.first_output(&seen, 253);
        let speed = tracker.prefill_tokens_per_ms(id);
        assert!(speed > 20.0, "10,100 tokens in 253 ms: {speed}");
        assert_eq!(sums(tracker.in_flight(id)), (2, 0, 0));
        tracker.end(unseen, 300);
        tracker.end(seen, 300);
    }

    #[test]
    fn a_prompt_behind_one_that_was_given_up_has_not_waited_for_its_own_sake() {
        let mut tracker = LoadTracker::default();
        let id = tracker.id(address(1));
        let before = tracker.prefill_tokens_per_ms(id);
        let (given_up, behind) =
            (tracker.start(id, request_load(100_000, None), 0), tracker.start(id, request_load(80, None), 1));
        tracker.end(given_up, 10_000);
        tracker.first_output(&behind, 10_010);
        assert!((tracker.prefill_tokens_per_ms(id) - before).abs() < 0.1);
        tracker.end(behind, 10_020);
    }

    #[test]
    fn one_long_pause_does_not_make_an_endpoint_slow() {
        let mut tracker = LoadTracker::default();
        let id = tracker.id(address(1));
        let request = tracker.start(id, request_load(100, None), 0);
        tracker.first_output(&request, 30_000);
        assert!(tracker.prefill_tokens_per_ms(id) > 1.0, "{}", tracker.prefill_tokens_per_ms(id));
        tracker.end(request, 30_000);
    }

    #[test]
    fn one_prompt_that_a_client_has_made_look_long_does_not_make_an_endpoint_fast() {
        let mut tracker = LoadTracker::default();
        let id = tracker.id(address(1));
        for _ in 0..10 {
            compute(&mut tracker, id, 8_000, 1_000);
        }
        compute(&mut tracker, id, 4_000_000, 20);
        assert!(tracker.prefill_tokens_per_ms(id) < 10.0, "{}", tracker.prefill_tokens_per_ms(id));
    }

    #[test]
    fn an_endpoint_that_is_much_faster_than_it_is_taken_to_be_is_known_soon() {
        let mut tracker = LoadTracker::default();
        let id = tracker.id(address(1));
        for _ in 0..100 {
            compute(&mut tracker, id, 4_000, 4);
        }
        assert!(tracker.prefill_tokens_per_ms(id) > 500.0, "{}", tracker.prefill_tokens_per_ms(id));
    }

    fn others(last: u8, requests: u32, tokens: u64) -> (EndpointKey, EndpointLoad) {
        let in_flight = load(requests, requests, tokens);
        (EndpointKey::of(address(last)), EndpointLoad { in_flight, adapters: vec![] })
    }

    #[test]
    fn what_others_have_is_added_in_place_of_what_they_had() {
        let mut tracker = LoadTracker::default();
        let (busy, other) = (tracker.id(address(1)), tracker.id(address(2)));
        let _own = tracker.start(busy, request_load(10, None), 0);
        tracker.set_others([others(1, 3, 100), others(9, 1, 1)].into_iter());
        assert_eq!(sums(tracker.in_flight(busy)), (4, 4, 110));
        assert_eq!(sums(tracker.in_flight_at(&address(9))), (0, 0, 0), "not one of ours");
        let before = tracker.changes();
        tracker.set_others([others(1, 3, 100)].into_iter());
        assert_eq!(tracker.changes(), before, "nothing new");
        tracker.set_others([others(2, 1, 5)].into_iter());
        assert_eq!((sums(tracker.in_flight(busy)), sums(tracker.in_flight(other))), ((1, 1, 10), (1, 1, 5)));
        tracker.set_others([].into_iter());
        assert_eq!((sums(tracker.in_flight(busy)), sums(tracker.in_flight(other))), ((1, 1, 10), (0, 0, 0)));
    }

    #[test]
    fn what_has_changed_of_this_workers_own_is_taken_once() {
        let mut tracker = LoadTracker::default();
        let (busy, _idle) = (tracker.id(address(1)), tracker.id(address(2)));
        let request = tracker.start(busy, request_load(10, None), 0);
        tracker.set_others([others(2, 1, 1)].into_iter());
        let mut check = |expected: &[(u32, u32, u64)]| {
            let taken = tracker.take_unpublished();
            assert!(taken.iter().all(|(key, _)| *key == EndpointKey::of(address(1))));
            assert_eq!(taken.iter().map(|(_, load)| sums(load.in_flight)).collect::<Vec<_>>(), expected);
        };
        check(&[(1, 1, 10)]);
        check(&[]);
        tracker.first_output(&request, 5);
        tracker.end(request, 9);
        let taken = tracker.take_unpublished();
        assert_eq!(taken.len(), 1);
        assert!(taken[0].1.is_idle());
    }

    #[test]
    fn an_endpoint_that_is_gone_is_kept_until_its_last_request_ends() {
        let mut tracker = LoadTracker::default();
        let id = tracker.id(address(1));
        let request = tracker.start(id, request_load(10, None), 0);
        tracker.keep_only(|_| false);
        assert_eq!(sums(tracker.in_flight(id)), (1, 1, 10));
        tracker.end(request, 0);
        tracker.keep_only(|_| false);
        assert_eq!(tracker.known(&address(1)), Some(id), "until that is published");
        tracker.take_unpublished();
        tracker.keep_only(|_| false);
        assert_eq!(tracker.id(address(2)), id, "the place is used again");
    }

    /// Lets the endpoint compute a prompt of so many tokens in so long, after those before.
    fn compute(tracker: &mut LoadTracker, id: LoadId, tokens: u32, time_ms: u64) {
        let start_ms = tracker.in_flight(id).last_output_ms;
        let request = tracker.start(id, request_load(tokens, None), start_ms);
        tracker.first_output(&request, start_ms + time_ms);
        tracker.end(request, start_ms + time_ms);
    }

    #[test]
    fn an_endpoint_is_as_fast_as_those_beside_it_until_it_has_been_seen() {
        let mut tracker = LoadTracker::default();
        let ids = [1, 2, 3].map(|last| tracker.id(address(last)));
        let [fast, slow, unseen] = ids;
        compute(&mut tracker, fast, 400_000, 10_000);
        compute(&mut tracker, slow, 100_000, 10_000);
        tracker.share_speed(ids.into_iter());
        let speeds = ids.map(|id| tracker.prefill_tokens_per_ms(id).round());
        assert_eq!(speeds, [40.0, 10.0, 25.0]);
        let other = tracker.id(address(4));
        tracker.share_speed([other].into_iter());
        assert_eq!(tracker.prefill_tokens_per_ms(other), DEFAULT_PREFILL_TOKENS_PER_MS, "of another pool");
        assert_eq!(tracker.prefill_tokens_per_ms(unseen).round(), 25.0);
    }

    #[test]
    fn progress_is_what_waits_and_what_has_had_an_output() {
        let mut tracker = LoadTracker::default();
        let id = tracker.id(address(1));
        let mut requests: Vec<InFlightRequest> =
            (0..3).map(|_| tracker.start(id, request_load(1, None), 0)).collect();
        tracker.first_output(&requests[0], 0);
        assert_eq!(tracker.own_progress(id), (2, 1));
        requests.drain(..).for_each(|request| tracker.end(request, 0));
        assert_eq!(tracker.own_progress(id), (0, 3));
    }
}
