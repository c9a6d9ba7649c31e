//! Strategies: each gives an endpoint a cost for a request, and the least cost wins.
//!
//! A strategy is one function in one file, with its formula in the module doc. Who may be picked is the pool's to say
//! ([`Candidates`](crate::pool::Candidates)); what strategies share is here: how many go out and in which order, and in
//! `best` how ties are decided.

mod best;
pub mod data_parallel;
pub mod default;
mod least_request;
pub mod prefix_cache;
mod promise;
mod rendezvous;
mod round_robin;
mod shared_prompts;

use wide::f32x4;

use best::{Contender, best};
use promise::Outlook;

use crate::config::RoutingStrategy;
use crate::load::{AdapterId, LoadTracker};
use crate::pool::{Endpoint, Freshness, Lanes, Limits, Pool};
use crate::prefix::{BlockHash, Match, PrefixIndex, PromptBlocks};
use crate::promise::{Due, Expected};

/// Endpoints named in one pick: the best, and two for Envoy's retries.
pub const MAX_RANKED: usize = 3;

/// What a request asks of an endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Demand<'a> {
    /// The prompt's size in tokens, at least 1.
    pub prompt_tokens: u32,
    /// The adapter it needs, if its model is one.
    pub adapter: Option<AdapterId>,
    /// The model it names, by the id that an adapter of this name has.
    pub model: Option<AdapterId>,
    /// The prompt's blocks, where prefixes decide.
    pub blocks: Option<&'a PromptBlocks>,
    /// Whether the answer is streamed.
    pub streamed: bool,
    /// Whether it belongs to a conversation, which more requests may follow.
    pub is_of_conversation: bool,
    /// Where its conversation was served last, if that is known.
    pub visited: Option<Visited>,
    /// What is left of what it is promised, where endpoints are picked by that.
    pub due: Option<Due>,
}

/// The endpoint at which a conversation was served last.
#[derive(Debug, Clone, Copy)]
pub struct Visited {
    /// Its place in the pool's list.
    pub place: usize,
    /// Tokens of the conversation that are taken to be cached there.
    pub tokens: u32,
    /// Whether the request goes there as long as it may, whatever that costs.
    pub is_strict: bool,
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
    pub cost: f32,
    /// What is expected of it, if the request is promised something.
    pub expected: Option<Expected>,
}

/// The endpoints of `pool` that are best for a request, best first, at most [`MAX_RANKED`]: of those that may be picked first
/// the ones of the level that is drawn, of these the ones that answer scrapes, and then those of the lowest cost. Whether
/// those that answer scrapes come first is the pool's strategy's to say, also for a request that is not picked for by it. A request that
/// is promised something goes first to the fullest that keeps it, unless the one of the lowest cost is only expected to be in time
/// with nothing to spare; and one of a strict session goes before that to its endpoint.
///
/// Empty only if the pool has no endpoint.
pub fn rank<'a>(
    strategy: RoutingStrategy,
    pool: &'a mut Pool,
    loads: &LoadTracker,
    demand: Demand<'_>,
    limits: Limits,
    now_ms: u64,
    rng: &mut fastrand::Rng,
) -> Vec<Ranked<'a>> {
    pool.update_candidates(loads, limits, now_ms);
    let passed_over = passed_over(pool, loads, demand, now_ms);
    let scorer = Scorer { strategy, pool, loads, demand, passed_over, now_ms };
    scorer.rank(rng.u32(..))
}

/// The places of candidates that are not picked: they do not have the model, or too short a context; never all of them.
fn passed_over(pool: &Pool, loads: &LoadTracker, demand: Demand<'_>, now_ms: u64) -> Vec<usize> {
    let lacking = demand.model.map(|model| pool.lacking(model, loads, now_ms)).unwrap_or_default();
    let mut passed_over = pool.too_short(demand.prompt_tokens);
    passed_over.retain(|place| !lacking.contains(place));
    passed_over.extend(&lacking);
    if passed_over.len() < pool.candidates().count() { passed_over } else { lacking }
}

/// All by which candidates are ranked for a request.
struct Scorer<'a, 'b> {
    strategy: RoutingStrategy,
    pool: &'a Pool,
    loads: &'b LoadTracker,
    demand: Demand<'b>,
    /// The places of candidates that are not picked.
    passed_over: Vec<usize>,
    now_ms: u64,
}

/// What candidates would have to do for a request, in prompt tokens.
struct Work {
    /// That of each, if it is not the whole prompt for all of them.
    of_each: Option<Vec<f32x4>>,
    /// The least of all.
    least_tokens: f32,
    /// The prompt's first block that none of them holds.
    first_new: Option<BlockHash>,
}

impl<'a> Scorer<'a, '_> {
    fn rank(&self, draw: u32) -> Vec<Ranked<'a>> {
        let (candidates, work) = (self.pool.candidates(), self.work());
        let costs = self.costs(&work);
        let outlook = self.outlook(&work);
        let mut ranked = Vec::with_capacity(MAX_RANKED);
        let mut keeper = None;
        for part in candidates.parts(draw) {
            if ranked.len() == MAX_RANKED {
                break;
            }
            let (lanes, costs) = (part.of(candidates.lanes()), part.of(&costs));
            let mut best = best(lanes, costs, draw);
            if ranked.is_empty() {
                keeper = promise::fullest(lanes, part.of(&outlook.fullness_ms), costs, draw);
            }
            if let Some(key) = self.rendezvous_key(&work, draw).filter(|_| ranked.is_empty())
                && let Some(least) = best.first()
                && let Some(choice) = self.rendezvous(lanes, costs, least.cost, key)
            {
                best.retain(|contender| contender.place != choice.place);
                best.insert(0, choice);
            }
            let next = best.into_iter().filter_map(|contender| self.ranked(contender, &outlook));
            ranked.extend(next.take(MAX_RANKED - ranked.len()));
        }
        let of_cheapest = ranked.first().and_then(|cheapest| cheapest.expected);
        let keeper = keeper.filter(|_| of_cheapest.is_none_or(|expected| expected.is_clear()));
        let first = self.strict(&costs).or(keeper);
        let Some(first) = first.and_then(|contender| self.ranked(contender, &outlook)) else { return ranked };
        let others = ranked.into_iter().filter(|other| other.index != first.index);
        std::iter::once(first).chain(others).take(MAX_RANKED).collect()
    }

    /// What is expected of each, if the request is promised something.
    fn outlook(&self, work: &Work) -> Outlook {
        let mut outlook = Outlook::default();
        let Some(due) = self.demand.due else { return outlook };
        let kv_cache_limit = self.pool.saturation.kv_cache_utilization;
        for (place, lanes) in self.pool.candidates().lanes().iter().enumerate() {
            let of_each = work.of_each.as_ref().and_then(|of_each| of_each.get(place).copied());
            let work_tokens = of_each.unwrap_or(f32x4::splat(work.least_tokens));
            outlook.add(lanes, (work_tokens, work.least_tokens), due, kv_cache_limit, self.now_ms);
        }
        outlook
    }

    /// The key of the rendezvous choice, if there is one: the prompt's first block that no endpoint holds, or a draw for each
    /// request of a conversation.
    fn rendezvous_key(&self, work: &Work, draw: u32) -> Option<u64> {
        let by_draw = self.strategy == RoutingStrategy::Default && self.demand.is_of_conversation;
        let first_new = work.first_new.map(u32::from_le_bytes);
        first_new.or_else(|| by_draw.then_some(draw)).map(u64::from)
    }

    /// Of those whose costs are about the least, the one to which the request belongs: where its conversation was last, and
    /// otherwise by its key.
    fn rendezvous(&self, lanes: &[Lanes], costs: &[f32x4], least_cost: f32, key: u64) -> Option<Contender> {
        let visited = self.demand.visited.map(|visited| visited.place as u32);
        rendezvous::choose(self.pool, lanes, costs, least_cost, key, visited)
    }

    /// The endpoint that the request goes to whatever it costs, if there is one that may be picked.
    fn strict(&self, costs: &[f32x4]) -> Option<Contender> {
        let visited = self.demand.visited.filter(|visited| visited.is_strict)?;
        let cost = self.pool.candidates().read(costs, visited.place)?;
        Some(Contender { cost, tie_break: 0, place: visited.place as u32 })
    }

    /// What each costs: without end, if it is not to be picked.
    fn costs(&self, work: &Work) -> Vec<f32x4> {
        let candidates = self.pool.candidates();
        let mut costs = self.costs_by_strategy(candidates.lanes(), work);
        self.passed_over.iter().for_each(|place| candidates.write(&mut costs, *place, f32::INFINITY));
        costs
    }

    /// The strategy's cost of each.
    fn costs_by_strategy(&self, all: &[Lanes], work: &Work) -> Vec<f32x4> {
        let (lanes, now_ms, least_tokens) = (all.iter(), self.now_ms, work.least_tokens);
        match (self.strategy, &work.of_each) {
            (RoutingStrategy::Default | RoutingStrategy::PrefixCache, None) => {
                lanes.map(|lanes| default::cost_of_same_work(lanes, least_tokens, now_ms)).collect()
            }
            (RoutingStrategy::Default | RoutingStrategy::PrefixCache, Some(work_tokens)) => lanes
                .zip(work_tokens)
                .map(|(lanes, work_tokens)| default::cost(lanes, *work_tokens, least_tokens, now_ms))
                .collect(),
            (RoutingStrategy::LeastRequest, _) => lanes.map(least_request::cost).collect(),
            (RoutingStrategy::RoundRobin, _) => {
                let parts = self.pool.candidates().all_parts().iter();
                let costs = parts.flat_map(|part| {
                    part.of(all).iter().map(|lanes| round_robin::cost(lanes, self.pool, part.level))
                });
                costs.collect()
            }
            (RoutingStrategy::Random, _) => lanes.map(|_| f32x4::ZERO).collect(),
        }
    }

    /// The whole prompt, but where the adapter is not loaded or a part of the prompt is cached.
    fn work(&self) -> Work {
        let prompt_tokens = self.demand.prompt_tokens as f32;
        let mut work = Work { of_each: None, least_tokens: prompt_tokens, first_new: None };
        if self.demand.adapter.is_some() {
            work.least_tokens = f32::INFINITY;
            for place in 0..self.pool.endpoints().map_or(0, <[_]>::len) {
                self.set_work(&mut work, place, 0, 0.0);
            }
        }
        if let Some((prefixes, blocks)) = self.pool.prefixes().zip(self.demand.blocks) {
            let mut most_matched = 0;
            for (load_id, matched_blocks) in prefixes.holders(blocks) {
                if let Some(place) = self.pool.place(load_id)
                    && self.set_work(&mut work, place, matched_blocks, 0.0)
                {
                    most_matched = most_matched.max(matched_blocks);
                }
            }
            work.first_new = blocks.hashes.get(most_matched).copied();
            self.expect_at_rendezvous_choice(&mut work, prefixes, blocks);
        } else if let Some(visited) = self.demand.visited.filter(|visited| visited.tokens > 0) {
            self.set_work(&mut work, visited.place, 0, 0.0);
        }
        work
    }

    /// Where there are requests of others, a part of the prompt is taken to be cached at its rendezvous choice.
    fn expect_at_rendezvous_choice(&self, work: &mut Work, prefixes: &PrefixIndex, blocks: &PromptBlocks) {
        let found_share = shared_prompts::found_share(self.pool.candidates().lanes());
        if found_share == 0.0 {
            return;
        }
        let may_be_picked = |place: usize| {
            self.pool.candidates().freshness(place).is_some() && !self.passed_over.contains(&place)
        };
        let own_block = prefixes.own_block(blocks);
        let choice = own_block
            .and_then(|own_block| shared_prompts::rendezvous_choice(self.pool, own_block, may_be_picked));
        let endpoints = self.pool.endpoints().unwrap_or_default();
        if let Some((place, endpoint)) = choice.and_then(|place| Some((place, endpoints.get(place)?))) {
            let matched = prefixes.matched(endpoint.load_id, blocks);
            self.set_work(work, place, matched.blocks, found_share);
        }
    }

    /// Sets the work of the endpoint at a place of the pool's list, which holds so many blocks of the prompt and is taken to
    /// hold this share of the rest; `false` if it may not be picked.
    fn set_work(&self, work: &mut Work, place: usize, matched_blocks: usize, found_share: f32) -> bool {
        let candidates = self.pool.candidates();
        let endpoint = self.pool.endpoints().and_then(|endpoints| endpoints.get(place));
        let Some((endpoint, freshness)) = endpoint.zip(candidates.freshness(place)) else { return false };
        if self.passed_over.contains(&place) {
            return false;
        }
        let adapter_tokens = default::adapter_tokens(endpoint, freshness, self.demand, self.loads);
        let uncached_tokens = self.uncached_tokens(place, endpoint, matched_blocks) as f32;
        let tokens = uncached_tokens * (1.0 - found_share) + adapter_tokens;
        work.least_tokens = lesser(work.least_tokens, tokens);
        let whole = || vec![f32x4::splat(self.demand.prompt_tokens as f32); candidates.lanes().len()];
        candidates.write(work.of_each.get_or_insert_with(whole), place, tokens);
        true
    }

    /// Tokens of the prompt that are not cached at the endpoint at this place, where so many blocks of it are, at least 1. Where
    /// no blocks are known, what the conversation had there is.
    fn uncached_tokens(&self, place: usize, endpoint: &Endpoint, matched_blocks: usize) -> u32 {
        let visited = self.demand.visited.filter(|visited| visited.place == place);
        let matched_tokens = match (self.demand.blocks, visited) {
            (None, Some(visited)) => visited.tokens,
            _ => prefix_cache::matched_tokens(self.demand, matched_blocks, endpoint),
        };
        self.demand.prompt_tokens.saturating_sub(matched_tokens).max(1)
    }

    fn ranked(&self, contender: Contender, outlook: &Outlook) -> Option<Ranked<'a>> {
        let Contender { cost, place, .. } = contender;
        let index = place as usize;
        let freshness = self.pool.candidates().freshness(index)?;
        let endpoint = self.pool.endpoints()?.get(index)?;
        let known = self.pool.prefixes().zip(self.demand.blocks);
        let matched =
            known.map_or(Match::default(), |(prefixes, blocks)| prefixes.matched(endpoint.load_id, blocks));
        let uncached_tokens = self.uncached_tokens(index, endpoint, matched.blocks);
        let expected = self.expected(index, outlook);
        Some(Ranked { index, endpoint, freshness, matched, uncached_tokens, cost, expected })
    }

    /// What is expected of the endpoint at this place, if the request is promised something.
    fn expected(&self, place: usize, outlook: &Outlook) -> Option<Expected> {
        let read = |of_each: &[f32x4]| self.pool.candidates().read(of_each, place);
        Some(Expected {
            first_token_ms: read(&outlook.first_token_ms)?,
            is_kept: read(&outlook.fullness_ms)?.is_finite(),
            is_missed: read(&outlook.spare_ms)? < 0.0,
        })
    }
}

/// The lesser of two numbers. [`f32::min`] looks for what is no number, and is a call in WebAssembly.
fn lesser(one: f32, other: f32) -> f32 {
    if other < one { other } else { one }
}
