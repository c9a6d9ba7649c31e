//! The one place that orders the steps of a decision: what the model is called at the servers and which pool serves
//! it, whether the request is sent, waits or is refused, and which endpoint is best. Functions of their arguments: time
//! and randomness come in, nothing goes out but the result.
//!
//! [`prepare`] → [`admit`] → [`pick`]. A request that waits is picked later, by [`pick`] alone.

use std::rc::Rc;

use crate::admission::{self, Admission, DrainRate};
use crate::config::{self, Config, Prefill, RoutingStrategy};
use crate::explanation::Explanation;
use crate::first_pass::FirstPass;
use crate::load::{AdapterId, LoadId, LoadTracker, RequestLoad};
use crate::models::{self, Resolution, TargetSelector};
use crate::openai::{ApiError, InferenceRequest, SMALL_REQUEST_TOKENS};
use crate::pool::{Freshness, Limits, Pool, Reading};
use crate::prefill::{PrefillPick, PromptBy, share_without_prompt};
use crate::prefix::{BLOCK_BYTES, BlockHasher, Match, PromptBlocks};
use crate::promise::{Due, Expected, Forecast, Promised, PromisesAtRisk};
use crate::sessions::{Conversation, KnownBy, Outcome, Visit};
use crate::strategy::{Demand, Ranked, Visited, data_parallel, rank};
use crate::token_estimator::TokenEstimator;

/// An inference request of which it is known what to send and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedRequest {
    /// The place of the pool that serves it.
    pub pool: usize,
    /// Whether another pool may: its route is chosen anew, and nobody can know where it leads.
    pub is_pool_guessed: bool,
    /// The place of its own pool, if another one serves it because that is full or gone.
    pub fallback_of: Option<usize>,
    /// The model asked for.
    pub model: String,
    /// The model to send in its place; `None`: the same.
    pub target: Option<String>,
    /// How much it matters; higher is more important.
    pub priority: i32,
    /// The prompt.
    pub prompt: Rc<Prompt>,
    /// Whether the answer is streamed.
    pub streamed: bool,
    /// Whether the answer is generated, and not only a prompt computed.
    pub generates: bool,
    /// The size of its body.
    pub body_bytes: usize,
    /// Who shares the queue with others, where tenants are distinguished.
    pub tenant: Option<String>,
    /// The conversation that it belongs to, if it names one.
    pub conversation: Option<Conversation>,
    /// The session that it names.
    pub session: Option<Visit>,
    /// Whether it may be begun anew for a fallback.
    pub can_begin_anew: bool,
    /// Whether it was sent to an endpoint before it was begun anew.
    pub was_sent: bool,
    /// What it is promised.
    pub promised: Option<Promised>,
}

/// A prompt as it will be computed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prompt {
    /// The model that computes it, by its name at the servers.
    pub model: String,
    /// Its size in tokens by its bytes alone, at least 1.
    pub estimated_tokens: u32,
    /// The same as far as the model's tokens are known, at least 1.
    pub tokens: u32,
    /// What it has whatever the model's tokens are; 0 where that is not known.
    pub least_tokens: u32,
    /// Distinguishes it from others, as [`InferenceRequest::digest`].
    pub digest: u64,
    /// Its blocks, if its pool's strategy goes by prefixes.
    pub blocks: Option<PromptBlocks>,
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
    /// It is begun anew for a fallback; where Envoy does not do that it is answered with this error.
    BeginAnew(ApiError),
}

/// An endpoint picked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pick {
    /// The first choice's place among the loads.
    pub load_id: LoadId,
    /// `ip:port[,ip:port…]`, best first: the pick header's value.
    pub destinations: String,
    /// Whether endpoints of other pools are named too, behind those of the pool it was picked for.
    pub is_pool_guessed: bool,
    /// What to count as in flight there.
    pub share: RequestLoad,
    /// The prompt, if it was read.
    pub prompt: Option<SentPrompt>,
    /// What became of the conversation that it belongs to, if it names one.
    pub conversation: Option<(KnownBy, Outcome)>,
    /// The session that it names.
    pub session: Option<Visit>,
    /// Who computes the prompt.
    pub prompt_by: PromptBy,
    /// The rank of the endpoint's engine that is to run it, where the gateway says so.
    pub rank: Option<u32>,
    /// What is expected of it, if the request is promised something.
    pub forecast: Option<Box<Forecast>>,
    /// Why this endpoint, in one short line.
    pub explanation: String,
}

/// A prompt, and what was known of it where it was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SentPrompt {
    /// The prompt.
    pub prompt: Rc<Prompt>,
    /// How much of it was taken to be cached there.
    pub matched: Match,
    /// The same in tokens.
    pub matched_tokens: u32,
}

impl Pick {
    /// The same, now that it is known who computes the prompt.
    #[must_use]
    pub fn prompt_by(mut self, prompt_by: PromptBy) -> Pick {
        match &prompt_by {
            PromptBy::Itself => {}
            PromptBy::Other(other) => {
                self.explanation.push_str(" prefill=");
                self.explanation.push_str(&other.address);
                self.share = share_without_prompt(self.share);
            }
            PromptBy::Gone { .. } => self.explanation.push_str(" prefill=none"),
        }
        Pick { prompt_by, ..self }
    }

    /// The same, now that it is known when its first token is expected, if it is promised something.
    fn with_expectation(
        mut self,
        promised: Option<Promised>,
        expected: Option<Expected>,
        now_ms: u64,
    ) -> Pick {
        let Some((promised, expected)) = promised.zip(expected) else { return self };
        let Expected { first_token_ms, is_kept, .. } = expected;
        let word = if is_kept { "kept" } else { "missed" };
        self.explanation.push_str(&format!(" promise={word} expected_ms={}", first_token_ms as u64));
        Pick { forecast: Some(Box::new(promised.forecast(first_token_ms, now_ms))), ..self }
    }

    /// The endpoint that is to serve it.
    pub fn first_choice(&self) -> &str {
        self.destinations.split(',').next().unwrap_or_default()
    }
}

impl Prompt {
    /// The tokens in so many bytes of its text, if they are spread evenly.
    pub fn tokens_in(&self, bytes: usize) -> u32 {
        let all_bytes = self.blocks.as_ref().map_or(0, |blocks| blocks.bytes).max(1);
        (f64::from(self.tokens) * bytes as f64 / all_bytes as f64).round() as u32
    }

    /// The tokens behind its last block.
    pub fn tokens_behind_blocks(&self) -> u32 {
        let behind = |blocks: &PromptBlocks| blocks.bytes.saturating_sub(blocks.hashes.len() * BLOCK_BYTES);
        self.blocks.as_ref().map_or(0, |blocks| self.tokens_in(behind(blocks)))
    }
}

/// Resolves the model of a request whose route leads to the pool at `route_pool`, and measures its prompt. `user` keeps
/// it on one target.
///
/// # Errors
/// 404 for a model that is not published, and 400 for a request that names none, where such are refused.
pub fn prepare(
    config: &Config,
    selector: &mut TargetSelector,
    sizes: &TokenEstimator,
    request: &InferenceRequest<'_>,
    user: Option<&[u8]>,
    route_pool: usize,
) -> Result<ResolvedRequest, ApiError> {
    if let Some(error) = request.unnamed.as_ref().filter(|_| config.reject_unknown_models) {
        return Err(error.clone());
    }
    let resolution = if request.model.is_empty() {
        models::unturned(config, "", route_pool)
    } else {
        let resolved = selector.resolve(config, &request.model, route_pool, user);
        resolved.ok_or_else(|| ApiError::unknown_model(&request.model))?
    };
    Ok(resolved(config, sizes, request, &request.model, resolution))
}

/// As [`prepare`], for a request that Envoy sends once more with the model that was resolved before. If it had fallen back
/// to another pool it stays there.
pub fn prepare_again(
    config: &Config,
    sizes: &TokenEstimator,
    request: &InferenceRequest<'_>,
    first: &FirstPass,
    route_pool: usize,
) -> ResolvedRequest {
    let asked = &*first.model;
    let fallback_of = (first.own_pool != first.pool).then_some(first.own_pool);
    let pool = fallback_of.map_or(route_pool, |_| first.pool);
    let resolution = Resolution {
        target: Some(&*request.model).filter(|sent| *sent != asked),
        ..models::unturned(config, asked, pool)
    };
    ResolvedRequest { fallback_of, ..resolved(config, sizes, request, asked, resolution) }
}

fn resolved(
    config: &Config,
    sizes: &TokenEstimator,
    request: &InferenceRequest<'_>,
    asked: &str,
    resolution: Resolution<'_>,
) -> ResolvedRequest {
    let pool = resolution.pool;
    let model = resolution.target.unwrap_or(asked);
    let by_prefix = config.pools.get(pool).is_some_and(|pool| goes_by_prefix(config, pool));
    let prompt = Prompt {
        model: model.to_owned(),
        estimated_tokens: request.prompt_tokens,
        tokens: sizes.prompt_tokens(model, request.prompt_tokens),
        least_tokens: request.least_tokens,
        digest: request.digest,
        blocks: by_prefix.then(|| blocks(request, model)),
    };
    ResolvedRequest {
        pool,
        is_pool_guessed: false,
        fallback_of: None,
        model: asked.to_owned(),
        target: resolution.target.map(str::to_owned),
        priority: resolution.priority,
        prompt: Rc::new(prompt),
        streamed: request.stream,
        generates: true,
        body_bytes: request.body_bytes,
        tenant: None,
        conversation: None,
        session: None,
        can_begin_anew: false,
        was_sent: false,
        promised: None,
    }
}

/// Whether prefixes count for a pool's prompts: where they are sent, or where they are computed.
fn goes_by_prefix(config: &Config, pool: &config::Pool) -> bool {
    let prefill = pool.prefill.and_then(|prefill| config.pools.get(prefill.pool));
    let mut both = std::iter::once(pool).chain(prefill);
    both.any(|pool| pool.routing_strategy == RoutingStrategy::PrefixCache)
}

/// The blocks of a prompt for `model`.
fn blocks(request: &InferenceRequest<'_>, model: &str) -> PromptBlocks {
    let mut hasher = BlockHasher::new(model, request.cache_salt);
    request.prompt.visit(|text| hasher.push(text));
    hasher.finish()
}

/// Whether a resolved request is sent now, or waits. `others_wait`: for this pool, so that there is room for them first.
///
/// # Errors
/// 400 for a prompt that surely fits nowhere, and 429 for a request that gives way.
pub fn admit(
    config: &Config,
    pool: &Pool,
    loads: &LoadTracker,
    drain_rate: &DrainRate,
    resolved: &ResolvedRequest,
    others_wait: bool,
    now_ms: u64,
) -> Result<Admission, ApiError> {
    let longest_tokens = pool.longest_context_tokens().filter(|_| !resolved.is_pool_guessed);
    if let Some(longest_tokens) = longest_tokens.filter(|longest| resolved.prompt.least_tokens > *longest) {
        return Err(ApiError::prompt_too_long(&pool.name, longest_tokens));
    }
    if pool.is_empty() && !resolved.is_pool_guessed && config.waits_for_first_endpoint() {
        return Ok(Admission::Wait);
    }
    let saturated = others_wait || is_saturated(config, pool, loads, now_ms);
    match admission::admit(resolved.priority, saturated, config.queue.is_some()) {
        Admission::Shed => Err(ApiError::saturated(&pool.name, drain_rate.retry_after_s())),
        admission => Ok(admission),
    }
}

/// Whether the pool has no room, by its own limits.
pub fn is_saturated(config: &Config, pool: &Pool, loads: &LoadTracker, now_ms: u64) -> bool {
    let limits = limits(config, pool);
    let Some(stale_after_ms) = limits.metrics_stale_after_ms.filter(|_| !pool.has_unnamed()) else {
        return false;
    };
    admission::is_saturated(pool, loads, limits.max_consecutive_failures, stale_after_ms, now_ms)
}

/// Picks an endpoint for a resolved request, whose prompt another endpoint may compute by this rule.
pub fn pick(
    config: &Config,
    pool: &mut Pool,
    loads: &LoadTracker,
    (resolved, rule): (&ResolvedRequest, Option<&Prefill>),
    now_ms: u64,
    rng: &mut fastrand::Rng,
) -> Decision {
    let prompt = &resolved.prompt;
    let conversation = resolved.conversation;
    let visited = conversation.and_then(|conversation| visited(conversation, prompt.tokens, pool, loads));
    let promised = promised(config, resolved);
    let prefill_from_tokens = rule.map_or(f32::INFINITY, |rule| rule.min_uncached_tokens as f32);
    let due = promised.map(|promised| Due { prefill_from_tokens, ..promised.due(now_ms) });
    let demand = Demand { visited, due, ..demand(resolved, pool) };
    let asked = Asked {
        strategy: pool.routing_strategy,
        demand,
        prompt: Some(prompt),
        conversation,
        session: resolved.session,
        may_name_rank: resolved.generates && pool.names_ranks(),
        promised,
        is_sheddable: admission::is_sheddable(resolved.priority),
    };
    send(config, pool, loads, asked, now_ms, rng)
}

/// What a resolved request is promised, where endpoints are picked by that.
fn promised(config: &Config, resolved: &ResolvedRequest) -> Option<Promised> {
    resolved.promised.filter(|_| config::keeps_promises(&config.pools, resolved.pool))
}

/// What a resolved request asks of an endpoint of this pool, whatever came before it.
fn demand<'a>(resolved: &'a ResolvedRequest, pool: &Pool) -> Demand<'a> {
    let prompt = &resolved.prompt;
    Demand {
        prompt_tokens: prompt.tokens,
        adapter: pool.adapter(&prompt.model),
        model: (!prompt.model.is_empty()).then(|| AdapterId::of(&prompt.model)),
        blocks: prompt.blocks.as_ref().filter(|_| pool.prefixes().is_some()),
        streamed: resolved.streamed,
        is_of_conversation: resolved.conversation.is_some(),
        visited: None,
        due: None,
    }
}

/// Picks the endpoint that computes the prompt of a resolved request, which goes to `pick`, and is worth it.
///
/// # Errors
/// 503 if nobody is there and the rule says so, and 429 for a request that gives way if nobody would keep its promise.
pub fn pick_prefill(
    config: &Config,
    pool: &mut Pool,
    loads: &LoadTracker,
    (resolved, pick, rule): (&ResolvedRequest, Pick, &Prefill),
    now_ms: u64,
    rng: &mut fastrand::Rng,
) -> Result<Pick, ApiError> {
    let gone = |pick: Pick, name: &str| rule.gone(name).map(|prompt_by| pick.prompt_by(prompt_by));
    if !pool.has_ready(now_ms, config.max_consecutive_failures) {
        return gone(pick, &pool.name);
    }
    let promised = promised(config, resolved);
    // It generates nothing.
    let due = promised.map(|promised| Due { per_token_ms: f32::INFINITY, ..promised.due(now_ms) });
    let demand = Demand { due, ..demand(resolved, pool) };
    let (strategy, limits) = (pool.routing_strategy, limits(config, pool));
    let mut promises_at_risk = pool.promises_at_risk;
    let ranking = rank(strategy, pool, loads, demand, limits, now_ms, rng);
    let Some(best) = ranking.first() else { return gone(pick, &pool.name) };
    let is_sheddable = admission::is_sheddable(resolved.priority);
    if let Some(retry_after_s) = missed(best.expected, due, is_sheddable, &mut promises_at_risk) {
        return Err(ApiError::promise_not_kept(&pool.name, retry_after_s));
    }
    let share = RequestLoad { adapter: demand.adapter, ..pick.share };
    let (picked, index) = (PrefillPick::new(rule.pool, best, share), best.index);
    let pick =
        pick.prompt_by(PromptBy::Other(Box::new(picked))).with_expectation(promised, best.expected, now_ms);
    pool.promises_at_risk = promises_at_risk;
    if strategy == RoutingStrategy::RoundRobin {
        pool.turn_taken(index);
    }
    Ok(pick)
}

/// When the client of a sheddable request may come again, in seconds, if it is shed for its promise. Of other requests it is noted
/// whether theirs is at risk.
fn missed(
    expected: Option<Expected>,
    due: Option<Due>,
    is_sheddable: bool,
    promises_at_risk: &mut PromisesAtRisk,
) -> Option<u64> {
    let (expected, due) = expected.zip(due)?;
    if !is_sheddable {
        promises_at_risk.note(expected.is_kept);
        return None;
    }
    promises_at_risk.is_shed(expected).then(|| retry_after_s(expected, due))
}

/// Picks for a request that carries no prompt to be read: the least loaded endpoint, whatever the pool's strategy.
pub fn pick_unread(
    config: &Config,
    pool: &mut Pool,
    loads: &LoadTracker,
    conversation: Option<Conversation>,
    now_ms: u64,
    rng: &mut fastrand::Rng,
) -> Decision {
    let prompt_tokens = SMALL_REQUEST_TOKENS;
    let visited = conversation.and_then(|conversation| visited(conversation, prompt_tokens, pool, loads));
    let demand = Demand {
        prompt_tokens,
        adapter: None,
        model: None,
        blocks: None,
        streamed: false,
        is_of_conversation: conversation.is_some(),
        visited,
        due: None,
    };
    let asked = Asked {
        strategy: RoutingStrategy::Default,
        demand,
        prompt: None,
        conversation,
        session: None,
        may_name_rank: false,
        promised: None,
        is_sheddable: false,
    };
    send(config, pool, loads, asked, now_ms, rng)
}

/// What is to be sent, and by which strategy.
struct Asked<'a> {
    strategy: RoutingStrategy,
    demand: Demand<'a>,
    prompt: Option<&'a Rc<Prompt>>,
    conversation: Option<Conversation>,
    session: Option<Visit>,
    /// Whether the server would run it on an engine that it names.
    may_name_rank: bool,
    promised: Option<Promised>,
    /// Whether it is shed rather than served later than promised.
    is_sheddable: bool,
}

/// Where a conversation was served last, if that is an endpoint of the pool, and what of it is still cached there.
fn visited(
    conversation: Conversation,
    prompt_tokens: u32,
    pool: &Pool,
    loads: &LoadTracker,
) -> Option<Visited> {
    let last = conversation.last?;
    let place = pool.place(loads.known_by_key(last.endpoint)?)?;
    let endpoint = pool.endpoints()?.get(place)?;
    let is_cached = !endpoint.has_turned_over_since(last);
    let tokens = if is_cached { last.cached_tokens(prompt_tokens) } else { 0 };
    Some(Visited { place, tokens, is_strict: conversation.is_strict })
}

/// What became of the conversation, now that the request goes to the endpoint at this place.
fn outcome(conversation: Conversation, visited: Option<Visited>, place: usize) -> (KnownBy, Outcome) {
    let outcome = match (conversation.last, visited) {
        (None, _) => Outcome::New,
        (Some(_), Some(visited)) if visited.place == place => Outcome::Kept,
        (Some(_), _) => Outcome::Moved,
    };
    (conversation.by, outcome)
}

fn send(
    config: &Config,
    pool: &mut Pool,
    loads: &LoadTracker,
    asked: Asked<'_>,
    now_ms: u64,
    rng: &mut fastrand::Rng,
) -> Decision {
    let Asked { strategy, demand, prompt, conversation, session, may_name_rank, promised, is_sheddable } =
        asked;
    if pool.endpoints().is_none() {
        return Decision::Fallback("endpoints not discovered yet");
    }
    if pool.has_unnamed() {
        return Decision::Fallback("hosts that cannot be named");
    }
    let limits = limits(config, pool);
    let mut promises_at_risk = pool.promises_at_risk;
    let ranking = rank(strategy, pool, loads, demand, limits, now_ms, rng);
    let Some(first) = ranking.first() else {
        return Decision::Refuse(ApiError::no_endpoint(&pool.name));
    };
    if let Some(retry_after_s) = missed(first.expected, demand.due, is_sheddable, &mut promises_at_risk) {
        return Decision::Refuse(ApiError::promise_not_kept(&pool.name, retry_after_s));
    }
    // When the first token is there, who computes the prompt decides.
    let is_elsewhere = demand.due.is_some_and(|due| first.uncached_tokens as f32 >= due.prefill_from_tokens);
    let expected = first.expected.filter(|_| !is_elsewhere);
    let (matched, tokens) = (first.matched, first.uncached_tokens);
    let matched_tokens = demand.prompt_tokens.saturating_sub(tokens);
    let conversation = conversation.map(|conversation| outcome(conversation, demand.visited, first.index));
    let rank = may_name_rank.then(|| {
        let key = data_parallel::key(session.map(|visit| visit.key.to_bits()), demand.blocks);
        rank_of(&ranking, key.unwrap_or_else(|| rng.u64(..)))
    });
    let rank = rank.flatten();
    let pick = Pick {
        load_id: first.endpoint.load_id,
        destinations: destinations(&ranking),
        is_pool_guessed: false,
        share: RequestLoad {
            tokens,
            adapter: demand.adapter,
            model: demand.model,
            streamed: demand.streamed,
        },
        prompt: prompt.map(|prompt| SentPrompt { prompt: Rc::clone(prompt), matched, matched_tokens }),
        conversation,
        session,
        prompt_by: PromptBy::Itself,
        rank,
        forecast: None,
        explanation: explain(strategy, first, demand, conversation, rank, loads, now_ms),
    };
    let pick = pick.with_expectation(promised, expected, now_ms);
    let index = first.index;
    pool.promises_at_risk = promises_at_risk;
    if strategy == RoutingStrategy::RoundRobin {
        pool.turn_taken(index);
    }
    pool.picked(index, now_ms, config.max_consecutive_failures);
    Decision::Send(pick)
}

/// The engine of the first of these endpoints, if it has several. A retry names the same one, so all others must have it.
fn rank_of(ranking: &[Ranked<'_>], key: u64) -> Option<u32> {
    let (first, others) = ranking.split_first()?;
    let loads = first.endpoint.rank_loads();
    let rank = data_parallel::choose(&loads, first.endpoint.rendezvous_score(key))?;
    let has_rank = |other: &Ranked<'_>| (rank as usize) < other.endpoint.rank_loads().len();
    others.iter().all(has_rank).then_some(rank)
}

/// When a client may come again whose promise nobody would keep now, in seconds: when what is too much is worked off.
fn retry_after_s(expected: Expected, due: Due) -> u64 {
    let too_late_ms = (expected.first_token_ms - due.first_token_ms).max(0.0);
    ((too_late_ms / 1_000.0).ceil() as u64).clamp(1, admission::MAX_RETRY_AFTER_S)
}

fn limits(config: &Config, pool: &Pool) -> Limits {
    Limits {
        metrics_stale_after_ms: config
            .reads_metrics()
            .then(|| pool.stale_after_ms(config.metrics_stale_after_ms)),
        max_consecutive_failures: config.max_consecutive_failures,
    }
}

fn destinations(ranking: &[Ranked<'_>]) -> String {
    ranking.iter().fold(String::new(), |mut texts, ranked| {
        if !texts.is_empty() {
            texts.push(',');
        }
        texts.push_str(ranked.endpoint.text());
        texts
    })
}

/// What the line of a pick says beyond its first choice.
fn explain(
    strategy: RoutingStrategy,
    first: &Ranked<'_>,
    demand: Demand<'_>,
    conversation: Option<(KnownBy, Outcome)>,
    rank: Option<u32>,
    loads: &LoadTracker,
    now_ms: u64,
) -> String {
    let mut line = Explanation::new(strategy.name());
    line.add("cost", first.cost as u64);
    line.add("prompt_tokens", demand.prompt_tokens.into());
    if let Some(blocks) = demand.blocks {
        line.add_ratio("matched_blocks", first.matched.blocks as u64, blocks.hashes.len() as u64);
        line.add("uncached_tokens", first.uncached_tokens.into());
    }
    if let Some((_, outcome)) = conversation {
        line.add_word("session", outcome.name());
    }
    let in_flight = loads.in_flight(first.endpoint.load_id);
    line.add("in_flight", in_flight.requests.into());
    line.add("waiting_tokens", in_flight.waiting_tokens);
    match first.endpoint.reading().filter(|_| first.freshness == Freshness::Fresh) {
        Some(Reading { metrics, .. }) => {
            line.add("queue", metrics.waiting.into());
            line.add("running", metrics.running.into());
            line.add_hundredths("kv", metrics.kv_cache_utilization.unwrap_or(0.0));
            line.add("metrics_age_ms", first.endpoint.scrape_age_ms(now_ms).unwrap_or(0));
        }
        None => line.add_word("metrics", "none"),
    }
    if let Some(rank) = rank {
        line.add("rank", rank.into());
    }
    line.into_text()
}
