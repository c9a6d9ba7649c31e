//! The load of one endpoint: this worker's own, and that of all others.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::recent_adapters::{MAX_ADAPTERS, RecentAdapters};
use super::{AdapterId, EndpointKey, EndpointLoad, InFlight, Oldest, RequestLoad};
use crate::decayed_ratio::DecayedRatio;

/// How fast endpoints are taken to compute prompts until one of a pool has been seen, in tokens a millisecond: a 7B model
/// on one large GPU.
pub const DEFAULT_PREFILL_TOKENS_PER_MS: f64 = 8.0;

/// Time that what is usual counts for beside what was seen of an endpoint, in milliseconds of computing prompts. With 500 it
/// is as good once speeds are known; with less, it is known sooner that one is slow.
pub(super) const USUAL_SPEED_WEIGHT_MS: f64 = 150.0;

/// Time over which a speed is learnt, in milliseconds of computing prompts.
const SPEED_MEMORY_MS: f64 = 20_000.0;

/// Tokens of answers over which it is learnt how long one takes: a few answers, as it changes with what else runs.
const GENERATION_MEMORY_TOKENS: f64 = 1_000.0;

/// The least speed that is believed, in tokens a millisecond, so that no cost becomes infinite.
const MIN_PREFILL_TOKENS_PER_MS: f64 = 0.001;

/// How much slower than it is taken to be one prompt can show an endpoint to be: a pause of the server's is no speed.
const MAX_SLOWDOWN: f64 = 64.0;

/// How much faster than it is taken to be one prompt can show an endpoint to be: a client can make a prompt look longer than
/// its server finds it, and the server can have had it cached.
const MAX_SPEEDUP: f64 = 16.0;

/// About how long a server's step takes, in milliseconds. It can compute several prompts in one, whose first outputs then come
/// at once.
const STEP_MS: f64 = 100.0;

#[derive(Debug)]
pub(super) struct TrackedEndpoint {
    pub(super) address: SocketAddr,
    pub(super) key: EndpointKey,
    /// Whether what this worker has there has changed since it was last taken to be published.
    pub(super) is_unpublished: bool,
    /// The last round in which something was received of it.
    pub(super) received_round: u64,
    own: InFlight,
    /// This worker's requests without an output, by number.
    own_waiting: BTreeMap<u64, Waiting>,
    started: u64,
    /// This worker's requests that no longer wait, ever.
    own_done: u64,
    own_adapters: Vec<OwnAdapter>,
    /// Prompt tokens by the milliseconds they took, as seen.
    prefill: DecayedRatio,
    /// Milliseconds that answers took behind their first tokens, by those further tokens, as seen.
    generation: DecayedRatio,
    /// How fast it is taken to be as long as it has not been seen for long.
    usual_tokens_per_ms: f64,
    /// What other workers have there, and other gateways.
    others: EndpointLoad,
    recent_adapters: RecentAdapters,
}

/// This worker's requests for one adapter.
#[derive(Debug)]
struct OwnAdapter {
    adapter: AdapterId,
    requests: u32,
    /// The number of the first of them: earlier ones came before it was said that the adapter is not there.
    first: u64,
}

#[derive(Debug)]
struct Waiting {
    sent_ms: u64,
    tokens: u32,
    /// When its prompt is taken for done, if its answer is not streamed.
    assumed_output_ms: Option<u64>,
}

impl Waiting {
    fn is_due(&self, now_ms: u64) -> bool {
        self.assumed_output_ms.is_some_and(|due_ms| due_ms <= now_ms)
    }
}

impl TrackedEndpoint {
    pub fn new(address: SocketAddr) -> TrackedEndpoint {
        TrackedEndpoint {
            address,
            key: EndpointKey::of(address),
            is_unpublished: false,
            received_round: 0,
            own: InFlight::default(),
            own_waiting: BTreeMap::new(),
            started: 0,
            own_done: 0,
            own_adapters: Vec::new(),
            prefill: DecayedRatio::unseen(SPEED_MEMORY_MS),
            generation: DecayedRatio::unseen(GENERATION_MEMORY_TOKENS),
            usual_tokens_per_ms: DEFAULT_PREFILL_TOKENS_PER_MS,
            others: EndpointLoad::default(),
            recent_adapters: RecentAdapters::default(),
        }
    }

    pub fn own(&self) -> InFlight {
        self.own
    }

    /// What this worker publishes of it.
    pub fn own_load(&self) -> EndpointLoad {
        let adapters = self.own_adapters.iter().map(|own| (own.adapter, own.requests));
        EndpointLoad { in_flight: self.own, adapters: adapters.collect() }
    }

    /// This worker's and all others' together.
    pub fn in_flight(&self) -> InFlight {
        self.own + self.others.in_flight
    }

    pub fn prefill_tokens_per_ms(&self) -> f64 {
        let seen = self.prefill.value_beside(self.usual_tokens_per_ms, USUAL_SPEED_WEIGHT_MS);
        seen.max(MIN_PREFILL_TOKENS_PER_MS)
    }

    /// Milliseconds that a token of an answer takes behind the first; 0 if none was seen.
    pub fn per_token_ms(&self) -> f64 {
        let (_, tokens) = self.generation.sums();
        if tokens > 0.0 { self.generation.value() } else { 0.0 }
    }

    pub fn tokens_generated(&mut self, tokens: u32, time_ms: u64) {
        self.generation.observe(time_ms as f64, tokens.into());
    }

    /// Prompt tokens that it was seen to compute, and the milliseconds that took.
    pub fn seen_prefill(&self) -> (f64, f64) {
        self.prefill.sums()
    }

    pub fn usual_tokens_per_ms(&self) -> f64 {
        self.usual_tokens_per_ms
    }

    pub fn set_usual_speed(&mut self, tokens_per_ms: f64) {
        self.usual_tokens_per_ms = tokens_per_ms;
    }

    pub fn own_progress(&self) -> (u32, u64) {
        (self.own.waiting, self.own_done)
    }

    fn own_adapters(&self) -> impl Iterator<Item = AdapterId> {
        self.own_adapters.iter().map(|own| own.adapter)
    }

    pub fn adapters(&self) -> impl Iterator<Item = AdapterId> {
        self.own_adapters().chain(self.others.adapters.iter().map(|(adapter, _)| *adapter))
    }

    pub fn recent_adapters(&self) -> &RecentAdapters {
        &self.recent_adapters
    }

    pub fn adapters_used(&mut self, adapters: &[AdapterId]) {
        adapters.iter().for_each(|adapter| self.recent_adapters.used(*adapter));
    }

    pub fn forget_recent_adapters(&mut self) {
        self.recent_adapters = RecentAdapters::default();
    }

    /// The endpoint has said that it does not have this adapter, whatever was on its way there for it.
    pub fn forget_adapter(&mut self, adapter: AdapterId) {
        self.recent_adapters.forget(adapter);
        self.own_adapters.retain(|own| own.adapter != adapter);
        self.others.adapters.retain(|(known, _)| *known != adapter);
    }

    /// Counts a request, and numbers it.
    pub fn start(&mut self, share: RequestLoad, now_ms: u64) -> u64 {
        let number = self.started;
        self.started += 1;
        let assumed_output_ms = (!share.streamed).then(|| self.done_by_ms(share.tokens, now_ms));
        let waiting = Waiting { sent_ms: now_ms, tokens: share.tokens, assumed_output_ms };
        self.own_waiting.insert(number, waiting);
        self.own.requests += 1;
        self.own.waiting += 1;
        self.own.waiting_tokens += u64::from(share.tokens);
        self.own.oldest = self.oldest();
        if let Some(adapter) = share.adapter {
            self.count_adapter(adapter, number);
        }
        number
    }

    /// A prompt is done with. Where that was seen, it shows how fast the endpoint is; and that those ahead of it are done,
    /// too, whose outputs are not seen.
    pub fn first_output(&mut self, number: u64, seen: bool, now_ms: u64) {
        let (own, all) = (self.own, self.in_flight());
        let Some(waiting) = self.stop_waiting(number) else { return };
        if seen {
            let tokens = f64::from(waiting.tokens) + self.stop_waiting_unseen(number);
            // Since this worker's last one was done, or since it had something to do there, the endpoint has worked on
            // this and on what others had there, of which they publish later.
            let share = own.waiting_tokens as f64 / all.waiting_tokens.max(1) as f64;
            self.observe_prefill(tokens, own.working_ms(now_ms) as f64 * share);
        }
        self.own.last_output_ms = now_ms;
    }

    pub fn end(&mut self, number: u64, adapter: Option<AdapterId>, now_ms: u64) {
        let was_worked_on = self.own_waiting.first_key_value().is_some_and(|(oldest, _)| *oldest == number);
        self.stop_waiting(number);
        if was_worked_on {
            // It was given up. What was behind it has not been worked on before.
            self.own.last_output_ms = now_ms;
        }
        self.own.requests = self.own.requests.saturating_sub(1);
        if let Some(adapter) = adapter {
            self.discount_adapter(adapter, number);
        }
    }

    /// Whether there are prompts to be taken for done.
    pub fn has_output_due(&self, now_ms: u64) -> bool {
        self.own_waiting.values().any(|waiting| waiting.is_due(now_ms))
    }

    /// Takes prompts for done that are due.
    pub fn assume_outputs(&mut self, now_ms: u64) {
        let due = self.own_waiting.iter().filter(|(_, waiting)| waiting.is_due(now_ms));
        let due: Vec<u64> = due.map(|(number, _)| *number).collect();
        for number in due {
            self.first_output(number, false, now_ms);
        }
    }

    /// What others have there, in place of what was known of that; whether that is news. An adapter that more of them use
    /// than before was used just now.
    pub fn set_others(&mut self, others: EndpointLoad) -> bool {
        if self.others == others {
            return false;
        }
        let before = std::mem::replace(&mut self.others, others);
        for (adapter, count) in &self.others.adapters {
            let known = before.adapters.iter().find(|(known, _)| known == adapter);
            if known.is_none_or(|(_, before)| before < count) {
                self.recent_adapters.used(*adapter);
            }
        }
        true
    }

    /// When an endpoint that works at the learnt speed is done with all it has and `tokens` more.
    fn done_by_ms(&self, tokens: u32, now_ms: u64) -> u64 {
        let speed = self.prefill_tokens_per_ms();
        let tokens = self.in_flight().backlog_tokens(speed, now_ms) + f64::from(tokens);
        now_ms.saturating_add((tokens / speed) as u64)
    }

    /// It has computed so many tokens in so long.
    fn observe_prefill(&mut self, tokens: f64, time_ms: f64) {
        let speed = self.prefill_tokens_per_ms();
        let most_tokens = time_ms.max(STEP_MS) * speed * MAX_SPEEDUP;
        let longest_ms = tokens / speed * MAX_SLOWDOWN;
        self.prefill.observe(tokens.min(most_tokens), time_ms.min(longest_ms));
    }

    fn stop_waiting(&mut self, number: u64) -> Option<Waiting> {
        let waiting = self.own_waiting.remove(&number)?;
        self.own_done += 1;
        self.own.waiting = self.own.waiting.saturating_sub(1);
        self.own.waiting_tokens = self.own.waiting_tokens.saturating_sub(u64::from(waiting.tokens));
        self.own.oldest = self.oldest();
        Some(waiting)
    }

    /// Takes those for done that were sent before this one and whose outputs are not seen; returns their tokens.
    fn stop_waiting_unseen(&mut self, number: u64) -> f64 {
        let ahead = self.own_waiting.range(..number);
        let unseen = ahead.filter(|(_, waiting)| waiting.assumed_output_ms.is_some());
        let unseen: Vec<u64> = unseen.map(|(number, _)| *number).collect();
        unseen
            .into_iter()
            .filter_map(|number| self.stop_waiting(number))
            .map(|done| f64::from(done.tokens))
            .sum()
    }

    fn oldest(&self) -> Option<Oldest> {
        let (_, waiting) = self.own_waiting.first_key_value()?;
        Some(Oldest { sent_ms: waiting.sent_ms, tokens: waiting.tokens })
    }

    fn count_adapter(&mut self, adapter: AdapterId, number: u64) {
        self.recent_adapters.used(adapter);
        if let Some(own) = self.own_adapters.iter_mut().find(|own| own.adapter == adapter) {
            own.requests += 1;
        } else if self.own_adapters.len() < MAX_ADAPTERS {
            self.own_adapters.push(OwnAdapter { adapter, requests: 1, first: number });
        }
    }

    fn discount_adapter(&mut self, adapter: AdapterId, number: u64) {
        let is_counted = |own: &&mut OwnAdapter| own.adapter == adapter && own.first <= number;
        let Some(own) = self.own_adapters.iter_mut().find(is_counted) else { return };
        own.requests = own.requests.saturating_sub(1);
        self.own_adapters.retain(|own| own.requests > 0);
        self.recent_adapters.used(adapter);
    }
}
