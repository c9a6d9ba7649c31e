//! Real model servers on this machine, each a process: started, waited for, killed, started anew.
//!
//! What they need is installed by `envoy-test/real-*/setup.sh`; where that was not done, starting fails and says so.

pub mod llama_cpp;
pub mod vllm;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::envoy::{Client, Protocol, Request, appended, log_tail};

/// Half a minute for vLLM on an idle machine of two cores; minutes where it is busy.
const START_LIMIT: Duration = Duration::from_secs(600);
const PROGRESS_INTERVAL: Duration = Duration::from_secs(15);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Runs a program that is killed, with all processes it has started, once the shell's standard input closes: when whoever
/// holds its other end closes it or ends, in whatever way. So no server is ever left behind.
const TETHER: &str = r#"exec 3<&0; { cat <&3 >/dev/null; kill -KILL 0; } & exec "$@" </dev/null 3<&-"#;

/// A command for a server, to which its arguments are to be added. It is a group of processes, to be killed as one.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", TETHER, "sh"]).arg(program).process_group(0).stdin(Stdio::piped());
    command
}

/// A server's process. Dropping it ends that.
pub struct RealServer {
    address: SocketAddr,
    /// To start it anew.
    command: Command,
    process: Child,
    log: PathBuf,
}

impl RealServer {
    /// Starts what [`command`] has made, which is to listen at `address`, and does not wait until it does. All that it
    /// writes goes to the file `log`.
    ///
    /// # Errors
    /// Somebody else listens there, or it cannot be started.
    pub fn start(address: SocketAddr, mut command: Command, log: PathBuf) -> Result<RealServer> {
        let _ = fs::remove_file(&log);
        let output = appended(&log).with_context(|| format!("{}", log.display()))?;
        command.stdout(output.try_clone()?).stderr(output);
        let process = spawn(address, &mut command)?;
        Ok(RealServer { address, command, process, log })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process that [`command`]'s program became.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Kills all its processes at once, as when its machine goes.
    pub fn kill(&mut self) {
        // It can fail only where the group has ended already.
        let _ = kill_process_group(Pid::from_child(&self.process), Signal::KILL);
        let _ = self.process.wait();
    }

    /// Starts it again, once it was killed, and returns when it answers.
    ///
    /// # Errors
    /// It cannot be started, or does not answer.
    pub fn start_again(&mut self) -> Result<()> {
        self.process = spawn(self.address, &mut self.command)?;
        wait_until_ready(std::slice::from_mut(self))
    }

    fn is_ready(&self) -> bool {
        let answer = Client::new(self.address, Protocol::Http1).send_blocking(Request::get("/health"));
        answer.is_ok_and(|answer| answer.status == 200)
    }

    fn check_runs(&mut self) -> Result<()> {
        if let Some(status) = self.process.try_wait()? {
            bail!("the server at {} ended at its start ({status}): {}", self.address, self.log_tail());
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        format!("\n{}\n{}\n", self.log.display(), log_tail(&log))
    }
}

impl Drop for RealServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Some servers would share an address with another that has it.
fn spawn(address: SocketAddr, command: &mut Command) -> Result<Child> {
    TcpListener::bind(address).with_context(|| format!("{address}"))?;
    command.spawn().with_context(|| format!("starting the server at {address}"))
}

/// Returns when all of them answer.
///
/// # Errors
/// As [`wait_until`].
pub fn wait_until_ready(servers: &mut [RealServer]) -> Result<()> {
    wait_until(servers, |servers| servers.iter().all(RealServer::is_ready))
}

/// Returns when they are ready in the sense of `are_ready`.
///
/// # Errors
/// One has ended, or that does not come within ten minutes.
pub fn wait_until(servers: &mut [RealServer], are_ready: impl Fn(&[RealServer]) -> bool) -> Result<()> {
    let started_at = Instant::now();
    let mut reported_at = started_at;
    while !are_ready(servers) {
        servers.iter_mut().try_for_each(RealServer::check_runs)?;
        let logs = || servers.iter().map(RealServer::log_tail).collect::<String>();
        ensure!(started_at.elapsed() < START_LIMIT, "not ready after {START_LIMIT:?}: {}", logs());
        if reported_at.elapsed() > PROGRESS_INTERVAL {
            reported_at = Instant::now();
            eprintln!("  starting servers: {} s so far", started_at.elapsed().as_secs());
        }
        sleep(POLL_INTERVAL);
    }
    Ok(())
}
