//! What one worker knows: the configuration, its pools, what is in flight, and what its peers have told.

use super::host::{self, LogLevel};
use super::scraping::Scraping;
use super::shared::{Exchange, SnapshotPlace};
use crate::config::{Config, ScrapeBy};
use crate::decide::{self, Decision, Knowledge, Pick};
use crate::load::{LoadBook, LoadId, Ticket};
use crate::models::Turns;
use crate::openai::InferenceRequest;
use crate::pool::Pool;

/// One worker's state, shared by its streams.
pub struct Worker {
    pub config: Config,
    pools: Vec<(Pool, SnapshotPlace)>,
    loads: LoadBook,
    turns: Turns,
    rng: fastrand::Rng,
    exchange: Exchange,
    scraping: Option<Scraping>,
    /// Whether the load has changed since it was published.
    dirty: bool,
}

impl Worker {
    pub fn new(config: Config) -> Worker {
        let me = host::random();
        let mut loads = LoadBook::default();
        let pools = config.pools.iter().map(|pool| (Pool::new(pool, &mut loads), SnapshotPlace::new(pool)));
        Worker {
            pools: pools.collect(),
            loads,
            turns: Turns::new(&config),
            rng: fastrand::Rng::with_seed(host::random()),
            exchange: Exchange::new(me),
            scraping: (config.scrape_by == ScrapeBy::Worker).then(|| Scraping::new(&config, me)),
            dirty: false,
            config,
        }
    }

    /// Exchanges loads with the peers, takes over new snapshots, and scrapes if it is this worker's turn.
    pub fn tick(&mut self, now_ms: u64) {
        self.exchange.tick(&mut self.loads, std::mem::take(&mut self.dirty), now_ms);
        if let Some(scraping) = &mut self.scraping {
            scraping.tick(&mut self.loads, now_ms);
        }
        let mut changed = false;
        for (pool, place) in &mut self.pools {
            if let Some(snapshot) = place.read_new() {
                changed = true;
                pool.apply(snapshot, &mut self.loads);
            }
        }
        if changed {
            let pools = &self.pools;
            self.loads.keep_only(|address| pools.iter().any(|(pool, _)| pool.has_endpoint(address)));
        }
    }

    pub fn http_call_answered(&mut self, token: u32, now_ms: u64) {
        if let Some(scraping) = &mut self.scraping {
            scraping.answered(token, &mut self.loads, now_ms);
        }
    }

    /// Decides an inference request on a route to the pool at `pool`.
    pub fn decide(&mut self, pool: usize, request: &InferenceRequest<'_>, now_ms: u64) -> Decision {
        self.exchange.read_peers(&mut self.loads, now_ms);
        let Some((pool, _)) = self.pools.get_mut(pool) else {
            return Decision::Fallback("no such pool");
        };
        let knowledge = Knowledge { config: &self.config, pool, loads: &self.loads, turns: &mut self.turns };
        decide::decide(knowledge, request, now_ms, &mut self.rng)
    }

    /// Decides a request without a prompt to be read.
    pub fn decide_unread(&mut self, pool: usize, now_ms: u64) -> Decision {
        self.exchange.read_peers(&mut self.loads, now_ms);
        let Some((pool, _)) = self.pools.get_mut(pool) else {
            return Decision::Fallback("no such pool");
        };
        decide::decide_unread(&self.config, pool, &self.loads, now_ms, &mut self.rng)
    }

    /// The request goes to the pick: from now on it counts there, and every worker knows.
    pub fn send(&mut self, pick: &Pick, now_ms: u64) -> Ticket {
        let ticket = self.loads.start(pick.load_id, pick.prompt_tokens);
        self.exchange.publish(&self.loads, now_ms);
        ticket
    }

    /// Another endpoint than the one picked has answered: the request counts there from now on. `false` if the
    /// pool has no endpoint of this address.
    pub fn move_to(&mut self, ticket: &mut Ticket, pool: usize, address: &[u8]) -> bool {
        let found = self.pools.get(pool).and_then(|(pool, _)| pool.endpoint_at(address));
        let Some(load_id) = found.map(|endpoint| endpoint.load_id) else {
            return false;
        };
        self.loads.move_to(ticket, load_id);
        self.dirty = true;
        true
    }

    pub fn first_output(&mut self, ticket: &mut Ticket) {
        self.loads.first_output(ticket);
        self.dirty = true;
    }

    pub fn end(&mut self, ticket: Ticket) {
        self.loads.end(ticket);
        self.dirty = true;
    }

    /// An endpoint has answered, or failed to.
    pub fn endpoint_answered(&mut self, pool: usize, load_id: LoadId, succeeded: bool, now_ms: u64) {
        let limit = self.config.max_consecutive_failures;
        let Some((pool, _)) = self.pools.get_mut(pool) else {
            return;
        };
        let name = pool.name.clone();
        let Some(endpoint) = pool.endpoint_mut(load_id) else {
            return;
        };
        if succeeded {
            endpoint.request_succeeded();
            return;
        }
        endpoint.request_failed(now_ms, limit);
        if !endpoint.is_candidate(now_ms, limit) {
            let message = format!(
                "inference-picker: pool {name}: endpoint {}: requests fail in a row; it is left alone for a while",
                endpoint.text
            );
            host::log(LogLevel::Warn, &message);
        }
    }
}
