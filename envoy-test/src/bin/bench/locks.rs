//! How long workers wait for each other: Envoy's shared data is one map behind one mutex, which all workers lock.
//!
//! With 16 workers under load, all mutexes of Envoy's process are watched by a library that is preloaded (`lock-watch`). Each
//! worker locks some that are its own; the one that others are found to wait for is that of shared data, and plain Envoy has
//! none. What it would be on a large gateway is computed from that: with `L` locks a request that are held `h` on average,
//!
//! ```text
//! busy = L · h · requests a second        wait a lock = busy · h / 2 (1 − busy)
//! ```
//!
//! (a queue with one server that always takes as long).

#[path = "../../../lock-watch/src/layout.rs"]
mod layout;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use envoy_test::envoy::binary::project_root;
use envoy_test::table::Table;
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::clients::Clients;
use crate::gateway::{Gateway, GatewaySettings, Scraping, Variant};
use crate::model_servers::ModelServers;
use crate::requests::{ENDPOINTS, TYPICAL_KILOBYTES, chat};
use crate::rounds::check_picks;

const WORKERS: u32 = 16;
const CLIENTS: u64 = 128;
const BATCH: u64 = 1_024;
/// Until V8 has optimized the code in every worker.
const WARM_UP: Duration = Duration::from_secs(5);
const LOAD: Duration = Duration::from_secs(10);
const REST: Duration = Duration::from_secs(2);
/// The gateway that is computed: a worker a core, and each busy.
const LARGE_WORKERS: f64 = 64.0;
const LARGE_RATE_PER_WORKER: f64 = 500.0;

/// What was counted of one mutex, or of several.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Locks {
    locks: u64,
    /// Of these, those that found it locked.
    waits: u64,
    waited_ns: u64,
    /// While its holder was not interrupted.
    held_ns: u64,
    interruptions: u64,
}

/// Of one Envoy.
#[derive(Debug, Serialize)]
pub struct LocksCost {
    variant: Variant,
    requests: u64,
    seconds: f64,
    /// The mutex for which threads waited longest; nothing without the plugin, and where none waited.
    shared: Locks,
    others: Locks,
    /// Of the shared one, while nothing was in flight.
    idle_locks_per_s: f64,
}

pub fn measure(runtime: &Runtime) -> Result<Vec<LocksCost>> {
    let library = project_root().join("target/release/liblock_watch.so");
    ensure!(library.exists(), "{} is missing: cargo build --release -p lock-watch", library.display());
    let servers = ModelServers::start(runtime, ENDPOINTS)?;
    let variants = [Variant::Plain, Variant::Default, Variant::PrefixCache];
    variants.map(|variant| LocksCost::of(runtime, &servers, variant, &library)).into_iter().collect()
}

impl LocksCost {
    fn of(runtime: &Runtime, servers: &ModelServers, variant: Variant, library: &Path) -> Result<LocksCost> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("locks");
        let settings = GatewaySettings {
            scraping: Scraping::EveryMs(50),
            workers: WORKERS,
            environment: vec![("LD_PRELOAD", library.to_owned()), (layout::FILE_VARIABLE, file.clone())],
            ..GatewaySettings::default()
        };
        let gateway = Gateway::start(variant, &servers.addresses, settings)?;
        let mut clients = runtime.block_on(Clients::connect_many(gateway.envoy.address(), CLIENTS))?;
        send(runtime, servers, variant, &mut clients, WARM_UP)?;
        let (before, started) = (read(&file)?, Instant::now());
        let requests = send(runtime, servers, variant, &mut clients, LOAD)?;
        let (after, seconds) = (read(&file)?, started.elapsed().as_secs_f64());
        let (address, shared, others) = split(&before, &after, variant.picks());
        sleep(REST);
        let (idle, idle_since) = (read(&file)?, Instant::now());
        sleep(REST);
        let idle_locks = locks_of(&read(&file)?, address) - locks_of(&idle, address);
        let idle_locks_per_s = idle_locks as f64 / idle_since.elapsed().as_secs_f64();
        Ok(LocksCost { variant, requests, seconds, shared, others, idle_locks_per_s })
    }

    fn cells(&self) -> [String; 7] {
        let Locks { locks, waits, waited_ns, held_ns, interruptions } = self.shared;
        let a_request = |count: u64| count as f64 / self.requests as f64;
        let requests_per_s = format!("{:.0}", self.requests as f64 / self.seconds);
        let other_locks = format!("{:.1}", a_request(self.others.locks));
        if locks == 0 {
            let none = || "–".to_owned();
            return [requests_per_s, other_locks, none(), none(), none(), none(), none()];
        }
        let held_ns = held_ns as f64 / (locks - interruptions).max(1) as f64;
        let busy = a_request(locks) * held_ns * 1e-9 * LARGE_WORKERS * LARGE_RATE_PER_WORKER;
        let wait_us = a_request(locks) * busy * held_ns / (2.0 * (1.0 - busy)) / 1e3;
        [
            requests_per_s,
            other_locks,
            format!("{:.1}", a_request(locks)),
            format!("{:.2} %, {:.0} µs", waits as f64 / locks as f64 * 100.0, a_request(waited_ns) / 1e3),
            format!("{held_ns:.0} ns"),
            format!("{:.0}", self.idle_locks_per_s),
            format!("{:.1} %, {wait_us:.2} µs", busy * 100.0),
        ]
    }
}

/// Sends for so long; how many requests that were.
fn send(
    runtime: &Runtime,
    servers: &ModelServers,
    variant: Variant,
    clients: &mut Clients,
    time: Duration,
) -> Result<u64> {
    let (counts, started, request) = (servers.counts(), Instant::now(), chat(TYPICAL_KILOBYTES, false));
    let mut sent = 0;
    while started.elapsed() < time {
        sent += runtime.block_on(clients.send(&request, BATCH))?;
    }
    check_picks(variant, servers.counts().since(counts), sent)?;
    Ok(sent)
}

/// What was counted so far, by the mutex's address.
fn read(file: &PathBuf) -> Result<HashMap<u64, Locks>> {
    let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let line = |line: &[u8]| {
        let mut numbers = line.as_chunks().0.iter().map(|number| u64::from_ne_bytes(*number));
        let mut next = || numbers.next().unwrap_or_default();
        let address = next();
        let locks =
            Locks { locks: next(), waits: next(), waited_ns: next(), held_ns: next(), interruptions: next() };
        (address, locks)
    };
    Ok(bytes.chunks_exact(layout::LINE_BYTES).map(line).filter(|(_, locks)| locks.locks > 0).collect())
}

fn locks_of(mutexes: &HashMap<u64, Locks>, address: u64) -> u64 {
    mutexes.get(&address).map_or(0, |locks| locks.locks)
}

/// What was counted in between: of the mutex for which threads waited longest, and its address, if that of shared data is there;
/// of all others.
fn split(before: &HashMap<u64, Locks>, after: &HashMap<u64, Locks>, is_there: bool) -> (u64, Locks, Locks) {
    let counted = |(address, locks): (&u64, &Locks)| {
        (*address, locks.since(before.get(address).copied().unwrap_or_default()))
    };
    let all: Vec<(u64, Locks)> = after.iter().map(counted).collect();
    let waited = all.iter().filter(|(_, locks)| is_there && locks.waits > 0);
    let (address, shared) = waited.max_by_key(|(_, locks)| locks.waited_ns).copied().unwrap_or_default();
    let others = all.iter().filter(|(other, _)| *other != address).map(|(_, locks)| *locks);
    (address, shared, others.fold(Locks::default(), Locks::plus))
}

impl Locks {
    fn since(self, before: Locks) -> Locks {
        self.with(before, u64::saturating_sub)
    }

    fn plus(self, other: Locks) -> Locks {
        self.with(other, u64::saturating_add)
    }

    fn with(self, other: Locks, combine: fn(u64, u64) -> u64) -> Locks {
        Locks {
            locks: combine(self.locks, other.locks),
            waits: combine(self.waits, other.waits),
            waited_ns: combine(self.waited_ns, other.waited_ns),
            held_ns: combine(self.held_ns, other.held_ns),
            interruptions: combine(self.interruptions, other.interruptions),
        }
    }
}

pub fn table(costs: &[LocksCost]) -> Table {
    let columns = [
        "requests a second",
        "locks of a worker's own, a request",
        "of shared data, a request",
        "found locked, waited a request",
        "held",
        "locks a second without requests",
        "64 workers with 500 requests a second each: held, wait a request",
    ];
    let mut table = Table::new("16 workers", columns);
    for cost in costs {
        table.row(cost.variant.name(), cost.cells());
    }
    table
}
