//! One worker's part in the ledger.

use super::journal::{Chunk, Cursor, Entry, Event, entries};
use super::row::{self, AdapterRow, NoteRow, Row};
use super::{Ledger, Sums, adapters_at};
use crate::load::{AdapterId, EndpointKey, EndpointLoad, FailureNote, LoadTracker};
use crate::prefix::PromptEvent;
use crate::sessions::Note;

/// Entries that wait to be published to others from which on conversations are not published: more than a worker serves in a second.
const MAX_UNPUBLISHED_CONVERSATIONS: usize = 4_096;

/// See the module's documentation.
#[derive(Debug)]
pub struct Member {
    id: u64,
    wrote: Option<Wrote>,
    /// What of this worker is in the sums of the generations it takes part in.
    published: Sums,
    /// What has changed since, as it is now.
    changed: Sums,
    /// Entries that were not written yet.
    unwritten: Vec<Vec<u8>>,
    cursor: Option<Cursor>,
    seen: Option<Seen>,
    /// The notes that were last taken over.
    notes: Vec<NoteRow>,
    failures: Vec<FailureNote>,
}

/// The sums as they were last read or written. Where a row is the same since, so is what others have there: what this worker
/// has changed of its own is in both.
#[derive(Debug)]
struct Seen {
    gateway: u64,
    generation: u64,
    /// Whether this worker's own was in them.
    has_own: bool,
    /// Endpoints known then: of one that is new nothing was taken over.
    endpoints: u64,
    rows: Vec<Row>,
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

/// What others have published.
#[derive(Debug, Default)]
pub struct Received {
    /// Bytes of entries, in order.
    pub parts: Vec<Vec<u8>>,
    /// Who has received it, whose own entries do not count.
    pub me: u64,
    /// Whether more was published than was kept until it was read.
    pub is_lost: bool,
}

impl Received {
    /// What others have published, in order.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.parts.iter().flat_map(|part| entries(part, self.me))
    }
}

static IDLE: EndpointLoad = EndpointLoad::IDLE;

/// Adapters in use at endpoints that are published, together; what is beyond is known by who uses it, and by scrapes.
const MAX_ADAPTER_ROWS: usize = 4_096;

impl Member {
    /// A worker that has written nothing yet. `id` distinguishes workers, and is to be drawn at random.
    pub fn new(id: u64) -> Member {
        Member {
            id,
            wrote: None,
            published: Sums::new(),
            changed: Sums::new(),
            unwritten: Vec::new(),
            cursor: None,
            seen: None,
            notes: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Distinguishes this worker from others.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Takes in what has changed since the last time.
    pub fn collect(&mut self, loads: &mut LoadTracker, events: Vec<PromptEvent<'static>>) {
        loads.take_unpublished().into_iter().for_each(|(key, load)| self.changed.set(key, load));
        let entry = |event| Entry { worker: self.id, is_remote: false, event: Event::Prompt(event) };
        self.unwritten.extend(events.into_iter().map(|event| entry(event).to_bytes()));
    }

    /// So many requests wait for a pool in this worker.
    pub fn set_queued(&mut self, pool: &str, requests: u32) {
        let key = EndpointKey::of_queue(pool);
        let mut queue = EndpointLoad::default();
        queue.in_flight.requests = requests;
        if self.changed.get(key).or(self.published.get(key)).unwrap_or(&IDLE) != &queue {
            self.changed.set(key, queue);
        }
    }

    /// Adds a conversation that was served here, as long as there is room for it.
    pub fn publish_conversation(&mut self, note: Note) {
        if self.unwritten.len() >= MAX_UNPUBLISHED_CONVERSATIONS {
            return;
        }
        let event = Event::Conversation(note);
        self.unwritten.push(Entry { worker: self.id, is_remote: false, event }.to_bytes());
    }

    /// Adds entries that another gateway has published.
    pub fn pass_on(&mut self, entries: Vec<u8>) {
        self.unwritten.push(entries);
    }

    /// Whether there is something that others do not know yet.
    pub fn has_unwritten(&self) -> bool {
        !self.changed.is_empty() || !self.unwritten.is_empty()
    }

    /// Whether it has to write now and then, to be in every generation.
    pub fn has_load(&self) -> bool {
        !self.published.is_empty()
    }

    /// Whether what it has published is in the ledger's present sums, and in the next ones.
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
    /// has room for. What others have written into it since it was last read is taken over. Once it is where all read it,
    /// [`Member::written`] is to be called.
    pub fn write(&mut self, ledger: &mut Ledger, loads: &mut LoadTracker, now_ms: u64) -> Written {
        self.read(ledger, loads, now_ms);
        let (is_in_current, was_in_next) = self.place(ledger);
        for (key, new) in self.changed.iter() {
            let old = self.published.get(key).unwrap_or(&IDLE);
            ledger.replace(key, is_in_current.then_some(old), was_in_next.then_some(old), new);
        }
        let joins = !was_in_next && self.own().next().is_some();
        if !is_in_current || joins {
            for (key, own) in self.own() {
                ledger.replace(key, (!is_in_current).then_some(&IDLE), joins.then_some(&IDLE), own);
            }
        }
        if joins {
            ledger.next_members.push(self.id);
            if !ledger.members.contains(&self.id) {
                ledger.members.push(self.id);
            }
        }
        loads.missing_noted(now_ms).for_each(|note| ledger.note(note, false));
        loads.failures_noted(now_ms).for_each(|note| ledger.note_failures(note));
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
    fn own(&self) -> impl Iterator<Item = (EndpointKey, &EndpointLoad)> {
        let unchanged = self.published.iter().filter(|(key, _)| self.changed.get(*key).is_none());
        unchanged.chain(self.changed.iter()).filter(|(_, load)| !load.is_idle())
    }

    /// What was written into this ledger is where all read it.
    pub fn written(&mut self, written: &Written, ledger: &Ledger) {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().for_each(|(key, load)| self.published.set(key, load));
        self.published.keep_busy();
        let unwritten = std::mem::take(&mut self.unwritten);
        self.unwritten = unwritten.into_iter().skip(written.entries).collect();
        self.wrote = Some(written.wrote);
        if let Some(seen) = &mut self.seen {
            seen.rows.clone_from(&ledger.rows);
            seen.has_own = true;
        }
    }

    /// Takes over what others have in flight, and what they have noted.
    pub fn read(&mut self, ledger: &Ledger, loads: &mut LoadTracker, now_ms: u64) {
        let (has_own, _) = self.place(ledger);
        let published = |key: EndpointKey| self.published.get(key).filter(|_| has_own).unwrap_or(&IDLE);
        let others = |row: &Row| {
            let own = published(row.key);
            row::load(row.without(own.in_flight), without(&ledger.adapters, row.key, own))
        };
        let remote = ledger.remote(now_ms);
        let is_simple = remote.is_none() && ledger.adapters.is_empty();
        let seen = self.seen.as_ref().filter(|seen| is_simple && seen.is_before(ledger, has_own, loads));
        match (seen, remote) {
            (Some(seen), _) => {
                for (key, row) in changed(&seen.rows, &ledger.rows) {
                    loads.set_others_at(key, row.map_or(EndpointLoad::IDLE, others));
                }
            }
            (None, None) => loads.set_others(ledger.rows.iter().map(|row| (row.key, others(row)))),
            (None, Some(remote)) => {
                let mut sums: Sums = ledger.rows.iter().map(|row| (row.key, others(row))).collect();
                for row in &remote.rows {
                    let load = row::load(row.in_flight(), adapters_at(&remote.adapters, row.key));
                    sums.add(row.key, &load);
                }
                loads.set_others(sums.into_iter());
            }
        }
        self.seen = is_simple.then(|| Seen::of(self.seen.take(), ledger, has_own, loads));
        if self.notes != ledger.notes {
            ledger.notes.iter().for_each(|noted| loads.receive_missing(&noted.note, now_ms));
            self.notes.clone_from(&ledger.notes);
        }
        if self.failures != ledger.failures {
            ledger.failures.iter().for_each(|note| loads.receive_failures(note, now_ms));
            self.failures.clone_from(&ledger.failures);
        }
    }

    /// What others have published since the last time. Full chunks of the journal are asked for by number. A worker that begins
    /// reads the chunk that is growing.
    pub fn receive(&mut self, ledger: &Ledger, full: impl Fn(u64) -> Option<Chunk>) -> Received {
        let begin = Cursor { chunk: ledger.journal.end().chunk, offset: 0 };
        let cursor = self.cursor.get_or_insert(begin);
        let unread = ledger.journal.unread(cursor, full);
        Received { parts: unread.parts, me: self.id, is_lost: unread.is_lost }
    }
}

impl Seen {
    /// What is seen now; `before` gives its room.
    fn of(before: Option<Seen>, ledger: &Ledger, has_own: bool, loads: &LoadTracker) -> Seen {
        let mut rows = before.map(|seen| seen.rows).unwrap_or_default();
        rows.clone_from(&ledger.rows);
        let Ledger { gateway, generation, .. } = *ledger;
        Seen { gateway, generation, has_own, endpoints: loads.endpoints_added(), rows }
    }

    /// Whether nothing but rows can be another than in this ledger.
    fn is_before(&self, ledger: &Ledger, has_own: bool, loads: &LoadTracker) -> bool {
        (self.gateway, self.generation, self.has_own) == (ledger.gateway, ledger.generation, has_own)
            && self.endpoints == loads.endpoints_added()
    }
}

/// The keys of rows that are not the same in both lists, each with its row in `now`, if there is one. Both are in order.
fn changed<'a>(before: &'a [Row], now: &'a [Row]) -> impl Iterator<Item = (EndpointKey, Option<&'a Row>)> {
    let (mut before, mut now) = (before.iter().peekable(), now.iter().peekable());
    std::iter::from_fn(move || {
        loop {
            match (before.peek(), now.peek()) {
                (Some(old), Some(new)) if old.key == new.key => {
                    let (old, new) = (before.next()?, now.next()?);
                    if old != new {
                        return Some((new.key, Some(new)));
                    }
                }
                (Some(old), new) if new.is_none_or(|new| old.key < new.key) => {
                    return before.next().map(|old| (old.key, None));
                }
                _ => return now.next().map(|new| (new.key, Some(new))),
            }
        }
    })
}

impl Ledger {
    /// A worker says what it has at a place in place of what it had, in the generations that have that.
    pub(super) fn replace(
        &mut self,
        key: EndpointKey,
        in_current: Option<&EndpointLoad>,
        in_next: Option<&EndpointLoad>,
        new: &EndpointLoad,
    ) {
        if in_current.is_none() && in_next.is_none() {
            return;
        }
        let place = self.rows.binary_search_by_key(&key, |row| row.key).unwrap_or_else(|place| {
            let mut moved = Row::new(key);
            self.rows.iter_mut().skip(place).for_each(|row| std::mem::swap(row, &mut moved));
            self.rows.push(moved);
            place
        });
        if let Some(row) = self.rows.get_mut(place) {
            let in_flight = |load: &EndpointLoad| load.in_flight;
            row.replace(in_current.map(in_flight), in_next.map(in_flight), new.in_flight);
            if row.is_idle() {
                self.rows.retain(|row| !row.is_idle());
            }
        }
        if in_current.or(in_next).is_some_and(|old| old.adapters != new.adapters) {
            self.replace_adapters(key, in_current, in_next, new);
        }
    }

    fn replace_adapters(
        &mut self,
        key: EndpointKey,
        in_current: Option<&EndpointLoad>,
        in_next: Option<&EndpointLoad>,
        new: &EndpointLoad,
    ) {
        let published = in_current.or(in_next).unwrap_or(&IDLE);
        for (adapter, _) in published.adapters.iter().chain(&new.adapters) {
            if self.adapter_row(key, *adapter).is_none() && self.adapters.len() < MAX_ADAPTER_ROWS {
                self.adapters.push(AdapterRow { key, adapter: *adapter, current: 0, next: 0 });
            }
        }
        for row in self.adapters.iter_mut().filter(|row| row.key == key) {
            let has = count(new, row.adapter);
            if let Some(old) = in_current {
                row.current = row.current.saturating_sub(count(old, row.adapter)).saturating_add(has);
            }
            if let Some(old) = in_next {
                row.next = row.next.saturating_sub(count(old, row.adapter)).saturating_add(has);
            }
        }
        self.adapters.retain(|row| !row.is_idle());
    }

    fn adapter_row(&self, key: EndpointKey, adapter: AdapterId) -> Option<&AdapterRow> {
        self.adapters.iter().find(|row| row.key == key && row.adapter == adapter)
    }
}

/// How many requests for an adapter are in a load.
fn count(load: &EndpointLoad, adapter: AdapterId) -> u32 {
    load.adapters.iter().find(|(known, _)| *known == adapter).map_or(0, |(_, count)| *count)
}

/// The adapters at an endpoint, without one worker's part.
fn without<'a>(
    rows: &'a [AdapterRow],
    key: EndpointKey,
    own: &'a EndpointLoad,
) -> impl Iterator<Item = (AdapterId, u32)> + 'a {
    adapters_at(rows, key).map(move |(adapter, sum)| (adapter, sum.saturating_sub(count(own, adapter))))
}
