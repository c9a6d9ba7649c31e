//! A gateway's shared data: the ledger and the full chunks of its journal, and where sessions were; nobody else writes to it in
//! between.

use std::cell::RefCell;
use std::collections::HashMap;

use inference_picker::ledger::{CHUNKS_KEPT, Chunk, Ledger, Member, Received};
use inference_picker::load::LoadTracker;
use inference_picker::prefix::PromptEvent;
use inference_picker::sessions::Buckets;

pub struct SharedData {
    pub ledger: Ledger,
    chunks: HashMap<u64, Chunk>,
    pub sessions: InMemory,
}

/// Buckets of a table of sessions.
#[derive(Default)]
pub struct InMemory {
    buckets: RefCell<HashMap<usize, Vec<u8>>>,
}

impl Buckets for InMemory {
    fn secret(&self) -> u64 {
        0
    }

    fn read(&self, bucket: usize) -> Option<(Vec<u8>, u32)> {
        Some((self.buckets.borrow().get(&bucket)?.clone(), 1))
    }

    fn write(&self, bucket: usize, bytes: &[u8], _version: Option<u32>) -> bool {
        self.buckets.borrow_mut().insert(bucket, bytes.to_vec());
        true
    }
}

impl SharedData {
    pub fn new(gateway: u64) -> SharedData {
        SharedData { ledger: Ledger::new(gateway, 0), chunks: HashMap::new(), sessions: InMemory::default() }
    }

    pub fn ledger_bytes(&self) -> usize {
        self.ledger.to_bytes().len()
    }

    /// The full chunk in the slot of this number.
    pub fn full_chunk(&self, number: u64) -> Option<Chunk> {
        self.chunks.get(&(number % CHUNKS_KEPT)).cloned()
    }
}

/// A worker's place in it.
pub struct Place {
    pub member: Member,
}

impl Place {
    pub fn new(id: u64) -> Place {
        Place { member: Member::new(id) }
    }

    /// As the shell of a worker does.
    pub fn read(&mut self, shared: &SharedData, loads: &mut LoadTracker, now_ms: u64) -> Received {
        let mut ledger = shared.ledger.clone();
        ledger.refresh(now_ms);
        self.member.read(&ledger, loads, now_ms);
        self.member.receive(&ledger, |number| shared.full_chunk(number))
    }

    /// As the shell of a worker does.
    pub fn publish(
        &mut self,
        shared: &mut SharedData,
        loads: &mut LoadTracker,
        events: Vec<PromptEvent<'static>>,
        now_ms: u64,
    ) {
        self.member.collect(loads, events);
        shared.ledger.refresh(now_ms);
        loop {
            let written = self.member.write(&mut shared.ledger, loads, now_ms);
            self.member.written(&written, &shared.ledger);
            if let Some(full) = written.full {
                shared.chunks.insert(full.number % CHUNKS_KEPT, full);
            }
            if !self.member.has_unwritten() {
                return;
            }
        }
    }
}
