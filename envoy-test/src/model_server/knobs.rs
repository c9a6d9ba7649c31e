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
    /// Breaks the connection after this many events of a streamed answer.
    pub die_mid_stream: Option<usize>,
    pub metrics: MetricsMode,
    pub gauges: FixedGauges,
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
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            speed: 1.0,
            hang: false,
            refuse: false,
            fail_status: None,
            die_mid_stream: None,
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
