//! How the endpoint picker is configured to pick. Its configuration is YAML, of which JSON is a part.

use std::path::Path;

use serde_json::{Value, json};

use crate::simulation::picker::PickerKind;
use crate::simulation::picker::guide_schedule::Figures;

/// A schedule for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// What its binary does if nothing is configured.
    DefaultWeights,
    /// What llm-d's guide recommends, with the figures that the guide leaves as they are.
    Guide,
    /// The same, configured with how fast the servers compute prompts.
    GuideTuned,
}

impl Schedule {
    pub const ALL: [Schedule; 3] = [Schedule::DefaultWeights, Schedule::Guide, Schedule::GuideTuned];

    /// The same as where it is simulated.
    pub fn name(self) -> &'static str {
        let simulated = match self {
            Schedule::DefaultWeights => PickerKind::DefaultWeights,
            Schedule::Guide => PickerKind::GuideSchedule,
            Schedule::GuideTuned => PickerKind::TunedGuideSchedule,
        };
        simulated.name()
    }

    /// Its whole configuration, for servers so many times faster than by default that are listed in this file.
    pub(super) fn configuration(self, endpoints: &Path, speed: f64) -> Value {
        let mut plugins = vec![json!({
            "name": "endpoints",
            "type": "file-discovery",
            "parameters": {"path": endpoints, "watchFile": true},
        })];
        plugins.extend(self.plugins(speed));
        json!({
            "apiVersion": "llm-d.ai/v1alpha1",
            "kind": "EndpointPickerConfig",
            "plugins": plugins,
            "schedulingProfiles": [{"name": "default", "plugins": self.profile()}],
            "dataLayer": {"discovery": {"pluginRef": "endpoints"}},
        })
    }

    fn plugins(self, speed: f64) -> Vec<Value> {
        let affinity = match self {
            Schedule::DefaultWeights => {
                return vec![
                    json!({"type": "queue-scorer"}),
                    json!({"type": "kv-cache-utilization-scorer"}),
                    json!({"type": "prefix-cache-scorer"}),
                ];
            }
            Schedule::Guide => json!({"type": "prefix-cache-affinity-filter"}),
            Schedule::GuideTuned => json!({
                "type": "prefix-cache-affinity-filter",
                "parameters": {
                    "peakPrefillThroughput": Figures::POOL.tokens_per_s * speed,
                    "maxTTFTPenaltyMs": Figures::POOL.penalty.as_secs_f64() * 1e3 / speed,
                },
            }),
        };
        vec![
            json!({"type": "approx-prefix-cache-producer"}),
            json!({"type": "inflight-load-producer"}),
            affinity,
            json!({"type": "token-load-scorer"}),
        ]
    }

    fn profile(self) -> Value {
        match self {
            Schedule::DefaultWeights => json!([
                {"pluginRef": "queue-scorer", "weight": 2},
                {"pluginRef": "kv-cache-utilization-scorer", "weight": 2},
                {"pluginRef": "prefix-cache-scorer", "weight": 3},
            ]),
            Schedule::Guide | Schedule::GuideTuned => json!([
                {"pluginRef": "prefix-cache-affinity-filter"},
                {"pluginRef": "token-load-scorer"},
            ]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_names_only_plugins_that_are_there() {
        for schedule in Schedule::ALL {
            let configuration = schedule.configuration(Path::new("endpoints.json"), 4.0);
            let plugins = configuration["plugins"].as_array().unwrap();
            let profile = configuration["schedulingProfiles"][0]["plugins"].as_array().unwrap();
            for reference in profile {
                let is_it = |plugin: &Value| plugin["type"] == reference["pluginRef"];
                assert!(plugins.iter().any(is_it), "{}: {reference}", schedule.name());
            }
        }
    }

    #[test]
    fn servers_that_are_faster_compute_as_many_tokens_in_the_time_that_a_warm_one_may_take_longer() {
        let tokens = |speed| {
            let affinity = Schedule::GuideTuned.plugins(speed).swap_remove(2);
            let figure = |name: &str| affinity["parameters"][name].as_f64().unwrap();
            figure("peakPrefillThroughput") * figure("maxTTFTPenaltyMs") / 1e3
        };
        assert_eq!(tokens(1.0), Figures::POOL.tokens_per_s);
        assert_eq!(tokens(4.0), Figures::POOL.tokens_per_s);
    }
}
