//! The one place that orders the steps of a decision: is the model known, what is it called at the servers, which
//! endpoints can take it, which is best. A function of its arguments: time and randomness come in, nothing goes out
//! but the [`Decision`].

use std::fmt::Write;

use crate::config::{Config, RoutingStrategy};
use crate::load::{LoadBook, LoadId};
use crate::models::{Resolution, Turns};
use crate::openai::{ApiError, InferenceRequest};
use crate::pool::{Freshness, Pool};
use crate::strategy::{Demand, Limits, Ranked, rank};

/// What to do with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Send it to the endpoint picked.
    Send(Pick),
    /// Send it with no pick, so that the cluster's fallback policy balances it; and why.
    Fallback(&'static str),
    /// Answer it with an error.
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
    /// The model to send in place of the one asked for.
    pub target_model: Option<String>,
    /// Why this endpoint, in one short line.
    pub explanation: String,
}

/// What one worker decides with.
#[derive(Debug)]
pub struct Knowledge<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The pool that the request's route leads to.
    pub pool: &'a mut Pool,
    /// What is in flight.
    pub loads: &'a LoadBook,
    /// Whose turn it is among a model's targets.
    pub turns: &'a mut Turns,
}

/// Decides an inference request.
pub fn decide(
    knowledge: Knowledge<'_>,
    request: &InferenceRequest<'_>,
    now_ms: u64,
    rng: &mut fastrand::Rng,
) -> Decision {
    let Knowledge { config, pool, loads, turns } = knowledge;
    let target = match turns.resolve(config, &pool.name, &request.model) {
        Resolution::AsAsked => None,
        Resolution::Target(name) => Some(name),
        Resolution::Unknown => return Decision::Refuse(ApiError::unknown_model(&request.model)),
    };
    let adapter = pool.adapter(target.unwrap_or(&request.model));
    let demand = Demand { prompt_tokens: request.prompt_tokens, adapter };
    let strategy = pool.routing_strategy;
    match send(config, pool, loads, strategy, demand, now_ms, rng) {
        Decision::Send(pick) => Decision::Send(Pick { target_model: target.map(str::to_owned), ..pick }),
        other => other,
    }
}

/// Decides a request that carries no prompt to be read: the least loaded endpoint, whatever the pool's strategy.
pub fn decide_unread(
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
        target_model: None,
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

/// `DEFAULT cost=48 prompt_tokens=24 in_flight=1 waiting_tokens=24 queue=0 running=1 kv=0.02 metrics_age_ms=31`
fn explain(strategy: RoutingStrategy, first: &Ranked<'_>, demand: Demand, now_ms: u64) -> String {
    let candidate = &first.candidate;
    let mut line = format!(
        "{} cost={:.0} prompt_tokens={} in_flight={} waiting_tokens={}",
        strategy.name(),
        first.cost,
        demand.prompt_tokens,
        candidate.in_flight.requests,
        candidate.in_flight.waiting_tokens,
    );
    let written = match (&candidate.endpoint.reading, candidate.freshness) {
        (Some(reading), Freshness::Fresh) => write!(
            line,
            " queue={} running={} kv={:.2} metrics_age_ms={}",
            reading.metrics.waiting,
            reading.metrics.running,
            reading.metrics.kv_cache_utilization.unwrap_or(0.0),
            candidate.endpoint.scrape_age_ms(now_ms).unwrap_or(0),
        ),
        _ => write!(line, " metrics=none"),
    };
    debug_assert!(written.is_ok(), "writing to a string cannot fail");
    line
}
