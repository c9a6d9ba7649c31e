//! What a running Envoy reports: administration interface, statistics, access log, log, processor time.

use super::access_log::parse_access_log;
use super::client::{Client, Protocol, Request};
use super::instructions::Instructions;
use super::process::{ACCESS_LOG, Envoy, LOG, OUTPUT, POLL_INTERVAL};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Lines reach the access log's file within the flush interval; the rest is for a busy machine.
const ACCESS_LOG_LIMIT: Duration = Duration::from_secs(10);
/// Linux counts processor time for programs in hundredths of a second on every architecture (USER_HZ).
const CPU_TICK_US: u64 = 10_000;

impl Envoy {
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// The text the administration interface answers for `path`; any answer but 200 is an error.
    pub fn admin_get(&self, path: &str) -> Result<String> {
        let response = Client::new(self.admin, Protocol::Http1).send_blocking(Request::get(path))?;
        if response.status != 200 {
            bail!("the admin interface answered {} to {path}: {}", response.status, response.text());
        }
        Ok(response.text())
    }

    /// The counters and gauges whose names begin with `prefix`.
    pub fn stats(&self, prefix: &str) -> Result<BTreeMap<String, u64>> {
        let text = self.admin_get("/stats")?;
        let numbers = text.lines().filter_map(|line| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Ok(numbers.filter(|(name, _)| name.starts_with(prefix)).collect())
    }

    /// The finished lines of the access log. They must be JSON (`json_format`).
    pub fn access_log(&self) -> Result<Vec<Value>> {
        parse_access_log(&self.read(ACCESS_LOG))
    }

    /// Waits until the access log has `count` lines or more, and returns all it has.
    pub fn access_log_until(&self, count: usize) -> Result<Vec<Value>> {
        let asked_at = Instant::now();
        loop {
            let lines = self.access_log()?;
            if lines.len() >= count {
                return Ok(lines);
            }
            if asked_at.elapsed() > ACCESS_LOG_LIMIT {
                bail!("the access log has {} lines after {ACCESS_LOG_LIMIT:?}, not {count}", lines.len());
            }
            sleep(POLL_INTERVAL);
        }
    }

    /// Envoy's log, and with it the plugin's.
    pub fn log_text(&self) -> String {
        self.read(LOG)
    }

    /// What Envoy has written to standard output: an access log that goes there, nothing else.
    pub fn output_text(&self) -> String {
        self.read(OUTPUT)
    }

    /// The processor time that Envoy used so far, user and system, in steps of 10 ms. Linux only.
    pub fn cpu_time_us(&self) -> Result<u64> {
        process_cpu_time_us(self.child.id())
    }

    /// The same of the threads that run, to the nanosecond.
    pub fn cpu_time_ns(&self) -> Result<u64> {
        let folder = format!("/proc/{}/task", self.child.id());
        let threads = fs::read_dir(&folder).with_context(|| format!("reading {folder}"))?;
        let times = threads.map(|thread| read_run_time_ns(&thread?.path().join("schedstat")));
        times.sum()
    }

    /// The same of its main thread alone, in steps of 10 ms.
    pub fn main_thread_cpu_time_us(&self) -> Result<u64> {
        read_cpu_time_us(&format!("/proc/{0}/task/{0}/stat", self.child.id()))
    }

    /// Counts the instructions that Envoy executes from now on, where the machine lets them be counted.
    pub fn count_instructions(&self) -> io::Result<Instructions> {
        Instructions::of_process(self.child.id())
    }

    /// The memory that Envoy holds now, in bytes. Linux only.
    pub fn memory_bytes(&self) -> Result<u64> {
        process_memory_bytes(self.child.id())
    }

    fn read(&self, file: &str) -> String {
        let bytes = fs::read(self.folder.path().join(file)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The processor time that a process used so far, user and system, in steps of 10 ms. Linux only.
pub fn process_cpu_time_us(id: u32) -> Result<u64> {
    read_cpu_time_us(&format!("/proc/{id}/stat"))
}

/// The memory that a process holds now, in bytes. Linux only.
pub fn process_memory_bytes(id: u32) -> Result<u64> {
    let path = format!("/proc/{id}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let kibibytes = text.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    let kibibytes: u64 = kibibytes.with_context(|| format!("{path} is not in the known form"))?.parse()?;
    Ok(kibibytes << 10)
}

/// The first field of /proc/PID/task/THREAD/schedstat.
fn read_run_time_ns(path: &Path) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let run_time_ns = text.split(' ').next().and_then(|field| field.parse().ok());
    run_time_ns.with_context(|| format!("{} is not in the known form", path.display()))
}

fn read_cpu_time_us(path: &str) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    cpu_time_in_us(&text).with_context(|| format!("{path} is not in the known form"))
}

/// Fields 14 and 15 of /proc/PID/stat. The second is the program's name in parentheses and may hold spaces, so
/// counting begins behind it.
pub(super) fn cpu_time_in_us(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut ticks = fields.split(' ').skip(11).map(str::parse::<u64>);
    Some((ticks.next()?.ok()? + ticks.next()?.ok()?) * CPU_TICK_US)
}
