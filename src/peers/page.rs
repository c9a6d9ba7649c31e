//! What one gateway answers another, and its bytes.

use serde::{Deserialize, Serialize};

use crate::load::LoadTable;
use crate::pool::{decode, encode};
use crate::prefix::Batch;

/// Bytes of a page: the tables of a hundred workers with a hundred endpoints each are 300 KB, and 20 ms of prompts a few
/// KB.
pub const MAX_PAGE_BYTES: usize = 4 << 20;

/// Bytes that a page has besides the tables and batches in it, at most, for each worker: two numbers.
const WORKER_BYTES: usize = 20;

/// What the workers of one gateway have told.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// What the gateway's clock showed: all times in the page are by that clock, which is not the reader's.
    pub now_ms: u64,
    /// Its workers.
    pub workers: Vec<WorkerPage>,
    #[serde(skip)]
    bytes: usize,
}

/// What one worker has told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerPage {
    /// Tells workers apart, of all gateways.
    pub id: u64,
    /// What it has in flight.
    pub table: LoadTable,
    /// What has happened to its prompts.
    pub batches: Vec<Batch>,
}

impl Page {
    /// A page without workers.
    pub fn new(now_ms: u64) -> Page {
        Page { now_ms, ..Page::default() }
    }

    /// Adds what a worker has told, as published bytes: its table, and its batches in their order. A worker whose table is
    /// of no use, and whatever would make the page too large, is left out: what is not told stays its own knowledge.
    pub fn add(&mut self, id: u64, table: &[u8], batches: impl Iterator<Item = Vec<u8>>) {
        let Some(known) = decode::<LoadTable>(table) else { return };
        if !known.is_alive(self.now_ms) || !self.has_room(table.len() + WORKER_BYTES) {
            return;
        }
        let mut worker = WorkerPage { id, table: known, batches: Vec::new() };
        for bytes in batches {
            if let Some(batch) = decode(&bytes).filter(|_| self.has_room(bytes.len())) {
                worker.batches.push(batch);
            }
        }
        self.workers.push(worker);
    }

    /// Takes the room, if it is there.
    fn has_room(&mut self, bytes: usize) -> bool {
        let fits = self.bytes + bytes + WORKER_BYTES <= MAX_PAGE_BYTES;
        self.bytes += if fits { bytes } else { 0 };
        fits
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
    use crate::load::InFlight;
    use crate::prefix::PromptEvent;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn table(published_ms: u64) -> LoadTable {
        let address = SocketAddr::from(([10, 0, 0, 1], 8000));
        LoadTable { published_ms, rows: vec![(address, InFlight::default())], adapters: vec![], batches: 2 }
    }

    fn batch(blocks: usize) -> Batch {
        let address = SocketAddr::from(([10, 0, 0, 1], 8000));
        let mut batch = Batch::default();
        batch.push(PromptEvent::Sent {
            number: 1,
            address,
            hashes: vec![u64::MAX; blocks],
            block_tokens: 64,
        });
        batch.take().unwrap_or_default()
    }

    fn page() -> Page {
        let mut page = Page::new(5_000);
        page.add(7, &encode(&table(4_990)), [encode(&batch(3)), encode(&batch(2))].into_iter());
        page.add(8, &encode(&table(4_000)), std::iter::empty());
        page
    }

    #[test]
    fn what_is_told_is_what_is_read() {
        let read = Page::from_bytes(&page().to_bytes()).unwrap();
        assert_eq!((read.now_ms, &read.workers), (5_000, &page().workers));
        let told: Vec<_> = read.workers.iter().map(|worker| (worker.id, worker.batches.len())).collect();
        assert_eq!(told, [(7, 2), (8, 0)]);
    }

    #[test]
    fn workers_that_are_gone_and_values_of_no_use_are_not_told() {
        let mut page = Page::new(5_000);
        page.add(1, &encode(&table(3_000)), std::iter::empty());
        page.add(2, b"nonsense", std::iter::empty());
        page.add(3, &encode(&table(5_000)), [b"nonsense".to_vec(), encode(&batch(1))].into_iter());
        let told: Vec<_> = page.workers.iter().map(|worker| (worker.id, worker.batches.len())).collect();
        assert_eq!(told, [(3, 1)]);
    }

    #[test]
    fn no_page_is_larger_than_the_limit() {
        let (table, batch) = (encode(&table(5_000)), encode(&batch(50_000)));
        let mut page = Page::new(5_000);
        for id in 0..20 {
            page.add(id, &table, std::iter::repeat_n(batch.clone(), 3));
        }
        let bytes = page.to_bytes().len();
        assert!((MAX_PAGE_BYTES - 2 * batch.len()..=MAX_PAGE_BYTES).contains(&bytes), "{bytes}");
        assert_eq!(page.workers.len(), 20, "tables are small");
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
                    assert!(page.workers.len() <= bytes.len());
                }
            }
        }
    }
}
