//! Strategies: each gives an endpoint a cost for a request, and the least cost wins.
//!
//! A strategy is one function in one file, with its formula in the module doc. What they share is here: who may be
//! picked, how many go out, and how ties are decided.

pub mod default;
mod least_request;
pub mod prefix_cache;
mod round_robin;

use crate::config::RoutingStrategy;
use crate::load::{AdapterId, InFlight, LoadBook};
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

/// An endpoint as a strategy sees it.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Its place in the pool's list.
    pub index: usize,
    /// What is known of it.
    pub endpoint: &'a Endpoint,
    /// What this gateway has in flight there.
    pub in_flight: InFlight,
    /// Whether what was scraped from it can be believed.
    pub freshness: Freshness,
    /// How much of the prompt is cached there.
    pub matched: Match,
    /// Tokens of the prompt that are not, at least 1.
    pub uncached_tokens: u32,
    /// What the endpoint has to do for it, in prompt tokens.
    work_tokens: f64,
}

/// A candidate with what decided its rank, least first.
#[derive(Debug, Clone, Copy)]
pub struct Ranked<'a> {
    /// The endpoint.
    pub candidate: Candidate<'a>,
    /// The strategy's cost.
    pub cost: f64,
    /// Whether the prompt's beginning belongs there, of those whose cost is about the lowest.
    placed: bool,
    /// The draw that decides between equal costs.
    tie: u32,
}

impl Ranked<'_> {
    /// Whether it goes before `other`: fresh metrics first, then where it belongs, then the lower cost, then the draw.
    fn is_before(&self, other: &Ranked<'_>) -> bool {
        let by_cost = self.cost.total_cmp(&other.cost);
        let freshness = self.candidate.freshness.cmp(&other.candidate.freshness);
        let order =
            freshness.then(other.placed.cmp(&self.placed)).then(by_cost).then(self.tie.cmp(&other.tie));
        order.is_lt()
    }
}

/// The endpoints of `pool` that are best for a request, best first, at most [`MAX_RANKED`].
///
/// Endpoints that fail are left out, unless none would be left. Empty only if the pool has no endpoint.
pub fn rank<'a>(
    strategy: RoutingStrategy,
    pool: &'a Pool,
    loads: &LoadBook,
    demand: Demand<'_>,
    limits: Limits,
    now_ms: u64,
    rng: &mut fastrand::Rng,
) -> Vec<Ranked<'a>> {
    let endpoints = pool.endpoints().unwrap_or_default();
    let usable = |endpoint: &Endpoint| endpoint.is_candidate(now_ms, limits.max_consecutive_failures);
    let any_usable = endpoints.iter().any(usable);
    let judged = endpoints.iter().enumerate().filter(|(_, endpoint)| !any_usable || usable(endpoint));
    let candidates = judged.map(|(index, endpoint)| {
        let freshness = freshness(strategy, endpoint, limits, now_ms);
        judge(index, endpoint, freshness, pool, demand, loads)
    });
    let mut weigh = |candidate: Candidate<'a>, least_work: f64| Ranked {
        cost: match strategy {
            RoutingStrategy::Default | RoutingStrategy::PrefixCache => {
                default::cost(&candidate, least_work, loads, now_ms)
            }
            RoutingStrategy::LeastRequest => least_request::cost(&candidate),
            RoutingStrategy::RoundRobin => {
                round_robin::cost(&candidate, pool.round_robin_next, endpoints.len())
            }
            RoutingStrategy::Random => 0.0,
        },
        placed: false,
        tie: rng.u32(..),
        candidate,
    };
    if demand.adapter.is_none() && demand.blocks.is_none() {
        // The same work everywhere: nothing has to be kept to find the least.
        return best(candidates.map(|candidate| weigh(candidate, f64::from(demand.prompt_tokens))));
    }
    let candidates: Vec<Candidate<'a>> = candidates.collect();
    let least_work = candidates.iter().map(|candidate| candidate.work_tokens).fold(f64::INFINITY, f64::min);
    let ranked = candidates.into_iter().map(|candidate| weigh(candidate, least_work));
    match demand.blocks {
        Some(blocks) => best(prefix_cache::place(ranked.collect(), blocks).into_iter()),
        None => best(ranked),
    }
}

fn judge<'a>(
    index: usize,
    endpoint: &'a Endpoint,
    freshness: Freshness,
    pool: &Pool,
    demand: Demand<'_>,
    loads: &LoadBook,
) -> Candidate<'a> {
    let matched = matched(pool, endpoint, demand);
    let matched_tokens = prefix_cache::matched_tokens(demand, matched, endpoint.cache_block_tokens());
    let uncached_tokens = demand.prompt_tokens.saturating_sub(matched_tokens).max(1);
    Candidate {
        index,
        endpoint,
        in_flight: loads.in_flight(endpoint.load_id),
        freshness,
        matched,
        uncached_tokens,
        work_tokens: default::work_tokens(endpoint, freshness, uncached_tokens, demand, loads),
    }
}

fn matched(pool: &Pool, endpoint: &Endpoint, demand: Demand<'_>) -> Match {
    let known = pool.prefixes().zip(demand.blocks);
    known.map_or(Match::default(), |(prefixes, blocks)| prefixes.matched(endpoint.load_id, blocks))
}

/// Only DEFAULT and PREFIX_CACHE look at metrics; to the others, and where nothing is scraped, all endpoints are alike.
fn freshness(strategy: RoutingStrategy, endpoint: &Endpoint, limits: Limits, now_ms: u64) -> Freshness {
    match limits.metrics_stale_after_ms {
        Some(stale_after_ms)
            if matches!(strategy, RoutingStrategy::Default | RoutingStrategy::PrefixCache) =>
        {
            endpoint.freshness(now_ms, stale_after_ms)
        }
        _ => Freshness::Stale,
    }
}

/// The first [`MAX_RANKED`] in order, by insertion: one comparison for each that is not among them.
fn best<'a>(ranked: impl Iterator<Item = Ranked<'a>>) -> Vec<Ranked<'a>> {
    let mut best: Vec<Ranked<'a>> = Vec::with_capacity(MAX_RANKED + 1);
    for next in ranked {
        if best.len() == MAX_RANKED && best.last().is_some_and(|last| !next.is_before(last)) {
            continue;
        }
        let place = best.iter().position(|other| next.is_before(other)).unwrap_or(best.len());
        best.insert(place, next);
        best.truncate(MAX_RANKED);
    }
    best
}
