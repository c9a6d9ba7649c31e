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
mod member;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::load::{EndpointKey, EndpointLoad, MissingNote};
use crate::pool::{decode, encode};

pub use journal::{CHUNKS_KEPT, Chunk, Cursor, Entry, Event, Journal, entries, local_entries};
pub use member::{Heard, Member, Written};

/// How long a generation lasts, in milliseconds: two are less than the two seconds after which nothing of a dead worker's
/// is to count.
pub const GENERATION_MS: u64 = 900;

/// How often a member that has something in flight writes at least, in milliseconds, so that it is in every generation.
pub const HEARTBEAT_MS: u64 = 300;

/// What other gateways have in flight does not count when it was not heard for this long, in milliseconds.
pub const REMOTE_EXPIRES_AFTER_MS: u64 = 2_000;

/// Notes of missing models that are told at a time; there are few, and each is told for a second.
pub const MAX_NOTES: usize = 256;

/// Bytes of a ledger that are read: 65,000 endpoints with requests in flight, and the journal.
const MAX_LEDGER_BYTES: usize = 8 << 20;

/// Endpoints and queues, each with what is in flight there or waits in it; none that is idle.
pub type Sums = BTreeMap<EndpointKey, EndpointLoad>;

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    gateway: u64,
    generation: u64,
    began_ms: u64,
    current: Generation,
    next: Generation,
    remote: Remote,
    notes: Vec<Noted>,
    journal: Journal,
}

/// The sums of those who take part in them.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Generation {
    sums: Sums,
    /// The ids of those, eight bytes each: read one by one as numbers they would cost each pick something.
    #[serde(with = "serde_bytes")]
    members: Vec<u8>,
}

/// What other gateways have in flight.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Remote {
    heard_ms: u64,
    sums: Sums,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    note: MissingNote,
    /// Whether another gateway has noted it. What was heard is not told again.
    is_remote: bool,
}

impl Generation {
    fn ids(&self) -> impl Iterator<Item = u64> {
        self.members.as_chunks().0.iter().map(|id| u64::from_le_bytes(*id))
    }

    fn add_member(&mut self, id: u64) {
        if !self.ids().any(|known| known == id) {
            self.members.extend(id.to_le_bytes());
        }
    }

    fn replace(&mut self, key: EndpointKey, old: &EndpointLoad, new: &EndpointLoad) {
        let sum = self.sums.entry(key).or_default();
        sum.replace(old, new);
        if sum.is_idle() {
            self.sums.remove(&key);
        }
    }
}

impl Ledger {
    /// An empty one. `gateway` tells gateways apart, and is to be drawn at random.
    pub fn new(gateway: u64, now_ms: u64) -> Ledger {
        Ledger {
            gateway,
            generation: 0,
            began_ms: now_ms,
            current: Generation::default(),
            next: Generation::default(),
            remote: Remote::default(),
            notes: Vec::new(),
            journal: Journal::default(),
        }
    }

    /// Reads a ledger; `None` for bytes that are none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Ledger> {
        if bytes.len() > MAX_LEDGER_BYTES { None } else { decode(bytes) }
    }

    /// The bytes to write.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Tells this gateway from others.
    pub fn gateway(&self) -> u64 {
        self.gateway
    }

    /// What happened to prompts.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// What this gateway's workers have in flight.
    pub fn sums(&self) -> &Sums {
        &self.current.sums
    }

    /// What workers of this gateway have noted of missing models, and is still to be told.
    pub fn local_notes(&self) -> impl Iterator<Item = &MissingNote> {
        self.notes.iter().filter(|noted| !noted.is_remote).map(|noted| &noted.note)
    }

    /// How many requests wait for a pool, in all workers.
    pub fn queued(&self, pool: &str) -> u32 {
        let queue = self.current.sums.get(&EndpointKey::of_queue(pool));
        queue.map_or(0, |queue| queue.in_flight.requests)
    }

    /// Begins a new generation where it is time, and forgets what is told no more. That a worker has ended is told to the
    /// others.
    pub fn refresh(&mut self, now_ms: u64) {
        self.notes.retain(|noted| noted.note.is_told(now_ms));
        let age_ms = now_ms.abs_diff(self.began_ms);
        if age_ms < GENERATION_MS {
            return;
        }
        let mut next = std::mem::take(&mut self.next);
        self.generation = self.generation.wrapping_add(1);
        if age_ms >= 2 * GENERATION_MS {
            // Nobody has had anything in flight: who has would have written.
            next = Generation::default();
            self.generation = self.generation.wrapping_add(1);
        }
        self.began_ms = now_ms;
        let before = std::mem::replace(&mut self.current, next);
        for id in before.ids() {
            if !self.current.ids().any(|member| member == id) {
                self.journal.append(&Entry { worker: id, is_remote: false, event: Event::Ended });
            }
        }
    }

    /// Takes over what other gateways have in flight, in place of what was known of that.
    pub fn set_remote(&mut self, sums: Sums, now_ms: u64) {
        self.remote = Remote { heard_ms: now_ms, sums };
    }

    /// Takes over a note. Of what is noted of the same model at the same endpoint the last one holds.
    pub fn note(&mut self, note: MissingNote, is_remote: bool) {
        let is_same =
            |noted: &&mut Noted| noted.note.endpoint == note.endpoint && noted.note.model == note.model;
        if let Some(noted) = self.notes.iter_mut().find(is_same) {
            if note.missing > noted.note.missing {
                *noted = Noted { note, is_remote };
            }
        } else if self.notes.len() < MAX_NOTES {
            self.notes.push(Noted { note, is_remote });
        }
    }

    /// What other gateways have in flight, unless that was heard too long ago.
    fn remote(&self, now_ms: u64) -> Option<&Sums> {
        let is_recent = now_ms.abs_diff(self.remote.heard_ms) < REMOTE_EXPIRES_AFTER_MS;
        (is_recent && !self.remote.sums.is_empty()).then_some(&self.remote.sums)
    }
}

#[cfg(test)]
mod tests;
