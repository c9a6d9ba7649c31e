//! The one place that orders the steps of a decision: what the model is called at the servers and which pool serves
//! it, whether the request is sent, waits or is refused, and which endpoint is best. Functions of their arguments: time
//! and randomness come in, nothing goes out but the result.
//!
//! [`prepare`] → [`admit`] → [`pick`]. A request that waits is picked later, by [`pick`] alone.

use std::fmt::Write;

use crate::admission::{self, Admission, DrainRate};
use crate::config::{Config, Criticality, RoutingStrategy};
use crate::load::{AdapterId, LoadBook, LoadId};
use crate::models::Turns;
use crate::openai::{ApiError, InferenceRequest};
use crate::pool::{Freshness, Pool};
use crate::strategy::{Demand, Limits, Ranked, rank};

/// An inference request of which it is known what to send and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The place of the pool that serves it.
    pub pool: usize,
    /// The model asked for.
    pub model: String,
    /// The model to send in its place; `None`: the same.
    pub target: Option<String>,
    /// How much it matters.
    pub criticality: Criticality,
    /// The prompt's size in estimated tokens, at least 1.
    pub prompt_tokens: u32,
}

/// Where to send a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// To the endpoint picked.
    Send(Pick),
    /// With no pick, so that the cluster's fallback policy balances it; and why.
    Fallback(&'static str),
    /// Nowhere: it is answered with an error.
    Refuse(ApiError),
}

/// An endpoint picked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pick {
    /// The first choice's place among the loads.
    pub load_id: LoadId,
    /// `ip:port[,ip:port…]`, best first: the pick header's value.
    pub destinations: String,
    /// The prompt tokens to count as in flight there.
    pub prompt_tokens: u32,
    /// The adapter to count as in use there.
    pub adapter: Option<AdapterId>,
    /// Why this endpoint, in one short line.
    pub explanation: String,
}

/// Resolves the model of a request whose route leads to the pool at `route_pool`. `user` keeps it on one target.
///
/// # Errors
/// 404 for a model that is not published, where such are refused.
pub fn prepare(
    config: &Config,
    turns: &mut Turns,
    request: &InferenceRequest<'_>,
    user: Option<&[u8]>,
    route_pool: usize,
) -> Result<Prepared, ApiError> {
    let resolution =
        turns.resolve(config, &request.model, user).ok_or_else(|| ApiError::unknown_model(&request.model))?;
    Ok(Prepared {
        pool: resolution.pool.unwrap_or(route_pool),
        model: request.model.clone().into_owned(),
        target: resolution.target.map(str::to_owned),
        criticality: resolution.criticality,
        prompt_tokens: request.prompt_tokens,
    })
}

/// Whether a prepared request is sent now, or waits.
///
/// # Errors
/// 429 for a request that gives way.
pub fn admit(
    config: &Config,
    pool: &Pool,
    loads: &LoadBook,
    drain_rate: &DrainRate,
    prepared: &Prepared,
    now_ms: u64,
) -> Result<Admission, ApiError> {
    let saturated = is_saturated(config, pool, loads, now_ms);
    match admission::admit(prepared.criticality, saturated, config.queue.is_some()) {
        Admission::Shed => Err(ApiError::saturated(&pool.name, drain_rate.retry_after_s())),
        admission => Ok(admission),
    }
}

/// Whether the pool has no room, by its own limits.
pub fn is_saturated(config: &Config, pool: &Pool, loads: &LoadBook, now_ms: u64) -> bool {
    let limits = limits(config);
    let Some(stale_after_ms) = limits.metrics_stale_after_ms else { return false };
    admission::is_saturated(pool, loads, limits.max_consecutive_failures, stale_after_ms, now_ms)
}

/// Picks an endpoint for a prepared request.
pub fn pick(
    config: &Config,
    pool: &mut Pool,
    loads: &LoadBook,
    prepared: &Prepared,
    now_ms: u64,
    rng: &mut fastrand::Rng,
) -> Decision {
    let adapter = pool.adapter(prepared.target.as_ref().unwrap_or(&prepared.model));
    let demand = Demand { prompt_tokens: prepared.prompt_tokens, adapter };
    send(config, pool, loads, pool.routing_strategy, demand, now_ms, rng)
}

/// Picks for a request that carries no prompt to be read: the least loaded endpoint, whatever the pool's strategy.
pub fn pick_unread(
    config: &Config,
    pool: &mut Pool,
    loads: &LoadBook,
    now_ms: u64,
    rng: &mut fastrand::Rng,
) -> Decision {
    let demand = Demand { prompt_tokens: 1, adapter: None };
    send(config, pool, loads, RoutingStrategy::Default, demand, now_ms, rng)
}

fn send(
    config: &Config,
    pool: &mut Pool,
    loads: &LoadBook,
    strategy: RoutingStrategy,
    demand: Demand,
    now_ms: u64,
    rng: &mut fastrand::Rng,
) -> Decision {
    if pool.endpoints().is_none() {
        return Decision::Fallback("endpoints not discovered yet");
    }
    let ranking = rank(strategy, pool, loads, demand, limits(config), now_ms, rng);
    let Some(first) = ranking.first() else {
        return Decision::Refuse(ApiError::no_endpoint(&pool.name));
    };
    let pick = Pick {
        load_id: first.candidate.endpoint.load_id,
        destinations: destinations(&ranking),
        prompt_tokens: demand.prompt_tokens,
        adapter: demand.adapter,
        explanation: explain(strategy, first, demand, now_ms),
    };
    pool.round_robin_next = first.candidate.index + 1;
    Decision::Send(pick)
}

fn limits(config: &Config) -> Limits {
    Limits {
        metrics_stale_after_ms: config.scrape_cluster.as_ref().map(|_| config.metrics_stale_after_ms),
        max_consecutive_failures: config.max_consecutive_failures,
    }
}

fn destinations(ranking: &[Ranked<'_>]) -> String {
    let texts: Vec<&str> = ranking.iter().map(|ranked| ranked.candidate.endpoint.text.as_str()).collect();
    texts.join(",")
}

/// Whole numbers throughout: formatting floating-point ones costs as much as the rest of the line.
///
/// `DEFAULT cost=48 prompt_tokens=24 in_flight=1 waiting_tokens=24 queue=0 running=1 kv=0.02 metrics_age_ms=31`
fn explain(strategy: RoutingStrategy, first: &Ranked<'_>, demand: Demand, now_ms: u64) -> String {
    let candidate = &first.candidate;
    let mut line = format!(
        "{} cost={} prompt_tokens={} in_flight={} waiting_tokens={}",
        strategy.name(),
        first.cost as u64,
        demand.prompt_tokens,
        candidate.in_flight.requests,
        candidate.in_flight.waiting_tokens,
    );
    let reading = candidate.endpoint.reading.as_ref();
    let utilization = reading.and_then(|reading| reading.metrics.kv_cache_utilization).unwrap_or(0.0);
    let kv_percent = (utilization * 100.0).round() as u32;
    let written = match (reading, candidate.freshness) {
        (Some(reading), Freshness::Fresh) => write!(
            line,
            " queue={} running={} kv={}.{:02} metrics_age_ms={}",
            reading.metrics.waiting,
            reading.metrics.running,
            kv_percent / 100,
            kv_percent % 100,
            candidate.endpoint.scrape_age_ms(now_ms).unwrap_or(0),
        ),
        _ => write!(line, " metrics=none"),
    };
    debug_assert!(written.is_ok(), "writing to a string cannot fail");
    line
}
