//! What a test can change while a server runs: its speed, and every way in which it misbehaves.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The knobs of one server. The default is a server in good health.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Knobs {
    /// Divides the duration of every step; above zero.
    pub speed: f64,
    /// Takes requests and never answers them. `/metrics` has a mode of its own, `/sim/…` always answers.
    pub hang: bool,
    /// Closes the listener and every open connection, until it is set back.
    pub refuse: bool,
    /// Answers this status at once on every inference path.
    pub fail_status: Option<u16>,
    /// Answers 500 to requests that ask for output by a regular expression (`guided_regex`), and serves all others (reported,
    /// vllm-project/vllm issues 13260 and 19270: what fails in one server fails in the next).
    pub fail_guided: bool,
    /// Breaks the connection after this many events of a streamed answer. So does vLLM 0.32 where `/v1/responses`
    /// fails in the middle.
    pub die_mid_stream: Option<usize>,
    /// Answers with status 200 and reports a failure inside.
    pub fail_inside: Option<FailInside>,
    /// Milliseconds of silence in a stream after which a comment is sent, `: keep-alive` (`--sse-keep-alive` of
    /// vLLM 0.32) or an empty one (llama.cpp, by default after 30 s). Counted from the request on.
    pub keep_alive_ms: Option<u64>,
    /// Sends a chat's chunk with nothing but the role at once. vLLM before V1 does so when a first part of a long
    /// prompt is computed (reported, vllm-project/vllm issue 15106).
    /// llama.cpp does where a request has `return_progress`.
    pub early_role: bool,
    /// Reports the usage on every event to everybody (`--enable-force-include-usage` of vLLM 0.32).
    pub force_include_usage: bool,
    /// What it serves now, in place of the settings' names: another model after a rolling update.
    pub served_models: Option<Vec<String>>,
    /// The adapters it has now, in place of the settings' (vLLM 0.32 loads and unloads them at
    /// `/v1/load_lora_adapter` and `/v1/unload_lora_adapter`).
    pub lora_adapters: Option<Vec<String>>,
    pub metrics: MetricsMode,
    pub gauges: FixedGauges,
}

/// A failure that an answer reports after status 200.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailInside {
    /// Tokens sent before; with 0 it fails at once, before the prompt is computed. Answers that are not streamed
    /// report none.
    #[serde(default)]
    pub after_tokens: usize,
    pub how: InnerFailure,
}

/// What a failing answer says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InnerFailure {
    /// The API's own words for it, with this HTTP status as its code where the API has room for one: an error in a
    /// `data:` line before `[DONE]` (vLLM 0.32: chat and completions), `event: error` (vLLM 0.32: messages),
    /// `response.failed` (SGLang 0.5.23, read in its `serving_responses.py`), a JSON error (reported of llama.cpp, ggml-org/llama.cpp
    /// issue 14566, and of gateways; answers that are not streamed).
    Error { code: Option<u16> },
    /// A stream that ends well, without any further event. An answer that is not streamed is whole.
    End,
}

/// How deep a server sleeps, as `vllm:engine_sleep_state` reports (vLLM 0.32, `/sleep?level=1` and `2`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sleep {
    #[default]
    Awake,
    WeightsOffloaded,
    DiscardAll,
}

/// How `/metrics` answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricsMode {
    /// The page as it is.
    #[default]
    Live,
    /// Never.
    Hang,
    /// This status and no page.
    Status(u16),
    /// Status 200 and bytes that are no page.
    Garbage,
    /// Status 200 and the first half of the page, which ends within a line.
    Half,
    /// The page, followed by comment lines up to this many bytes.
    Huge(usize),
    /// The page with `NaN` as the value of every gauge that routing uses.
    Nan,
    /// The page without any `vllm:` series.
    Gone,
    /// The page as it was when this mode was set, for ever.
    Frozen,
}

/// Values that `/metrics` and the load header show in place of the engine's own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FixedGauges {
    pub waiting: Option<f64>,
    pub running: Option<f64>,
    pub kv_cache_usage: Option<f64>,
    pub running_adapters: Option<Vec<String>>,
    pub waiting_adapters: Option<Vec<String>>,
    pub max_lora: Option<u32>,
    /// Also what `vllm:engine_sleep_state` says. Its requests are answered all the same.
    pub sleep: Sleep,
    /// Milliseconds for which the gauges of the last busy moment stay when nothing runs or waits any more (SGLang,
    /// up to 30 s: reported, sgl-project/sglang issues 26495 and 31517).
    pub linger_ms: Option<u64>,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            speed: 1.0,
            hang: false,
            refuse: false,
            fail_status: None,
            fail_guided: false,
            die_mid_stream: None,
            fail_inside: None,
            keep_alive_ms: None,
            early_role: false,
            force_include_usage: false,
            served_models: None,
            lora_adapters: None,
            metrics: MetricsMode::default(),
            gauges: FixedGauges::default(),
        }
    }
}

impl Knobs {
    /// These knobs with the fields of a JSON object in place of their own; `null` sets a field back.
    pub fn patched(&self, patch: &[u8]) -> Result<Self, String> {
        let Value::Object(patch) = serde_json::from_slice(patch).map_err(|error| error.to_string())? else {
            return Err("expected a JSON object".to_owned());
        };
        let mut fields = serde_json::to_value(self).map_err(|error| error.to_string())?;
        for (name, value) in patch {
            fields[name] = value;
        }
        if let Value::Object(fields) = &mut fields {
            fields.retain(|_, value| !value.is_null());
        }
        let knobs: Self = serde_json::from_value(fields).map_err(|error| error.to_string())?;
        knobs.check().map(|()| knobs)
    }

    /// Names the first knob whose value makes no sense.
    pub fn check(&self) -> Result<(), String> {
        if !(self.speed.is_finite() && self.speed > 0.0) {
            return Err("speed must be above zero".to_owned());
        }
        check_status("fail_status", self.fail_status)?;
        if self.keep_alive_ms == Some(0) {
            return Err("keep_alive_ms must be above zero".to_owned());
        }
        match self.metrics {
            MetricsMode::Status(status) => check_status("metrics.status", Some(status)),
            _ => Ok(()),
        }
    }
}

fn check_status(name: &str, status: Option<u16>) -> Result<(), String> {
    match status {
        Some(status) if !(200..=599).contains(&status) => Err(format!("{name} must be 200 to 599")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_changes_only_the_fields_it_names() {
        let knobs = Knobs { hang: true, ..Knobs::default() };
        let patched = knobs.patched(br#"{"metrics":{"status":503},"speed":2}"#).unwrap();
        let expected =
            Knobs { speed: 2.0, hang: true, metrics: MetricsMode::Status(503), ..Knobs::default() };
        assert_eq!(patched, expected);
    }

    #[test]
    fn null_sets_a_knob_back() {
        let knobs = Knobs { fail_status: Some(500), ..Knobs::default() };
        assert_eq!(knobs.patched(br#"{"fail_status":null}"#), Ok(Knobs::default()));
    }

    #[test]
    fn nonsense_is_refused() {
        for patch in [r#"{"speed":0}"#, r#"{"unknown":1}"#, r#"[]"#, r#"{"fail_status":42}"#, "{"] {
            assert!(Knobs::default().patched(patch.as_bytes()).is_err(), "{patch}");
        }
    }
}
