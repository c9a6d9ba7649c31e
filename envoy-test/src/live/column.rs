//! Who picks, and the Envoy that is set up for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use serde_json::{Value, json};

use super::chooser::{Chooser, DefaultWeightsChooser, GuideScheduleChooser, Oracle};
use super::pods::PodsWatch;
use crate::envoy::binary::plugin_file;
use crate::envoy::{Configuration, Envoy, EnvoySettings};
use crate::model_server::ModelServers;
use crate::simulation::picker::PickerKind;

const CLUSTER: &str = "vllm-llama2-7b";
const ACCESS_LOG: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/access_log";
/// Worker threads, so that what one worker publishes to the other counts.
pub const WORKERS: u32 = 2;
/// Between two looks at a pod's metrics, at a real server's pace: the plugin's default.
const SCRAPE_INTERVAL: Duration = Duration::from_millis(50);
/// The same of Envoy's own question whether a pod is there.
const HEALTH_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A rule by which pods are picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Column {
    /// Envoy's own round robin, without the plugin.
    RoundRobin,
    /// Envoy's own least request, without the plugin.
    LeastRequest,
    /// The reference endpoint picker of the Gateway API with the default weights of its binary.
    DefaultWeights,
    /// The same with the schedule that llm-d's guide recommends.
    GuideSchedule,
    /// The plugin with DEFAULT.
    Default,
    /// The plugin with PREFIX_CACHE.
    PrefixCache,
    /// Knows every server's true state, and takes the earliest first token.
    Oracle,
}

impl Column {
    pub const ALL: [Column; 7] = [
        Column::RoundRobin,
        Column::LeastRequest,
        Column::DefaultWeights,
        Column::GuideSchedule,
        Column::Default,
        Column::PrefixCache,
        Column::Oracle,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Column::RoundRobin => "Envoy ROUND_ROBIN",
            Column::LeastRequest => "Envoy LEAST_REQUEST",
            Column::DefaultWeights => PickerKind::DefaultWeights.name(),
            Column::GuideSchedule => PickerKind::GuideSchedule.name(),
            Column::Default => "DEFAULT",
            Column::PrefixCache => "PREFIX_CACHE",
            Column::Oracle => "oracle",
        }
    }

    /// Whether it goes by the pods' metrics, or at least by whether they can be read, and reads them here.
    pub fn watches_pods(self) -> bool {
        matches!(self, Column::DefaultWeights | Column::GuideSchedule)
    }

    /// Whether the plugin picks.
    pub fn is_plugin(self) -> bool {
        matches!(self, Column::Default | Column::PrefixCache)
    }

    /// Starts an Envoy in front of these pods, which asks them itself whether they are there if `checks_health`.
    ///
    /// # Errors
    /// Those of its configuration and its start.
    pub fn start_envoy(self, pods: &[SocketAddr], speed: f64, checks_health: bool) -> Result<Envoy> {
        let mut configuration = self.configuration(pods, speed)?;
        if checks_health {
            configuration.cluster(CLUSTER)["health_checks"] = json!([health_check(speed)]);
        }
        let settings =
            EnvoySettings { concurrency: WORKERS, log_level: "error", ..EnvoySettings::new(configuration) };
        Envoy::start(settings)
    }

    fn configuration(self, pods: &[SocketAddr], speed: f64) -> Result<Configuration> {
        let mut configuration = Configuration::shipped("stop-iteration")?;
        *configuration.at(ACCESS_LOG) = json!([]);
        configuration.set_plugin_file(&plugin_file());
        configuration.place_endpoints(pods);
        let scrape_interval = format!("{}ms", scrape_interval(speed).as_millis());
        configuration.edit_plugin(|plugin| {
            plugin["scrapeInterval"] = scrape_interval.clone().into();
            plugin["pools"][0]["routingStrategy"] = self.name().into();
        });
        if !self.is_plugin() {
            configuration.remove_plugin();
        }
        if let Some(policy) = self.own_policy() {
            configuration.cluster(CLUSTER)["load_balancing_policy"] = policy;
        }
        Ok(configuration)
    }

    /// Envoy's policy with its own defaults; nothing where Envoy follows a pick.
    fn own_policy(self) -> Option<Value> {
        let (name, message) = match self {
            Column::RoundRobin => ("round_robin", "RoundRobin"),
            Column::LeastRequest => ("least_request", "LeastRequest"),
            _ => return None,
        };
        const POLICIES: &str = "envoy.load_balancing_policies";
        let message =
            format!("type.googleapis.com/envoy.extensions.load_balancing_policies.{name}.v3.{message}");
        let extension = json!({"name": format!("{POLICIES}.{name}"), "typed_config": {"@type": message}});
        Some(json!({"policies": [{"typed_extension_config": extension}]}))
    }

    /// Who picks in the process that sends, if anybody does.
    pub fn chooser(
        self,
        servers: &ModelServers,
        watch: &Arc<PodsWatch>,
        seed: u64,
    ) -> Option<Box<dyn Chooser>> {
        match self {
            Column::DefaultWeights => Some(Box::new(DefaultWeightsChooser::new(Arc::clone(watch), seed))),
            Column::GuideSchedule => Some(Box::new(GuideScheduleChooser::new(Arc::clone(watch), seed))),
            Column::Oracle => Some(Box::new(Oracle::new(servers, seed))),
            _ => None,
        }
    }
}

/// As a pod's readiness is asked once a second. Without it, plain Envoy would send to pods that no list would have.
fn health_check(speed: f64) -> Value {
    let interval = format!("{}s", health_check_interval(speed).as_secs_f64());
    json!({
        "interval": interval,
        "no_traffic_interval": interval,
        "timeout": "5s",
        "unhealthy_threshold": 1,
        "healthy_threshold": 1,
        "http_health_check": {"path": "/health"},
    })
}

/// As often as everybody asks whether a pod is there, in the time of servers that are so many times faster.
pub fn health_check_interval(speed: f64) -> Duration {
    HEALTH_CHECK_INTERVAL.div_f64(speed)
}

/// As often as the plugin reads metrics by default, in the time of servers that are so many times faster.
pub fn scrape_interval(speed: f64) -> Duration {
    SCRAPE_INTERVAL.div_f64(speed)
}
