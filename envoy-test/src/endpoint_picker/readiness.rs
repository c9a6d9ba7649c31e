//! Keeps the list of servers that an endpoint picker reads to those that are ready, as Kubernetes keeps it by readiness probes.
//! Without it the picker would go on sending to a server that has died.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::envoy::{Client, Protocol, Request};

/// The list, as a file.
pub(super) struct EndpointsFile(PathBuf);

impl EndpointsFile {
    pub(super) fn new(folder: &Path) -> EndpointsFile {
        EndpointsFile(folder.join("endpoints.json"))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Replaces it at once, so that nobody reads a half of it.
    pub(super) fn write(&self, servers: &[SocketAddr]) -> Result<()> {
        let endpoint = |server: &SocketAddr| {
            json!({
                "name": format!("server-{}", server.port()),
                "address": server.ip().to_string(),
                "port": server.port().to_string(),
            })
        };
        let endpoints: Value = servers.iter().map(endpoint).collect();
        let new = self.0.with_extension("new");
        fs::write(&new, json!({"endpoints": endpoints}).to_string())?;
        fs::rename(&new, &self.0).with_context(|| format!("replacing {}", self.0.display()))
    }
}

/// A thread that asks every server at an interval. Dropping it ends it.
pub(super) struct Readiness {
    ended: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Readiness {
    /// All servers are in the file by now.
    pub(super) fn watch(file: EndpointsFile, servers: Vec<SocketAddr>, interval: Duration) -> Readiness {
        let (ended, end) = channel();
        let thread = spawn(move || {
            let mut listed = servers.clone();
            while end.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                let ready: Vec<SocketAddr> =
                    servers.iter().copied().filter(|server| is_ready(*server)).collect();
                if ready == listed {
                    continue;
                }
                match file.write(&ready) {
                    Ok(()) => listed = ready,
                    Err(error) => eprintln!("the endpoint picker's list of servers: {error:#}"),
                }
            }
        });
        Readiness { ended: Some(ended), thread: Some(thread) }
    }
}

impl Drop for Readiness {
    fn drop(&mut self) {
        drop(self.ended.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to hand over, and its panic was printed.
            let _ = thread.join();
        }
    }
}

fn is_ready(server: SocketAddr) -> bool {
    let answer = Client::new(server, Protocol::Http1).send_blocking(Request::get("/health"));
    answer.is_ok_and(|answer| answer.status == 200)
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;
    use std::time::Instant;

    use super::*;
    use crate::model_server::{ModelServers, ServerSettings};

    const INTERVAL: Duration = Duration::from_millis(10);
    const PATIENCE: Duration = Duration::from_secs(10);

    fn ports(file: &Path) -> Vec<String> {
        let list: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        let endpoints = list["endpoints"].as_array().unwrap();
        endpoints.iter().map(|endpoint| endpoint["port"].as_str().unwrap().to_owned()).collect()
    }

    fn wait_for(file: &Path, servers: &[SocketAddr]) {
        let (wanted, started_at) = (servers.iter().map(|server| server.port().to_string()), Instant::now());
        let wanted: Vec<String> = wanted.collect();
        while ports(file) != wanted {
            assert!(started_at.elapsed() < PATIENCE, "{:?} are listed, not {wanted:?}", ports(file));
            sleep(INTERVAL);
        }
    }

    #[test]
    fn a_server_is_listed_while_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let servers = ModelServers::start(vec![ServerSettings::default(); 2]).unwrap();
        let addresses = servers.addresses();
        let file = EndpointsFile::new(folder.path());
        file.write(&addresses).unwrap();
        let path = file.path().to_owned();
        let _readiness = Readiness::watch(file, addresses.clone(), INTERVAL);
        servers.server(0).set(|knobs| knobs.refuse = true);
        wait_for(&path, &addresses[1..]);
        servers.server(0).set(|knobs| knobs.refuse = false);
        wait_for(&path, &addresses);
    }
}
