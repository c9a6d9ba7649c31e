//! The reference endpoint picker of the Gateway API itself: its process on loopback, which finds given servers in a file instead
//! of in Kubernetes, and an Envoy that asks it about every request through `ext_proc`.
//!
//! Its source is in no package registry, so whoever compares it names the program ([docs/peers.md] says how it is built).
//!
//! [docs/peers.md]: ../../../docs/peers.md

mod gateway;
mod readiness;
mod schedule;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use self::readiness::{EndpointsFile, Readiness};
pub use self::schedule::Schedule;
use crate::envoy::{
    Client, Envoy, EnvoySettings, Protocol, Request, free_address, process_cpu_time_us, process_memory_bytes,
};
use crate::real_server::{RealServer, command, wait_until};

/// The program, and how it is configured to pick.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointPicker {
    program: PathBuf,
    pub schedule: Schedule,
}

/// What stands around it.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings {
    /// How many times faster than by default the servers are.
    pub speed: f64,
    /// Envoy's worker threads.
    pub workers: u32,
    /// How often servers are asked whether they are ready, as Kubernetes does for an endpoint picker; nothing where all stay.
    pub readiness_interval: Option<Duration>,
}

/// The picker and its Envoy. Dropping it ends both.
pub struct RunningPicker {
    _readiness: Option<Readiness>,
    envoy: Envoy,
    picker: RealServer,
    _folder: TempDir,
}

impl EndpointPicker {
    /// This program with each schedule.
    ///
    /// # Errors
    /// There is no such file.
    pub fn all(program: &Path) -> Result<[EndpointPicker; 3]> {
        let program = fs::canonicalize(program)
            .with_context(|| format!("no endpoint picker at {}", program.display()))?;
        Ok(Schedule::ALL.map(|schedule| EndpointPicker { program: program.clone(), schedule }))
    }

    /// Starts both in front of these servers, and returns when a request finds its way through them.
    ///
    /// # Errors
    /// One of them does not start, or does not serve.
    pub fn start(&self, servers: &[SocketAddr], surroundings: Surroundings) -> Result<RunningPicker> {
        let folder = tempfile::tempdir()?;
        let endpoints = EndpointsFile::new(folder.path());
        endpoints.write(servers)?;
        let configuration = folder.path().join("picker.json");
        let schedule = self.schedule.configuration(endpoints.path(), surroundings.speed);
        fs::write(&configuration, schedule.to_string())?;
        let picker = start_picker(&self.program, &configuration, folder.path())?;
        let envoy = start_envoy(picker.address(), surroundings.workers)?;
        let mut running = RunningPicker { _readiness: None, envoy, picker, _folder: folder };
        running.wait_until_it_answers()?;
        running._readiness = surroundings
            .readiness_interval
            .map(|interval| Readiness::watch(endpoints, servers.to_vec(), interval));
        Ok(running)
    }
}

fn start_picker(program: &Path, configuration: &Path, folder: &Path) -> Result<RealServer> {
    let [calls, health, metrics] = [free_address()?, free_address()?, free_address()?];
    let mut command = command(program);
    command
        .arg("--config-file")
        .arg(configuration)
        // Any name; it is for its metrics.
        .args(["--pool-name", "servers"])
        .args(["--grpc-port", &calls.port().to_string()])
        .args(["--grpc-health-port", &health.port().to_string()])
        .args(["--metrics-port", &metrics.port().to_string()])
        // Its defaults encrypt what Envoy asks it, log each request, offer profiles and send traces: the others do nothing of that.
        .args(["--secure-serving=false", "--zap-log-level=error", "--enable-pprof=false", "--tracing=false"])
        .current_dir(folder);
    RealServer::start(calls, command, folder.join("picker.log"))
}

fn start_envoy(picker: SocketAddr, workers: u32) -> Result<Envoy> {
    let configuration = gateway::configuration(picker)?;
    Envoy::start(EnvoySettings {
        concurrency: workers,
        log_level: "error",
        ..EnvoySettings::new(configuration)
    })
}

impl RunningPicker {
    pub fn address(&self) -> SocketAddr {
        self.envoy.address()
    }

    /// The processor time that both processes used so far, in steps of 10 ms.
    ///
    /// # Errors
    /// A system that does not report it.
    pub fn cpu_time_us(&self) -> Result<u64> {
        Ok(self.envoy.cpu_time_us()? + process_cpu_time_us(self.picker.process_id())?)
    }

    /// The memory that both processes hold now.
    ///
    /// # Errors
    /// A system that does not report it.
    pub fn memory_bytes(&self) -> Result<u64> {
        Ok(self.envoy.memory_bytes()? + process_memory_bytes(self.picker.process_id())?)
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let gateway = Client::new(self.envoy.address(), Protocol::Http1);
        wait_until(std::slice::from_mut(&mut self.picker), |_| {
            gateway.send_blocking(Request::get("/health")).is_ok_and(|answer| answer.status == 200)
        })
    }
}
