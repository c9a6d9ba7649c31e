//! What the document's values must be: one small function for each section.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::*;
use crate::log_fields::LogField;
use crate::promise::MAX_PROMISE_US;
use crate::sessions::Field;

pub(super) fn config(raw: raw::Config) -> Result<Config, ConfigError> {
    let scraping = Scraping {
        cluster: optional_name(raw.scrape_cluster, "scrapeCluster")?,
        interval_ms: interval(raw.scrape_interval, "scrapeInterval", DEFAULT_SCRAPE_INTERVAL)?,
        stale_after_ms: interval(raw.metrics_stale_after, "metricsStaleAfter", DEFAULT_METRICS_STALE_AFTER)?,
    };
    if scraping.stale_after_ms <= scraping.interval_ms {
        return refuse(
            "metricsStaleAfter",
            "must be longer than scrapeInterval, or all metrics are always stale",
        );
    }
    let pools = pools(raw.pools, &scraping)?;
    let models = models(raw.models, &pools)?;
    let publish = publish(raw.publish)?;
    let config = Config {
        role: match raw.role {
            raw::Role::Filter => Role::Filter,
            raw::Role::Service => Role::Service,
        },
        pick_to: match raw.pick_to {
            raw::PickTo::Header => PickTo::Header,
            raw::PickTo::FilterState => PickTo::FilterState,
        },
        scrape_by: match raw.scrape_by {
            raw::ScrapeBy::Service => ScrapeBy::Service,
            raw::ScrapeBy::Worker => ScrapeBy::Worker,
        },
        scrape_cluster: scraping.cluster,
        admin_cluster: optional_name(raw.admin_cluster, "adminCluster")?,
        scrape_budget: scrape_budget(raw.scrape_budget)?,
        scrape_timeout_ms: interval(raw.scrape_timeout, "scrapeTimeout", DEFAULT_SCRAPE_TIMEOUT)?,
        metrics_stale_after_ms: scraping.stale_after_ms,
        discovery_interval_ms: interval(
            raw.discovery_interval,
            "discoveryInterval",
            DEFAULT_DISCOVERY_INTERVAL,
        )?,
        max_consecutive_failures: at_least_one(raw.max_consecutive_failures)?,
        max_body_bytes: body_bytes(raw.max_body_bytes)?,
        reject_unknown_models: matches!(raw.unknown_models, raw::UnknownModels::Reject) && !models.is_empty(),
        answer_models: raw.answer_models,
        restore_requested_model: matches!(raw.response_model, raw::ResponseModel::Requested),
        include_usage: raw.include_usage.unwrap_or(true),
        publish: match raw.pick_to {
            raw::PickTo::Header => publish,
            // The pick itself goes that way, and routes are chosen by the model.
            raw::PickTo::FilterState => publish.with(LogField::Destinations).with(LogField::Model),
        },
        sticky_by: raw.sticky_by.map(|text| caller(&text, "stickyBy")).transpose()?,
        session_by: session_by(raw.session_by)?,
        session_token_key: raw.session_token_key.map(token_key).transpose()?,
        sessions: retention(raw.sessions, "sessions", DEFAULT_SESSIONS_EXPIRE_AFTER)?,
        stored: retention(raw.stored_responses, "storedResponses", DEFAULT_STORED_EXPIRE_AFTER)?,
        queue: raw.queue.map(|raw| queue(raw, &pools)).transpose()?,
        objectives: objectives(raw.objectives, &pools)?,
        trust_headers: raw.trust_headers,
        fairness: raw.fairness.map(fairness).transpose()?,
        peers: raw.peers.map(peers).transpose()?,
        pools,
        models,
    };
    consistent(&config)?;
    Ok(config)
}

/// How metrics are read where a pool does not say otherwise.
struct Scraping {
    cluster: Option<String>,
    interval_ms: u64,
    stale_after_ms: u64,
}

fn publish(names: Option<Vec<String>>) -> Result<LogFields, ConfigError> {
    let Some(names) = names else { return Ok(LogFields::all()) };
    names.iter().enumerate().try_fold(LogFields::NONE, |fields, (index, name)| {
        match LogField::of_name(name) {
            Some(field) => Ok(fields.with(field)),
            None => refuse(&format!("publish[{index}]"), &format!("`{name}` is no field of the access log")),
        }
    })
}

/// What no single field can show: whether the fields fit each other.
fn consistent(config: &Config) -> Result<(), ConfigError> {
    if config.role == Role::Service && config.scrape_by == ScrapeBy::Worker {
        return refuse("scrapeBy", "`worker` leaves the companion service nothing to do; remove one of them");
    }
    if let Some(peers) = &config.peers {
        consistent_peers(peers, config)?;
    }
    let by_token = config.pools.iter().position(|pool| pool.session_affinity == SessionAffinity::Token);
    if let Some(index) = by_token.filter(|_| config.session_token_key.is_none()) {
        return refuse(
            &format!("pools[{index}].sessionAffinity"),
            "`token` needs `sessionTokenKey`, with which tokens are sealed",
        );
    }
    let discovered = config.pools.iter().position(|pool| pool.endpoints.is_none());
    match discovered {
        Some(index) if config.admin_cluster.is_none() => refuse(
            &format!("pools[{index}].endpoints"),
            "left out, so they are discovered, which needs `adminCluster`: the cluster of Envoy's own admin listener",
        ),
        _ => Ok(()),
    }
}

fn consistent_peers(peers: &Peers, config: &Config) -> Result<(), ConfigError> {
    if config.admin_cluster.is_none() {
        return refuse(
            "peers",
            "are discovered, which needs `adminCluster`: the cluster of Envoy's own admin listener",
        );
    }
    if config.scrape_cluster.is_none() {
        return refuse("peers", "are asked one by one, which needs `scrapeCluster`: an ORIGINAL_DST cluster");
    }
    if config.pool_of_cluster(peers.cluster.as_bytes()).is_some() {
        return refuse("peers.cluster", &format!("`{}` is a pool's cluster", peers.cluster));
    }
    Ok(())
}

fn pools(mut raw: Vec<raw::Pool>, scraping: &Scraping) -> Result<Vec<Pool>, ConfigError> {
    between(raw.len(), 1, MAX_POOLS, "pools")?;
    let prefills: Vec<_> = raw.iter_mut().map(|pool| pool.prefill.take()).collect();
    let fallbacks: Vec<_> = raw.iter_mut().map(|pool| std::mem::take(&mut pool.fallback)).collect();
    let mut names = HashSet::new();
    let mut clusters = HashSet::new();
    let mut pools = Vec::with_capacity(raw.len());
    for (index, pool) in raw.into_iter().enumerate() {
        let at = |field: &str| format!("pools[{index}].{field}");
        name(&pool.name, &at("name"))?;
        name(&pool.cluster, &at("cluster"))?;
        distinct(&mut names, &pool.name, &at("name"))?;
        distinct(&mut clusters, &pool.cluster, &at("cluster"))?;
        pools.push(Pool {
            prefix_blocks_max: prefix_blocks_max(&pool.prefix_cache, &at("prefixCache"))?,
            endpoints: known_endpoints(pool.endpoints, pool.external, &at("endpoints"))?,
            is_external: pool.external,
            fallback: Vec::new(),
            default_targets: optional_targets(pool.default_targets, &at("defaultTargets"))?,
            name: pool.name,
            cluster: pool.cluster,
            routing_strategy: pool.routing_strategy.unwrap_or(RoutingStrategy::Default),
            metrics: metrics(pool.metrics, pool.model_server, scraping, &at("metrics"))?,
            answers_tell_load: pool.answers_tell_load,
            data_parallel: data_parallel(pool.data_parallel, pool.model_server, &at("dataParallel"))?,
            session_affinity: pool.session_affinity.unwrap_or(SessionAffinity::Cost),
            model_server: pool.model_server,
            saturation: saturation(&pool.saturation, &at("saturation"))?,
            prefill: None,
        });
    }
    set_prefills(&mut pools, prefills)?;
    set_fallbacks(&mut pools, fallbacks)?;
    Ok(pools)
}

/// Only some servers run a request on the engine that it names.
fn data_parallel(raw: DataParallel, server: ModelServer, path: &str) -> Result<DataParallel, ConfigError> {
    match (raw, server) {
        (DataParallel::Server, _) | (DataParallel::Ranks, ModelServer::Vllm | ModelServer::Sglang) => Ok(raw),
        _ => refuse(
            path,
            "`ranks` is for vLLM and SGLang: no other server runs a request on the engine that it names",
        ),
    }
}

/// The endpoints that need not be discovered: nobody needs to know those of an outside provider.
fn known_endpoints(
    raw: Option<Vec<String>>,
    is_external: bool,
    path: &str,
) -> Result<Option<Vec<SocketAddr>>, ConfigError> {
    match raw {
        Some(_) if is_external => refuse(path, "are Envoy's to know where the pool is `external`"),
        None if is_external => Ok(Some(Vec::new())),
        raw => raw.map(|list| endpoints(&list, path)).transpose(),
    }
}

/// Pools that serve what another one has no room for.
fn set_fallbacks(pools: &mut [Pool], raw: Vec<Vec<String>>) -> Result<(), ConfigError> {
    for (index, names) in raw.into_iter().enumerate() {
        let places = fallback(pools, index, &names)?;
        if let Some(pool) = pools.get_mut(index) {
            pool.fallback = places;
        }
    }
    Ok(())
}

fn fallback(pools: &[Pool], index: usize, names: &[String]) -> Result<Vec<usize>, ConfigError> {
    let mut seen = HashSet::new();
    let mut places = Vec::with_capacity(names.len());
    for (number, name) in names.iter().enumerate() {
        let at = format!("pools[{index}].fallback[{number}]");
        let place = place_of_pool(pools, name, &at)?;
        distinct(&mut seen, name, &at)?;
        if place == index {
            return refuse(&at, "names the pool itself");
        }
        refuse_for_prefill(pools, place, &at)?;
        places.push(place);
    }
    Ok(places)
}

/// Nothing may be sent for itself to a pool that computes the prompts of others.
fn refuse_for_prefill(pools: &[Pool], place: usize, path: &str) -> Result<(), ConfigError> {
    if is_for_prefill(pools, place) {
        return refuse(path, "names a pool that computes the prompts of another one");
    }
    Ok(())
}

/// A pool whose endpoints compute the prompts of others has them for nothing else.
fn set_prefills(pools: &mut [Pool], raw: Vec<Option<raw::Prefill>>) -> Result<(), ConfigError> {
    let at = |index: usize, field: &str| format!("pools[{index}].prefill.{field}");
    let named = raw.into_iter().enumerate().filter_map(|(index, raw)| Some((index, raw?)));
    let mut prefills = Vec::new();
    for (index, raw) in named {
        let min_uncached_tokens = raw.min_uncached_tokens.unwrap_or(DEFAULT_PREFILL_MIN_UNCACHED_TOKENS);
        if min_uncached_tokens == 0 {
            return refuse(&at(index, "minUncachedTokens"), "must be at least 1");
        }
        let pool = place_of_pool(pools, &raw.pool, &at(index, "pool"))?;
        prefills.push((index, Prefill { pool, min_uncached_tokens, when_gone: raw.when_gone }));
    }
    for (index, prefill) in &prefills {
        if prefills.iter().any(|(other, _)| *other == prefill.pool) {
            return refuse(&at(*index, "pool"), "names a pool that has `prefill` itself");
        }
        refuse_both_roles(pools, *index, prefill.pool)?;
    }
    for (index, prefill) in prefills {
        if let Some(pool) = pools.get_mut(index) {
            pool.prefill = Some(prefill);
        }
    }
    Ok(())
}

/// Who is listed has one role. Of discovered endpoints the scraper sees to that.
fn refuse_both_roles(pools: &[Pool], index: usize, prefill: usize) -> Result<(), ConfigError> {
    let listed =
        |place: usize| pools.get(place).and_then(|pool| pool.endpoints.as_deref()).unwrap_or_default();
    let computes: HashSet<&SocketAddr> = listed(prefill).iter().collect();
    match listed(index).iter().position(|address| computes.contains(address)) {
        Some(number) => {
            let path = format!("pools[{index}].endpoints[{number}]");
            refuse(&path, "is also one of the pool that computes this pool's prompts")
        }
        None => Ok(()),
    }
}

fn metrics(
    raw: raw::Metrics,
    server: ModelServer,
    scraping: &Scraping,
    path: &str,
) -> Result<Metrics, ConfigError> {
    let at = |field: &str| format!("{path}.{field}");
    let own_interval_ms = raw.interval.map(|text| duration_ms(&text, &at("interval"))).transpose()?;
    if own_interval_ms.is_some_and(|interval_ms| scraping.stale_after_ms <= interval_ms) {
        return refuse(
            &at("interval"),
            "must be shorter than metricsStaleAfter, or all metrics are always stale",
        );
    }
    if raw.port == Some(0) {
        return refuse(&at("port"), "must be at least 1");
    }
    if let Some(page) = &raw.path {
        metrics_path(page, &at("path"))?;
    }
    Ok(Metrics {
        cluster: optional_name(raw.cluster, &at("cluster"))?.or_else(|| scraping.cluster.clone()),
        port: raw.port,
        path: raw.path.unwrap_or_else(|| server.metrics_path().to_owned()),
        headers: metrics_headers(raw.headers.unwrap_or_default(), &at("headers"))?,
        interval_ms: own_interval_ms.unwrap_or(scraping.interval_ms),
    })
}

fn metrics_path(text: &str, path: &str) -> Result<(), ConfigError> {
    name(text, path)?;
    if !text.starts_with('/') || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return refuse(path, &format!("`{text}` is no path of a URL, as in /metrics"));
    }
    Ok(())
}

/// Headers that hold keys: who can read the plugin's configuration could read them.
const KEY_HEADERS: [&str; 5] = ["authorization", "proxy-authorization", "cookie", "x-api-key", "api-key"];
/// Headers by which the plugin and Envoy say where a scrape goes, and how it is framed.
const OWN_HEADERS: [&str; 7] =
    ["host", "connection", "content-length", "transfer-encoding", "upgrade", "te", "accept-encoding"];

fn metrics_headers(raw: HashMap<String, String>, path: &str) -> Result<Vec<(String, String)>, ConfigError> {
    between(raw.len(), 0, MAX_METRICS_HEADERS, path)?;
    let mut headers = Vec::with_capacity(raw.len());
    for (header, value) in raw {
        let (lower, path) = (header.to_ascii_lowercase(), format!("{path}.{header}"));
        name(&header, &path)?;
        if !is_header_name(&header) {
            return refuse(&path, "is no name of a header");
        }
        if KEY_HEADERS.contains(&lower.as_str()) {
            return refuse(&path, "is a key: have the scrape cluster add it, by Envoy's credential_injector");
        }
        if OWN_HEADERS.contains(&lower.as_str()) || lower.starts_with("x-envoy-") {
            return refuse(&path, "is Envoy's to set");
        }
        header_value(&value, &path)?;
        headers.push((lower, value));
    }
    headers.sort_unstable();
    match headers.windows(2).find(|pair| matches!(pair, [(one, _), (other, _)] if one == other)) {
        Some([(name, _), ..]) => refuse(path, &format!("`{name}` is there twice")),
        _ => Ok(headers),
    }
}

fn header_value(value: &str, path: &str) -> Result<(), ConfigError> {
    name(value, path)?;
    if !value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        return refuse(path, "has a value with other characters than ASCII's");
    }
    Ok(())
}

fn endpoints(raw: &[String], path: &str) -> Result<Vec<SocketAddr>, ConfigError> {
    between(raw.len(), 1, MAX_ENDPOINTS, path)?;
    let mut seen = HashSet::new();
    let mut addresses = Vec::with_capacity(raw.len());
    for (index, text) in raw.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(address) = text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0) else {
            return refuse(&path, &format!("`{text}` is not ip:port, as in 10.0.0.1:8000 or [fd00::1]:8000"));
        };
        distinct(&mut seen, &address.to_string(), &path)?;
        addresses.push(address);
    }
    Ok(addresses)
}

fn saturation(raw: &raw::Saturation, path: &str) -> Result<Saturation, ConfigError> {
    let queue_depth = raw.queue_depth.unwrap_or(DEFAULT_SATURATED_QUEUE_DEPTH);
    if queue_depth == 0 {
        return refuse(
            &format!("{path}.queueDepth"),
            "must be at least 1, or every endpoint is always saturated",
        );
    }
    let kv_cache_utilization = raw.kv_cache_utilization.unwrap_or(DEFAULT_SATURATED_KV_CACHE_UTILIZATION);
    if !(kv_cache_utilization > 0.0 && kv_cache_utilization <= 1.0) {
        return refuse(
            &format!("{path}.kvCacheUtilization"),
            &format!("{kv_cache_utilization} is not above 0 and at most 1"),
        );
    }
    Ok(Saturation { queue_depth, kv_cache_utilization })
}

fn scrape_budget(raw: Option<f64>) -> Result<f64, ConfigError> {
    let share = raw.unwrap_or(DEFAULT_SCRAPE_BUDGET);
    if !(share > 0.0 && share <= 1.0) {
        return refuse("scrapeBudget", &format!("{share} is not above 0 and at most 1, a share of a core"));
    }
    Ok(share)
}

fn prefix_blocks_max(raw: &raw::PrefixCache, path: &str) -> Result<usize, ConfigError> {
    let max_blocks = raw.max_blocks.unwrap_or(DEFAULT_PREFIX_BLOCKS_MAX);
    between(max_blocks, 1, PREFIX_BLOCKS_MAX_CEILING, &format!("{path}.maxBlocks"))?;
    Ok(max_blocks)
}

fn queue(raw: raw::Queue, pools: &[Pool]) -> Result<Queue, ConfigError> {
    let max_requests = raw.max_requests.unwrap_or(DEFAULT_QUEUE_MAX_REQUESTS);
    between(max_requests, 1, QUEUE_MAX_REQUESTS_CEILING, "queue.maxRequests")?;
    let max_bytes = raw.max_bytes.unwrap_or(DEFAULT_QUEUE_MAX_BYTES);
    between(max_bytes, 1, QUEUE_MAX_BYTES_CEILING, "queue.maxBytes")?;
    let while_empty = raw.while_empty.as_deref();
    let max_wait_ms = interval(raw.max_wait, "queue.maxWait", DEFAULT_QUEUE_MAX_WAIT)?;
    Ok(Queue {
        max_wait_ms,
        max_requests,
        max_bytes,
        while_empty_ms: while_empty.map(|text| duration_ms(text, "queue.whileEmpty")).transpose()?,
        fallback_after_ms: raw
            .fallback_after
            .map(|text| fallback_after(&text, max_wait_ms, pools))
            .transpose()?,
    })
}

/// After what time a fallback serves what waits.
fn fallback_after(text: &str, max_wait_ms: u64, pools: &[Pool]) -> Result<u64, ConfigError> {
    let path = "queue.fallbackAfter";
    let fallback_after_ms = duration_ms(text, path)?;
    if fallback_after_ms >= max_wait_ms {
        return refuse(path, &format!("{text} is not shorter than `queue.maxWait`"));
    }
    if pools.iter().all(|pool| pool.fallback.is_empty()) {
        return refuse(path, "is of no use: no pool has a `fallback`");
    }
    Ok(fallback_after_ms)
}

/// An objective is one pool's or every pool's; a pool has one of a name.
fn objectives(raw: Vec<raw::Objective>, pools: &[Pool]) -> Result<Vec<Objective>, ConfigError> {
    between(raw.len(), 0, MAX_OBJECTIVES, "objectives")?;
    let mut names: HashMap<Option<usize>, HashSet<String>> = HashMap::new();
    let mut objectives = Vec::with_capacity(raw.len());
    for (index, objective) in raw.into_iter().enumerate() {
        let at = |field: &str| format!("objectives[{index}].{field}");
        name(&objective.name, &at("name"))?;
        let find = |reference: raw::PoolRef| place_of_pool(pools, &reference.name, &at("poolRef.name"));
        let pool = objective.pool_ref.map(find).transpose()?;
        distinct(names.entry(pool).or_default(), &objective.name, &at("name"))?;
        let priority = objective.priority.unwrap_or(STANDARD_PRIORITY.into());
        let Ok(priority) = i32::try_from(priority) else {
            return refuse(&at("priority"), &format!("{priority} has more than 32 bits"));
        };
        objectives.push(Objective { name: objective.name, pool, priority });
    }
    Ok(objectives)
}

fn place_of_pool(pools: &[Pool], name: &str, path: &str) -> Result<usize, ConfigError> {
    let place = pools.iter().position(|pool| pool.name == name);
    place.map_or_else(|| refuse(path, &format!("there is no pool `{name}`")), Ok)
}

fn fairness(raw: raw::Fairness) -> Result<Fairness, ConfigError> {
    between(raw.tenants.len(), 0, MAX_TENANTS, "fairness.tenants")?;
    let mut seen = HashSet::new();
    for (index, tenant) in raw.tenants.iter().enumerate() {
        let path = format!("fairness.tenants[{index}]");
        name(tenant, &path)?;
        distinct(&mut seen, tenant, &path)?;
    }
    let by = match raw.by.as_deref().map(|text| caller(text, "fairness.by")).transpose()? {
        None => TenantBy::FairnessId,
        Some(StickyBy::Header(name)) => TenantBy::Header(name),
        Some(StickyBy::User) => TenantBy::User,
    };
    Ok(Fairness { by, tenants: raw.tenants })
}

fn peers(raw: raw::Peers) -> Result<Peers, ConfigError> {
    name(&raw.cluster, "peers.cluster")?;
    let interval_ms = interval(raw.interval, "peers.interval", DEFAULT_PEERS_INTERVAL)?;
    Ok(Peers { cluster: raw.cluster, interval_ms })
}

/// What distinguishes one client from another.
fn caller(raw: &str, path: &str) -> Result<StickyBy, ConfigError> {
    match raw.split_whitespace().collect::<Vec<_>>()[..] {
        ["user"] => Ok(StickyBy::User),
        ["header", name] if is_header_name(name) => Ok(StickyBy::Header(name.to_ascii_lowercase())),
        _ => refuse(path, &format!("`{raw}` is neither \"user\" nor \"header NAME\"")),
    }
}

fn session_by(raw: Option<Vec<String>>) -> Result<Vec<Source>, ConfigError> {
    let texts = raw.unwrap_or_else(|| DEFAULT_SESSION_BY.map(str::to_owned).into());
    between(texts.len(), 0, MAX_SESSION_SOURCES, "sessionBy")?;
    texts
        .iter()
        .enumerate()
        .map(|(index, text)| session_source(text, &format!("sessionBy[{index}]")))
        .collect()
}

fn session_source(text: &str, path: &str) -> Result<Source, ConfigError> {
    let field = |name: &str| Field::ALL.into_iter().find(|field| field.name() == name);
    match text.split_whitespace().collect::<Vec<_>>()[..] {
        ["header", name] if is_header_name(name) => Ok(Source::Header(name.to_ascii_lowercase())),
        ["cookie", name] if is_header_name(name) => Ok(Source::Cookie(name.to_owned())),
        ["body", name] if let Some(field) = field(name) => Ok(Source::Body(field)),
        ["body", ..] => {
            let names = Field::ALL.map(Field::name).join(", ");
            refuse(path, &format!("`{text}` is no field that names sessions: {names}"))
        }
        _ => {
            refuse(path, &format!("`{text}` is none of \"header NAME\", \"cookie NAME\" and \"body FIELD\""))
        }
    }
}

fn token_key(text: String) -> Result<TokenKey, ConfigError> {
    between(text.len(), MIN_TOKEN_KEY_BYTES, MAX_NAME_BYTES, "sessionTokenKey")?;
    Ok(TokenKey::new(&text))
}

fn retention(raw: raw::Retention, path: &str, default: Duration) -> Result<Retention, ConfigError> {
    let max = raw.max.unwrap_or(DEFAULT_CONVERSATIONS_MAX);
    between(max, 1, CONVERSATIONS_MAX_CEILING, &format!("{path}.max"))?;
    let at = format!("{path}.expireAfter");
    let range = MIN_INTERVAL..=MAX_EXPIRE_AFTER;
    let expire_after = raw.expire_after.map_or(Ok(default), |text| duration(&text, &at, range))?;
    Ok(Retention { max, expire_after_ms: expire_after.as_millis() as u64 })
}

fn is_header_name(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// A pool has one model of a name; a name may stand for one in each of several pools.
fn models(raw: Vec<raw::Model>, pools: &[Pool]) -> Result<Vec<Model>, ConfigError> {
    between(raw.len(), 0, MAX_MODELS, "models")?;
    let mut names: HashMap<usize, HashSet<String>> = HashMap::new();
    let mut models = Vec::with_capacity(raw.len());
    for (index, model) in raw.into_iter().enumerate() {
        let at = |field: &str| format!("models[{index}].{field}");
        name(&model.model_name, &at("modelName"))?;
        let pool = place_of_pool(pools, &model.pool_ref.name, &at("poolRef.name"))?;
        distinct(names.entry(pool).or_default(), &model.model_name, &at("modelName"))?;
        refuse_for_prefill(pools, pool, &at("poolRef.name"))?;
        models.push(Model {
            name: model.model_name,
            criticality: model.criticality.unwrap_or(Criticality::Standard),
            pool,
            targets: optional_targets(model.target_models, &at("targetModels"))?,
            promise: model
                .promise
                .map_or(Ok(Promise::default()), |raw| promise(raw, pools, pool, &at("promise")))?,
        });
    }
    Ok(models)
}

/// What a model's requests are promised that the pool at this place serves.
fn promise(raw: raw::Promise, pools: &[Pool], pool: usize, path: &str) -> Result<Promise, ConfigError> {
    if !keeps_promises(pools, pool) {
        return refuse(
            path,
            "needs a pool whose `routingStrategy` is DEFAULT or PREFIX_CACHE, as that of its `prefill.pool`, and not `external`",
        );
    }
    let at = |field: &str| format!("{path}.{field}");
    let us = |text: Option<String>, field: &str| text.map(|text| promised_us(&text, &at(field))).transpose();
    let promise = Promise {
        first_token_us: us(raw.first_token, "firstToken")?,
        per_token_us: us(raw.per_token, "perToken")?,
    };
    if promise.is_empty() { refuse(path, "needs `firstToken` or `perToken`") } else { Ok(promise) }
}

fn promised_us(text: &str, path: &str) -> Result<u32, ConfigError> {
    let longest = Duration::from_micros(MAX_PROMISE_US.into());
    Ok(duration(text, path, MIN_PROMISE..=longest)?.as_micros() as u32)
}

fn optional_targets(raw: Option<Vec<raw::Target>>, path: &str) -> Result<Vec<Target>, ConfigError> {
    raw.map_or(Ok(Vec::new()), |list| targets(list, path))
}

fn targets(raw: Vec<raw::Target>, path: &str) -> Result<Vec<Target>, ConfigError> {
    between(raw.len(), 1, MAX_TARGETS, path)?;
    let some_weighted = raw.iter().any(|target| target.weight.is_some());
    let mut names = HashSet::new();
    let mut targets = Vec::with_capacity(raw.len());
    for (index, target) in raw.into_iter().enumerate() {
        let at = |field: &str| format!("{path}[{index}].{field}");
        name(&target.name, &at("name"))?;
        distinct(&mut names, &target.name, &at("name"))?;
        targets
            .push(Target { name: target.name, weight: weight(target.weight, some_weighted, &at("weight"))? });
    }
    if targets.iter().all(|target| target.weight == 0) {
        return refuse(path, "the weights add up to zero, so the model would go nowhere");
    }
    Ok(targets)
}

/// The largest weight that the resource's schema allows.
const MAX_WEIGHT: i64 = 1_000_000;

/// A target's weight. Either every target has one or none has, and then all count the same.
fn weight(raw: Option<i64>, some_weighted: bool, path: &str) -> Result<u32, ConfigError> {
    match raw {
        None if some_weighted => refuse(path, "is missing, while other targets have one"),
        None => Ok(1),
        Some(weight) if (0..=MAX_WEIGHT).contains(&weight) => Ok(weight as u32),
        Some(weight) => refuse(path, &format!("{weight} is not between 0 and {MAX_WEIGHT}")),
    }
}

fn interval(raw: Option<String>, path: &str, default: Duration) -> Result<u64, ConfigError> {
    raw.map_or(Ok(default.as_millis() as u64), |text| duration_ms(&text, path))
}

fn duration_ms(text: &str, path: &str) -> Result<u64, ConfigError> {
    Ok(duration(text, path, MIN_INTERVAL..=MAX_INTERVAL)?.as_millis() as u64)
}

fn duration(text: &str, path: &str, range: RangeInclusive<Duration>) -> Result<Duration, ConfigError> {
    let duration = humantime::parse_duration(text).or_else(|error| {
        refuse(path, &format!("`{text}` is not a duration such as \"50ms\" or \"2s\": {error}"))
    })?;
    if !range.contains(&duration) {
        return refuse(path, &format!("{text} is not between {:?} and {:?}", range.start(), range.end()));
    }
    Ok(duration)
}

fn at_least_one(raw: Option<u32>) -> Result<u32, ConfigError> {
    match raw.unwrap_or(DEFAULT_MAX_CONSECUTIVE_FAILURES) {
        0 => refuse("maxConsecutiveFailures", "must be at least 1"),
        failures => Ok(failures),
    }
}

fn body_bytes(raw: Option<usize>) -> Result<usize, ConfigError> {
    let bytes = raw.unwrap_or(DEFAULT_MAX_BODY_BYTES);
    between(bytes, 1, MAX_BODY_BYTES_CEILING, "maxBodyBytes")?;
    Ok(bytes)
}

fn optional_name(raw: Option<String>, path: &str) -> Result<Option<String>, ConfigError> {
    raw.map(|text| name(&text, path).map(|()| text)).transpose()
}

fn name(text: &str, path: &str) -> Result<(), ConfigError> {
    if text.is_empty() {
        return refuse(path, "must not be empty");
    }
    if text.len() > MAX_NAME_BYTES {
        return refuse(path, &format!("is {} bytes long; at most {MAX_NAME_BYTES} are allowed", text.len()));
    }
    if text.chars().any(char::is_control) {
        return refuse(path, "must not contain control characters");
    }
    Ok(())
}

fn distinct(seen: &mut HashSet<String>, text: &str, path: &str) -> Result<(), ConfigError> {
    if seen.insert(text.to_owned()) {
        return Ok(());
    }
    refuse(path, &format!("`{text}` is there twice"))
}

fn between(count: usize, least: usize, most: usize, path: &str) -> Result<(), ConfigError> {
    if (least..=most).contains(&count) {
        return Ok(());
    }
    refuse(path, &format!("{count} is not between {least} and {most}"))
}

fn refuse<T>(path: &str, problem: &str) -> Result<T, ConfigError> {
    Err(ConfigError { path: path.to_owned(), problem: problem.to_owned() })
}
