//! What happened between two pages: a row a pod, a row a model, and the whole.

use std::time::Duration;

use super::{Histogram, Page};

/// Every endpoint that the plugin scrapes has this gauge.
const METRICS_AGE: &str = "inference_picker_endpoint_metrics_age_ms";
const PICKS: &str = "inference_picker_picks";
const REQUESTS: &str = "inference_picker_requests";
const REFUSALS: &str = "inference_picker_refusals";
const PROMPT_TOKENS: &str = "asm_llm_proxy_prompt_tokens";
const COMPLETION_TOKENS: &str = "asm_llm_proxy_completion_tokens";
const CACHED_TOKENS: &str = "inference_picker_cached_tokens";
const FIRST_TOKEN: &str = "inference_picker_time_to_first_token_ms";
const FIRST_TOKEN_SUM: &str = "inference_picker_time_to_first_token_sum_ms";
const PER_TOKEN: &str = "inference_picker_time_per_output_token_us";
const PER_TOKEN_SUM: &str = "inference_picker_time_per_output_token_sum_us";

#[derive(Debug, Clone, PartialEq)]
pub struct Overview {
    pub pods: Vec<Pod>,
    pub models: Vec<Model>,
    pub totals: Totals,
}

/// An endpoint, as the picker believes it is; a number that no page has is none.
#[derive(Debug, Clone, PartialEq)]
pub struct Pod {
    pub pool: String,
    pub endpoint: String,
    pub running: Option<f64>,
    pub waiting: Option<f64>,
    pub kv_cache_share: Option<f64>,
    pub in_flight_requests: Option<f64>,
    pub in_flight_tokens: Option<f64>,
    pub picks_per_s: f64,
    /// Its share of the pool's picks.
    pub picks_share: Option<f64>,
    pub metrics_age_ms: Option<f64>,
}

/// What clients asked of a model. Tokens are as the model servers counted them.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    pub name: String,
    pub requests_per_s: f64,
    pub prompt_tokens_per_s: f64,
    pub completion_tokens_per_s: f64,
    /// Share of the prompt tokens that the model servers had cached.
    pub hit_share: Option<f64>,
    pub first_token_mean_ms: Option<f64>,
    pub first_token_p50_ms: Option<f64>,
    pub first_token_p90_ms: Option<f64>,
    pub per_token_mean_ms: Option<f64>,
}

/// All pods and models together.
#[derive(Debug, Clone, PartialEq)]
pub struct Totals {
    pub requests: f64,
    pub refusals: f64,
    pub queued_requests: f64,
    pub prompt_tokens: f64,
    pub cached_tokens: f64,
    pub completion_tokens: f64,
    pub first_token: Histogram,
}

impl Overview {
    /// What happened from one page to a later one of the same Envoy.
    pub fn between(earlier: &Page, later: &Page, elapsed: Duration) -> Overview {
        let change = Change { earlier, later, seconds: elapsed.as_secs_f64() };
        Overview { pods: change.pods(), models: change.models(), totals: change.totals() }
    }
}

impl Totals {
    /// Share of the prompt tokens that the model servers had cached.
    pub fn hit_share(&self) -> Option<f64> {
        ratio(self.cached_tokens, self.prompt_tokens)
    }
}

struct Change<'a> {
    earlier: &'a Page,
    later: &'a Page,
    seconds: f64,
}

impl Change<'_> {
    fn pods(&self) -> Vec<Pod> {
        let mut pods = Vec::new();
        for pool in self.pools() {
            let mut endpoints = self.later.values(METRICS_AGE, "endpoint", &[("pool", pool)]);
            endpoints.append(&mut self.later.values(PICKS, "endpoint", &[("pool", pool)]));
            pods.extend(endpoints.into_iter().map(|endpoint| self.pod(pool, endpoint)));
        }
        pods
    }

    fn pools(&self) -> impl Iterator<Item = &str> {
        let mut pools = self.later.values(METRICS_AGE, "pool", &[]);
        pools.append(&mut self.later.values(PICKS, "pool", &[]));
        pools.into_iter()
    }

    fn pod(&self, pool: &str, endpoint: &str) -> Pod {
        let labels = [("pool", pool), ("endpoint", endpoint)];
        let gauge = |name: &str| self.later.sum(&format!("inference_picker_endpoint_{name}"), &labels);
        let picks = self.increase(PICKS, &labels);
        Pod {
            pool: pool.to_owned(),
            endpoint: endpoint.to_owned(),
            running: gauge("running"),
            waiting: gauge("waiting"),
            kv_cache_share: gauge("kv_cache_permille").map(|permille| permille / 1000.0),
            in_flight_requests: gauge("in_flight_requests"),
            in_flight_tokens: gauge("in_flight_tokens"),
            picks_per_s: picks / self.seconds,
            picks_share: ratio(picks, self.increase(PICKS, &labels[..1])),
            metrics_age_ms: gauge("metrics_age_ms"),
        }
    }

    fn models(&self) -> Vec<Model> {
        let mut names = self.later.values(REQUESTS, "model", &[]);
        names.append(&mut self.later.values(PROMPT_TOKENS, "llmproxy_model", &[]));
        names.into_iter().map(|name| self.model(name)).collect()
    }

    fn model(&self, name: &str) -> Model {
        let prompt_tokens = self.increase(PROMPT_TOKENS, &[("llmproxy_model", name)]);
        let labels = [("model", name)];
        let first_token = self.histogram(FIRST_TOKEN, &labels);
        let per_token = self.histogram(PER_TOKEN, &labels);
        let per_token_us = self.increase(PER_TOKEN_SUM, &labels);
        Model {
            name: name.to_owned(),
            requests_per_s: self.increase(REQUESTS, &labels) / self.seconds,
            prompt_tokens_per_s: prompt_tokens / self.seconds,
            completion_tokens_per_s: self.increase(COMPLETION_TOKENS, &[("llmproxy_model", name)])
                / self.seconds,
            hit_share: ratio(self.increase(CACHED_TOKENS, &labels), prompt_tokens),
            first_token_mean_ms: ratio(self.increase(FIRST_TOKEN_SUM, &labels), first_token.count()),
            first_token_p50_ms: first_token.quantile(0.5),
            first_token_p90_ms: first_token.quantile(0.9),
            per_token_mean_ms: ratio(per_token_us / 1000.0, per_token.count()),
        }
    }

    fn totals(&self) -> Totals {
        Totals {
            requests: self.increase(REQUESTS, &[]),
            refusals: self.increase(REFUSALS, &[]),
            queued_requests: self.later.sum("inference_picker_queue_requests", &[]).unwrap_or_default(),
            prompt_tokens: self.increase(PROMPT_TOKENS, &[]),
            cached_tokens: self.increase(CACHED_TOKENS, &[]),
            completion_tokens: self.increase(COMPLETION_TOKENS, &[]),
            first_token: self.histogram(FIRST_TOKEN, &[]),
        }
    }

    /// By how much a counter grew. One that was not there before began at zero; one that fell was started anew.
    fn increase(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let later = self.later.sum(name, labels).unwrap_or_default();
        let earlier = self.earlier.sum(name, labels).unwrap_or_default();
        if later < earlier { later } else { later - earlier }
    }

    fn histogram(&self, name: &str, labels: &[(&str, &str)]) -> Histogram {
        self.later.histogram(name, labels).since(&self.earlier.histogram(name, labels))
    }
}

fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}
