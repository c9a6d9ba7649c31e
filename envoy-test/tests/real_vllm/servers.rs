//! Two real vLLM servers on the processor, with a tiny model and two LoRA adapters: started, observed, killed.
//!
//! `envoy-test/real-vllm/setup.sh` installs them; where that was not done, starting fails and says so.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use envoy_test::envoy::binary::project_root;
use envoy_test::envoy::{Client, Protocol, Request};
use rustix::process::{Pid, Signal, kill_process_group};

/// Where they listen. Other addresses than the simulated servers of `make run` have, so both can run.
const ADDRESSES: [&str; 2] = ["127.0.0.21:8000", "127.0.0.22:8000"];
pub const MODEL: &str = "tiny";
pub const ADAPTERS: [&str; 2] = ["lora-a", "lora-b"];
/// Further requests are queued.
pub const RUNNING_MAX: usize = 4;

/// Half a minute for both on an idle machine of two cores; minutes where it is busy.
const START_LIMIT: Duration = Duration::from_secs(600);
const PROGRESS_INTERVAL: Duration = Duration::from_secs(15);
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// How much of a server's log an error shows.
const LOG_TAIL_LINES: usize = 30;

/// On the processor, one thread each, loopback only, and without asking anybody outside.
pub const ENVIRONMENT: [(&str, &str); 8] = [
    ("VLLM_HOST_IP", "127.0.0.1"),
    ("VLLM_LOOPBACK_IP", "127.0.0.1"),
    ("VLLM_CPU_KVCACHE_SPACE", "1"),
    ("VLLM_CPU_OMP_THREADS_BIND", "nobind"),
    ("OMP_NUM_THREADS", "1"),
    ("VLLM_NO_USAGE_STATS", "1"),
    ("DO_NOT_TRACK", "1"),
    ("HF_HUB_OFFLINE", "1"),
];

/// Both servers. Dropping them ends their processes.
pub struct Servers {
    servers: Vec<Server>,
}

struct Server {
    address: SocketAddr,
    process: Child,
    log: PathBuf,
}

impl Servers {
    /// Starts both at once, and returns when they answer.
    pub fn start() -> Servers {
        Servers::wait_for(ADDRESSES.map(|address| Server::start(address.parse().unwrap(), 1)).into())
    }

    /// Starts one with so many engines behind its port, each with a cache and a queue of its own.
    pub fn start_engines(engines: usize) -> Servers {
        Servers::wait_for(vec![Server::start(ADDRESSES[0].parse().unwrap(), engines)])
    }

    fn wait_for(servers: Vec<Server>) -> Servers {
        let mut servers = Servers { servers };
        servers.wait_until_ready();
        servers
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(|server| server.address).collect()
    }

    pub fn client(&self, index: usize) -> Client {
        Client::new(self.servers[index].address, Protocol::Http1)
    }

    /// Kills all processes of one server at once, as when its machine goes.
    pub fn kill(&self, index: usize) {
        self.servers[index].kill();
    }

    /// The sum over all series of the metric `name`, as the server tells it now.
    pub fn metric(&self, index: usize, name: &str) -> usize {
        let page = self.page(index);
        let values = page.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?.strip_prefix('{')?;
            rest.rsplit_once(' ')?.1.parse::<f64>().ok()
        });
        values.sum::<f64>() as usize
    }

    /// What the server tells of itself now.
    pub fn page(&self, index: usize) -> String {
        self.client(index).send_blocking(Request::get("/metrics")).unwrap().text()
    }

    /// How many requests each server has answered in full.
    pub fn completed(&self) -> Vec<usize> {
        (0..self.servers.len()).map(|index| self.metric(index, "vllm:request_success_total")).collect()
    }

    /// Prompt tokens that the servers have found in their prefix caches.
    pub fn cached_tokens(&self) -> usize {
        self.sum("vllm:prefix_cache_hits_total")
    }

    /// Prompt tokens that the servers have looked for in their prefix caches.
    pub fn queried_tokens(&self) -> usize {
        self.sum("vllm:prefix_cache_queries_total")
    }

    fn sum(&self, name: &str) -> usize {
        (0..self.servers.len()).map(|index| self.metric(index, name)).sum()
    }

    /// How many requests a server runs, and how many wait there.
    pub fn in_progress(&self, index: usize) -> usize {
        self.metric(index, "vllm:num_requests_running") + self.metric(index, "vllm:num_requests_waiting")
    }

    fn wait_until_ready(&mut self) {
        let started_at = Instant::now();
        let mut told_at = started_at;
        while !self.servers.iter().all(Server::is_ready) {
            self.servers.iter_mut().for_each(Server::check_runs);
            assert!(started_at.elapsed() < START_LIMIT, "not ready after {START_LIMIT:?}: {}", self.logs());
            if told_at.elapsed() > PROGRESS_INTERVAL {
                told_at = Instant::now();
                eprintln!("  starting vLLM: {} s so far", started_at.elapsed().as_secs());
            }
            sleep(POLL_INTERVAL);
        }
        let addresses: Vec<String> = self.addresses().iter().map(SocketAddr::to_string).collect();
        eprintln!("  vLLM answers at {} after {} s", addresses.join(" and "), started_at.elapsed().as_secs());
    }

    fn logs(&self) -> String {
        self.servers.iter().map(Server::log_tail).collect()
    }
}

impl Server {
    fn start(address: SocketAddr, engines: usize) -> Server {
        // vLLM would share an address with another server that has it.
        TcpListener::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        let installed = project_root().join(".build/real-vllm");
        let log = installed.join(format!("server-{}.log", address.ip()));
        let process = command(&installed, address, engines, &log).spawn();
        let process = process.expect("vLLM is started; `make test-vllm` installs it first");
        Server { address, process, log }
    }

    fn is_ready(&self) -> bool {
        let answer = Client::new(self.address, Protocol::Http1).send_blocking(Request::get("/health"));
        answer.is_ok_and(|answer| answer.status == 200)
    }

    fn check_runs(&mut self) {
        if let Some(status) = self.process.try_wait().unwrap() {
            panic!("vLLM ended at its start ({status}): {}", self.log_tail());
        }
    }

    fn kill(&self) {
        // It can fail only where the group has ended already.
        let _ = kill_process_group(Pid::from_child(&self.process), Signal::KILL);
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let first = lines.len().saturating_sub(LOG_TAIL_LINES);
        format!("\n{}\n{}\n", self.log.display(), lines[first..].join("\n"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = self.process.wait();
    }
}

/// Few requests at a time and few KV-cache blocks, so that a handful of requests makes a queue and fills the cache.
/// It is a group of processes, to be killed as one; its standard input is held open here until the test ends.
fn command(installed: &Path, address: SocketAddr, engines: usize, log: &Path) -> Command {
    let models = installed.join("models");
    let log = File::create(log).expect("`make test-vllm` installs vLLM first");
    let adapters = ADAPTERS.map(|name| format!("{name}={}", models.join(name).display()));
    let mut command = Command::new(installed.join("python/bin/python"));
    command
        .arg(project_root().join("envoy-test/real-vllm/serve.py"))
        .args(["--host", &address.ip().to_string(), "--port", &address.port().to_string()])
        .arg("--model")
        .arg(models.join(MODEL))
        .args(["--served-model-name", MODEL, "--load-format", "dummy", "--enforce-eager"])
        .args(["--max-num-seqs", &RUNNING_MAX.to_string()])
        .args(["--block-size", "32", "--num-gpu-blocks-override", "300"])
        .args(["--enable-lora", "--max-loras", "1", "--lora-modules"])
        .args(adapters)
        .args(["--data-parallel-size", &engines.to_string()])
        .envs(ENVIRONMENT)
        .current_dir(installed)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(log.try_clone().expect("a log's handle is copied"))
        .stderr(log);
    command
}
