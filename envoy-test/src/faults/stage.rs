//! What a fault happens to: four pods, and an Envoy whose listener can be pushed.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::envoy::binary::{plugin_file, project_root};
use crate::envoy::little_memory::plugin_with_little_memory;
use crate::envoy::{Client, Configuration, Envoy, EnvoySettings, Protocol, PushedListener, free_address};
use crate::model_server::{ModelServers, ServerSettings};

const PODS: usize = 4;
/// How long to wait before looking again whether a push was taken, and how often.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
const PUSH_POLLS: usize = 2_000;

/// Four pods behind a running Envoy.
pub struct Stage {
    pub pods: ModelServers,
    pub listener: PushedListener,
    settings: EnvoySettings,
    envoy: Option<Envoy>,
    /// What the plugin is loaded from, where it is not the one that was built.
    _plugin: Option<TempDir>,
}

impl Stage {
    /// Starts it on the configuration in `filter-config/stop-iteration`, with a last edit; the plugin may be one of which
    /// a large body is the end.
    pub fn start(little_memory: bool, edit: impl FnOnce(&mut Configuration)) -> Result<Stage> {
        let pods = ModelServers::start(vec![ServerSettings::default(); PODS])?;
        let mut configuration =
            Configuration::load(&project_root().join("filter-config/stop-iteration/envoy.yaml"))?;
        let (folder, file) = match little_memory {
            true => plugin_with_little_memory().map(|(folder, file)| (Some(folder), file))?,
            false => (None, plugin_file()),
        };
        configuration.set_plugin_file(&file);
        configuration.place_endpoints(&pods.addresses());
        configuration.set_admin_address(free_address()?);
        edit(&mut configuration);
        let listener = PushedListener::take(&mut configuration)?;
        // So that another Envoy can take the place of this one.
        let settings = EnvoySettings { keep_addresses: true, ..EnvoySettings::new(configuration) };
        let mut stage = Stage { pods, listener, settings, envoy: None, _plugin: folder };
        stage.start_envoy()?;
        Ok(stage)
    }

    pub fn client(&self) -> Client {
        Client::new(self.listener.address(), Protocol::Http1)
    }

    pub fn envoy(&self) -> Result<&Envoy> {
        self.envoy.as_ref().context("Envoy has been stopped")
    }

    pub fn start_envoy(&mut self) -> Result<()> {
        let envoy =
            Envoy::start(self.settings.clone()).context("starting Envoy; `make build` builds the plugin")?;
        self.envoy = Some(envoy);
        Ok(())
    }

    /// Ends Envoy, and with it every connection.
    pub fn stop_envoy(&mut self) -> Result<()> {
        self.envoy = None;
        Ok(())
    }

    pub fn sent_to_first_pod(&self) -> u64 {
        self.pods.server(0).counters().requests_for("tiny")
    }

    /// Pushes the listener, and waits for what Envoy makes of it: whether it was taken.
    pub fn push(&self) -> Result<bool> {
        let before = self.push_counts()?;
        self.listener.push()?;
        for _ in 0..PUSH_POLLS {
            let now = self.push_counts()?;
            if now != before {
                return Ok(now.0 > before.0);
            }
            sleep(POLL_INTERVAL);
        }
        bail!("Envoy did not read what was pushed")
    }

    /// How many pushes were taken, and how many refused.
    fn push_counts(&self) -> Result<(u64, u64)> {
        let counts = self.envoy()?.stats("listener_manager.lds.update_")?;
        let count =
            |name: &str| counts.get(&format!("listener_manager.lds.update_{name}")).copied().unwrap_or(0);
        Ok((count("success"), count("rejected")))
    }
}
