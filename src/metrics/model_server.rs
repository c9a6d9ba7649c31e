//! The table of metric names: one row per kind of model server.
//!
//! To teach the plugin another server, add a row. A row must select waiting and running requests; the rest is
//! for servers that have it.

use serde::{Deserialize, Serialize};

use super::exposition::Labels;

/// A kind of model server, as it is written in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelServer {
    /// vLLM.
    #[default]
    Vllm,
    /// SGLang, which has metrics only with `--enable-metrics`.
    Sglang,
    /// TensorRT-LLM's own `trtllm-serve`.
    TensorrtLlm,
    /// Triton with the TensorRT-LLM backend.
    Triton,
    /// llama.cpp's server, which has metrics only with `--metrics`.
    #[serde(rename = "llama.cpp")]
    LlamaCpp,
    /// Text Generation Inference.
    Tgi,
    /// LMDeploy.
    Lmdeploy,
}

/// What a series means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Requests queued.
    Waiting,
    /// Requests in the running batch.
    Running,
    /// Share of the KV cache in use.
    KvCacheUtilization,
    /// Tokens looked up in the prefix cache.
    PrefixCacheQueries,
    /// Tokens found in the prefix cache.
    PrefixCacheHits,
    /// The adapters are in the labels, the value is the time.
    Lora,
    /// Adapters that fit in one batch.
    LoraSlots,
    /// Those of them that have running requests.
    LoraSlotsInUse,
    /// The sizes of the KV cache are in the labels.
    CacheConfig,
    /// Tokens that the KV cache has room for.
    CacheTokens,
    /// Blocks of the KV cache.
    CacheBlocks,
    /// Tokens in one block of it.
    CacheBlockTokens,
    /// Tokens that a prompt and its answer may have.
    ContextTokens,
    /// A number that changes while the server works.
    Activity,
    /// 1 for an engine that takes requests, 0 for one that sleeps.
    Awake,
}

/// Selects the samples of one metric.
pub(super) struct Series {
    pub metric: Metric,
    pub name: &'static str,
    /// The value one label must have; a label that is left out counts as empty, as it does in Prometheus.
    label: Option<(&'static str, &'static str)>,
}

impl Series {
    pub fn selects(&self, labels: Labels<'_>) -> bool {
        self.label.is_none_or(|(name, value)| labels.get(name).unwrap_or_default() == value.as_bytes())
    }
}

const fn named(metric: Metric, name: &'static str) -> Series {
    Series { metric, name, label: None }
}

const fn labelled(metric: Metric, name: &'static str, label: &'static str, value: &'static str) -> Series {
    Series { metric, name, label: Some((label, value)) }
}

use Metric::{
    Activity, Awake, CacheBlockTokens, CacheBlocks, CacheConfig, CacheTokens, ContextTokens,
    KvCacheUtilization, Lora, LoraSlots, LoraSlotsInUse, PrefixCacheHits, PrefixCacheQueries, Running,
    Waiting,
};

const VLLM: &[Series] = &[
    named(Waiting, "vllm:num_requests_waiting"),
    named(Running, "vllm:num_requests_running"),
    named(KvCacheUtilization, "vllm:kv_cache_usage_perc"),
    // The older name. Versions that print both print one number twice, which leaves the mean as it is.
    named(KvCacheUtilization, "vllm:gpu_cache_usage_perc"),
    named(PrefixCacheQueries, "vllm:prefix_cache_queries_total"),
    named(PrefixCacheHits, "vllm:prefix_cache_hits_total"),
    named(Lora, "vllm:lora_requests_info"),
    named(CacheConfig, "vllm:cache_config_info"),
    named(Activity, "vllm:prompt_tokens_total"),
    named(Activity, "vllm:generation_tokens_total"),
    labelled(Awake, "vllm:engine_sleep_state", "sleep_state", "awake"),
];

const SGLANG: &[Series] = &[
    // With priority scheduling the total has an empty priority, and stands beside one series per priority.
    labelled(Waiting, "sglang:num_queue_reqs", "priority", ""),
    labelled(Running, "sglang:num_running_reqs", "priority", ""),
    // Without the cached tokens that can be dropped (`kv_evictable_tokens`).
    named(KvCacheUtilization, "sglang:token_usage"),
    named(CacheTokens, "sglang:max_total_num_tokens"),
    named(CacheBlockTokens, "sglang:page_size"),
    named(ContextTokens, "sglang:context_len"),
    // Both counted when a request ends, by the one process that tokenizes.
    named(PrefixCacheQueries, "sglang:prompt_tokens_total"),
    named(PrefixCacheHits, "sglang:cached_tokens_total"),
    named(LoraSlots, "sglang:lora_pool_slots_total"),
    // The slots whose adapters run, whatever its name says; those that are merely occupied are not reported.
    named(LoraSlotsInUse, "sglang:lora_pool_slots_used"),
    named(Activity, "sglang:generation_tokens_total"),
    named(Activity, "sglang:num_used_tokens"),
    named(Activity, "sglang:gen_throughput"),
];

const TENSORRT_LLM: &[Series] = &[
    named(Waiting, "trtllm_num_requests_waiting"),
    named(Running, "trtllm_num_requests_running"),
    named(KvCacheUtilization, "trtllm_kv_cache_utilization"),
    named(CacheBlocks, "trtllm_kv_cache_max_blocks"),
    named(CacheBlockTokens, "trtllm_kv_cache_tokens_per_block"),
    named(PrefixCacheQueries, "trtllm_prompt_tokens_total"),
    named(PrefixCacheHits, "trtllm_prompt_cached_tokens_total"),
    named(Activity, "trtllm_generation_tokens_total"),
];

const TRITON: &[Series] = &[
    labelled(Waiting, "nv_trt_llm_request_metrics", "request_type", "waiting"),
    labelled(Running, "nv_trt_llm_request_metrics", "request_type", "scheduled"),
    labelled(KvCacheUtilization, "nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type", "fraction"),
    labelled(CacheBlocks, "nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type", "max"),
    labelled(CacheBlockTokens, "nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type", "tokens_per"),
];

const LLAMA_CPP: &[Series] = &[
    named(Waiting, "llamacpp:requests_deferred"),
    named(Running, "llamacpp:requests_processing"),
    // Of a prompt it counts here what it computed.
    named(PrefixCacheQueries, "llamacpp:prompt_tokens_total"),
    named(PrefixCacheQueries, "llamacpp:prompt_tokens_cached_total"),
    named(PrefixCacheHits, "llamacpp:prompt_tokens_cached_total"),
    named(Activity, "llamacpp:tokens_predicted_total"),
];

const TGI: &[Series] = &[named(Waiting, "tgi_queue_size"), named(Running, "tgi_batch_current_size")];

const LMDEPLOY: &[Series] = &[
    named(Waiting, "lmdeploy:num_requests_waiting"),
    // Those that the engine has not been given yet, for want of a free handle.
    named(Waiting, "lmdeploy:num_api_requests_waiting"),
    named(Running, "lmdeploy:num_requests_running"),
    named(KvCacheUtilization, "lmdeploy:gpu_cache_usage_perc"),
    named(PrefixCacheQueries, "lmdeploy:prompt_tokens_total"),
    named(PrefixCacheHits, "lmdeploy:cached_tokens_total"),
    named(Activity, "lmdeploy:generation_tokens_total"),
];

impl ModelServer {
    /// One of each.
    pub const ALL: [Self; 7] = [
        Self::Vllm,
        Self::Sglang,
        Self::TensorrtLlm,
        Self::Triton,
        Self::LlamaCpp,
        Self::Tgi,
        Self::Lmdeploy,
    ];

    /// Where the server has its metrics page.
    pub fn metrics_path(self) -> &'static str {
        match self {
            Self::TensorrtLlm => "/prometheus/metrics",
            _ => "/metrics",
        }
    }

    /// Whether its list of models reports how long its context is, and its page does not.
    pub fn lists_context(self) -> bool {
        matches!(self, Self::Vllm | Self::LlamaCpp)
    }

    /// Whether it prints its gauges only once it has served a request, so that none means zero.
    pub(super) fn is_silent_until_used(self) -> bool {
        self == Self::Tgi
    }

    /// Whether it prints its counters of tokens only once it has counted some, so that none means zero.
    pub(super) fn prints_no_zero_counters(self) -> bool {
        matches!(self, Self::Sglang | Self::TensorrtLlm)
    }

    /// The label that distinguishes its engines, which share the requests (data parallelism). Samples that are alike in it are
    /// of several ranks that work on the same requests, and each prints them again: SGLang's ranks (tensor, pipeline, context
    /// and expert parallel) do so with `--enable-metrics-for-all-schedulers`.
    pub(super) fn engine_label(self) -> Option<&'static str> {
        match self {
            Self::Vllm => Some("engine"),
            Self::Sglang => Some("dp_rank"),
            _ => None,
        }
    }

    /// Whether it gives the next request to its engine with the fewest: vLLM. SGLang goes round them (by default).
    pub(super) fn picks_engine_by_load(self) -> bool {
        self == Self::Vllm
    }

    /// Whether its gauges can stay what they were when its last request ended, for up to half a minute: SGLang writes
    /// them with its log of a batch, which an idle server does not have.
    pub fn leaves_gauges_behind(self) -> bool {
        self == Self::Sglang
    }

    /// Whether its counters run ahead of its gauges, which may be of ten seconds ago: LMDeploy writes those with its log.
    pub fn counts_ahead_of_gauges(self) -> bool {
        self == Self::Lmdeploy
    }

    pub(super) fn series(self) -> &'static [Series] {
        match self {
            Self::Vllm => VLLM,
            Self::Sglang => SGLANG,
            Self::TensorrtLlm => TENSORRT_LLM,
            Self::Triton => TRITON,
            Self::LlamaCpp => LLAMA_CPP,
            Self::Tgi => TGI,
            Self::Lmdeploy => LMDEPLOY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn every_server_has_its_name_in_the_configuration_and_its_path() {
        let check = |server: ModelServer, name: &str, path: &str| {
            assert_eq!(serde_json::to_value(server).unwrap(), name);
            assert_eq!(serde_json::from_value::<ModelServer>(name.into()).unwrap(), server);
            assert_eq!(server.metrics_path(), path);
        };
        check(ModelServer::default(), "vllm", "/metrics");
        check(ModelServer::Sglang, "sglang", "/metrics");
        check(ModelServer::TensorrtLlm, "tensorrt-llm", "/prometheus/metrics");
        check(ModelServer::Triton, "triton", "/metrics");
        check(ModelServer::LlamaCpp, "llama.cpp", "/metrics");
        check(ModelServer::Tgi, "tgi", "/metrics");
        check(ModelServer::Lmdeploy, "lmdeploy", "/metrics");
    }

    #[test]
    fn every_server_selects_waiting_and_running_requests() {
        for server in ModelServer::ALL {
            for needed in [Metric::Waiting, Metric::Running] {
                assert!(
                    server.series().iter().any(|series| series.metric == needed),
                    "{server:?} {needed:?}"
                );
            }
        }
    }
}
