//! The configuration: one JSON document for the filter and the companion service.
//!
//! `raw` mirrors the document as users write it (field names as in the InferencePool and InferenceModel
//! resources) and knows serde; `validate` turns it into the types below, once, when the plugin is configured.
//! A document that is not right is refused with the path of the field; nothing is replaced silently.

mod raw;
mod validate;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use crate::log_fields::LogFields;
use crate::metrics::ModelServer;
use crate::promise::Promise;
use crate::sessions::{Retention, Source, TokenKey};

/// How often each endpoint's metrics are read. vLLM's gauges change at the end of a step (tens of milliseconds
/// on a busy server), so reading faster shows nothing new.
pub const DEFAULT_SCRAPE_INTERVAL: Duration = Duration::from_millis(50);
/// The share of a core that scraping may take: Envoy's main thread also serves xDS and the admin.
pub const DEFAULT_SCRAPE_BUDGET: f64 = 0.1;
/// How long one scrape may take. A model server answers within milliseconds; one that needs half a second is
/// treated as one that does not answer.
pub const DEFAULT_SCRAPE_TIMEOUT: Duration = Duration::from_millis(500);
/// Metrics older than this say nothing about a queue that fills in a fraction of a second: ten missed scrapes.
pub const DEFAULT_METRICS_STALE_AFTER: Duration = Duration::from_millis(500);
/// How often Envoy's admin is asked for the endpoints of a pool: twice within the second in which a change
/// must be followed.
pub const DEFAULT_DISCOVERY_INTERVAL: Duration = Duration::from_millis(400);
/// Scrapes or requests that fail in a row before an endpoint leaves the candidates: one failure is chance,
/// three are a state.
pub const DEFAULT_MAX_CONSECUTIVE_FAILURES: u32 = 3;
/// The largest request body that is read, in bytes: a few images in base64, or a context of millions of tokens. Envoy's
/// own buffer limit (1 MiB by default) applies before it.
pub const DEFAULT_MAX_BODY_BYTES: usize = 16 << 20;

/// How often another gateway is asked what it has in flight: what gateways know of each other is then some 20 ms old,
/// which costs little; at 200 ms it would be of no use.
pub const DEFAULT_PEERS_INTERVAL: Duration = Duration::from_millis(20);

/// Queued requests from which on an endpoint is saturated: what waits there longer is not served sooner.
pub const DEFAULT_SATURATED_QUEUE_DEPTH: u32 = 5;
/// KV-cache utilization from which on an endpoint is saturated: beyond it, vLLM soon has to preempt.
pub const DEFAULT_SATURATED_KV_CACHE_UTILIZATION: f32 = 0.8;
/// How long a request waits in the gateway's queue before it is refused.
pub const DEFAULT_QUEUE_MAX_WAIT: Duration = Duration::from_secs(2);
/// Requests that wait in one worker's queue.
pub const DEFAULT_QUEUE_MAX_REQUESTS: usize = 1_000;
/// Bytes that the bodies of requests have which wait in one worker's queue: Envoy holds them in memory.
pub const DEFAULT_QUEUE_MAX_BYTES: usize = 256 << 20;

/// Prompt tokens that are not cached where the answer is generated, from which on another endpoint computes them: where 8,000
/// tokens a second are computed they would hold up every stream beside them for 64 ms, as long as it takes to send them elsewhere.
pub const DEFAULT_PREFILL_MIN_UNCACHED_TOKENS: u32 = 512;

/// Prefix blocks that are remembered for a pool: 16 million tokens, at 4 to 11 bytes a block 1 to 3 MB in each worker.
pub const DEFAULT_PREFIX_BLOCKS_MAX: usize = 250_000;
/// The largest value of `prefixCache.maxBlocks`: 40 to 110 MB in each worker, 800 MB if no prompt had more than one block.
pub const PREFIX_BLOCKS_MAX_CEILING: usize = 10_000_000;

/// Conversations that are remembered of either kind, by names and by ids: 32 bytes each, for all workers together 8 MB.
pub const DEFAULT_CONVERSATIONS_MAX: usize = 262_144;
/// The largest value of `sessions.max` and `storedResponses.max`: 128 MB, and buckets of 32 KB that are read as a whole.
pub const CONVERSATIONS_MAX_CEILING: usize = 4_194_304;
/// How long a session is remembered without a request: by then its prefix has long been dropped.
pub const DEFAULT_SESSIONS_EXPIRE_AFTER: Duration = Duration::from_secs(2 * 3_600);
/// How long it is remembered where something is stored: a day's work, while servers keep it for as long as they run.
pub const DEFAULT_STORED_EXPIRE_AFTER: Duration = Duration::from_secs(24 * 3_600);
/// The longest of both: what servers keep is gone by then.
pub const MAX_EXPIRE_AFTER: Duration = Duration::from_secs(2_592_000);
/// Where the names of sessions are looked for unless that is configured: what agents send that are in use.
pub const DEFAULT_SESSION_BY: [&str; 7] = [
    "header x-session-id",
    "header x-session-token",
    "header session_id",
    "header session-id",
    "header x-claude-code-session-id",
    "body prompt_cache_key",
    "body conversation",
];
/// Bytes of the key of sessions' tokens, at least: as many as its hash has.
pub const MIN_TOKEN_KEY_BYTES: usize = 32;
/// Places where the name of a session may be: each is looked at for each request.
pub const MAX_SESSION_SOURCES: usize = 16;

/// The largest value of `queue.maxRequests`: every waiting request holds its body in memory.
pub const QUEUE_MAX_REQUESTS_CEILING: usize = 100_000;
/// The largest value of `queue.maxBytes`: a number of 32 bits holds no more than twice as many.
pub const QUEUE_MAX_BYTES_CEILING: usize = 2048 << 20;
/// Endpoints a pool may have. Each costs about 200 bytes a worker and a few nanoseconds a pick.
pub const MAX_ENDPOINTS: usize = 4096;
/// Pools in one configuration.
pub const MAX_POOLS: usize = 256;
/// Models in one configuration.
pub const MAX_MODELS: usize = 4096;
/// Headers that the configuration may add to a scrape.
pub const MAX_METRICS_HEADERS: usize = 16;
/// Targets of one model.
pub const MAX_TARGETS: usize = 256;
/// Bytes of a name (pool, cluster, model): longer ones are mistakes, and names end up in logs and keys.
pub const MAX_NAME_BYTES: usize = 1024;
/// The largest value of `maxBodyBytes`: a body is held in the worker's memory while it is read.
pub const MAX_BODY_BYTES_CEILING: usize = 256 << 20;
/// Objectives in one configuration.
pub const MAX_OBJECTIVES: usize = 4096;
/// Tenants that the configuration may name, each with counters of its own.
pub const MAX_TENANTS: usize = 256;

/// The priority of a model that is `Critical`, and the least that is sent to a full pool. Others wait behind each other
/// by priority; what is below 0 is shed.
pub const CRITICAL_PRIORITY: i32 = 100;
/// The priority of a model that is `Standard`, and of a request that names no objective, or one that is unknown.
pub const STANDARD_PRIORITY: i32 = 0;
/// The priority of a model that is `Sheddable`.
pub const SHEDDABLE_PRIORITY: i32 = -1;

/// The shortest interval or timeout: the worker's tick is not finer.
pub const MIN_INTERVAL: Duration = Duration::from_millis(10);
/// The shortest time that a model's requests may be promised: what is sooner no gateway can measure.
pub const MIN_PROMISE: Duration = Duration::from_millis(1);
/// The longest interval or timeout.
pub const MAX_INTERVAL: Duration = Duration::from_secs(3600);

/// What this instance of the plugin is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The HTTP filter, one VM a worker.
    Filter,
    /// The companion service, a singleton that scrapes.
    Service,
}

/// How the pick reaches Envoy's load balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PickTo {
    /// Stop-iteration mode: the plugin holds the headers and writes the pick header itself.
    Header,
    /// Deferred mode: the plugin publishes filter state, which a filter behind it copies into the pick header.
    FilterState,
}

/// Who reads the endpoints' metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScrapeBy {
    /// The companion service.
    Service,
    /// One worker, elected by a lease in shared data.
    Worker,
}

/// The rule by which a pool's endpoints are ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RoutingStrategy {
    /// Least expected work: see [`crate::strategy::default`].
    Default,
    /// The same, less the work that an endpoint's prefix cache saves: see [`crate::strategy::prefix_cache`].
    PrefixCache,
    /// Fewest requests in flight from this gateway.
    LeastRequest,
    /// Each in turn.
    RoundRobin,
    /// Any.
    Random,
}

impl RoutingStrategy {
    /// Whether it goes by what endpoints' metrics say.
    pub fn uses_metrics(self) -> bool {
        matches!(self, RoutingStrategy::Default | RoutingStrategy::PrefixCache)
    }

    /// The name as it is configured and logged.
    pub fn name(self) -> &'static str {
        match self {
            RoutingStrategy::Default => "DEFAULT",
            RoutingStrategy::PrefixCache => "PREFIX_CACHE",
            RoutingStrategy::LeastRequest => "LEAST_REQUEST",
            RoutingStrategy::RoundRobin => "ROUND_ROBIN",
            RoutingStrategy::Random => "RANDOM",
        }
    }
}

/// How much a model's traffic matters when the pool is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
pub enum Criticality {
    /// Always served.
    Critical,
    /// Served as long as there is room.
    Standard,
    /// Refused first.
    Sheddable,
}

impl Criticality {
    /// The priority that it stands for.
    pub fn priority(self) -> i32 {
        match self {
            Criticality::Critical => CRITICAL_PRIORITY,
            Criticality::Standard => STANDARD_PRIORITY,
            Criticality::Sheddable => SHEDDABLE_PRIORITY,
        }
    }
}

/// A valid configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What this instance is.
    pub role: Role,
    /// How the pick reaches the load balancer.
    pub pick_to: PickTo,
    /// Who scrapes.
    pub scrape_by: ScrapeBy,
    /// The ORIGINAL_DST cluster through which any endpoint and any gateway is reached, unless a pool has one of its own.
    pub scrape_cluster: Option<String>,
    /// The cluster of Envoy's own admin listener.
    pub admin_cluster: Option<String>,
    /// The share of a core that scraping may take, above 0 and at most 1.
    pub scrape_budget: f64,
    /// Milliseconds a scrape may take.
    pub scrape_timeout_ms: u64,
    /// Age in milliseconds from which metrics are stale.
    pub metrics_stale_after_ms: u64,
    /// Milliseconds between two looks at Envoy's admin.
    pub discovery_interval_ms: u64,
    /// Failures in a row after which an endpoint leaves the candidates.
    pub max_consecutive_failures: u32,
    /// The largest request body that is read, in bytes.
    pub max_body_bytes: usize,
    /// The pools, at least one, with distinct names and clusters.
    pub pools: Vec<Pool>,
    /// The models that are published, each once for every pool that serves it; empty: every model is served as asked.
    pub models: Vec<Model>,
    /// Whether a model that is not published is refused, or sent as asked.
    pub reject_unknown_models: bool,
    /// Whether the gateway itself answers `GET /v1/models`.
    pub answer_models: bool,
    /// Whether an answer's `model` is turned back into the name asked for.
    pub restore_requested_model: bool,
    /// Whether streams are asked for their usage where the client does not ask.
    pub include_usage: bool,
    /// The fields of the access log that are published.
    pub publish: LogFields,
    /// What keeps a user on one target of a model; `None`: nothing.
    pub sticky_by: Option<StickyBy>,
    /// Where the name of a session may be, in order; none: sessions are not followed.
    pub session_by: Vec<Source>,
    /// What the tokens of sessions are sealed with.
    pub session_token_key: Option<TokenKey>,
    /// How much is remembered of sessions.
    pub sessions: Retention,
    /// How much is remembered of where something is stored.
    pub stored: Retention,
    /// The gateway's queue; `None`: nothing waits in the gateway.
    pub queue: Option<Queue>,
    /// What requests may name to say how much they matter.
    pub objectives: Vec<Objective>,
    /// Whether the headers are trusted by which clients name their objective and their tenant.
    pub trust_headers: bool,
    /// How tenants share the queue; `None`: they are not distinguished.
    pub fairness: Option<Fairness>,
    /// The other gateways in front of the same pools; `None`: they are not known.
    pub peers: Option<Peers>,
}

/// The gateways that exchange what they have in flight. This one may be among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peers {
    /// The Envoy cluster of their exchange listeners. Routes to it are answered by this gateway itself.
    pub cluster: String,
    /// Milliseconds between two questions to one gateway.
    pub interval_ms: u64,
}

/// How much requests matter that name it: an InferenceObjective.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objective {
    /// The name that requests give.
    pub name: String,
    /// The place of its pool; `None`: it is every pool's.
    pub pool: Option<usize>,
    /// Higher is more important.
    pub priority: i32,
}

/// How tenants share the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fairness {
    /// What distinguishes one tenant from another.
    pub by: TenantBy,
    /// The tenants that are counted by name.
    pub tenants: Vec<String>,
}

/// What distinguishes one tenant from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TenantBy {
    /// The header of the Gateway API's inference gateways, where headers are trusted.
    FairnessId,
    /// The value of this header, in lower case.
    Header(String),
    /// The field `user` of the body.
    User,
}

/// What distinguishes one user from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StickyBy {
    /// The value of this header, in lower case.
    Header(String),
    /// The field `user` of the body.
    User,
}

/// The queue in which requests wait while their pool is saturated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// The longest wait, in milliseconds.
    pub max_wait_ms: u64,
    /// Requests that may wait in one worker.
    pub max_requests: usize,
    /// Bytes that the bodies of those may have together.
    pub max_bytes: usize,
    /// How long requests wait for a pool that has no endpoint, in milliseconds; `None`: they are refused at once.
    pub while_empty_ms: Option<u64>,
    /// How long a request waits for its own pool before a fallback serves it, in milliseconds; `None`: not at all.
    pub fallback_after_ms: Option<u64>,
}

/// From when on an endpoint is saturated; a pool is when all its endpoints are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Saturation {
    /// Queued requests.
    pub queue_depth: u32,
    /// Share of the KV cache in use, above 0 and at most 1.
    pub kv_cache_utilization: f32,
}

/// Identical model servers behind one Envoy cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// The name that models refer to.
    pub name: String,
    /// The Envoy cluster; routes to it are the pool's.
    pub cluster: String,
    /// The endpoints; `None`: discovered from Envoy's admin.
    pub endpoints: Option<Vec<SocketAddr>>,
    /// How an endpoint is picked.
    pub routing_strategy: RoutingStrategy,
    /// Whose metrics the endpoints print.
    pub model_server: ModelServer,
    /// Where their metrics are, and how they are asked for.
    pub metrics: Metrics,
    /// Whether requests ask their endpoint to report its load with the answer.
    pub answers_tell_load: bool,
    /// Who gives a request to one of the engines that an endpoint has.
    pub data_parallel: DataParallel,
    /// From when on its endpoints are saturated.
    pub saturation: Saturation,
    /// Prefix blocks that are remembered for all of its endpoints together.
    pub prefix_blocks_max: usize,
    /// Where models go for which the pool has no entry of its own, by weight; empty: under the name asked for.
    pub default_targets: Vec<Target>,
    /// How far sessions are followed.
    pub session_affinity: SessionAffinity,
    /// Whether it is an outside provider: Envoy balances it, and nobody asks it for metrics.
    pub is_external: bool,
    /// The places of the pools that serve what it has no room for, in the order in which they are asked.
    pub fallback: Vec<usize>,
    /// Who computes long prompts; `None`: each endpoint its own.
    pub prefill: Option<Prefill>,
}

impl Pool {
    /// Whether its endpoints are picked by the time that a request takes there.
    fn goes_by_time(&self) -> bool {
        let strategy = self.routing_strategy;
        matches!(strategy, RoutingStrategy::Default | RoutingStrategy::PrefixCache) && !self.is_external
    }
}

/// Whether endpoints of the pool at this place are picked by what requests are promised: all go by time that have a part in the answer.
pub fn keeps_promises(pools: &[Pool], place: usize) -> bool {
    pools.get(place).is_some_and(|pool| {
        let prefill = pool.prefill.map(|prefill| pools.get(prefill.pool));
        pool.goes_by_time() && prefill.is_none_or(|prefill| prefill.is_some_and(Pool::goes_by_time))
    })
}

/// Whether the pool at this place computes the prompts of another one of these.
fn is_for_prefill(pools: &[Pool], place: usize) -> bool {
    pools.iter().any(|pool| pool.prefill.is_some_and(|prefill| prefill.pool == place))
}

/// Which endpoints compute the prompts of a pool whose own endpoints generate the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefill {
    /// The place of their pool, which has no requests of its own.
    pub pool: usize,
    /// Tokens of a prompt that are not cached where its answer is generated, from which on it is computed there.
    pub min_uncached_tokens: u32,
    /// What is done when none of them may be picked.
    pub when_gone: WhenGone,
}

/// Who gives a request to one of the engines that share an endpoint's requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DataParallel {
    /// The endpoint's server.
    #[default]
    Server,
    /// The gateway, which names the engine by its rank.
    Ranks,
}

/// What is done with a long prompt when nobody is there who computes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WhenGone {
    /// The endpoint that generates the answer computes it.
    #[default]
    Together,
    /// It is refused.
    Refuse,
}

/// How far a session's requests go where its last one went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SessionAffinity {
    /// As far as that costs less: what it has cached there is no work.
    Cost,
    /// As long as that endpoint may be picked.
    Strict,
    /// The same, by a token that the client holds.
    Token,
}

/// Where the metrics of a pool's endpoints are, and how they are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// The ORIGINAL_DST cluster through which they are reached: the pool's own or `scrapeCluster`; `None`: they are not read.
    pub cluster: Option<String>,
    /// The port that has them; `None`: each endpoint's own.
    pub port: Option<u16>,
    /// The path of the page.
    pub path: String,
    /// What is added to each scrape's headers, by names in lower case.
    pub headers: Vec<(String, String)>,
    /// Milliseconds between two scrapes of one endpoint.
    pub interval_ms: u64,
}

impl Metrics {
    /// Where the endpoint at this address has its page.
    pub fn address_of(&self, endpoint: SocketAddr) -> SocketAddr {
        SocketAddr::new(endpoint.ip(), self.port.unwrap_or(endpoint.port()))
    }
}

/// A published model: the spec of an InferenceModel.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The name clients ask for.
    pub name: String,
    /// How much its traffic matters.
    pub criticality: Criticality,
    /// The place of the pool that serves it.
    pub pool: usize,
    /// Where it goes, by weight; empty: to the model of the same name.
    pub targets: Vec<Target>,
    /// What its requests are promised.
    pub promise: Promise,
}

/// One version or adapter behind a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The name the model server knows.
    pub name: String,
    /// Its share, relative to the sum of the model's weights.
    pub weight: u32,
}

/// Why a configuration was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The field, as in `pools[0].endpoints[2]`.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.path, self.problem)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads and validates a configuration document.
    ///
    /// # Errors
    /// The path of the first field that is not right, and what is wrong with it.
    pub fn parse(document: &[u8]) -> Result<Config, ConfigError> {
        validate::config(raw::parse(document)?)
    }

    /// Whether the metrics of any pool are read.
    pub fn reads_metrics(&self) -> bool {
        self.pools.iter().any(|pool| pool.metrics.cluster.is_some())
    }

    /// Whether requests wait for a pool that has no endpoint yet.
    pub fn waits_for_first_endpoint(&self) -> bool {
        self.queue.is_some_and(|queue| queue.while_empty_ms.is_some())
    }

    /// The position of the pool behind an Envoy cluster.
    pub fn pool_of_cluster(&self, cluster: &[u8]) -> Option<usize> {
        self.pools.iter().position(|pool| pool.cluster.as_bytes() == cluster)
    }

    /// Whether the pool at this place computes the prompts of others.
    pub fn is_for_prefill(&self, place: usize) -> bool {
        is_for_prefill(&self.pools, place)
    }

    /// The priority of a request for the pool at `pool` that names this objective.
    pub fn priority_of(&self, objective: &str, pool: usize) -> i32 {
        let mut of_name = self.objectives.iter().filter(|known| known.name == objective);
        let found = of_name.find(|known| known.pool.is_none_or(|of| of == pool));
        found.map_or(STANDARD_PRIORITY, |known| known.priority)
    }

    /// What a request for this model is promised that the pool at `pool` serves.
    pub fn promise_of(&self, model: &str, pool: usize) -> Promise {
        let found = self.models_named(model).find(|model| model.pool == pool);
        found.map_or(Promise::default(), |model| model.promise)
    }

    /// Whether requests may be sent under another model's name.
    pub fn rewrites_models(&self) -> bool {
        self.models.iter().any(|model| !model.targets.is_empty())
            || self.pools.iter().any(|pool| !pool.default_targets.is_empty())
    }

    /// Whether clients can ask for a model of this name by configuration, which then says its pool.
    pub fn publishes(&self, name: &str) -> bool {
        self.models_named(name).next().is_some()
    }

    /// The models that clients ask for by this name, one a pool.
    pub fn models_named(&self, name: &str) -> impl Iterator<Item = &Model> {
        self.models.iter().filter(move |model| model.name == name)
    }

    /// The names that are published, each once, in their order.
    pub fn model_names(&self) -> impl Iterator<Item = &str> {
        let mut seen = HashSet::new();
        self.models.iter().map(|model| model.name.as_str()).filter(move |name| seen.insert(*name))
    }

    /// The position of the model of this name that a request gets whose route leads to the pool at `route_pool`: that
    /// pool's own, and otherwise the first one, unless that pool has a default for what it does not name.
    pub fn place_of_model(&self, name: &str, route_pool: usize) -> Option<usize> {
        let mut of_name = self.models.iter().enumerate().filter(|(_, model)| model.name == name).peekable();
        let (first, _) = *of_name.peek()?;
        let own = of_name.find(|(_, model)| model.pool == route_pool);
        let has_default = self.pools.get(route_pool).is_some_and(|pool| !pool.default_targets.is_empty());
        own.map(|(place, _)| place).or((!has_default).then_some(first))
    }
}

#[cfg(test)]
mod tests;
