//! What a fault happens to: four pods, and an Envoy whose listener can be pushed.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::WayToAdmin;
use crate::envoy::binary::plugin_file;
use crate::envoy::little_memory::plugin_with_little_memory;
use crate::envoy::{Client, Configuration, Envoy, EnvoySettings, Protocol, PushedListener, free_address};
use crate::model_server::{ModelServers, ServerSettings};

/// Configurations of `filter-config/`: one with a companion service, and one where a worker scrapes and Envoy's admin is
/// asked for the pods.
pub const STOP_ITERATION: &str = "stop-iteration";
pub(super) const WORKER_SCRAPING: &str = "worker-scraping";

const PODS: usize = 4;
/// How long to wait before looking again whether something has come true, and how often.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
const POLLS: usize = 2_000;

/// Four pods behind a running Envoy.
pub struct Stage {
    pub pods: ModelServers,
    pub listener: PushedListener,
    settings: EnvoySettings,
    envoy: Option<Envoy>,
    /// Where the configuration has it.
    way_to_admin: Option<WayToAdmin>,
    admin: SocketAddr,
    /// What the plugin is loaded from, where it is not the one that was built.
    _plugin: Option<TempDir>,
}

impl Stage {
    /// Starts it with so many workers on this configuration of `filter-config/`, with a last edit; the plugin may be one of
    /// which a large body is the end.
    pub fn start(
        workers: u32,
        configuration: &str,
        little_memory: bool,
        edit: impl FnOnce(&mut Configuration),
    ) -> Result<Stage> {
        let pods = ModelServers::start(vec![ServerSettings::default(); PODS])?;
        let way_to_admin = if configuration == WORKER_SCRAPING { Some(WayToAdmin::new()?) } else { None };
        let mut configuration = Configuration::shipped(configuration)?;
        let (folder, file) = match little_memory {
            true => plugin_with_little_memory().map(|(folder, file)| (Some(folder), file))?,
            false => (None, plugin_file()),
        };
        configuration.set_plugin_file(&file);
        configuration.place_endpoints(&pods.addresses());
        let admin = free_address()?;
        configuration.set_admin_address(admin);
        if let Some(way) = &way_to_admin {
            configuration.set_endpoints("admin", &[way.address()]);
        }
        edit(&mut configuration);
        let listener = PushedListener::take(&mut configuration)?;
        // So that another Envoy can take the place of this one.
        let settings =
            EnvoySettings { concurrency: workers, keep_addresses: true, ..EnvoySettings::new(configuration) };
        let mut stage = Stage { pods, listener, settings, envoy: None, way_to_admin, admin, _plugin: folder };
        stage.restore_the_way_to_admin()?;
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

    pub fn pause_envoy(&mut self) -> Result<()> {
        self.envoy()?.pause()
    }

    pub fn resume_envoy(&mut self) -> Result<()> {
        self.envoy()?.resume()
    }

    pub fn cut_the_way_to_admin(&mut self) -> Result<()> {
        self.way_to_admin.iter().for_each(WayToAdmin::cut);
        Ok(())
    }

    pub fn restore_the_way_to_admin(&mut self) -> Result<()> {
        self.way_to_admin.iter().for_each(|way| way.lead_to(self.admin));
        Ok(())
    }

    /// What the plugin's gauges say is in flight, over all endpoints, once it is nothing or time is up: they are written
    /// once a second.
    pub fn left_in_flight(&self) -> Result<u64> {
        self.until(|stage| Ok(stage.in_flight()? == 0))?;
        self.in_flight()
    }

    fn in_flight(&self) -> Result<u64> {
        let lines = self.envoy()?.admin_get("/stats?filter=endpoint_in_flight_requests")?;
        let values: Result<Vec<u64>> =
            lines.lines().map(|line| Ok(line.rsplit_once(": ").context("no value")?.1.parse()?)).collect();
        let values = values?;
        ensure!(values.len() == PODS, "gauges of {} endpoints", values.len());
        Ok(values.into_iter().sum())
    }

    /// Waits until this holds; whether it came true.
    pub(super) fn until(&self, holds: impl Fn(&Stage) -> Result<bool>) -> Result<bool> {
        for _ in 0..POLLS {
            if holds(self)? {
                return Ok(true);
            }
            sleep(POLL_INTERVAL);
        }
        Ok(false)
    }

    pub fn sent_to_first_pod(&self) -> u64 {
        self.pods.server(0).counters().requests_for("tiny")
    }

    /// Pushes the listener, and waits for what Envoy makes of it: whether it was taken.
    pub fn push(&self) -> Result<bool> {
        let before = self.push_counts()?;
        self.listener.push()?;
        ensure!(
            self.until(|stage| Ok(stage.push_counts()? != before))?,
            "Envoy did not read what was pushed"
        );
        Ok(self.push_counts()?.0 > before.0)
    }

    /// How many pushes were taken, and how many refused.
    fn push_counts(&self) -> Result<(u64, u64)> {
        let counts = self.envoy()?.stats("listener_manager.lds.update_")?;
        let count =
            |name: &str| counts.get(&format!("listener_manager.lds.update_{name}")).copied().unwrap_or(0);
        Ok((count("success"), count("rejected")))
    }
}
