//! What workers and the scraper publish to each other through the host's shared data.
//!
//! | key | writer | holds |
//! |---|---|---|
//! | `…/ledger` | workers and the companion service, by compare-and-swap | what is in flight, as a [`Ledger`] |
//! | `…/journal/SLOT` | who has filled it | a full [`Chunk`] of the ledger's journal, in the slot of its number |
//! | `…/pool/NAME/CLUSTER` | the scraper | the pool's [`Snapshot`] |
//! | `…/lease/NAME/CLUSTER` | workers, by compare-and-swap | who scrapes the pool |
//! | `…/slots/NAME/CLUSTER` | workers, by compare-and-swap | which configuration has which slot of the two above |
//! | `…/stored/BUCKET`, `…/sessions/BUCKET` | workers, by compare-and-swap | where conversations were served last: a [`Bucket`](crate::sessions::Bucket) |
//! | `…/secret` | the first worker | what chooses the bucket of a conversation |
//! | `…/peers-lease` | workers, by compare-and-swap | who asks the other gateways |
//!
//! Where workers scrape, the keys of a pool end in the slot of what the scraper goes by: around a change of the configuration
//! workers of the old one go on for as long as it has requests, and must not speak for the new one. The host forgets no key:
//! of these there are [`MAX_SLOTS`](crate::slots::MAX_SLOTS) for each name of a pool and its cluster, and of the others one each.
//!
//! Shared data is keyed by `vm_id` alone: other plugins may share it, so keys carry a prefix, with the format's
//! number, and what is read is decoded as bytes from a stranger.

use super::host;
use crate::config;
use crate::hash::fnv1a;
use crate::interval::Interval;
use crate::lease::{self, Lease, LeaseStep};
use crate::ledger::{CHUNKS_KEPT, Chunk, HEARTBEAT_MS, Ledger, Member, Received};
use crate::load::LoadTracker;
use crate::peers::{Page, Question};
use crate::pool::{Snapshot, decode, encode};
use crate::prefix::PromptEvent;
use crate::sessions::{Buckets, KnownBy};
use crate::slots::Slots;

/// Changes with the format of what is stored.
const PREFIX: &str = "inference-picker/3";

/// How often a write is tried again that others were faster with. Each try takes a few microseconds, and one of those others
/// has succeeded with each; what is left waits for the next tick.
const MAX_TRIES: usize = 16;

/// How often it is looked at who holds a lease, in milliseconds.
const LEASE_CHECK_MS: u64 = 100;

/// The place of a pool's snapshot.
pub struct SnapshotPlace {
    key: String,
    seen: Option<u32>,
}

impl SnapshotPlace {
    pub fn new(config: &config::Config, pool: &config::Pool) -> SnapshotPlace {
        SnapshotPlace { key: format!("{PREFIX}/pool/{}", pool_key(config, pool)), seen: None }
    }

    pub fn write(&self, snapshot: &Snapshot) {
        write(&self.key, &encode(snapshot), None);
    }

    /// The snapshot, if it is another than the last one read.
    pub fn read_new(&mut self) -> Option<Snapshot> {
        let (bytes, version) = read_value(&self.key)?;
        if self.seen.replace(version) == Some(version) {
            return None;
        }
        Snapshot::from_bytes(&bytes)
    }
}

/// The place of a lease: that on scraping a pool, or on asking the other gateways.
pub struct LeasePlace {
    key: String,
    me: u64,
    checks: Interval,
    is_held: bool,
}

impl LeasePlace {
    pub fn new(config: &config::Config, pool: &config::Pool, me: u64) -> LeasePlace {
        LeasePlace::at(format!("{PREFIX}/lease/{}", pool_key(config, pool)), me)
    }

    /// That on asking the other gateways.
    pub fn of_peers(me: u64) -> LeasePlace {
        LeasePlace::at(format!("{PREFIX}/peers-lease"), me)
    }

    fn at(key: String, me: u64) -> LeasePlace {
        LeasePlace { key, me, checks: Interval::new(LEASE_CHECK_MS), is_held: false }
    }

    /// Whether this worker holds the lease, having taken or renewed it where it could.
    pub fn is_held(&mut self, now_ms: u64) -> bool {
        if self.checks.is_due(now_ms) {
            self.is_held = self.check(now_ms);
        }
        self.is_held
    }

    fn check(&self, now_ms: u64) -> bool {
        let found = read_value(&self.key);
        let version = found.as_ref().map(|(_, version)| *version);
        let lease = found.and_then(|(bytes, _)| decode::<Lease>(&bytes));
        match lease::step(lease, self.me, now_ms) {
            LeaseStep::Work => true,
            LeaseStep::Rest => false,
            LeaseStep::Claim(claim) => write(&self.key, &encode(&claim), version),
        }
    }
}

/// What this gateway's workers have published, for another gateway to read.
pub fn page(question: &Question, now_ms: u64) -> Page {
    let (ledger, _) = read_ledger(now_ms);
    Page::of(&ledger, question, full_chunk, now_ms)
}

/// One worker's part in the ledger, and the ledger as it was last read.
pub struct Exchange {
    pub member: Member,
    read: Option<(Ledger, Option<u32>)>,
    heartbeat: Interval,
}

impl Exchange {
    /// `me` is the worker's own id.
    pub fn new(me: u64) -> Exchange {
        Exchange { member: Member::new(me), read: None, heartbeat: Interval::new(HEARTBEAT_MS) }
    }

    /// Reads the ledger: `loads` then knows what others have in flight.
    pub fn read(&mut self, loads: &mut LoadTracker, now_ms: u64) -> &Ledger {
        let (ledger, version) = read_ledger(now_ms);
        self.member.read(&ledger, loads, now_ms);
        &self.read.insert((ledger, version)).0
    }

    /// What others have published of prompts, in the ledger as it was read.
    pub fn receive(&mut self) -> Received {
        let read = self.read.as_ref().map(|(ledger, _)| self.member.receive(ledger, full_chunk));
        read.unwrap_or_default()
    }

    /// Publishes what this worker has in flight, and what happened to prompts here. What does not succeed, because others are
    /// faster time and again, is published the next time.
    pub fn publish(&mut self, loads: &mut LoadTracker, events: Vec<PromptEvent<'static>>, now_ms: u64) {
        self.publish_with(loads, events, |_| {}, now_ms);
    }

    /// The same, with whatever else is to be changed in the ledger.
    pub fn publish_with(
        &mut self,
        loads: &mut LoadTracker,
        events: Vec<PromptEvent<'static>>,
        change: impl Fn(&mut Ledger),
        now_ms: u64,
    ) {
        self.member.collect(loads, events);
        for _ in 0..MAX_TRIES {
            let (mut ledger, version) = self.read.take().unwrap_or_else(|| read_ledger(now_ms));
            ledger.refresh(now_ms);
            change(&mut ledger);
            let written = self.member.write(&mut ledger, loads, now_ms);
            if !write(&ledger_key(), &ledger.to_bytes(), version) {
                continue;
            }
            self.member.written(&written, &ledger);
            if let Some(full) = written.full {
                write(&journal_key(full.number), &full.to_bytes(), None);
            }
            if !self.member.has_unwritten() {
                return;
            }
        }
    }

    /// Publishes what is not published yet, and now and then that this worker is alive.
    pub fn tick(&mut self, loads: &mut LoadTracker, events: Vec<PromptEvent<'static>>, now_ms: u64) {
        let is_due = self.heartbeat.is_due(now_ms) && self.member.has_load();
        if is_due || !events.is_empty() || loads.has_unpublished() || self.member.has_unwritten() {
            self.publish(loads, events, now_ms);
        }
    }
}

/// The buckets of a table of conversations.
pub struct BucketsOf {
    pub by: KnownBy,
    pub secret: u64,
}

impl BucketsOf {
    fn key(&self, bucket: usize) -> String {
        let table = match self.by {
            KnownBy::Stored => "stored",
            KnownBy::Name => "sessions",
        };
        format!("{PREFIX}/{table}/{bucket}")
    }
}

impl Buckets for BucketsOf {
    fn secret(&self) -> u64 {
        self.secret
    }

    fn read(&self, bucket: usize) -> Option<(Vec<u8>, u32)> {
        read_value(&self.key(bucket))
    }

    fn write(&self, bucket: usize, bytes: &[u8], version: Option<u32>) -> bool {
        write(&self.key(bucket), bytes, version)
    }
}

/// Draws the secret that chooses the buckets of conversations, unless there is one.
pub fn draw_secret() {
    let key = format!("{PREFIX}/secret");
    if read_value(&key).is_none() {
        write(&key, &host::random().to_le_bytes(), None);
    }
}

/// That secret.
pub fn secret() -> Option<u64> {
    let (bytes, _) = read_value(&format!("{PREFIX}/secret"))?;
    bytes.try_into().ok().map(u64::from_le_bytes)
}

/// The ledger as it is now, and its version; a new one where there is none.
fn read_ledger(now_ms: u64) -> (Ledger, Option<u32>) {
    let value = read_value(&ledger_key());
    let version = value.as_ref().map(|(_, version)| *version);
    let ledger = value.and_then(|(bytes, _)| Ledger::from_bytes(&bytes));
    let mut ledger = ledger.unwrap_or_else(|| Ledger::new(host::random(), now_ms));
    ledger.refresh(now_ms);
    (ledger, version)
}

fn full_chunk(number: u64) -> Option<Chunk> {
    Chunk::from_bytes(&read_value(&journal_key(number))?.0)
}

/// The pool, as its scraper knows it. The companion service has a configuration of its own, and goes by the names alone.
fn pool_key(config: &config::Config, pool: &config::Pool) -> String {
    let config::Pool { name, cluster, endpoints, model_server, metrics, .. } = pool;
    let names = format!("{name}/{cluster}");
    match config.scrape_by {
        config::ScrapeBy::Service => names,
        config::ScrapeBy::Worker => {
            let admin_cluster = &config.admin_cluster;
            let scraped = format!("{endpoints:?} {model_server:?} {metrics:?} {admin_cluster:?}");
            format!("{names}/{}", slot(&names, fnv1a(scraped.as_bytes())))
        }
    }
}

/// The slot of who scrapes by this, among the configurations of this pool.
fn slot(names: &str, scraped: u64) -> usize {
    let (key, now_ms) = (format!("{PREFIX}/slots/{names}"), host::now_ms());
    let mut slot = 0;
    for _ in 0..MAX_TRIES {
        let found = read_value(&key);
        let version = found.as_ref().map(|(_, version)| *version);
        let mut slots: Slots = found.and_then(|(bytes, _)| decode(&bytes)).unwrap_or_default();
        slot = slots.claim(scraped, now_ms);
        if write(&key, &encode(&slots), version) {
            break;
        }
    }
    slot
}

fn ledger_key() -> String {
    format!("{PREFIX}/ledger")
}

fn journal_key(number: u64) -> String {
    format!("{PREFIX}/journal/{}", number % CHUNKS_KEPT)
}

/// A value and its version. Shared data that cannot be read is as if it were not there.
fn read_value(key: &str) -> Option<(Vec<u8>, u32)> {
    host::shared_data(key).inspect_err(|error| log::warn!("cannot read {key}: {error:?}")).ok().flatten()
}

/// Writes a value, with `version` only in place of that one; whether it is there now.
fn write(key: &str, value: &[u8], version: Option<u32>) -> bool {
    host::set_shared_data(key, value, version)
        .inspect_err(|error| log::warn!("cannot write {key}: {error:?}"))
        .unwrap_or(false)
}
