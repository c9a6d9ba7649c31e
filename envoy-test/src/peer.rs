//! Other gateways for model servers, which install from PyPI: each a process on loopback, in front of given servers.
//!
//! `envoy-test/setup/peers.sh` installs them. Both are made of the same ancestor: a request goes to the server that has
//! had most of its beginning, by a tree of texts, unless loads differ by more than two thresholds.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use tempfile::TempDir;

use crate::envoy::binary::project_root;
use crate::envoy::{free_address, process_cpu_time_us, process_memory_bytes};
use crate::real_server::{RealServer, command, wait_until_ready};

/// A program, and how it is configured to pick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub name: &'static str,
    program: Program,
    /// Arguments after those that every program needs.
    policy: &'static [&'static str],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    VllmRouter,
    Smg,
}

/// The default thresholds let one server have 64 requests more than another, many times what the simulated ones run at once;
/// these let it have four more.
const FOR_SMALL_SERVERS: [&str; 6] =
    ["--policy", "cache_aware", "--balance-abs-threshold", "4", "--balance-rel-threshold", "1.2"];

impl Peer {
    /// Each program with its default, and with what suits the servers.
    pub const ALL: [Peer; 6] = [
        Peer { name: "vllm-router, default", program: Program::VllmRouter, policy: &[] },
        Peer {
            name: "vllm-router, low thresholds",
            program: Program::VllmRouter,
            policy: &FOR_SMALL_SERVERS,
        },
        Peer {
            name: "vllm-router, power_of_two",
            program: Program::VllmRouter,
            policy: &["--policy", "power_of_two"],
        },
        Peer { name: "smg, default", program: Program::Smg, policy: &[] },
        Peer { name: "smg, low thresholds", program: Program::Smg, policy: &FOR_SMALL_SERVERS },
        Peer { name: "smg, prefix_hash", program: Program::Smg, policy: &["--policy", "prefix_hash"] },
    ];

    /// Starts it in front of these servers, and returns when it serves.
    ///
    /// # Errors
    /// It is not installed, or does not serve.
    pub fn start(self, servers: &[SocketAddr]) -> Result<RunningPeer> {
        let folder = tempfile::tempdir()?;
        let (address, metrics) = (free_address()?, free_address()?);
        let mut command = command(&self.program.file());
        command
            .args(self.program.subcommand())
            .args(["--host", &address.ip().to_string(), "--port", &address.port().to_string()])
            .args(["--prometheus-port", &metrics.port().to_string(), "--log-level", "error"])
            .args(self.policy)
            .arg("--worker-urls")
            .args(servers.iter().map(|server| format!("http://{server}")))
            .current_dir(folder.path());
        let server = RealServer::start(address, command, folder.path().join("log"))?;
        let mut peer = RunningPeer { server, _folder: folder };
        wait_until_ready(std::slice::from_mut(&mut peer.server))?;
        Ok(peer)
    }
}

impl Program {
    fn file(self) -> PathBuf {
        let name = match self {
            Program::VllmRouter => "vllm-router",
            Program::Smg => "smg",
        };
        project_root().join(format!(".build/{name}/bin/{name}"))
    }

    fn subcommand(self) -> &'static [&'static str] {
        match self {
            Program::VllmRouter => &[],
            Program::Smg => &["launch"],
        }
    }
}

/// Dropping it ends it.
pub struct RunningPeer {
    server: RealServer,
    _folder: TempDir,
}

impl RunningPeer {
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The processor time that its process used so far, in steps of 10 ms.
    ///
    /// # Errors
    /// A system that does not report it.
    pub fn cpu_time_us(&self) -> Result<u64> {
        process_cpu_time_us(self.server.process_id())
    }

    /// The memory that its process holds now.
    ///
    /// # Errors
    /// A system that does not report it.
    pub fn memory_bytes(&self) -> Result<u64> {
        process_memory_bytes(self.server.process_id())
    }
}
