//! Starts one Envoy, waits until it is ready, and ends it.

use super::binary;
use super::configuration::Configuration;
use super::ports::free_address;
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Files in the folder that every Envoy has.
pub(super) const LOG: &str = "envoy.log";
pub(super) const OUTPUT: &str = "output";
pub(super) const ACCESS_LOG: &str = "access.log";
/// Envoy starts in well under a second; a busy machine, or a plugin compiled by V8, takes a few.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Envoy ends at once on SIGTERM; one that does not is killed.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// How long to wait before looking again.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Access logs reach their file at this interval; Envoy's own default is 10 s.
const ACCESS_LOG_FLUSH_MS: &str = "50";
/// How much of the log an error shows.
const LOG_TAIL_LINES: usize = 30;

/// What to start. `EnvoySettings::new` has the values most tests want; set the other fields as needed.
#[derive(Debug, Clone)]
pub struct EnvoySettings {
    pub configuration: Configuration,
    /// Which of the installed versions, [`super::NEWEST`] or [`super::OLDEST`].
    pub version: &'static str,
    /// Worker threads.
    pub concurrency: u32,
    /// Envoy's own log level, and in `info` and below the plugin's: trace, debug, info, warning, error, critical, off.
    pub log_level: &'static str,
    /// Listens where the configuration says, if these addresses are free, instead of on ports of its own.
    pub keep_addresses: bool,
    /// What Envoy has in its environment besides ours.
    pub environment: Vec<(&'static str, PathBuf)>,
}

impl EnvoySettings {
    pub fn new(configuration: Configuration) -> Self {
        Self {
            configuration,
            version: binary::NEWEST,
            concurrency: 2,
            log_level: "info",
            keep_addresses: false,
            environment: Vec::new(),
        }
    }
}

/// A running Envoy. Dropping it ends it and removes its files.
pub struct Envoy {
    pub(super) child: Child,
    pub(super) folder: TempDir,
    pub(super) listeners: Vec<SocketAddr>,
    pub(super) admin: SocketAddr,
}

impl Envoy {
    /// Starts Envoy with the configuration moved to free ports of 127.0.0.1, and returns when it is ready.
    pub fn start(settings: EnvoySettings) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut configuration = settings.configuration.clone();
        let (listeners, admin) = choose_addresses(&mut configuration, settings.keep_addresses)?;
        configuration.set_access_log_file(&folder.path().join(ACCESS_LOG));
        let [output, log] = [OUTPUT, LOG].map(|file| appended(&folder.path().join(file)));
        let child = command(&settings, &configuration.write(folder.path())?)?
            .args(["--file-flush-interval-msec", ACCESS_LOG_FLUSH_MS])
            .stdout(output?)
            .stderr(log?)
            .spawn()
            .context("starting Envoy")?;
        let mut envoy = Self { child, folder, listeners, admin };
        envoy.wait_until_ready()?;
        Ok(envoy)
    }

    /// The address of the first listener.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        match self.listeners.first() {
            Some(address) => *address,
            None => panic!("the configuration has no listener"),
        }
    }

    /// The addresses of all listeners, in the configuration's order.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.listeners
    }

    /// The access log's file.
    pub fn access_log_file(&self) -> PathBuf {
        self.folder.path().join(ACCESS_LOG)
    }

    /// Has it stand still where it is. Its clock goes on, so when it is resumed, that has jumped.
    pub fn pause(&self) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), Signal::STOP)?)
    }

    pub fn resume(&self) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), Signal::CONT)?)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let started_at = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("Envoy ended at its start ({status}):\n{}", self.log_tail());
            }
            if self.admin_get("/ready").is_ok() {
                return Ok(());
            }
            if started_at.elapsed() > START_LIMIT {
                bail!("Envoy was not ready after {START_LIMIT:?}:\n{}", self.log_tail());
            }
            sleep(POLL_INTERVAL);
        }
    }

    fn log_tail(&self) -> String {
        log_tail(&self.log_text())
    }

    fn ends_within(&mut self, limit: Duration) -> bool {
        let asked_at = Instant::now();
        while asked_at.elapsed() < limit {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            sleep(POLL_INTERVAL);
        }
        false
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // Neither signal can fail in a way that matters: then Envoy has ended already.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        if !self.ends_within(STOP_LIMIT) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The last lines of a log, for an error to show.
pub fn log_tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let first = lines.len().saturating_sub(LOG_TAIL_LINES);
    lines[first..].join("\n")
}

/// A new file for what a program writes. It appends: Envoy opens /dev/stdout, which is the same file, a second time.
pub fn appended(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}

/// Lets Envoy check the configuration without running it. The output reports what it found wrong.
pub fn validate(settings: &EnvoySettings) -> Result<Output> {
    let folder = tempfile::tempdir()?;
    let file = settings.configuration.write(folder.path())?;
    command(settings, &file)?.args(["--mode", "validate"]).output().context("starting Envoy")
}

/// Envoy runs in the project's root, so that file names in the examples mean what they mean to their readers.
/// Without hot restart: several Envoys on one machine would otherwise end each other.
fn command(settings: &EnvoySettings, configuration_file: &Path) -> Result<Command> {
    let mut command = Command::new(binary::find(settings.version)?);
    command
        .current_dir(binary::project_root())
        .envs(settings.environment.iter().map(|(name, value)| (name, value)))
        .args(["--disable-hot-restart", "--log-level", settings.log_level])
        .args(["--concurrency", &settings.concurrency.to_string()])
        .arg("--config-path")
        .arg(fs::canonicalize(configuration_file)?);
    Ok(command)
}

/// Moves every address that Envoy listens on to a free port; with `keep`, only those that are taken.
fn choose_addresses(configuration: &mut Configuration, keep: bool) -> Result<(Vec<SocketAddr>, SocketAddr)> {
    let choose = |current: SocketAddr| match keep && TcpListener::bind(current).is_ok() {
        true => Ok(current),
        false => free_address(),
    };
    let admin = choose(configuration.admin_address()?)?;
    configuration.set_admin_address(admin);
    let mut listeners = Vec::new();
    for index in 0..configuration.listener_count() {
        let address = choose(configuration.listener_address(index)?)?;
        configuration.set_listener_address(index, address);
        listeners.push(address);
    }
    Ok((listeners, admin))
}
