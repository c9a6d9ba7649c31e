//! What the page says about the past: totals, histograms, and the adapters seen so far.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::histogram::Histogram;
use super::template::TEMPLATE;
use crate::model_server::engine::{Engine, Gauges, Output};

/// The past of one server.
#[derive(Debug)]
pub struct Statistics {
    pub created: f64,
    pub prompt_tokens: u64,
    pub generation_tokens: u64,
    pub finished_requests: u64,
    /// Tokens of requests that have finished: what SGLang counts.
    pub finished_tokens: FinishedTokens,
    pub aborted_requests: u64,
    /// Adapters that ran, as one label value, with the last time they did so. Nothing ever leaves.
    pub adapters_seen: BTreeMap<String, f64>,
    histograms: BTreeMap<&'static str, Histogram>,
    /// The gauges as they were when something ran or waited for the last time.
    pub last_busy: Option<(Gauges, Duration)>,
    steps_seen: u64,
}

/// Tokens of requests that have finished.
#[derive(Debug, Clone, Copy, Default)]
pub struct FinishedTokens {
    pub prompt: u64,
    pub cached: u64,
    pub generation: u64,
}

impl Default for Statistics {
    fn default() -> Self {
        let histograms = TEMPLATE.lines().filter_map(|line| line.strip_prefix("@histogram "));
        let histograms = histograms.map(Histogram::from_template);
        Self {
            created: unix_seconds(),
            prompt_tokens: 0,
            generation_tokens: 0,
            finished_requests: 0,
            finished_tokens: FinishedTokens::default(),
            aborted_requests: 0,
            adapters_seen: BTreeMap::new(),
            histograms: histograms.map(|histogram| (histogram.name(), histogram)).collect(),
            last_busy: None,
            steps_seen: 0,
        }
    }
}

impl Statistics {
    /// Whether any request got a token.
    pub fn had_traffic(&self) -> bool {
        self.generation_tokens > 0
    }

    pub fn histogram(&self, name: &str) -> Option<&Histogram> {
        self.histograms.get(name)
    }

    pub fn observe(&mut self, output: &Output) {
        self.generation_tokens += 1;
        match output.previous {
            None => self.observe_first(output),
            Some(previous) => {
                let gap = output.at.saturating_sub(previous);
                self.record("vllm:inter_token_latency_seconds", gap.as_secs_f64());
            }
        }
        if output.finished {
            self.observe_last(output);
        }
    }

    pub fn note_abort(&mut self) {
        self.aborted_requests += 1;
    }

    /// Records the gauges of the step that ended `at`, unless they say that nothing is left.
    pub fn note_gauges(&mut self, gauges: &Gauges, at: Duration) {
        if gauges.running + gauges.waiting > 0 {
            self.last_busy = Some((gauges.clone(), at));
        }
    }

    /// Records the adapters of the step that ended `at`. An idle engine reports nothing new.
    pub fn note_adapters(&mut self, engine: &Engine, at: Duration) {
        if engine.settings().lora_slots > 0 && engine.finished_steps() > self.steps_seen {
            self.steps_seen = engine.finished_steps();
            let names: Vec<&str> = engine.gauges().active_adapters.iter().map(String::as_str).collect();
            self.adapters_seen.insert(names.join(","), self.created + at.as_secs_f64());
        }
    }

    fn observe_first(&mut self, output: &Output) {
        self.prompt_tokens += output.prompt_tokens as u64;
        let waited = output.at.saturating_sub(output.arrived);
        self.record("vllm:time_to_first_token_seconds", waited.as_secs_f64());
    }

    fn observe_last(&mut self, output: &Output) {
        self.finished_requests += 1;
        self.finished_tokens.prompt += output.prompt_tokens as u64;
        self.finished_tokens.cached += output.cached_tokens as u64;
        self.finished_tokens.generation += output.output_tokens as u64;
        let tokens = output.output_tokens as f64;
        let computed = output.prompt_tokens - output.cached_tokens;
        let decoding = output.at.saturating_sub(output.first).as_secs_f64();
        let prefill = output.first.saturating_sub(output.scheduled).as_secs_f64();
        let queued = output.scheduled.saturating_sub(output.arrived).as_secs_f64();
        let values = [
            ("vllm:request_prompt_tokens", output.prompt_tokens as f64),
            ("vllm:request_generation_tokens", tokens),
            ("vllm:request_max_num_generation_tokens", tokens),
            ("vllm:request_params_max_tokens", tokens),
            ("vllm:request_params_n", 1.0),
            ("vllm:request_prefill_kv_computed_tokens", computed as f64),
            ("vllm:request_queue_time_seconds", queued),
            ("vllm:request_prefill_time_seconds", prefill),
            ("vllm:request_decode_time_seconds", decoding),
            ("vllm:request_inference_time_seconds", prefill + decoding),
            ("vllm:e2e_request_latency_seconds", queued + prefill + decoding),
            ("vllm:request_time_per_output_token_seconds", decoding / (tokens - 1.0).max(1.0)),
        ];
        for (name, value) in values {
            self.record(name, value);
        }
    }

    fn record(&mut self, name: &str, value: f64) {
        if let Some(histogram) = self.histograms.get_mut(name) {
            histogram.observe(value);
        }
    }
}

/// Seconds since 1970, the value that vLLM gives to series which are only a date.
pub fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
