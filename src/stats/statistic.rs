//! The table of all statistics: what kind each is, and which labels it has.

/// How a statistic takes its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Added to, and never falls.
    Counter,
    /// Set; where several write it, to about the same.
    Gauge,
    /// Sorted into buckets.
    Histogram,
}

/// What is measured. Tokens are those that servers report, times are as the gateway sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Statistic {
    /// Prompt tokens.
    PromptTokens,
    /// Completion tokens.
    CompletionTokens,
    /// Prompt tokens that the servers had cached.
    CachedTokens,
    /// Requests sent to an endpoint.
    RequestsSent,
    /// Requests ended, by the class of their status.
    Requests,
    /// Requests answered by the gateway, by the code of the error.
    Refusals,
    /// Times that a limit was reached and something left out, by the limit's name.
    LimitsReached,
    /// Discoveries of a pool's endpoints that gave nothing.
    DiscoveryFailures,
    /// Requests sent to an endpoint as the best one.
    Picks,
    /// Those of them that another endpoint answered.
    Retries,
    /// Requests of a pool that another one serves, because it was full or gone.
    Fallbacks,
    /// Prompts that an endpoint of a prefill pool computes for one that generates the answer.
    Prefills,
    /// Prompts that it was worth to be computed so, while no endpoint of that pool was there.
    PrefillsGone,
    /// Requests sent where their session's last one went.
    SessionsKept,
    /// Requests of sessions that went elsewhere.
    SessionsMoved,
    /// Requests of sessions of which nothing was known.
    SessionsNew,
    /// Requests sent to the server that has stored what they name.
    StoredKept,
    /// Those that were not, as that server may not be picked or is not known.
    StoredLost,
    /// Conversations that were forgotten, by why.
    SessionsForgotten,
    /// Answers that failed though their status said otherwise, and were the endpoint's fault.
    AnswersFailed,
    /// Answers of endpoints that do not have the model.
    ModelsMissing,
    /// Answers that did not come to their end.
    AnswersCutShort,
    /// Answers that came to their end and did not report their usage.
    AnswersWithoutUsage,
    /// Answers that were compressed, and not read.
    AnswersEncoded,
    /// What the answers that were cut short or reported no usage had of output beyond what they reported, in events.
    EstimatedCompletionTokens,
    /// Scrapes that have ended.
    Scrapes,
    /// Those of them that gave nothing.
    ScrapeFailures,
    /// Prompt tokens sent where the strategy goes by prefixes.
    PrefixPromptTokens,
    /// What of them was taken to be cached where it was sent.
    PrefixMatchedTokens,
    /// Prompt tokens sent for a tenant, where the configuration names it.
    TenantPromptTokens,
    /// Streamed answers to requests that are promised something, which kept it.
    PromisesKept,
    /// Those that did not.
    PromisesMissed,
    /// From a request's headers to the first output of a streamed answer.
    TimeToFirstToken,
    /// How far off from that it was expected to be, if the request is promised something.
    TimeToFirstTokenError,
    /// From there to the end, for each further token of a streamed answer.
    TimePerOutputToken,
    /// From a request's headers to the end of its answer.
    RequestDuration,
    /// Prompt tokens of one request.
    RequestPromptTokens,
    /// Completion tokens of one request.
    RequestCompletionTokens,
    /// How long a request that had to wait did.
    QueueWait,
    /// From the start of a scrape to its answer.
    ScrapeDuration,
    /// The sum of [`Statistic::TimeToFirstToken`].
    TimeToFirstTokenSum,
    /// The sum of [`Statistic::TimeToFirstTokenError`].
    TimeToFirstTokenErrorSum,
    /// The sum of [`Statistic::TimePerOutputToken`].
    TimePerOutputTokenSum,
    /// The sum of [`Statistic::RequestDuration`].
    RequestDurationSum,
    /// The sum of [`Statistic::QueueWait`].
    QueueWaitSum,
    /// The sum of [`Statistic::ScrapeDuration`].
    ScrapeDurationSum,
    /// Requests queued at an endpoint, at its last scrape.
    EndpointWaiting,
    /// Requests running there.
    EndpointRunning,
    /// Its KV cache in use, in thousandths.
    EndpointKvCache,
    /// Requests of this gateway in flight there.
    EndpointInFlightRequests,
    /// Prompt tokens of those that have had no output.
    EndpointInFlightTokens,
    /// Time since its metrics were read.
    EndpointMetricsAge,
    /// Requests that wait in the gateway.
    QueueRequests,
    /// Blocks that one worker remembers of prompts.
    PrefixBlocks,
}

/// What a statistic is to those who read it.
#[derive(Debug, Clone, Copy)]
pub struct Definition {
    /// How it takes numbers.
    pub kind: Kind,
    /// Its name, with the unit last.
    pub name: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
}

const MODEL: &[&str] = &["model"];
const POOL: &[&str] = &["pool"];
const TARGET: &[&str] = &["model", "target_model"];
const ANSWERED: &[&str] = &["model", "target_model", "code"];
const TENANT: &[&str] = &["tenant"];
const REASON: &[&str] = &["reason"];
const ENDPOINT: &[&str] = &["pool", "endpoint"];
/// The label of the two statistics that keep the names they had in other gateways.
const LLMPROXY_MODEL: &[&str] = &["llmproxy_model"];

impl Statistic {
    /// Its line in the table.
    pub fn definition(self) -> Definition {
        use Kind::{Counter, Gauge, Histogram};
        let (kind, name, labels) = match self {
            Statistic::PromptTokens => (Counter, "asm_llm_proxy_prompt_tokens", LLMPROXY_MODEL),
            Statistic::CompletionTokens => (Counter, "asm_llm_proxy_completion_tokens", LLMPROXY_MODEL),
            Statistic::CachedTokens => (Counter, "inference_picker_cached_tokens", MODEL),
            Statistic::RequestsSent => (Counter, "inference_picker_requests_sent", TARGET),
            Statistic::Requests => (Counter, "inference_picker_requests", ANSWERED),
            Statistic::Refusals => (Counter, "inference_picker_refusals", REASON),
            Statistic::LimitsReached => (Counter, "inference_picker_limits_reached", REASON),
            Statistic::DiscoveryFailures => (Counter, "inference_picker_discovery_failures", POOL),
            Statistic::Picks => (Counter, "inference_picker_picks", ENDPOINT),
            Statistic::Retries => (Counter, "inference_picker_retries", ENDPOINT),
            Statistic::Fallbacks => (Counter, "inference_picker_fallbacks", POOL),
            Statistic::Prefills => (Counter, "inference_picker_prefills", ENDPOINT),
            Statistic::PrefillsGone => (Counter, "inference_picker_prefills_gone", POOL),
            Statistic::SessionsKept => (Counter, "inference_picker_sessions_kept", POOL),
            Statistic::SessionsMoved => (Counter, "inference_picker_sessions_moved", POOL),
            Statistic::SessionsNew => (Counter, "inference_picker_sessions_new", POOL),
            Statistic::StoredKept => (Counter, "inference_picker_stored_kept", POOL),
            Statistic::StoredLost => (Counter, "inference_picker_stored_lost", POOL),
            Statistic::SessionsForgotten => (Counter, "inference_picker_sessions_forgotten", REASON),
            Statistic::AnswersFailed => (Counter, "inference_picker_answers_failed", ENDPOINT),
            Statistic::ModelsMissing => (Counter, "inference_picker_models_missing", ENDPOINT),
            Statistic::AnswersCutShort => (Counter, "inference_picker_answers_cut_short", MODEL),
            Statistic::AnswersWithoutUsage => (Counter, "inference_picker_answers_without_usage", MODEL),
            Statistic::AnswersEncoded => (Counter, "inference_picker_answers_encoded", MODEL),
            Statistic::EstimatedCompletionTokens => {
                (Counter, "inference_picker_estimated_completion_tokens", MODEL)
            }
            Statistic::Scrapes => (Counter, "inference_picker_scrapes", POOL),
            Statistic::ScrapeFailures => (Counter, "inference_picker_scrape_failures", POOL),
            Statistic::PrefixPromptTokens => (Counter, "inference_picker_prefix_prompt_tokens", POOL),
            Statistic::PrefixMatchedTokens => (Counter, "inference_picker_prefix_matched_tokens", POOL),
            Statistic::TenantPromptTokens => (Counter, "inference_picker_tenant_prompt_tokens", TENANT),
            Statistic::PromisesKept => (Counter, "inference_picker_promises_kept", MODEL),
            Statistic::PromisesMissed => (Counter, "inference_picker_promises_missed", MODEL),
            Statistic::TimeToFirstToken => (Histogram, "inference_picker_time_to_first_token_ms", MODEL),
            Statistic::TimeToFirstTokenError => {
                (Histogram, "inference_picker_time_to_first_token_error_ms", MODEL)
            }
            Statistic::TimePerOutputToken => (Histogram, "inference_picker_time_per_output_token_us", MODEL),
            Statistic::RequestDuration => (Histogram, "inference_picker_request_duration_ms", MODEL),
            Statistic::RequestPromptTokens => (Histogram, "inference_picker_request_prompt_tokens", MODEL),
            Statistic::RequestCompletionTokens => {
                (Histogram, "inference_picker_request_completion_tokens", MODEL)
            }
            Statistic::QueueWait => (Histogram, "inference_picker_queue_wait_ms", POOL),
            Statistic::ScrapeDuration => (Histogram, "inference_picker_scrape_duration_ms", POOL),
            Statistic::TimeToFirstTokenSum => (Counter, "inference_picker_time_to_first_token_sum_ms", MODEL),
            Statistic::TimeToFirstTokenErrorSum => {
                (Counter, "inference_picker_time_to_first_token_error_sum_ms", MODEL)
            }
            Statistic::TimePerOutputTokenSum => {
                (Counter, "inference_picker_time_per_output_token_sum_us", MODEL)
            }
            Statistic::RequestDurationSum => (Counter, "inference_picker_request_duration_sum_ms", MODEL),
            Statistic::QueueWaitSum => (Counter, "inference_picker_queue_wait_sum_ms", POOL),
            Statistic::ScrapeDurationSum => (Counter, "inference_picker_scrape_duration_sum_ms", POOL),
            Statistic::EndpointWaiting => (Gauge, "inference_picker_endpoint_waiting", ENDPOINT),
            Statistic::EndpointRunning => (Gauge, "inference_picker_endpoint_running", ENDPOINT),
            Statistic::EndpointKvCache => (Gauge, "inference_picker_endpoint_kv_cache_permille", ENDPOINT),
            Statistic::EndpointInFlightRequests => {
                (Gauge, "inference_picker_endpoint_in_flight_requests", ENDPOINT)
            }
            Statistic::EndpointInFlightTokens => {
                (Gauge, "inference_picker_endpoint_in_flight_tokens", ENDPOINT)
            }
            Statistic::EndpointMetricsAge => (Gauge, "inference_picker_endpoint_metrics_age_ms", ENDPOINT),
            Statistic::QueueRequests => (Gauge, "inference_picker_queue_requests", POOL),
            Statistic::PrefixBlocks => (Gauge, "inference_picker_prefix_blocks", POOL),
        };
        Definition { kind, name, labels }
    }

    /// The counter of all that goes into a histogram, to the unit: the one beside it, or the one that counts the same
    /// tokens anyway. What Envoy prints as a histogram's `_sum` is made up of the middles of its bins, and up to 5 % off.
    pub fn sum(self) -> Option<Statistic> {
        match self {
            Statistic::TimeToFirstToken => Some(Statistic::TimeToFirstTokenSum),
            Statistic::TimeToFirstTokenError => Some(Statistic::TimeToFirstTokenErrorSum),
            Statistic::TimePerOutputToken => Some(Statistic::TimePerOutputTokenSum),
            Statistic::RequestDuration => Some(Statistic::RequestDurationSum),
            Statistic::RequestPromptTokens => Some(Statistic::PromptTokens),
            Statistic::RequestCompletionTokens => Some(Statistic::CompletionTokens),
            Statistic::QueueWait => Some(Statistic::QueueWaitSum),
            Statistic::ScrapeDuration => Some(Statistic::ScrapeDurationSum),
            _ => None,
        }
    }
}
