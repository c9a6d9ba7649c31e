//! One worker's part in the ledger.

use std::collections::{BTreeMap, VecDeque};

use super::journal::{Chunk, Cursor, Entry, Event, entries};
use super::{Ledger, Noted, Sums};
use crate::load::{EndpointKey, EndpointLoad, LoadBook};
use crate::prefix::PromptEvent;

/// See the module's documentation.
#[derive(Debug)]
pub struct Member {
    id: u64,
    wrote: Option<Wrote>,
    /// What of this worker is in the sums of the generations it takes part in.
    told: Sums,
    /// What has changed since, as it is now.
    changed: Sums,
    /// Entries that were not written yet.
    unwritten: VecDeque<Vec<u8>>,
    cursor: Option<Cursor>,
    /// The notes that were last taken over.
    notes: Vec<Noted>,
}

/// Where a member last wrote.
#[derive(Debug, Clone, Copy)]
struct Wrote {
    gateway: u64,
    generation: u64,
    /// Whether it is in the next generation as well.
    is_in_next: bool,
}

/// What a write consists of, until it has succeeded.
#[derive(Debug)]
pub struct Written {
    wrote: Wrote,
    entries: usize,
    /// A chunk of the journal that was filled, to be written once the ledger is.
    pub full: Option<Chunk>,
}

/// What others have told.
#[derive(Debug, Default)]
pub struct Heard {
    /// Bytes of entries, in order.
    pub parts: Vec<Vec<u8>>,
    /// Who has heard it, whose own entries do not count.
    pub me: u64,
    /// Whether more was told than was kept until it was read.
    pub is_lost: bool,
}

impl Heard {
    /// What others have told, in order.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.parts.iter().flat_map(|part| entries(part, self.me))
    }
}

static IDLE: EndpointLoad = EndpointLoad::IDLE;

impl Member {
    /// A worker that has written nothing yet. `id` tells workers apart, and is to be drawn at random.
    pub fn new(id: u64) -> Member {
        Member {
            id,
            wrote: None,
            told: Sums::new(),
            changed: Sums::new(),
            unwritten: VecDeque::new(),
            cursor: None,
            notes: Vec::new(),
        }
    }

    /// Tells this worker from others.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Takes in what has changed since the last time.
    pub fn collect(&mut self, loads: &mut LoadBook, events: Vec<PromptEvent<'static>>) {
        self.changed.extend(loads.take_unpublished());
        let entry = |event| Entry { worker: self.id, is_remote: false, event: Event::Prompt(event) };
        self.unwritten.extend(events.into_iter().map(|event| entry(event).to_bytes()));
    }

    /// So many requests wait for a pool in this worker.
    pub fn set_queued(&mut self, pool: &str, requests: u32) {
        let key = EndpointKey::of_queue(pool);
        let mut queue = EndpointLoad::default();
        queue.in_flight.requests = requests;
        if self.changed.get(&key).or(self.told.get(&key)).unwrap_or(&IDLE) != &queue {
            self.changed.insert(key, queue);
        }
    }

    /// Adds entries that another gateway has told.
    pub fn pass_on(&mut self, entries: Vec<u8>) {
        self.unwritten.push_back(entries);
    }

    /// Whether there is something that others do not know yet.
    pub fn has_unwritten(&self) -> bool {
        !self.changed.is_empty() || !self.unwritten.is_empty()
    }

    /// Whether it has to write now and then, to be in every generation.
    pub fn has_load(&self) -> bool {
        !self.told.is_empty()
    }

    /// Whether what it has told is in the ledger's present sums, and in the next ones.
    fn place(&self, ledger: &Ledger) -> (bool, bool) {
        let wrote = self.wrote.filter(|wrote| wrote.gateway == ledger.gateway);
        let Some(wrote) = wrote else { return (false, false) };
        match ledger.generation.wrapping_sub(wrote.generation) {
            0 => (true, wrote.is_in_next),
            1 => (wrote.is_in_next, false),
            _ => (false, false),
        }
    }

    /// Writes what others are to know into a ledger that was [refreshed](Ledger::refresh): as much of the entries as a chunk
    /// has room for. Once it is where all read it, [`Member::written`] is to be called.
    pub fn write(&self, ledger: &mut Ledger, loads: &LoadBook, now_ms: u64) -> Written {
        let (is_in_current, was_in_next) = self.place(ledger);
        for (key, new) in &self.changed {
            let old = self.told.get(key).unwrap_or(&IDLE);
            if is_in_current {
                ledger.current.replace(*key, old, new);
            }
            if was_in_next {
                ledger.next.replace(*key, old, new);
            }
        }
        let joins = !was_in_next && self.own().next().is_some();
        for (generation, is_new) in [(&mut ledger.current, !is_in_current), (&mut ledger.next, joins)] {
            if is_new {
                self.own().for_each(|(key, own)| generation.replace(*key, &IDLE, own));
                generation.add_member(self.id);
            }
        }
        loads.missing_noted(now_ms).for_each(|note| ledger.note(note, false));
        let mut entries = 0;
        for entry in &self.unwritten {
            if ledger.journal.is_full() {
                break;
            }
            ledger.journal.append_bytes(entry);
            entries += 1;
        }
        let wrote = Wrote {
            gateway: ledger.gateway,
            generation: ledger.generation,
            is_in_next: was_in_next || joins,
        };
        Written { wrote, entries, full: ledger.journal.close_if_full() }
    }

    /// What it has in flight, as it is now.
    fn own(&self) -> impl Iterator<Item = (&EndpointKey, &EndpointLoad)> {
        let unchanged = self.told.iter().filter(|(key, _)| !self.changed.contains_key(key));
        unchanged.chain(&self.changed).filter(|(_, load)| !load.is_idle())
    }

    /// What was written is where all read it.
    pub fn written(&mut self, written: &Written) {
        for (key, load) in std::mem::take(&mut self.changed) {
            if load.is_idle() {
                self.told.remove(&key)
            } else {
                self.told.insert(key, load)
            };
        }
        for _ in 0..written.entries {
            self.unwritten.pop_front();
        }
        self.wrote = Some(written.wrote);
    }

    /// Takes over what others have in flight, and what they have noted.
    pub fn read(&mut self, ledger: &Ledger, loads: &mut LoadBook, now_ms: u64) {
        let (is_in_current, _) = self.place(ledger);
        let told = |key| self.told.get(key).filter(|_| is_in_current).unwrap_or(&IDLE);
        let local = ledger.current.sums.iter().map(|(key, sum)| (*key, sum.without(told(key))));
        match ledger.remote(now_ms) {
            None => loads.set_others(local),
            Some(remote) => loads.set_others(with(local, remote).into_iter()),
        }
        if self.notes != ledger.notes {
            ledger.notes.iter().for_each(|noted| loads.hear_missing(&noted.note, now_ms));
            self.notes.clone_from(&ledger.notes);
        }
    }

    /// What others have told since the last time. Full chunks of the journal are asked for by number. A worker that begins
    /// reads the chunk that is growing.
    pub fn hear(&mut self, ledger: &Ledger, full: impl Fn(u64) -> Option<Chunk>) -> Heard {
        let begin = Cursor { chunk: ledger.journal.end().chunk, offset: 0 };
        let cursor = self.cursor.get_or_insert(begin);
        let unread = ledger.journal.unread(cursor, full);
        Heard { parts: unread.parts, me: self.id, is_lost: unread.is_lost }
    }
}

/// The sums of both.
fn with(local: impl Iterator<Item = (EndpointKey, EndpointLoad)>, remote: &Sums) -> Sums {
    let mut sums: BTreeMap<_, _> = local.collect();
    for (key, load) in remote {
        sums.entry(*key).or_default().replace(&IDLE, load);
    }
    sums
}
