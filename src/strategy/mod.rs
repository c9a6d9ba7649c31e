//! Strategies: each gives an endpoint a cost for a request, and the least cost wins.
//!
//! A strategy is one function in one file, with its formula in the module doc. What they share is here: who may be
//! picked, how many go out, and how ties are decided.

pub mod default;
mod least_request;
pub mod prefix_cache;
mod round_robin;

use crate::config::RoutingStrategy;
use crate::hash::mix32;
use crate::load::{AdapterId, LoadBook};
use crate::pool::{Endpoint, Freshness, Pool};
use crate::prefix::{Match, PromptBlocks};

/// Endpoints named in one pick: the best, and two for Envoy's retries.
pub const MAX_RANKED: usize = 3;

/// What a request asks of an endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Demand<'a> {
    /// The prompt's size in tokens, at least 1.
    pub prompt_tokens: u32,
    /// The adapter it needs, if its model is one.
    pub adapter: Option<AdapterId>,
    /// The prompt's blocks, where prefixes decide.
    pub blocks: Option<&'a PromptBlocks>,
    /// Whether the answer is streamed.
    pub streamed: bool,
}

/// The limits by which endpoints are judged.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Age in milliseconds from which metrics are stale; `None` where nothing is scraped at all.
    pub metrics_stale_after_ms: Option<u64>,
    /// Failures in a row after which an endpoint leaves the candidates.
    pub max_consecutive_failures: u32,
}

/// An endpoint that is among the best for a request.
#[derive(Debug, Clone, Copy)]
pub struct Ranked<'a> {
    /// Its place in the pool's list.
    pub index: usize,
    /// What is known of it.
    pub endpoint: &'a Endpoint,
    /// Whether what was scraped from it can be believed.
    pub freshness: Freshness,
    /// How much of the prompt is cached there.
    pub matched: Match,
    /// Tokens of the prompt that are not, at least 1.
    pub uncached_tokens: u32,
    /// The strategy's cost.
    pub cost: f64,
}

/// An endpoint with what decides its rank, and no more: there may be a thousand of them.
#[derive(Debug, Clone, Copy)]
struct Contender<'a> {
    index: usize,
    endpoint: &'a Endpoint,
    freshness: Freshness,
    /// Whether the prompt's beginning belongs there, of those whose cost is about the lowest.
    placed: bool,
    cost: f64,
    /// Decides between equal costs.
    lot: u32,
}

impl Contender<'_> {
    /// Whether it goes before `other`: fresh metrics first, then where it belongs, then the lower cost, then the lot.
    fn is_before(&self, other: &Contender<'_>) -> bool {
        if self.freshness != other.freshness {
            self.freshness < other.freshness
        } else if self.placed != other.placed {
            self.placed
        } else if self.cost != other.cost {
            self.cost < other.cost
        } else {
            self.lot < other.lot
        }
    }
}

/// All by which endpoints are judged for a request.
#[derive(Clone, Copy)]
struct Judge<'a> {
    strategy: RoutingStrategy,
    pool: &'a Pool,
    loads: &'a LoadBook,
    demand: Demand<'a>,
    /// As in [`Limits`]; `None` also for the strategies that do not look at metrics.
    metrics_stale_after_ms: Option<u64>,
    max_consecutive_failures: u32,
    now_ms: u64,
    /// From which every endpoint gets its lot. One draw for each would take a third of a pick's time.
    draw: u32,
}

/// The endpoints of `pool` that are best for a request, best first, at most [`MAX_RANKED`].
///
/// Endpoints that fail are left out, unless none would be left. Empty only if the pool has no endpoint.
pub fn rank<'a>(
    strategy: RoutingStrategy,
    pool: &'a Pool,
    loads: &'a LoadBook,
    demand: Demand<'a>,
    limits: Limits,
    now_ms: u64,
    rng: &mut fastrand::Rng,
) -> Vec<Ranked<'a>> {
    let uses_metrics = matches!(strategy, RoutingStrategy::Default | RoutingStrategy::PrefixCache);
    let judge = Judge {
        strategy,
        pool,
        loads,
        demand,
        metrics_stale_after_ms: limits.metrics_stale_after_ms.filter(|_| uses_metrics),
        max_consecutive_failures: limits.max_consecutive_failures,
        now_ms,
        draw: rng.u32(..),
    };
    judge.best().into_iter().map(|contender| judge.ranked(contender)).collect()
}

impl<'a> Judge<'a> {
    fn best(&self) -> Vec<Contender<'a>> {
        let eligible = self.eligible();
        if self.demand.adapter.is_none() && self.demand.blocks.is_none() {
            // The same work everywhere: nothing has to be kept to find the least.
            let work_tokens = f64::from(self.demand.prompt_tokens);
            return best(eligible.map(|place| self.weigh(place, work_tokens, work_tokens)));
        }
        let mut most_matched = 0;
        let mut least_work_tokens = f64::INFINITY;
        let mut work_tokens = Vec::with_capacity(self.pool.endpoints().map_or(0, <[_]>::len));
        for (_, endpoint) in eligible.clone() {
            let matched_blocks = self.matched_blocks(endpoint);
            let tokens = self.work_tokens(endpoint, matched_blocks);
            most_matched = most_matched.max(matched_blocks);
            least_work_tokens = lesser(least_work_tokens, tokens);
            work_tokens.push(tokens);
        }
        let weighed = eligible
            .zip(work_tokens)
            .map(|(place, work_tokens)| self.weigh(place, work_tokens, least_work_tokens));
        match self.demand.blocks {
            Some(blocks) => {
                let first_new = blocks.hashes.get(most_matched).copied();
                best(prefix_cache::place(weighed.collect(), first_new).into_iter())
            }
            None => best(weighed),
        }
    }

    /// The endpoints that may be picked, with their places in the pool's list.
    fn eligible(&self) -> impl Iterator<Item = (usize, &'a Endpoint)> + Clone + use<'a> {
        let endpoints = self.pool.endpoints().unwrap_or_default();
        let (now_ms, max_failures) = (self.now_ms, self.max_consecutive_failures);
        let usable = move |endpoint: &Endpoint| endpoint.is_candidate(now_ms, max_failures);
        let any_usable = endpoints.iter().any(usable);
        endpoints.iter().enumerate().filter(move |(_, endpoint)| !any_usable || usable(endpoint))
    }

    fn matched_blocks(&self, endpoint: &Endpoint) -> usize {
        let known = self.pool.prefixes().zip(self.demand.blocks);
        known.map_or(0, |(prefixes, blocks)| prefixes.matched_blocks(endpoint.load_id, blocks))
    }

    /// Tokens of the prompt that are not cached where so many blocks of it are, at least 1.
    fn uncached_tokens(&self, endpoint: &Endpoint, matched_blocks: usize) -> u32 {
        let matched_tokens = prefix_cache::matched_tokens(self.demand, matched_blocks, endpoint);
        self.demand.prompt_tokens.saturating_sub(matched_tokens).max(1)
    }

    /// What an endpoint that holds so many blocks of the prompt has to do for the request, in prompt tokens.
    fn work_tokens(&self, endpoint: &Endpoint, matched_blocks: usize) -> f64 {
        let freshness = self.freshness(endpoint);
        let adapter_tokens = default::adapter_tokens(endpoint, freshness, self.demand, self.loads);
        f64::from(self.uncached_tokens(endpoint, matched_blocks)) + adapter_tokens
    }

    fn matched(&self, endpoint: &Endpoint) -> Match {
        let known = self.pool.prefixes().zip(self.demand.blocks);
        known.map_or(Match::default(), |(prefixes, blocks)| prefixes.matched(endpoint.load_id, blocks))
    }

    // Inlined, because this is what is done for each of a thousand endpoints.
    #[inline(always)]
    fn weigh(
        &self,
        (index, endpoint): (usize, &'a Endpoint),
        work_tokens: f64,
        least_work_tokens: f64,
    ) -> Contender<'a> {
        let freshness = self.freshness(endpoint);
        let cost = match self.strategy {
            RoutingStrategy::Default | RoutingStrategy::PrefixCache => {
                default::cost(endpoint, freshness, work_tokens, least_work_tokens, self.loads, self.now_ms)
            }
            RoutingStrategy::LeastRequest => least_request::cost(endpoint, self.loads),
            RoutingStrategy::RoundRobin => round_robin::cost(index, self.pool),
            RoutingStrategy::Random => 0.0,
        };
        Contender { index, endpoint, freshness, placed: false, cost, lot: mix32(self.draw ^ index as u32) }
    }

    fn ranked(&self, contender: Contender<'a>) -> Ranked<'a> {
        let Contender { index, endpoint, freshness, cost, .. } = contender;
        let matched = self.matched(endpoint);
        let uncached_tokens = self.uncached_tokens(endpoint, matched.blocks);
        Ranked { index, endpoint, freshness, matched, uncached_tokens, cost }
    }

    /// Where metrics do not count, all endpoints are alike.
    fn freshness(&self, endpoint: &Endpoint) -> Freshness {
        let stale_after_ms = self.metrics_stale_after_ms;
        stale_after_ms
            .map_or(Freshness::Stale, |stale_after_ms| endpoint.freshness(self.now_ms, stale_after_ms))
    }
}

/// The lesser of two numbers. [`f64::min`] looks for what is no number, and is a call in WebAssembly.
fn lesser(one: f64, other: f64) -> f64 {
    if other < one { other } else { one }
}

/// The first [`MAX_RANKED`] in order, by insertion: one comparison for each that is not among them.
fn best<'a>(contenders: impl Iterator<Item = Contender<'a>>) -> Vec<Contender<'a>> {
    let mut best: Vec<Contender<'a>> = Vec::with_capacity(MAX_RANKED + 1);
    for next in contenders {
        if best.len() == MAX_RANKED && best.last().is_some_and(|last| !next.is_before(last)) {
            continue;
        }
        let place = best.iter().position(|other| next.is_before(other)).unwrap_or(best.len());
        best.insert(place, next);
        best.truncate(MAX_RANKED);
    }
    best
}
