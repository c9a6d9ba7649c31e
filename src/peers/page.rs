//! What one gateway answers another, and its bytes.

use serde::{Deserialize, Serialize};

use super::Question;
use crate::ledger::{Chunk, Cursor, Ledger, Sums, local_entries};
use crate::load::MissingNote;
use crate::pool::{decode, encode};

/// Bytes of a page: ten thousand endpoints with requests in flight are 400 KB, and 20 ms of prompts a few KB.
pub const MAX_PAGE_BYTES: usize = 4 << 20;

/// Bytes of a page that are left for what is not the journal's.
const MAX_JOURNAL_BYTES: usize = 2 << 20;

/// What the workers of one gateway have published.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Distinguishes it from other gateways.
    pub gateway: u64,
    /// What the gateway's clock showed: all times in the page are by that clock, which is not the reader's.
    pub now_ms: u64,
    /// What its workers have in flight.
    pub sums: Sums,
    /// What they have noted of missing models.
    pub notes: Vec<MissingNote>,
    /// What has happened to their prompts: entries of its journal, as they are to be written to the reader's.
    #[serde(with = "serde_bytes")]
    pub entries: Vec<u8>,
    /// Where its journal ends.
    pub end: Cursor,
}

impl Page {
    /// The answer to a question, from a ledger that was refreshed. Of the journal, what was not published to this asker, as far as
    /// it is kept and there is room for; full chunks are asked for by number. Who asks for the first time has missed what
    /// came before.
    pub fn of(
        ledger: &Ledger,
        question: &Question,
        full: impl Fn(u64) -> Option<Chunk>,
        now_ms: u64,
    ) -> Page {
        let mut cursor = question.read_of(ledger.gateway()).unwrap_or(ledger.journal().end());
        let unread = ledger.journal().unread(&mut cursor, full);
        let mut entries = Vec::new();
        for entry in unread.parts.iter().flat_map(|part| local_entries(part)) {
            if entries.len() + entry.len() <= MAX_JOURNAL_BYTES {
                entries.extend(entry);
            }
        }
        Page {
            gateway: ledger.gateway(),
            now_ms,
            sums: ledger.sums(),
            notes: ledger.local_notes().copied().collect(),
            entries,
            end: cursor,
        }
    }

    /// The same with all times by another clock, which shows `here_ms` when the page's own shows [`Page::now_ms`].
    pub fn by_clock(mut self, here_ms: u64) -> Page {
        let there_ms = std::mem::replace(&mut self.now_ms, here_ms);
        // None is later than now.
        let by_clock = |time_ms: u64| here_ms.saturating_sub(there_ms.saturating_sub(time_ms));
        for load in self.sums.iter_mut().map(|load| &mut load.in_flight) {
            if let Some(oldest) = &mut load.oldest {
                oldest.sent_ms = by_clock(oldest.sent_ms);
            }
            // 0 is never, by any clock.
            if load.last_output_ms > 0 {
                load.last_output_ms = by_clock(load.last_output_ms);
            }
        }
        for note in &mut self.notes {
            note.missing.noted_ms = by_clock(note.missing.noted_ms);
        }
        self
    }

    /// The bytes to answer.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads an answer; `None` for bytes that are no page.
    pub fn from_bytes(bytes: &[u8]) -> Option<Page> {
        if bytes.len() > MAX_PAGE_BYTES { None } else { decode(bytes) }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::ledger::{Entry, Event, Member, entries};
    use crate::load::{EndpointKey, LoadTracker, RequestLoad};
    use crate::prefix::PromptEvent;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn address() -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], 8000))
    }

    /// The ledger of gateway 9, one worker of which has sent a prompt of 100 tokens at 4,970 ms, and had published another one
    /// before.
    fn ledger() -> Ledger {
        let (mut ledger, mut loads, mut member) =
            (Ledger::new(9, 4_000), LoadTracker::default(), Member::new(7));
        let id = loads.id(address());
        loads.start(id, RequestLoad { tokens: 100, adapter: None, model: None, streamed: true }, 4_970);
        member.collect(&mut loads, vec![PromptEvent::Dropped { number: 1 }]);
        let written = member.write(&mut ledger, &mut loads, 4_970);
        member.written(&written, &ledger);
        ledger
    }

    fn page() -> Page {
        Page::of(&ledger(), &Question::of_read(9, Cursor::default()), |_| None, 5_000)
    }

    #[test]
    fn what_is_published_is_what_is_read() {
        let read = Page::from_bytes(&page().to_bytes()).unwrap();
        assert_eq!(read, page());
        let load = read.sums.get(EndpointKey::of(address())).unwrap();
        assert_eq!((load.in_flight.requests, load.in_flight.waiting_tokens), (1, 100));
        let published: Vec<Entry> = entries(&read.entries, 0).collect();
        let event = Event::Prompt(PromptEvent::Dropped { number: 1 });
        assert_eq!(published, [Entry { worker: 7, is_remote: true, event }]);
    }

    #[test]
    fn what_was_published_is_not_published_again_nor_what_came_before_the_first_question() {
        let ledger = ledger();
        for question in [
            Question::of_read(9, ledger.journal().end()),
            Question::default(),
            Question::of_read(8, Cursor::default()),
        ] {
            let page = Page::of(&ledger, &question, |_| None, 5_000);
            assert_eq!((page.entries, page.end), (vec![], ledger.journal().end()));
        }
    }

    #[test]
    fn times_are_by_the_clock_of_the_gateway_that_asks_whichever_is_ahead() {
        for here_ms in [1_000_000, 5_000, 1_000] {
            let page = page().by_clock(here_ms);
            let load = page.sums.get(EndpointKey::of(address())).unwrap().in_flight;
            assert_eq!(load.oldest.map(|oldest| oldest.sent_ms), Some(here_ms - 30));
            assert_eq!(load.last_output_ms, 0, "never stays never");
        }
        let from_the_future = Page { now_ms: 10, ..page() }.by_clock(800);
        let load = from_the_future.sums.get(EndpointKey::of(address())).unwrap().in_flight;
        assert_eq!(load.oldest.map(|oldest| oldest.sent_ms), Some(800), "none is later than now");
    }

    #[test]
    fn bytes_cut_short_too_many_or_of_another_format_are_no_page() {
        let bytes = page().to_bytes();
        for length in 0..bytes.len() {
            assert_eq!(Page::from_bytes(&bytes[..length]), None, "cut at {length}");
        }
        assert_eq!(Page::from_bytes(&vec![bytes[0]; MAX_PAGE_BYTES + 1]), None);
        assert_eq!(Page::from_bytes(b"upstream connect error"), None);
    }

    #[test]
    fn any_byte_changed_is_read_or_refused_without_harm() {
        let bytes = page().to_bytes();
        for position in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[position] = value;
                if let Some(page) = Page::from_bytes(&changed) {
                    assert!(page.by_clock(77).sums.len() <= bytes.len());
                }
            }
        }
    }
}
