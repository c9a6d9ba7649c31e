//! What workers and the scraper tell each other through the host's shared data.
//!
//! | key | writer | holds |
//! |---|---|---|
//! | `…/pool/NAME/CLUSTER` | the scraper | the pool's [`Snapshot`] |
//! | `…/lease/NAME/CLUSTER` | workers, by compare-and-swap | who scrapes the pool |
//! | `…/workers` | workers, by compare-and-swap | the ids of the workers that have sent requests |
//! | `…/load/ID` | the worker ID alone | its [`LoadTable`] |
//! | `…/queued/ID` | the worker ID alone | how many requests wait in it, by pool, and when it said so |
//! | `…/prompts/ID/SLOT` | the worker ID alone | a [`Batch`] of what happened to prompts, in the slot of its number |
//! | `…/remote-workers` | who asks the other gateways | the ids of their workers |
//! | `…/remote-workers-lease` | workers, by compare-and-swap | who asks the other gateways |
//!
//! Where workers scrape, the first two keys end in a hash of what the scraper goes by: around a change of the configuration
//! workers of the old one go on for as long as it has requests, and must not speak for the new one.
//!
//! What workers of other gateways have told is under the same keys as that of this one's, written by who has asked.
//!
//! Shared data is keyed by `vm_id` alone: other plugins may share it, so keys carry a prefix, with the format's
//! number, and what is read is decoded as bytes from a stranger.

use super::host::{self, LogLevel};
use crate::config;
use crate::hash::fnv1a;
use crate::lease::{self, Lease, LeaseStep};
use crate::limits::{Limit, LimitsReached};
use crate::load::{LoadBook, LoadTable, is_recent};
use crate::peers::{MAX_REMOTE_WORKERS, Page, Question, WorkerPage};
use crate::pool::{Snapshot, decode, encode};
use crate::prefix::{BATCHES_KEPT, Batch, numbers_to_read};

/// Changes with the format of what is stored.
const PREFIX: &str = "inference-picker/2";

/// A worker says that it is alive this often, in milliseconds, even if nothing changes: four times before it would
/// be held for gone.
const HEARTBEAT_MS: u64 = 500;

/// Workers whose load is exchanged; more cores than a proxy is given.
const MAX_WORKERS: usize = 1024;

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

/// The place of how many requests wait in a worker, and in the others.
pub struct QueuedPlace {
    me: u64,
    /// Hashes of the pools' names: another configuration may have them in another order.
    pools: Vec<u64>,
    told: Vec<u32>,
    told_ms: u64,
}

/// What one worker has told: when, and by pool how many.
type Queued = (u64, Vec<(u64, u32)>);

impl QueuedPlace {
    pub fn new(config: &config::Config, me: u64) -> QueuedPlace {
        let pools: Vec<u64> = config.pools.iter().map(|pool| fnv1a(pool.name.as_bytes())).collect();
        QueuedPlace { me, told: vec![0; pools.len()], told_ms: 0, pools }
    }

    /// Says how many wait in this worker, by the pool's place: when that changes, and as long as any do now and then.
    pub fn tell(&mut self, queued: Vec<u32>, now_ms: u64) {
        let any = queued.iter().any(|count| *count > 0);
        if queued != self.told || any && now_ms.saturating_sub(self.told_ms) >= HEARTBEAT_MS {
            let by_pool = self.pools.iter().copied().zip(queued.iter().copied()).collect();
            let told: Queued = (now_ms, by_pool);
            write(&queued_key(self.me), &encode(&told), None);
            (self.told, self.told_ms) = (queued, now_ms);
        }
    }

    /// How many wait in all workers, by the pool's place. What a worker has told that is gone counts no more.
    pub fn told(&self, now_ms: u64) -> Vec<u32> {
        let others = workers().into_iter().filter(|id| *id != self.me);
        let others = others.filter_map(|id| decode::<Queued>(&read_value(&queued_key(id))?.0));
        let alive = others.filter(|(told_ms, _)| is_recent(*told_ms, now_ms));
        let mut sums = self.told.clone();
        for (pool, count) in alive.flat_map(|(_, by_pool)| by_pool) {
            let place = self.pools.iter().position(|known| *known == pool);
            if let Some(sum) = place.and_then(|place| sums.get_mut(place)) {
                *sum = sum.saturating_add(count);
            }
        }
        sums
    }
}

/// The place of a lease: that on scraping a pool, or on asking the other gateways.
pub struct LeasePlace {
    key: String,
    me: u64,
}

impl LeasePlace {
    pub fn new(config: &config::Config, pool: &config::Pool, me: u64) -> LeasePlace {
        LeasePlace { key: format!("{PREFIX}/lease/{}", pool_key(config, pool)), me }
    }

    /// That on asking the other gateways.
    pub fn of_remote_workers(me: u64) -> LeasePlace {
        LeasePlace { key: format!("{}-lease", remote_workers_key()), me }
    }

    /// Whether this worker holds the lease, having taken or renewed it where it could.
    pub fn is_held(&self, now_ms: u64) -> bool {
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

/// The place of what the workers of other gateways have told.
#[derive(Default)]
pub struct RemoteWorkersPlace {
    listed: Vec<u64>,
}

impl RemoteWorkersPlace {
    /// Publishes what a worker has told: its table last, which says what else there is.
    pub fn write(&self, worker: &WorkerPage) {
        for batch in &worker.batches {
            write(&batch_key(worker.id, batch.number), &encode(batch), None);
        }
        write(&load_key(worker.id), &encode(&worker.table), None);
    }

    /// Goes on from what another has published.
    pub fn take_over(&mut self) {
        self.listed = read_ids(&remote_workers_key(), MAX_REMOTE_WORKERS);
    }

    /// Publishes which workers there are.
    pub fn list(&mut self, ids: Vec<u64>) {
        if self.listed != ids {
            write(&remote_workers_key(), &encode(&ids), None);
            self.listed.iter().filter(|id| !ids.contains(id)).for_each(|id| clear(*id));
            self.listed = ids;
        }
    }
}

/// What this gateway's workers have told, for another gateway to read.
pub fn page(question: &Question, now_ms: u64) -> Page {
    let mut page = Page::new(now_ms);
    for id in workers() {
        if let Some((table, _)) = read_value(&load_key(id)) {
            let batch = |number| read_value(&batch_key(id, number)).map(|(bytes, _)| bytes);
            page.add(id, &table, question.since(id).unwrap_or(0), batch);
        }
    }
    page
}

/// The ids of this gateway's workers.
pub fn workers() -> Vec<u64> {
    read_ids(&workers_key(), MAX_WORKERS)
}

/// The exchange of loads, and of what happened to prompts, between workers.
pub struct Exchange {
    me: u64,
    /// Batches of what happened to prompts, published so far.
    batches: u64,
    published_ms: Option<u64>,
    /// When the peers' tables were last read.
    read_ms: u64,
    peers: Vec<Peer>,
    /// Peers that have gone.
    gone: Vec<u64>,
    /// Which limits were reached.
    pub limits: LimitsReached,
}

struct Peer {
    id: u64,
    /// Whether it is another gateway's: what it tells is late by more than a tick anyway.
    is_remote: bool,
    key: String,
    seen: Option<u32>,
    table: Option<LoadTable>,
    /// Of its batches, the number of the last that was read.
    batches_read: u64,
}

impl Peer {
    fn new(id: u64, is_remote: bool) -> Peer {
        Peer { id, is_remote, key: load_key(id), seen: None, table: None, batches_read: 0 }
    }

    /// Whether of what it has told some was written over before it was read.
    fn has_lost(&self) -> bool {
        let published = self.table.as_ref().map_or(0, |table| table.batches);
        self.batches_read > 0 && published.saturating_sub(self.batches_read) > BATCHES_KEPT
    }

    /// What it has told since the last time. Batches that have been written over are lost; what they told of expires.
    fn take_told(&mut self) -> Vec<(u64, Batch)> {
        let Some(published) = self.table.as_ref().map(|table| table.batches) else { return Vec::new() };
        let read = std::mem::replace(&mut self.batches_read, published);
        let batches = numbers_to_read(read, published).filter_map(|number| {
            let (bytes, _) = read_value(&batch_key(self.id, number))?;
            decode::<Batch>(&bytes).filter(|batch| batch.number == number)
        });
        batches.map(|batch| (self.id, batch)).collect()
    }

    /// Reads its table; whether it is another than before.
    fn refresh(&mut self) -> bool {
        let Some((bytes, version)) = read_value(&self.key) else {
            return false;
        };
        if self.seen.replace(version) == Some(version) {
            return false;
        }
        self.table = decode(&bytes);
        true
    }
}

impl Exchange {
    /// `me` is the worker's own id. A first list of workers is written at once, so that the compare-and-swaps that
    /// add to it have something to compare with.
    pub fn new(me: u64) -> Exchange {
        if read_value(&workers_key()).is_none() {
            write(&workers_key(), &encode(&Vec::<u64>::new()), None);
        }
        Exchange {
            me,
            batches: 0,
            published_ms: None,
            read_ms: 0,
            peers: Vec::new(),
            gone: Vec::new(),
            limits: LimitsReached::default(),
        }
    }

    /// Publishes what happened to prompts; the next table says so.
    pub fn tell(&mut self, batch: &Batch) {
        write(&batch_key(self.me, batch.number), &encode(batch), None);
        self.batches = batch.number;
    }

    /// Publishes what this worker has in flight.
    pub fn publish(&mut self, loads: &LoadBook, now_ms: u64) {
        let table = LoadTable { batches: self.batches, ..loads.table(now_ms) };
        write(&load_key(self.me), &encode(&table), None);
        if self.published_ms.replace(now_ms).is_none() {
            self.follow_workers(now_ms);
        }
    }

    /// Has the others know this worker, if they do not yet.
    pub fn introduce(&mut self, loads: &LoadBook, now_ms: u64) {
        if self.published_ms.is_none() {
            self.publish(loads, now_ms);
        }
    }

    /// Takes over what this gateway's workers have published since the last time; at most once a millisecond, because
    /// every pick asks for it and every peer's table costs a call.
    pub fn read_peers(&mut self, loads: &mut LoadBook, now_ms: u64) {
        if std::mem::replace(&mut self.read_ms, now_ms) == now_ms {
            return;
        }
        let near = self.peers.iter_mut().filter(|peer| !peer.is_remote);
        let changed = near.fold(false, |changed, peer| peer.refresh() | changed);
        if changed {
            loads.set_peers(self.peers.iter().filter_map(|peer| peer.table.as_ref()), now_ms);
        }
    }

    /// Follows which workers there are, and says that this one is alive. `dirty`: its load
    /// has changed since it was published.
    pub fn tick(&mut self, loads: &mut LoadBook, dirty: bool, now_ms: u64) {
        if let Some(published_ms) = self.published_ms
            && (dirty || now_ms.saturating_sub(published_ms) >= HEARTBEAT_MS)
        {
            self.publish(loads, now_ms);
        }
        self.follow_workers(now_ms);
        for peer in &mut self.peers {
            peer.refresh();
        }
        loads.set_peers(self.peers.iter().filter_map(|peer| peer.table.as_ref()), now_ms);
    }

    /// The peers that have gone since the last time, and those that have told more of prompts than was read in time.
    pub fn take_lost(&mut self) -> Vec<u64> {
        let mut lost: Vec<u64> =
            self.peers.iter().filter(|peer| peer.has_lost()).map(|peer| peer.id).collect();
        self.limits.add_if(!lost.is_empty(), Limit::PromptBatches);
        lost.append(&mut self.gone);
        lost
    }

    /// What the peers have told of prompts since the last time, and who.
    pub fn take_told(&mut self) -> Vec<(u64, Batch)> {
        self.peers.iter_mut().flat_map(Peer::take_told).collect()
    }

    /// Reads the list of workers; adds this one once it has published, and drops those that are gone.
    fn follow_workers(&mut self, now_ms: u64) {
        let Some((bytes, version)) = read_value(&workers_key()) else {
            return;
        };
        let listed: Vec<u64> = decode(&bytes).unwrap_or_default();
        self.limits.add_if(listed.len() > MAX_WORKERS, Limit::Workers);
        let gone = |id: u64| {
            let table = self.peers.iter().find(|peer| peer.id == id).and_then(|peer| peer.table.as_ref());
            table.is_some_and(|table| !table.is_alive(now_ms))
        };
        let mut wanted: Vec<u64> = listed.iter().copied().filter(|&id| !gone(id)).take(MAX_WORKERS).collect();
        if self.published_ms.is_some() && !wanted.contains(&self.me) {
            wanted.push(self.me);
        }
        if wanted != listed && write(&workers_key(), &encode(&wanted), Some(version)) {
            listed.iter().filter(|id| !wanted.contains(id)).for_each(|id| clear(*id));
        }
        let remote = read_ids(&remote_workers_key(), MAX_REMOTE_WORKERS);
        let stays = |peer: &Peer| if peer.is_remote { &remote } else { &wanted }.contains(&peer.id);
        self.gone.extend(self.peers.iter().filter(|peer| !stays(peer)).map(|peer| peer.id));
        self.peers.retain(stays);
        self.follow(&wanted, false);
        self.follow(&remote, true);
    }

    fn follow(&mut self, ids: &[u64], is_remote: bool) {
        for &id in ids {
            if id != self.me && !self.peers.iter().any(|peer| peer.id == id) {
                self.peers.push(Peer::new(id, is_remote));
            }
        }
    }
}

/// The pool, as its scraper knows it. The companion service has a configuration of its own, and goes by the names alone.
fn pool_key(config: &config::Config, pool: &config::Pool) -> String {
    let config::Pool { name, cluster, endpoints, model_server, .. } = pool;
    let names = format!("{name}/{cluster}");
    match config.scrape_by {
        config::ScrapeBy::Service => names,
        config::ScrapeBy::Worker => {
            let clusters = (&config.scrape_cluster, &config.admin_cluster);
            let scraped = format!("{endpoints:?} {model_server:?} {clusters:?}");
            format!("{names}/{:016x}", fnv1a(scraped.as_bytes()))
        }
    }
}

fn workers_key() -> String {
    format!("{PREFIX}/workers")
}

fn remote_workers_key() -> String {
    format!("{PREFIX}/remote-workers")
}

/// A list of workers, of which the first `most` count.
fn read_ids(key: &str, most: usize) -> Vec<u64> {
    let mut ids: Vec<u64> = read_value(key).and_then(|(bytes, _)| decode(&bytes)).unwrap_or_default();
    ids.truncate(most);
    ids
}

fn load_key(id: u64) -> String {
    format!("{PREFIX}/load/{id:016x}")
}

fn queued_key(id: u64) -> String {
    format!("{PREFIX}/queued/{id:016x}")
}

fn batch_key(id: u64, batch: u64) -> String {
    format!("{PREFIX}/prompts/{id:016x}/{}", batch % BATCHES_KEPT)
}

/// Lets go of what a worker has told that is gone. Its keys stay, because the host never forgets one.
fn clear(id: u64) {
    let batches = (0..BATCHES_KEPT).map(|slot| batch_key(id, slot));
    for key in [load_key(id), queued_key(id)].into_iter().chain(batches) {
        if read_value(&key).is_some_and(|(bytes, _)| !bytes.is_empty()) {
            write(&key, &[], None);
        }
    }
}

/// A value and its version. Shared data that cannot be read is as if it were not there.
fn read_value(key: &str) -> Option<(Vec<u8>, u32)> {
    host::shared_data(key)
        .inspect_err(|error| {
            host::log(LogLevel::Warn, &format!("inference-picker: cannot read {key}: {error:?}"))
        })
        .ok()
        .flatten()
}

/// Writes a value, with `version` only in place of that one; whether it is there now.
fn write(key: &str, value: &[u8], version: Option<u32>) -> bool {
    host::set_shared_data(key, value, version)
        .inspect_err(|error| {
            host::log(LogLevel::Warn, &format!("inference-picker: cannot write {key}: {error:?}"))
        })
        .unwrap_or(false)
}
