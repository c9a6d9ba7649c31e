//! What one worker knows and decides: its pools, what is in flight, what waits, and what was learnt from answers.
//!
//! Contract: no host calls. What the worker hears (requests, answers, snapshots, peers) comes in by methods, what it has
//! decided or learnt goes out as values. The plugin's shell joins it to the host; a simulation joins it to simulated
//! servers.

use crate::admission::{Admission, DrainRate};
use crate::config::Config;
use crate::decide::{self, Decision, Pick, Prepared, SentPrompt};
use crate::load::{LoadBook, LoadId, LoadTable, Ticket};
use crate::model_sizes::ModelSizes;
use crate::models::Turns;
use crate::openai::{ApiError, InferenceRequest, Usage};
use crate::pool::{Pool, Snapshot};
use crate::prefix::{BLOCK_BYTES, Batch, Learnt};
use crate::queue::Queue;

/// One worker's knowledge. `W` is how a request that waits is reached later.
#[derive(Debug)]
pub struct Picker<W> {
    config: Config,
    pools: Vec<PickerPool<W>>,
    loads: LoadBook,
    turns: Turns,
    sizes: ModelSizes,
    rng: fastrand::Rng,
    /// What was learnt and not told yet.
    learnt: Batch,
}

/// A pool, and what this worker keeps for it.
#[derive(Debug)]
struct PickerPool<W> {
    pool: Pool,
    drain_rate: DrainRate,
    queue: Queue<(Prepared, W)>,
}

/// What becomes of a request that was read.
#[derive(Debug)]
pub enum Outcome {
    /// It is sent, or refused.
    Decided(Decision),
    /// It waits for [`Picker::released`].
    Waits,
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
    pub prepared: Prepared,
}

/// A route leads to a pool that is configured; should it not, Envoy balances.
const NO_POOL: Decision = Decision::Fallback("no such pool");

impl<W> Picker<W> {
    /// A worker that knows nothing but its configuration. `rng` is to be seeded at random; clients must not know it.
    pub fn new(config: Config, mut rng: fastrand::Rng) -> Picker<W> {
        let mut loads = LoadBook::default();
        let mut pools = Vec::with_capacity(config.pools.len());
        for configured in &config.pools {
            let mut pool = Pool::new(configured, &mut loads, rng.u64(..));
            let models = config.models.iter().filter(|model| model.pool == configured.name);
            let targets = models.flat_map(|model| &model.targets);
            pool.expect_adapters(targets.map(|target| target.name.as_str()));
            pools.push(PickerPool { pool, drain_rate: DrainRate::default(), queue: Queue::default() });
        }
        Picker {
            pools,
            loads,
            turns: Turns::new(&config),
            sizes: ModelSizes::default(),
            rng,
            learnt: Batch::default(),
            config,
        }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What is in flight.
    pub fn loads(&self) -> &LoadBook {
        &self.loads
    }

    /// The same, for who scrapes on this worker's behalf.
    pub fn loads_mut(&mut self) -> &mut LoadBook {
        &mut self.loads
    }

    /// The pool at a place of the configuration.
    pub fn pool(&self, place: usize) -> Option<&Pool> {
        self.pools.get(place).map(|own| &own.pool)
    }

    /// Whether what peers have learnt is of use.
    pub fn learns_prefixes(&self) -> bool {
        self.pools.iter().any(|own| own.pool.prefixes().is_some())
    }

    /// Time has passed; whether what is in flight has changed with it.
    pub fn tick(&mut self, now_ms: u64) -> bool {
        let changed = self.loads.assume_outputs(now_ms);
        for own in &mut self.pools {
            own.observe_drain_rate(&self.loads, now_ms);
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
        // Only then: it looks every load up in every list, and a snapshot comes with nearly every tick.
        if changed {
            let pools = &self.pools;
            self.loads.keep_only(|address| pools.iter().any(|own| own.pool.has_endpoint(address)));
        }
    }

    /// Takes over what the peers have in flight, in place of what was known of them.
    pub fn set_peers<'a>(&mut self, tables: impl Iterator<Item = &'a LoadTable>, now_ms: u64) {
        self.loads.set_peers(tables, now_ms);
    }

    /// Learns which prompt was computed where, from a peer or from an answer.
    pub fn learn(&mut self, learnt: &Learnt) {
        let Learnt { address, hashes, block_tokens, unmatched_tokens } = learnt;
        let Some(load_id) = self.loads.known(address) else { return };
        for own in &mut self.pools {
            if let Some(prefixes) = own.pool.prefixes_mut() {
                prefixes.learn(load_id, hashes, *block_tokens, *unmatched_tokens);
            }
        }
    }

    /// Takes out what this worker has learnt, to be told to its peers.
    pub fn take_learnt(&mut self) -> Option<Batch> {
        self.learnt.take()
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
    ) -> Result<Prepared, ApiError> {
        decide::prepare(&self.config, &mut self.turns, &self.sizes, request, user, route_pool)
    }

    /// Decides a prepared request, known by `id`; `waiter` is how it is reached should it have to wait.
    pub fn decide(
        &mut self,
        id: u32,
        prepared: &Prepared,
        waiter: impl FnOnce() -> W,
        now_ms: u64,
    ) -> Outcome {
        let Some(own) = self.pools.get_mut(prepared.pool) else { return Outcome::Decided(NO_POOL) };
        let admitted = decide::admit(&self.config, &own.pool, &self.loads, &own.drain_rate, prepared, now_ms);
        let max_requests = self.config.queue.map_or(0, |queue| queue.max_requests);
        match admitted {
            Err(error) => Outcome::Decided(Decision::Refuse(error)),
            // Those that already wait come first.
            Ok(Admission::Wait) if own.queue.len() < max_requests => {
                own.queue.push(&prepared.model, id, (prepared.clone(), waiter()), now_ms);
                Outcome::Waits
            }
            Ok(Admission::Wait) => Outcome::Decided(Decision::Refuse(own.timed_out())),
            Ok(_) => Outcome::Decided(self.pick(prepared, now_ms)),
        }
    }

    /// Picks for a request that has been admitted.
    fn pick(&mut self, prepared: &Prepared, now_ms: u64) -> Decision {
        let Some(own) = self.pools.get_mut(prepared.pool) else { return NO_POOL };
        decide::pick(&self.config, &mut own.pool, &self.loads, prepared, now_ms, &mut self.rng)
    }

    /// Decides a request without a prompt to be read.
    pub fn decide_unread(&mut self, pool: usize, now_ms: u64) -> Decision {
        let Some(own) = self.pools.get_mut(pool) else { return NO_POOL };
        decide::pick_unread(&self.config, &mut own.pool, &self.loads, now_ms, &mut self.rng)
    }

    /// The next request that need not wait any longer, with what was decided: its pool has room, or it has waited too
    /// long.
    pub fn released(&mut self, now_ms: u64) -> Option<Released<W>> {
        let max_wait_ms = self.config.queue?.max_wait_ms;
        for own in &mut self.pools {
            if let Some((id, (prepared, waiter))) = own.queue.expired(max_wait_ms, now_ms) {
                let decision = Decision::Refuse(own.timed_out());
                return Some(Released { id, waiter, decision, prepared });
            }
            let full = || decide::is_saturated(&self.config, &own.pool, &self.loads, now_ms);
            if own.queue.is_empty() || full() {
                continue;
            }
            if let Some((id, (prepared, waiter))) = own.queue.pop(max_wait_ms, now_ms) {
                let decision = self.pick(&prepared, now_ms);
                return Some(Released { id, waiter, decision, prepared });
            }
        }
        None
    }

    /// The client of a request that waits has left.
    pub fn forget(&mut self, pool: usize, id: u32) {
        if let Some(own) = self.pools.get_mut(pool) {
            own.queue.remove(id);
        }
    }

    /// The request goes to the pick: from now on it counts there.
    pub fn send(&mut self, pick: &Pick, now_ms: u64) -> Ticket {
        self.loads.start(pick.load_id, pick.share, now_ms)
    }

    /// Another endpoint than the one picked has answered: the request counts there from now on. `false` if the
    /// pool has no endpoint of this address.
    pub fn move_to(&mut self, ticket: &mut Ticket, pool: usize, address: &[u8]) -> bool {
        let found = self.pool(pool).and_then(|pool| pool.endpoint_at(address));
        let Some(load_id) = found.map(|endpoint| endpoint.load_id) else { return false };
        self.loads.move_to(ticket, load_id);
        true
    }

    /// The first output of an answer that is no error: the prompt has been computed.
    pub fn first_output(&mut self, ticket: &Ticket, sent: Option<&SentPrompt>, now_ms: u64) {
        self.loads.first_output(ticket, now_ms);
        let Some(sent) = sent else { return };
        if let Some(learnt) = self.learnt_of(ticket, sent, 0) {
            self.learn(&learnt);
            self.learnt.push(learnt);
        }
    }

    /// The answer is complete, and no error.
    pub fn answered(&mut self, ticket: &Ticket, sent: &SentPrompt, usage: Option<Usage>) {
        let prompt = &sent.prompt;
        if let Some(usage) = usage {
            let completion_tokens = Some(usage.completion_tokens);
            self.sizes.observe(
                &prompt.model,
                prompt.estimated_tokens,
                usage.prompt_tokens,
                completion_tokens,
            );
        }
        let cached_tokens = usage.and_then(|usage| usage.cached_tokens);
        if cached_tokens.is_some_and(|cached| sent.is_missed(cached)) {
            let prefixes = self.pools.iter_mut().filter_map(|own| own.pool.prefixes_mut());
            prefixes.for_each(|prefixes| prefixes.correct(ticket.load_id(), sent.matched));
        }
        let expected_tokens = self.sizes.answer_tokens(&prompt.model);
        let answer_tokens = usage.map_or(expected_tokens, |usage| usage.completion_tokens);
        if let Some(learnt) = self.learnt_of(ticket, sent, answer_tokens) {
            self.learn(&learnt);
            // The peers have the blocks since the first output.
            self.learnt.push(Learnt { hashes: Vec::new(), ..learnt });
        }
    }

    /// The request is over, however it ended.
    pub fn end(&mut self, ticket: Ticket) {
        self.loads.end(ticket);
    }

    /// An endpoint has answered, or failed to. Gives its name if it is to be left alone for a while now.
    pub fn endpoint_answered(
        &mut self,
        pool: usize,
        load_id: LoadId,
        succeeded: bool,
        now_ms: u64,
    ) -> Option<String> {
        let limit = self.config.max_consecutive_failures;
        let endpoint = self.pools.get_mut(pool)?.pool.endpoint_mut(load_id)?;
        if succeeded {
            endpoint.request_succeeded();
            return None;
        }
        endpoint.request_failed(now_ms, limit);
        (!endpoint.is_candidate(now_ms, limit)).then(|| endpoint.text.clone())
    }

    /// What there is to learn of a prompt that was computed, and of `answer_tokens` of output.
    fn learnt_of(&self, ticket: &Ticket, sent: &SentPrompt, answer_tokens: u32) -> Option<Learnt> {
        let prompt = &sent.prompt;
        let blocks = prompt.blocks.as_ref()?;
        let rest_bytes = blocks.bytes.saturating_sub(blocks.hashes.len() * BLOCK_BYTES);
        Some(Learnt {
            address: self.loads.address(ticket.load_id())?,
            hashes: blocks.hashes.clone(),
            block_tokens: prompt.tokens_in(BLOCK_BYTES),
            unmatched_tokens: match answer_tokens {
                0 => 0,
                tokens => prompt.tokens_in(rest_bytes).saturating_add(tokens),
            },
        })
    }
}

impl<W> PickerPool<W> {
    fn timed_out(&self) -> ApiError {
        ApiError::queue_timed_out(&self.pool.name, self.drain_rate.retry_after_s())
    }

    fn observe_drain_rate(&mut self, loads: &LoadBook, now_ms: u64) {
        let endpoints = self.pool.endpoints().unwrap_or_default();
        let progress = endpoints.iter().map(|endpoint| loads.own_progress(endpoint.load_id));
        let (waiting, done) = progress.fold((self.queue.len() as u64, 0), |sum, (waiting, done)| {
            (sum.0 + u64::from(waiting), sum.1 + done)
        });
        self.drain_rate.observe(waiting, done, now_ms);
    }
}
