//! What one worker knows: the configuration, its pools, what is in flight, what waits, and what its peers have told.

use std::collections::HashMap;

use super::host::{self, LogLevel};
use super::scraping::Scraping;
use super::shared::{Exchange, SnapshotPlace};
use crate::admission::{Admission, DrainRate};
use crate::config::{Config, ScrapeBy};
use crate::decide::{self, Decision, Pick, Prepared, SentPrompt};
use crate::load::{LoadBook, LoadId, Ticket};
use crate::model_sizes::ModelSizes;
use crate::models::Turns;
use crate::openai::{ApiError, InferenceRequest, Usage};
use crate::pool::Pool;
use crate::prefix::{BLOCK_BYTES, Learnt};
use crate::queue::Queue;
use crate::stats;

/// One worker's state, shared by its streams. `W` is how a request that waits is reached later.
pub struct Worker<W> {
    pub config: Config,
    pools: Vec<WorkerPool<W>>,
    loads: LoadBook,
    turns: Turns,
    sizes: ModelSizes,
    rng: fastrand::Rng,
    exchange: Exchange,
    scraping: Option<Scraping>,
    /// Counters by name; as many as there are models and targets.
    counters: HashMap<String, u32>,
    /// Whether the load has changed since it was published.
    dirty: bool,
}

/// A pool, and what this worker keeps for it.
struct WorkerPool<W> {
    pool: Pool,
    snapshot: SnapshotPlace,
    drain_rate: DrainRate,
    queue: Queue<(Prepared, W)>,
}

/// What becomes of a request that was read.
pub enum Outcome {
    /// It is sent, or refused.
    Decided(Decision),
    /// It waits for [`Worker::released`].
    Waits,
}

/// A request that need not wait any longer.
pub struct Released<W> {
    pub id: u32,
    /// How it is reached.
    pub waiter: W,
    /// The place of its pool.
    pub pool: usize,
    pub decision: Decision,
}

impl<W> Worker<W> {
    pub fn new(config: Config) -> Worker<W> {
        let me = host::random();
        let mut loads = LoadBook::default();
        let pools = config.pools.iter().map(|pool| WorkerPool {
            pool: Pool::new(pool, &mut loads, host::random()),
            snapshot: SnapshotPlace::new(pool),
            drain_rate: DrainRate::default(),
            queue: Queue::default(),
        });
        let mut pools: Vec<WorkerPool<W>> = pools.collect();
        for WorkerPool { pool, .. } in &mut pools {
            let models: Vec<_> = config.models.iter().filter(|model| model.pool == pool.name).collect();
            let targets = models.iter().flat_map(|model| &model.targets);
            pool.expect_adapters(targets.map(|target| target.name.as_str()));
        }
        Worker {
            pools,
            loads,
            turns: Turns::new(&config),
            sizes: ModelSizes::default(),
            rng: fastrand::Rng::with_seed(host::random()),
            exchange: Exchange::new(me),
            scraping: (config.scrape_by == ScrapeBy::Worker).then(|| Scraping::new(&config, me)),
            counters: HashMap::new(),
            dirty: false,
            config,
        }
    }

    /// Exchanges loads with the peers, takes over new snapshots, and scrapes if it is this worker's turn.
    pub fn tick(&mut self, now_ms: u64) {
        self.dirty |= self.loads.assume_outputs(now_ms);
        self.exchange.tick(&mut self.loads, std::mem::take(&mut self.dirty), now_ms);
        if self.pools.iter().any(|own| own.pool.prefixes().is_some()) {
            self.exchange.take_learnt().iter().for_each(|learnt| self.learn(learnt));
        }
        if let Some(scraping) = &mut self.scraping {
            scraping.tick(&mut self.loads, now_ms);
        }
        let mut changed = false;
        for own in &mut self.pools {
            if let Some(snapshot) = own.snapshot.read_new() {
                changed |= own.pool.apply(snapshot, &mut self.loads);
            }
            own.observe_drain_rate(&self.loads, now_ms);
        }
        // Only then: it looks every load up in every list, and a snapshot comes with nearly every tick.
        if changed {
            let pools = &self.pools;
            self.loads.keep_only(|address| pools.iter().any(|own| own.pool.has_endpoint(address)));
        }
    }

    pub fn http_call_answered(&mut self, token: u32, now_ms: u64) {
        if let Some(scraping) = &mut self.scraping {
            scraping.answered(token, &mut self.loads, now_ms);
        }
    }

    /// Resolves the model of a request on a route to the pool at `route_pool`.
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
        prepared: Prepared,
        waiter: impl FnOnce() -> W,
        now_ms: u64,
    ) -> Outcome {
        self.exchange.read_peers(&mut self.loads, now_ms);
        let Some(own) = self.pools.get_mut(prepared.pool) else { return Outcome::Decided(NO_POOL) };
        let admitted =
            decide::admit(&self.config, &own.pool, &self.loads, &own.drain_rate, &prepared, now_ms);
        let max_requests = self.config.queue.map_or(0, |queue| queue.max_requests);
        match admitted {
            Err(error) => Outcome::Decided(Decision::Refuse(error)),
            // Those that already wait come first.
            Ok(Admission::Wait) if own.queue.len() < max_requests => {
                let model = prepared.model.clone();
                own.queue.push(&model, id, (prepared, waiter()), now_ms);
                Outcome::Waits
            }
            Ok(Admission::Wait) => Outcome::Decided(Decision::Refuse(own.timed_out())),
            Ok(_) => Outcome::Decided(self.pick(&prepared, now_ms)),
        }
    }

    /// Picks for a request that has been admitted.
    fn pick(&mut self, prepared: &Prepared, now_ms: u64) -> Decision {
        let Some(own) = self.pools.get_mut(prepared.pool) else { return NO_POOL };
        let decision =
            decide::pick(&self.config, &mut own.pool, &self.loads, prepared, now_ms, &mut self.rng);
        if let Decision::Send(_) = decision {
            self.count_sent(prepared);
        }
        decision
    }

    /// The next request that need not wait any longer, with what was decided: its pool has room, or it has waited too
    /// long.
    pub fn released(&mut self, now_ms: u64) -> Option<Released<W>> {
        let max_wait_ms = self.config.queue?.max_wait_ms;
        for (pool, own) in self.pools.iter_mut().enumerate() {
            if let Some((id, (_, waiter))) = own.queue.expired(max_wait_ms, now_ms) {
                return Some(Released { id, waiter, pool, decision: Decision::Refuse(own.timed_out()) });
            }
            let full = || decide::is_saturated(&self.config, &own.pool, &self.loads, now_ms);
            if own.queue.is_empty() || full() {
                continue;
            }
            if let Some((id, (prepared, waiter))) = own.queue.pop(max_wait_ms, now_ms) {
                let decision = self.pick(&prepared, now_ms);
                return Some(Released { id, waiter, pool, decision });
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

    /// Decides a request without a prompt to be read.
    pub fn decide_unread(&mut self, pool: usize, now_ms: u64) -> Decision {
        self.exchange.read_peers(&mut self.loads, now_ms);
        let Some(own) = self.pools.get_mut(pool) else { return NO_POOL };
        decide::pick_unread(&self.config, &mut own.pool, &self.loads, now_ms, &mut self.rng)
    }

    /// The request goes to the pick: from now on it counts there, and every worker knows.
    pub fn send(&mut self, pick: &Pick, now_ms: u64) -> Ticket {
        let ticket = self.loads.start(pick.load_id, pick.share, now_ms);
        self.exchange.publish(&self.loads, now_ms);
        ticket
    }

    /// Counts a request sent for a published model.
    fn count_sent(&mut self, prepared: &Prepared) {
        if self.config.models.is_empty() {
            return;
        }
        let name = stats::requests_sent(&self.config, &prepared.model, prepared.target.as_deref());
        let known = self.counters.get(&name).copied();
        let Some(counter) = known.or_else(|| host::define_counter(&name).ok()) else { return };
        if host::increment_counter(counter).is_ok() && known.is_none() {
            self.counters.insert(name, counter);
        }
    }

    /// Another endpoint than the one picked has answered: the request counts there from now on. `false` if the
    /// pool has no endpoint of this address.
    pub fn move_to(&mut self, ticket: &mut Ticket, pool: usize, address: &[u8]) -> bool {
        let found = self.pools.get(pool).and_then(|own| own.pool.endpoint_at(address));
        let Some(load_id) = found.map(|endpoint| endpoint.load_id) else { return false };
        self.loads.move_to(ticket, load_id);
        self.dirty = true;
        true
    }

    /// The answer's first output is here: the prompt has been computed, and every worker learns where.
    pub fn first_output(&mut self, ticket: &Ticket, sent: Option<&SentPrompt>, now_ms: u64) {
        self.loads.first_output(ticket, now_ms);
        self.dirty = true;
        let known = sent.and_then(|sent| sent.prompt.blocks.as_ref().map(|blocks| (&sent.prompt, blocks)));
        let Some(((prompt, blocks), address)) = known.zip(self.loads.address(ticket.load_id())) else {
            return;
        };
        let hashes = blocks.hashes.clone();
        let learnt =
            Learnt { address, hashes, block_tokens: prompt.tokens_in(BLOCK_BYTES), unmatched_tokens: 0 };
        self.learn(&learnt);
        self.exchange.tell(learnt);
    }

    /// The answer is complete.
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
        let Some((blocks, address)) = prompt.blocks.as_ref().zip(self.loads.address(ticket.load_id())) else {
            return;
        };
        let cached_tokens = usage.and_then(|usage| usage.cached_tokens);
        if cached_tokens.is_some_and(|cached| sent.is_missed(cached)) {
            for own in &mut self.pools {
                own.pool
                    .prefixes_mut()
                    .into_iter()
                    .for_each(|prefixes| prefixes.correct(ticket.load_id(), sent.matched));
            }
        }
        let answer_tokens =
            usage.map_or_else(|| self.sizes.answer_tokens(&prompt.model), |usage| usage.completion_tokens);
        let rest_tokens = prompt.tokens_in(blocks.bytes.saturating_sub(blocks.hashes.len() * BLOCK_BYTES));
        let unmatched_tokens = rest_tokens.saturating_add(answer_tokens);
        let block_tokens = prompt.tokens_in(BLOCK_BYTES);
        self.learn(&Learnt { address, hashes: blocks.hashes.clone(), block_tokens, unmatched_tokens });
        // The peers have the blocks.
        self.exchange.tell(Learnt { address, hashes: Vec::new(), block_tokens, unmatched_tokens });
    }

    fn learn(&mut self, learnt: &Learnt) {
        let Learnt { address, hashes, block_tokens, unmatched_tokens } = learnt;
        let load_id = self.loads.known(address);
        for own in &mut self.pools {
            if let Some((prefixes, load_id)) = own.pool.prefixes_mut().zip(load_id) {
                prefixes.learn(load_id, hashes, *block_tokens, *unmatched_tokens);
            }
        }
    }

    pub fn end(&mut self, ticket: Ticket) {
        self.loads.end(ticket);
        self.dirty = true;
    }

    /// An endpoint has answered, or failed to.
    pub fn endpoint_answered(&mut self, pool: usize, load_id: LoadId, succeeded: bool, now_ms: u64) {
        let limit = self.config.max_consecutive_failures;
        let Some(WorkerPool { pool, .. }) = self.pools.get_mut(pool) else { return };
        let Some(endpoint) = pool.endpoint_mut(load_id) else { return };
        if succeeded {
            endpoint.request_succeeded();
            return;
        }
        endpoint.request_failed(now_ms, limit);
        if !endpoint.is_candidate(now_ms, limit) {
            let text = endpoint.text.clone();
            let name = &pool.name;
            let message = format!(
                "inference-picker: pool {name}: endpoint {text}: requests fail in a row; it is left alone for a while"
            );
            host::log(LogLevel::Warn, &message);
        }
    }
}

/// A route leads to a pool that is configured; should it not, Envoy balances.
const NO_POOL: Decision = Decision::Fallback("no such pool");

impl<W> WorkerPool<W> {
    fn timed_out(&self) -> ApiError {
        ApiError::queue_timed_out(&self.pool.name, self.drain_rate.retry_after_s())
    }

    fn observe_drain_rate(&mut self, loads: &LoadBook, now_ms: u64) {
        let endpoints = self.pool.endpoints().unwrap_or_default();
        let progress = endpoints.iter().map(|endpoint| loads.own_progress(endpoint.load_id));
        let (waiting, outputs) = progress.fold((self.queue.len() as u64, 0), |sum, (waiting, outputs)| {
            (sum.0 + u64::from(waiting), sum.1 + outputs)
        });
        self.drain_rate.observe(waiting, outputs, now_ms);
    }
}
