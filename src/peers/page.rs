//! What one gateway answers another, and its bytes.

use serde::{Deserialize, Serialize};

use crate::load::LoadTable;
use crate::pool::{decode, encode};
use crate::prefix::{Batch, numbers_to_read};

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

    /// Adds what a worker has published: its table, and of its batches those behind `read`. A worker whose table is of no
    /// use, and whatever would make the page too large, is left out: what is not told stays its own knowledge.
    pub fn add(&mut self, id: u64, table: &[u8], read: u64, batch: impl Fn(u64) -> Option<Vec<u8>>) {
        let Some(known) = decode::<LoadTable>(table) else { return };
        if !known.is_alive(self.now_ms) || !self.has_room(table.len() + WORKER_BYTES) {
            return;
        }
        let batches = numbers_to_read(read, known.batches).filter_map(|number| {
            let bytes = batch(number)?;
            let batch = decode::<Batch>(&bytes).filter(|batch| batch.number == number)?;
            self.has_room(bytes.len()).then_some(batch)
        });
        let batches = batches.collect();
        self.workers.push(WorkerPage { id, table: known, batches });
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
        LoadTable {
            published_ms,
            rows: vec![(address, InFlight::default())],
            adapters: vec![],
            missing: vec![],
            batches: 3,
        }
    }

    /// The bytes of the batch of this number, with a prompt of so many blocks.
    fn batch(number: u64, blocks: usize) -> Option<Vec<u8>> {
        let address = SocketAddr::from(([10, 0, 0, 1], 8000));
        let mut batch = Batch::default();
        batch.push(PromptEvent::Sent {
            number: 1,
            address,
            hashes: vec![u32::MAX; blocks],
            block_tokens: 64,
        });
        batch.number = number;
        Some(encode(&batch))
    }

    fn page() -> Page {
        let mut page = Page::new(5_000);
        page.add(7, &encode(&table(4_990)), 1, |number| batch(number, 3));
        page.add(8, &encode(&table(4_000)), 3, |number| batch(number, 3));
        page
    }

    /// Each worker, and the numbers of its batches.
    fn told(page: &Page) -> Vec<(u64, Vec<u64>)> {
        let numbers = |worker: &WorkerPage| worker.batches.iter().map(|batch| batch.number).collect();
        page.workers.iter().map(|worker| (worker.id, numbers(worker))).collect()
    }

    #[test]
    fn what_is_told_is_what_is_read() {
        let read = Page::from_bytes(&page().to_bytes()).unwrap();
        assert_eq!((read.now_ms, &read.workers), (5_000, &page().workers));
        assert_eq!(told(&read), [(7, vec![2, 3]), (8, vec![])]);
    }

    #[test]
    fn workers_that_are_gone_and_values_of_no_use_are_not_told() {
        let mut page = Page::new(5_000);
        page.add(1, &encode(&table(3_000)), 0, |number| batch(number, 1));
        page.add(2, b"nonsense", 0, |number| batch(number, 1));
        page.add(3, &encode(&table(5_000)), 0, |_| Some(b"nonsense".to_vec()));
        page.add(4, &encode(&table(5_000)), 0, |_| batch(2, 1));
        assert_eq!(told(&page), [(3, vec![]), (4, vec![2])], "only what is in its own slot");
    }

    #[test]
    fn no_page_is_larger_than_the_limit() {
        let mut page = Page::new(5_000);
        for id in 0..20 {
            page.add(id, &encode(&table(5_000)), 0, |number| batch(number, 50_000));
        }
        let bytes = page.to_bytes().len();
        assert!((MAX_PAGE_BYTES * 3 / 4..=MAX_PAGE_BYTES).contains(&bytes), "{bytes}");
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
