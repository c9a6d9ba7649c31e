//! The ledger: what all workers of a gateway have in flight, as one value that each of them reads and writes. What a pick
//! costs does not depend on how many workers there are.
//!
//! Each worker is a [`Member`]. It adds what it has in flight to the ledger's sums, and with each change it takes out what
//! it had and adds what it has. Sums alone would keep what a worker had that has died, so there are two generations of them:
//!
//! ```text
//! generation g     what picks go by
//! generation g+1   being made: each member adds all it has once, and then each change to both
//! ```
//!
//! After [`GENERATION_MS`] the next generation takes the place of the first, and a new one begins. A worker that has died
//! added nothing to it, so its load is gone after two generations at most. The same heals whatever else goes wrong: a value
//! that was overwritten, a worker that stood still for seconds and comes back. Nothing is counted twice, because a member
//! knows from the generation's number what of its own is in which sum.
//!
//! With the sums go a [`Journal`] of what happened to prompts, notes of models that endpoints do not have, and what other
//! gateways have in flight.
//!
//! Contract: no host calls. Whoever holds the value writes it by compare-and-swap, and begins anew with what stands there
//! where another was first.

mod journal;
mod layout;
mod member;
mod row;
mod sums;

use crate::load::{AdapterId, EndpointKey, EndpointLoad, FailureNote, MissingNote};
use crate::pool::FORMAT;
use layout::{Reader, Writer};
use row::{AdapterRow, NoteRow, Row, failure_from_words, failure_words};

pub use journal::{CHUNKS_KEPT, Chunk, Cursor, Entry, Event, Journal, entries, local_entries};
pub use member::{Member, Received, Written};
pub use sums::Sums;

/// How long a generation lasts, in milliseconds: two are less than the two seconds after which nothing of a dead worker's
/// is to count.
pub const GENERATION_MS: u64 = 900;

/// How often a member that has something in flight writes at least, in milliseconds, so that it is in every generation.
pub const HEARTBEAT_MS: u64 = 300;

/// What other gateways have in flight does not count when nothing was received of it for this long, in milliseconds.
pub const REMOTE_EXPIRES_AFTER_MS: u64 = 2_000;

/// Notes of missing models that are published at a time, and of failures; there are few, and each is published for a second and a half.
pub const MAX_NOTES: usize = 256;

/// Bytes of a ledger that are read: 65,000 endpoints with requests in flight, and the journal.
const MAX_LEDGER_BYTES: usize = 8 << 20;

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    gateway: u64,
    generation: u64,
    began_ms: u64,
    snapshots: u64,
    /// By key.
    rows: Vec<Row>,
    adapters: Vec<AdapterRow>,
    /// The ids of those who take part in the current generation, and in the next.
    members: Vec<u64>,
    next_members: Vec<u64>,
    remote: Remote,
    notes: Vec<NoteRow>,
    /// Requests that fail in a row, by workers of this gateway alone: another may have another way to an endpoint.
    failures: Vec<FailureNote>,
    journal: Journal,
}

/// What other gateways have in flight.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Remote {
    received_ms: u64,
    /// By key; of each the current generation alone.
    rows: Vec<Row>,
    adapters: Vec<AdapterRow>,
}

impl Ledger {
    /// An empty one. `gateway` distinguishes gateways, and is to be drawn at random.
    pub fn new(gateway: u64, now_ms: u64) -> Ledger {
        Ledger {
            gateway,
            generation: 0,
            began_ms: now_ms,
            snapshots: 0,
            rows: Vec::new(),
            adapters: Vec::new(),
            members: Vec::new(),
            next_members: Vec::new(),
            remote: Remote::default(),
            notes: Vec::new(),
            failures: Vec::new(),
            journal: Journal::default(),
        }
    }

    /// Reads a ledger; `None` for bytes that are none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Ledger> {
        if bytes.len() > MAX_LEDGER_BYTES {
            return None;
        }
        let mut reader = Reader::new(FORMAT, bytes)?;
        let ledger = Ledger {
            gateway: reader.word()?,
            generation: reader.word()?,
            began_ms: reader.word()?,
            snapshots: reader.word()?,
            rows: reader.list(Row::from_words)?,
            adapters: reader.list(AdapterRow::from_words)?,
            members: reader.list(|[id]| id)?,
            next_members: reader.list(|[id]| id)?,
            remote: Remote {
                received_ms: reader.word()?,
                rows: reader.list(Row::from_words)?,
                adapters: reader.list(AdapterRow::from_words)?,
            },
            notes: reader.list(NoteRow::from_words)?,
            failures: reader.list(failure_from_words)?,
            journal: Journal::new(reader.word()?, reader.bytes()?),
        };
        let is_sorted = |rows: &[Row]| rows.is_sorted_by(|one, next| one.key < next.key);
        (reader.is_at_end() && is_sorted(&ledger.rows) && is_sorted(&ledger.remote.rows)).then_some(ledger)
    }

    /// The bytes to write.
    pub fn to_bytes(&self) -> Vec<u8> {
        let rows = self.rows.len()
            + self.remote.rows.len()
            + self.adapters.len()
            + self.notes.len()
            + self.failures.len();
        let capacity = 256 + rows * size_of::<Row>() + self.journal.len();
        let mut writer = Writer::new(FORMAT, capacity);
        [self.gateway, self.generation, self.began_ms, self.snapshots]
            .into_iter()
            .for_each(|word| writer.word(word));
        writer.list(self.rows.iter().map(Row::words));
        writer.list(self.adapters.iter().map(AdapterRow::words));
        writer.list(self.members.iter().map(|id| [*id]));
        writer.list(self.next_members.iter().map(|id| [*id]));
        writer.word(self.remote.received_ms);
        writer.list(self.remote.rows.iter().map(Row::words));
        writer.list(self.remote.adapters.iter().map(AdapterRow::words));
        writer.list(self.notes.iter().map(NoteRow::words));
        writer.list(self.failures.iter().map(failure_words));
        writer.word(self.journal.end().chunk);
        writer.bytes(self.journal.bytes());
        writer.finish()
    }

    /// Distinguishes this gateway from others.
    pub fn gateway(&self) -> u64 {
        self.gateway
    }

    /// How many snapshots scrapers have published: as long as there are no more, those that were read are the last ones.
    pub fn snapshots(&self) -> u64 {
        self.snapshots
    }

    /// A scraper has published a snapshot.
    pub fn snapshot_published(&mut self) {
        self.snapshots = self.snapshots.wrapping_add(1);
    }

    /// What happened to prompts.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// What this gateway's workers have in flight.
    pub fn sums(&self) -> Sums {
        let busy = self.rows.iter().filter(|row| row.current.requests > 0);
        busy.map(|row| (row.key, row::load(row.in_flight(), adapters_at(&self.adapters, row.key)))).collect()
    }

    /// What workers of this gateway have noted of missing models, and is still to be published.
    pub fn local_notes(&self) -> impl Iterator<Item = &MissingNote> {
        self.notes.iter().filter(|noted| !noted.is_remote).map(|noted| &noted.note)
    }

    /// How many requests wait for a pool, in all workers.
    pub fn queued(&self, pool: &str) -> u32 {
        let row = find(&self.rows, EndpointKey::of_queue(pool));
        row.map_or(0, |row| row.current.requests)
    }

    /// Begins a new generation where it is time, and forgets what is no longer published. That a worker has ended is published to the
    /// others.
    pub fn refresh(&mut self, now_ms: u64) {
        self.notes.retain(|noted| noted.note.is_published(now_ms));
        self.failures.retain(|note| note.is_published(now_ms));
        let age_ms = now_ms.abs_diff(self.began_ms);
        if age_ms < GENERATION_MS {
            return;
        }
        self.turn();
        if age_ms >= 2 * GENERATION_MS {
            // Nobody has had anything in flight: who has would have written.
            self.turn();
        }
        self.began_ms = now_ms;
    }

    /// The next generation takes the place of the current one. Whose the oldest requests are is said anew.
    fn turn(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        for row in &mut self.rows {
            *row = Row { current: row.next, last_output_ms: row.last_output_ms, ..Row::new(row.key) };
        }
        self.rows.retain(|row| !row.is_idle());
        for row in &mut self.adapters {
            *row = AdapterRow { current: row.next, next: 0, ..*row };
        }
        self.adapters.retain(|row| !row.is_idle());
        let next = std::mem::take(&mut self.next_members);
        for worker in std::mem::replace(&mut self.members, next) {
            if !self.members.contains(&worker) {
                self.journal.append(&Entry { worker, is_remote: false, event: Event::Ended });
            }
        }
    }

    /// Takes over what other gateways have in flight, in place of what was known of that.
    pub fn set_remote(&mut self, sums: &Sums, now_ms: u64) {
        let row = |(key, load): (EndpointKey, &EndpointLoad)| {
            let mut row = Row::new(key);
            row.replace(Some(Default::default()), None, load.in_flight);
            row
        };
        let adapters =
            sums.iter().flat_map(|(key, load)| load.adapters.iter().map(move |adapter| (key, *adapter)));
        let adapters =
            adapters.map(|(key, (adapter, current))| AdapterRow { key, adapter, current, next: 0 });
        self.remote = Remote {
            received_ms: now_ms,
            rows: sums.iter().map(row).collect(),
            adapters: adapters.collect(),
        };
    }

    /// Takes over a note. Of what is noted of the same model at the same endpoint the last one holds.
    pub fn note(&mut self, note: MissingNote, is_remote: bool) {
        let is_same =
            |noted: &&mut NoteRow| noted.note.endpoint == note.endpoint && noted.note.model == note.model;
        if let Some(noted) = self.notes.iter_mut().find(is_same) {
            if note.missing > noted.note.missing {
                *noted = NoteRow { note, is_remote };
            }
        } else if self.notes.len() < MAX_NOTES {
            self.notes.push(NoteRow { note, is_remote });
        }
    }

    /// Takes over a note of failures. Of what is noted of the same endpoint the last one holds.
    pub fn note_failures(&mut self, note: FailureNote) {
        let is_same = |noted: &&mut FailureNote| noted.endpoint == note.endpoint;
        if let Some(noted) = self.failures.iter_mut().find(is_same) {
            noted.failures = noted.failures.max(note.failures);
        } else if self.failures.len() < MAX_NOTES {
            self.failures.push(note);
        }
    }

    /// What other gateways have in flight, unless that was received too long ago.
    fn remote(&self, now_ms: u64) -> Option<&Remote> {
        let is_recent = now_ms.abs_diff(self.remote.received_ms) < REMOTE_EXPIRES_AFTER_MS;
        (is_recent && !self.remote.rows.is_empty()).then_some(&self.remote)
    }
}

fn find(rows: &[Row], key: EndpointKey) -> Option<&Row> {
    rows.get(rows.binary_search_by_key(&key, |row| row.key).ok()?)
}

/// The adapters in use at an endpoint. There are few rows, or none.
fn adapters_at(rows: &[AdapterRow], key: EndpointKey) -> impl Iterator<Item = (AdapterId, u32)> {
    rows.iter().filter(move |row| row.key == key).map(|row| (row.adapter, row.current))
}

#[cfg(test)]
mod tests;
