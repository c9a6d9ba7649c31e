//! What happened to prompts, in the order in which it was written: a chunk that grows, and those before it that are full.
//!
//! The chunk that grows is part of the ledger, so that who picks has read it. A full one is written to a place of its own,
//! which is used again [`CHUNKS_KEPT`] chunks later. A reader knows by its [`Cursor`] how far it has come; what was written
//! over before it was read is lost, and lost is the same as never learnt.
//!
//! An entry is, with numbers in little-endian order:
//!
//! ```text
//! length of what follows: 4 bytes | flags: 1 byte | worker: 8 bytes | event
//! ```

use serde::{Deserialize, Serialize};

use crate::pool::{decode, encode};
use crate::prefix::PromptEvent;
use crate::sessions::Note;

/// A chunk of this many bytes is full. Each pick reads one and writes it, which is less than a microsecond; with smaller ones
/// workers would read more of those before it.
const CHUNK_BYTES: usize = 16 << 10;

/// Full chunks that are kept to be read: a megabyte, which is half a second of six thousand prompts of 7 KB a second.
pub const CHUNKS_KEPT: u64 = 64;

const IS_REMOTE: u8 = 1;
const IS_ENDED: u8 = 2;
const IS_CONVERSATION: u8 = 4;

/// The chunk that grows.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Journal {
    number: u64,
    bytes: Vec<u8>,
}

/// A full chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Counts chunks.
    pub number: u64,
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
}

/// How far somebody has read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The chunk.
    pub chunk: u64,
    /// Bytes of it.
    pub offset: u64,
}

/// What a reader has not read yet.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// Bytes of entries, in order.
    pub parts: Vec<Vec<u8>>,
    /// Whether there was more that is kept no longer.
    pub is_lost: bool,
}

/// What has happened at a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The worker.
    pub worker: u64,
    /// Whether it is another gateway's.
    pub is_remote: bool,
    /// What.
    pub event: Event<'a>,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// Something happened to a prompt.
    Prompt(PromptEvent<'a>),
    /// The worker has nothing in flight, or is gone.
    Ended,
    /// A conversation was served: for other gateways, as workers share it anyway.
    Conversation(Note),
}

impl Chunk {
    /// Reads a chunk; `None` for bytes that are none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Chunk> {
        decode(bytes)
    }

    /// The bytes to write.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }
}

impl Journal {
    pub(super) fn new(number: u64, bytes: Vec<u8>) -> Journal {
        Journal { number, bytes }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Where it ends.
    pub fn end(&self) -> Cursor {
        Cursor { chunk: self.number, offset: self.bytes.len() as u64 }
    }

    /// Whether what is added next is to go to another chunk.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= CHUNK_BYTES
    }

    /// Adds an entry.
    pub fn append(&mut self, entry: &Entry<'_>) {
        self.append_bytes(&entry.to_bytes());
    }

    /// Adds entries as they were read.
    pub fn append_bytes(&mut self, entries: &[u8]) {
        self.bytes.extend_from_slice(entries);
    }

    /// Begins another chunk if this one is full, which is then to be kept.
    pub fn close_if_full(&mut self) -> Option<Chunk> {
        if !self.is_full() {
            return None;
        }
        let full = Chunk { number: self.number, bytes: std::mem::take(&mut self.bytes) };
        self.number = self.number.wrapping_add(1);
        Some(full)
    }

    /// What was added since the cursor, which is moved to the end; full chunks are asked for by number. One that is not
    /// there yet is waited for: whoever has filled it writes it next.
    pub fn unread(&self, cursor: &mut Cursor, full: impl Fn(u64) -> Option<Chunk>) -> Unread {
        let mut unread = Unread::default();
        let is_ahead = cursor.chunk > self.number;
        if is_ahead || cursor.chunk.saturating_add(CHUNKS_KEPT) <= self.number {
            unread.is_lost = true;
            *cursor = Cursor { chunk: self.number, offset: 0 };
        }
        while cursor.chunk < self.number {
            let kept = full(cursor.chunk).filter(|chunk| chunk.number == cursor.chunk);
            let Some(kept) = kept else { return unread };
            unread.add(&kept.bytes, cursor.offset);
            *cursor = Cursor { chunk: cursor.chunk + 1, offset: 0 };
        }
        unread.add(&self.bytes, cursor.offset);
        *cursor = self.end();
        unread
    }
}

impl Unread {
    fn add(&mut self, bytes: &[u8], offset: u64) {
        let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
        if !rest.is_empty() {
            self.parts.push(rest.to_vec());
        }
    }
}

impl Entry<'_> {
    /// Its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut event = Vec::new();
        let kind = match &self.event {
            Event::Prompt(prompt) => {
                prompt.write(&mut event);
                0
            }
            Event::Ended => IS_ENDED,
            Event::Conversation(note) => {
                note.write(&mut event);
                IS_CONVERSATION
            }
        };
        let flags = kind | if self.is_remote { IS_REMOTE } else { 0 };
        let length = (size_of::<u8>() + size_of::<u64>() + event.len()) as u32;
        let mut bytes = Vec::with_capacity(size_of::<u32>() + length as usize);
        bytes.extend(length.to_le_bytes());
        bytes.push(flags);
        bytes.extend(self.worker.to_le_bytes());
        bytes.extend(event);
        bytes
    }
}

/// One entry's parts, as they are in the bytes.
struct Raw<'a> {
    whole: &'a [u8],
    flags: u8,
    worker: u64,
    event: &'a [u8],
}

/// The entries in these bytes, up to the first that is none.
fn raw_entries(mut bytes: &[u8]) -> impl Iterator<Item = Raw<'_>> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk()?;
        let (entry, behind) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let (whole, _) = bytes.split_at_checked(length.len() + entry.len())?;
        let (flags, entry) = entry.split_first()?;
        let (worker, event) = entry.split_first_chunk()?;
        bytes = behind;
        Some(Raw { whole, flags: *flags, worker: u64::from_le_bytes(*worker), event })
    })
}

/// The entries of others in these bytes; those of the worker `me` are left out unread.
pub fn entries(bytes: &[u8], me: u64) -> impl Iterator<Item = Entry<'_>> {
    raw_entries(bytes).filter(move |raw| raw.worker != me).filter_map(|raw| {
        let event = match raw.flags & (IS_ENDED | IS_CONVERSATION) {
            0 => Event::Prompt(PromptEvent::read(raw.event)?),
            IS_CONVERSATION => Event::Conversation(Note::read(raw.event)?),
            _ => Event::Ended,
        };
        Some(Entry { worker: raw.worker, is_remote: raw.flags & IS_REMOTE != 0, event })
    })
}

/// Of these entries, the bytes of those that were not received from another gateway, each as another gateway is to receive it.
pub fn local_entries(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    raw_entries(bytes).filter(|raw| raw.flags & IS_REMOTE == 0).map(|raw| {
        let mut published = raw.whole.to_vec();
        if let Some(flags) = published.get_mut(size_of::<u32>()) {
            *flags |= IS_REMOTE;
        }
        published
    })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn dropped(number: u64) -> Entry<'static> {
        Entry {
            worker: number % 3 + 1,
            is_remote: false,
            event: Event::Prompt(PromptEvent::Dropped { number }),
        }
    }

    fn numbers(unread: &Unread, me: u64) -> Vec<u64> {
        let entries = unread.parts.iter().flat_map(|part| entries(part, me));
        let number = |entry: Entry| match entry.event {
            Event::Prompt(PromptEvent::Dropped { number }) => number,
            other => panic!("{other:?}"),
        };
        entries.map(number).collect()
    }

    /// A journal and its full chunks, as shared data keeps them.
    #[derive(Default)]
    struct Kept {
        journal: Journal,
        chunks: RefCell<BTreeMap<u64, Chunk>>,
    }

    impl Kept {
        fn append(&mut self, entry: &Entry<'_>) {
            self.journal.append(entry);
            if let Some(chunk) = self.journal.close_if_full() {
                self.chunks.borrow_mut().insert(chunk.number % CHUNKS_KEPT, chunk);
            }
        }

        fn unread(&self, cursor: &mut Cursor) -> Unread {
            let full = |number| self.chunks.borrow().get(&(number % CHUNKS_KEPT)).cloned();
            self.journal.unread(cursor, full)
        }
    }

    #[test]
    fn readers_at_any_pace_read_all_that_others_wrote_once_and_in_order() {
        for pace in [1, 7, 1_000, 9_000] {
            let (mut kept, mut cursor, mut read) = (Kept::default(), Cursor::default(), Vec::new());
            for number in 0..20_000 {
                kept.append(&dropped(number));
                if number % pace == 0 {
                    let unread = kept.unread(&mut cursor);
                    assert!(!unread.is_lost);
                    read.extend(numbers(&unread, 1));
                }
            }
            read.extend(numbers(&kept.unread(&mut cursor), 1));
            let of_others: Vec<u64> = (0..20_000).filter(|number| number % 3 != 0).collect();
            assert!(read == of_others, "at a pace of {pace}");
        }
    }

    #[test]
    fn who_comes_too_late_learns_so_and_goes_on() {
        let (mut kept, mut cursor) = (Kept::default(), Cursor::default());
        while kept.journal.number <= CHUNKS_KEPT {
            kept.append(&dropped(1));
        }
        kept.append(&dropped(7));
        let unread = kept.unread(&mut cursor);
        assert!(unread.is_lost);
        assert_eq!(numbers(&unread, 9).last(), Some(&7));
        assert_eq!(kept.unread(&mut cursor), Unread::default());
    }

    #[test]
    fn a_chunk_that_is_not_there_yet_is_waited_for() {
        let (mut kept, mut cursor) = (Kept::default(), Cursor::default());
        while kept.journal.number == 0 {
            kept.append(&dropped(1));
        }
        let late = kept.chunks.borrow_mut().remove(&0).unwrap();
        kept.append(&dropped(7));
        assert_eq!(kept.unread(&mut cursor), Unread::default());
        kept.chunks.borrow_mut().insert(0, late);
        assert_eq!(numbers(&kept.unread(&mut cursor), 9).last(), Some(&7));
    }

    #[test]
    fn a_journal_that_was_begun_anew_is_read_from_there() {
        let mut cursor = Cursor { chunk: 5, offset: 77 };
        let mut journal = Journal::default();
        journal.append(&dropped(7));
        let unread = journal.unread(&mut cursor, |_| None);
        assert!(unread.is_lost);
        assert_eq!((numbers(&unread, 9), cursor), (vec![7], journal.end()));
    }

    #[test]
    fn what_other_gateways_published_is_not_published_again() {
        let ended = Entry { worker: 4, is_remote: false, event: Event::Ended };
        let remote = Entry { is_remote: true, ..dropped(8) };
        let bytes = [dropped(7), remote, ended.clone()].map(|entry| entry.to_bytes()).concat();
        let published: Vec<u8> = local_entries(&bytes).flatten().collect();
        let received: Vec<Entry> = entries(&published, 0).collect();
        assert_eq!(received, [Entry { is_remote: true, ..dropped(7) }, Entry { is_remote: true, ..ended }]);
    }

    #[test]
    fn bytes_cut_anywhere_give_the_entries_that_are_whole() {
        let bytes = [dropped(7), dropped(8)].map(|entry| entry.to_bytes()).concat();
        for length in 0..bytes.len() {
            let whole = entries(&bytes[..length], 0).count();
            assert_eq!(whole, usize::from(length >= bytes.len() / 2), "{length}");
        }
        assert_eq!(entries(&[0xff; 64], 0).count(), 0);
    }
}
