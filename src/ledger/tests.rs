use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::*;
use crate::load::{
    AdapterId, FailureNote, Failures, InFlight, InFlightRequest, LoadId, LoadTracker, Missing, RequestLoad,
};
use crate::prefix::PromptEvent;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const ENDPOINTS: u8 = 3;

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 8000))
}

/// A worker, with what it has in flight.
struct Worker {
    member: Member,
    loads: LoadTracker,
    ids: Vec<LoadId>,
    tickets: Vec<InFlightRequest>,
}

impl Worker {
    fn new(id: u64) -> Worker {
        let mut loads = LoadTracker::default();
        let ids = (0..ENDPOINTS).map(|last| loads.id(address(last))).collect();
        Worker { member: Member::new(id), loads, ids, tickets: Vec::new() }
    }

    fn start(&mut self, endpoint: u8, tokens: u32, now_ms: u64) {
        self.start_for(endpoint, RequestLoad { tokens, adapter: None, model: None, streamed: true }, now_ms);
    }

    fn start_for(&mut self, endpoint: u8, share: RequestLoad, now_ms: u64) {
        self.tickets.push(self.loads.start(self.ids[usize::from(endpoint)], share, now_ms));
    }

    fn end_one(&mut self, now_ms: u64) {
        if let Some(ticket) = self.tickets.pop() {
            self.loads.end(ticket, now_ms);
        }
    }

    /// Writes to the ledger, as it is in shared data.
    fn publish(&mut self, ledger: &mut Ledger, now_ms: u64) {
        self.member.collect(&mut self.loads, vec![]);
        ledger.refresh(now_ms);
        let written = self.member.write(ledger, &mut self.loads, now_ms);
        self.member.written(&written, ledger);
    }

    fn read(&mut self, ledger: &Ledger, now_ms: u64) {
        let mut ledger = ledger.clone();
        ledger.refresh(now_ms);
        self.member.read(&ledger, &mut self.loads, now_ms);
    }

    /// Requests and waiting tokens by endpoint, of all as far as this one knows.
    fn known(&self) -> Vec<(u32, u64)> {
        let known = self.ids.iter().map(|id| self.loads.in_flight(*id));
        known.map(|load| (load.requests, load.waiting_tokens)).collect()
    }
}

/// What all of them have in flight.
fn truth<'a>(workers: impl Iterator<Item = &'a Worker>) -> Vec<(u32, u64)> {
    let mut sums = vec![(0, 0); usize::from(ENDPOINTS)];
    for worker in workers {
        for (place, sum) in sums.iter_mut().enumerate() {
            let own = worker.loads.own(worker.ids[place]);
            *sum = (sum.0 + own.requests, sum.1 + own.waiting_tokens);
        }
    }
    sums
}

#[test]
fn each_worker_knows_what_all_have_in_flight_whoever_writes_when() {
    for seed in 0..50 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut ledger, mut now_ms) = (Ledger::new(1, 0), 0);
        let mut workers: Vec<Worker> = (1..=4).map(Worker::new).collect();
        let mut wrote_ms = [0; 4];
        for _ in 0..400 {
            now_ms += rng.u64(0..HEARTBEAT_MS / 4);
            let worker = &mut workers[rng.usize(..4)];
            match rng.u8(..4) {
                0 => worker.end_one(now_ms),
                1 => worker.start(rng.u8(..ENDPOINTS), rng.u32(1..1_000), now_ms),
                _ => {}
            }
            // Whoever has something writes at least at every heartbeat.
            for (worker, wrote_ms) in workers.iter_mut().zip(&mut wrote_ms) {
                let is_due =
                    worker.member.has_load() && now_ms - *wrote_ms >= HEARTBEAT_MS || rng.u8(..8) == 0;
                if is_due || worker.loads.has_unpublished() {
                    worker.publish(&mut ledger, now_ms);
                    *wrote_ms = now_ms;
                }
            }
            let reader = rng.usize(..4);
            workers[reader].read(&ledger, now_ms);
            assert_eq!(workers[reader].known(), truth(workers.iter()), "seed {seed}");
        }
    }
}

#[test]
fn a_write_that_fails_because_another_was_faster_counts_once_when_it_is_tried_again() {
    let mut ledger = Ledger::new(1, 0);
    let [mut one, mut other] = [1, 2].map(Worker::new);
    one.start(0, 100, 0);
    one.member.collect(&mut one.loads, vec![]);
    let mut lost = ledger.clone();
    let _never_written = one.member.write(&mut lost, &mut one.loads, 0);
    other.start(0, 10, 0);
    other.publish(&mut ledger, 0);
    one.publish(&mut ledger, 0);
    one.read(&ledger, 0);
    assert_eq!(one.known()[0], (2, 110));
}

#[test]
fn what_a_worker_had_that_has_died_is_gone_in_less_than_two_seconds() {
    for dies_ms in (0..2 * GENERATION_MS).step_by(50) {
        let mut ledger = Ledger::new(1, 0);
        let [mut dies, mut lives] = [1, 2].map(Worker::new);
        for now_ms in (0..=dies_ms).step_by(10) {
            if now_ms == 0 {
                dies.start(0, 100, 0);
                lives.start(1, 10, 0);
            }
            dies.publish(&mut ledger, now_ms);
            lives.publish(&mut ledger, now_ms);
        }
        for now_ms in (dies_ms..dies_ms + 2_000).step_by(10) {
            lives.publish(&mut ledger, now_ms);
        }
        lives.read(&ledger, dies_ms + 2_000);
        assert_eq!(lives.known(), [(0, 0), (1, 10), (0, 0)], "dead at {dies_ms} ms");
    }
}

#[test]
fn that_a_worker_has_ended_is_published_to_the_others() {
    let mut ledger = Ledger::new(1, 0);
    let [mut dies, mut lives] = [1, 2].map(Worker::new);
    dies.start(0, 100, 0);
    dies.publish(&mut ledger, 0);
    let mut published = Vec::new();
    for now_ms in (0..2_000).step_by(100) {
        lives.publish(&mut ledger, now_ms);
        ledger.refresh(now_ms);
        let received = lives.member.receive(&ledger, |_| None);
        published.extend(received.entries().map(|entry| (entry.worker, entry.event == Event::Ended)));
    }
    assert_eq!(published, [(1, true)]);
}

#[test]
fn a_worker_that_stood_still_for_long_counts_again_with_what_it_has() {
    let mut ledger = Ledger::new(1, 0);
    let [mut still, mut other] = [1, 2].map(Worker::new);
    still.start(0, 100, 0);
    still.publish(&mut ledger, 0);
    for now_ms in (0..10_000).step_by(100) {
        other.start(1, 1, now_ms);
        other.publish(&mut ledger, now_ms);
        other.end_one(now_ms);
        other.publish(&mut ledger, now_ms);
    }
    other.read(&ledger, 10_000);
    assert_eq!(other.known()[0], (0, 0));
    still.start(0, 5, 10_000);
    still.publish(&mut ledger, 10_000);
    other.read(&ledger, 10_000);
    assert_eq!(other.known()[0], (2, 105));
}

#[test]
fn a_value_that_was_overwritten_heals_with_the_next_generations() {
    let mut ledger = Ledger::new(1, 0);
    let mut workers = [1, 2].map(Worker::new);
    workers[0].start(0, 100, 0);
    workers[1].start(1, 10, 0);
    for now_ms in (0..2_500).step_by(HEARTBEAT_MS as usize) {
        if now_ms == HEARTBEAT_MS {
            // Another begins, and writes over what it has not seen.
            (ledger.rows, ledger.members, ledger.next_members) = (vec![], vec![], vec![]);
        }
        workers.iter_mut().for_each(|worker| worker.publish(&mut ledger, now_ms));
    }
    for worker in &mut workers {
        worker.read(&ledger, 2_500);
        assert_eq!(worker.known(), [(1, 100), (1, 10), (0, 0)]);
    }
}

#[test]
fn a_ledger_that_was_begun_anew_has_what_everybody_has() {
    let mut workers = [1, 2].map(Worker::new);
    for gateway in [1, 7] {
        let mut ledger = Ledger::new(gateway, 0);
        for (worker, endpoint) in workers.iter_mut().zip([0, 1]) {
            worker.start(endpoint, 10, 0);
            worker.publish(&mut ledger, 0);
        }
        workers[0].read(&ledger, 0);
        let expected = truth(workers.iter());
        assert_eq!(workers[0].known(), expected);
    }
}

#[test]
fn adapters_are_known_as_long_as_any_worker_has_a_request_for_them() {
    let (sql, chat) = (AdapterId::of("sql"), AdapterId::of("chat"));
    let mut ledger = Ledger::new(1, 0);
    let [mut one, mut other] = [1, 2].map(Worker::new);
    let share = |adapter| RequestLoad { tokens: 1, adapter: Some(adapter), model: None, streamed: true };
    one.start_for(0, share(sql), 0);
    other.start_for(0, share(sql), 0);
    other.start_for(0, share(chat), 0);
    let mut check = |one: &mut Worker, other: &mut Worker, expected: [bool; 2]| {
        one.publish(&mut ledger, 0);
        other.publish(&mut ledger, 0);
        one.read(&ledger, 0);
        assert_eq!([sql, chat].map(|adapter| one.loads.has_adapter(one.ids[0], adapter)), expected);
    };
    check(&mut one, &mut other, [true, true]);
    one.end_one(0);
    other.end_one(0);
    check(&mut one, &mut other, [true, false]);
    other.end_one(0);
    check(&mut one, &mut other, [false, false]);
}

#[test]
fn adapters_are_put_in_place_of_others_and_none_is_used_less_than_never() {
    let (sql, chat, key) = (AdapterId::of("sql"), AdapterId::of("chat"), EndpointKey::of(address(0)));
    let load = |adapters: &[(AdapterId, u32)]| EndpointLoad {
        in_flight: InFlight { requests: 1, ..InFlight::default() },
        adapters: adapters.to_vec(),
    };
    let (mut ledger, one) = (Ledger::new(1, 0), load(&[(sql, 2)]));
    for own in [&one, &load(&[(sql, 1)])] {
        ledger.replace(key, Some(&EndpointLoad::IDLE), None, own);
    }
    let used = |ledger: &Ledger| adapters_at(&ledger.adapters, key).collect::<Vec<_>>();
    assert_eq!(used(&ledger), [(sql, 3)]);
    ledger.replace(key, Some(&one), None, &load(&[(chat, 1)]));
    assert_eq!(used(&ledger), [(sql, 1), (chat, 1)]);
    ledger.replace(key, Some(&load(&[(sql, 4), (chat, 4)])), None, &EndpointLoad::IDLE);
    assert_eq!(used(&ledger), []);
}

#[test]
fn what_waits_is_the_sum_of_all_workers() {
    let mut ledger = Ledger::new(1, 0);
    let mut workers = [1, 2].map(Worker::new);
    for (waits, expected) in [([3, 4], 7), ([0, 4], 4), ([0, 0], 0)] {
        for (worker, waits) in workers.iter_mut().zip(waits) {
            worker.member.set_queued("pool", waits);
            worker.publish(&mut ledger, 0);
        }
        assert_eq!((ledger.queued("pool"), ledger.queued("other")), (expected, 0));
        assert_eq!(workers.each_ref().map(|worker| worker.member.has_unwritten()), [false; 2]);
    }
}

#[test]
fn what_other_gateways_have_is_added_until_it_was_received_too_long_ago() {
    let mut ledger = Ledger::new(1, 0);
    let mut worker = Worker::new(1);
    worker.start(0, 10, 0);
    worker.publish(&mut ledger, 0);
    let in_flight = InFlight { requests: 5, waiting: 5, waiting_tokens: 50, ..InFlight::default() };
    let sums =
        [0, 1].map(|last| (EndpointKey::of(address(last)), EndpointLoad { in_flight, adapters: vec![] }));
    ledger.set_remote(&sums.into_iter().collect(), 0);
    for (now_ms, expected) in [
        (REMOTE_EXPIRES_AFTER_MS - 1, [(6, 60), (5, 50), (0, 0)]),
        (REMOTE_EXPIRES_AFTER_MS, [(1, 10), (0, 0), (0, 0)]),
    ] {
        worker.publish(&mut ledger, now_ms);
        worker.read(&ledger, now_ms);
        assert_eq!(worker.known(), expected);
    }
    assert_eq!(ledger.sums().len(), 1, "what was received is not published again");
}

#[test]
fn the_last_note_of_a_model_at_an_endpoint_holds_and_few_are_kept() {
    let mut ledger = Ledger::new(1, 0);
    let note = |model: &str, noted_ms, times| MissingNote {
        endpoint: EndpointKey::of(address(0)),
        model: AdapterId::of(model),
        missing: Missing { noted_ms, times },
    };
    ledger.note(note("sql", 100, 1), false);
    ledger.note(note("sql", 50, 2), false);
    ledger.note(note("chat", 100, 1), true);
    let published: Vec<MissingNote> = ledger.local_notes().copied().collect();
    assert_eq!(published, [note("sql", 100, 1)]);
    for model in 0..2 * MAX_NOTES {
        ledger.note(note(&model.to_string(), 100, 1), false);
    }
    assert_eq!(ledger.notes.len(), MAX_NOTES);
    ledger.refresh(5_000);
    assert_eq!(ledger.notes, []);
}

#[test]
fn so_does_the_last_note_of_failures_at_an_endpoint() {
    let mut ledger = Ledger::new(1, 0);
    let note = |place: usize, noted_ms, requests| FailureNote {
        endpoint: EndpointKey::from_bits(place as u64),
        failures: Failures { noted_ms, requests, answers: 1 },
    };
    ledger.note_failures(note(1, 100, 1));
    ledger.note_failures(note(1, 50, 2));
    assert_eq!(ledger.failures, [note(1, 100, 1)]);
    (0..2 * MAX_NOTES).for_each(|place| ledger.note_failures(note(place, 200, 3)));
    assert_eq!((ledger.failures.len(), ledger.failures[0]), (MAX_NOTES, note(1, 200, 3)));
    assert_eq!(Ledger::from_bytes(&ledger.to_bytes()).as_ref(), Some(&ledger));
    ledger.refresh(5_000);
    assert_eq!(ledger.failures, []);
}

#[test]
fn what_is_written_is_what_is_read_and_other_bytes_do_no_harm() {
    let mut ledger = Ledger::new(1, 0);
    let mut worker = Worker::new(1);
    worker.start(0, 10, 0);
    worker.member.collect(&mut worker.loads, vec![PromptEvent::Dropped { number: 3 }]);
    worker.publish(&mut ledger, 0);
    let bytes = ledger.to_bytes();
    assert_eq!(Ledger::from_bytes(&bytes), Some(ledger));
    for length in 0..bytes.len() {
        assert_eq!(Ledger::from_bytes(&bytes[..length]), None, "cut at {length}");
    }
    for (position, value) in
        (0..bytes.len()).flat_map(|place| [0, 1, 0x7f, 0x80, 0xff].map(|value| (place, value)))
    {
        let mut changed = bytes.clone();
        changed[position] = value;
        if let Some(mut read) = Ledger::from_bytes(&changed) {
            worker.publish(&mut read, 5);
            worker.read(&read, 5);
            worker.member.receive(&read, |_| None);
        }
    }
}

#[test]
fn a_ledger_of_sixty_four_workers_is_no_larger_than_that_of_one_but_for_their_names() {
    let size = |workers: u64| {
        let mut ledger = Ledger::new(1, 0);
        let sizes: BTreeMap<u64, usize> = (1..=workers)
            .map(|id| {
                let mut worker = Worker::new(id);
                (0..ENDPOINTS).for_each(|endpoint| worker.start(endpoint, 100, 0));
                worker.publish(&mut ledger, 0);
                (id, ledger.to_bytes().len())
            })
            .collect();
        sizes[&workers]
    };
    let ids = 2 * size_of::<u64>() * 63;
    assert!(size(64) <= size(1) + ids + 40, "{} {}", size(1), size(64));
}
