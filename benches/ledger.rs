//! What workers' exchange costs each of them: reading the ledger for a pick and writing it behind it, by the number of workers
//! and of endpoints with requests in flight.

#[cfg(not(target_family = "wasm"))]
mod native {
    use std::hint::black_box;

    use criterion::{Criterion, criterion_group};
    use inference_picker::ledger::{Ledger, Member};
    use inference_picker::load::{LoadId, LoadTracker, RequestLoad};

    const SHARE: RequestLoad = RequestLoad { tokens: 500, adapter: None, model: None, streamed: true };

    /// A worker that has a request in flight at each endpoint.
    struct Worker {
        member: Member,
        loads: LoadTracker,
        ids: Vec<LoadId>,
    }

    impl Worker {
        fn new(id: u64, endpoints: u16) -> Worker {
            let mut loads = LoadTracker::default();
            let ids: Vec<LoadId> =
                (0..endpoints).map(|port| loads.id(([10, 0, 0, 1], 1_000 + port).into())).collect();
            for id in &ids {
                loads.start(*id, SHARE, 0);
            }
            Worker { member: Member::new(id), loads, ids }
        }

        fn write(&mut self, ledger: &mut Ledger) {
            self.member.collect(&mut self.loads, vec![]);
            let written = self.member.write(ledger, &mut self.loads, 0);
            self.member.written(&written, ledger);
        }

        /// As the shell does for a request; the bytes that are then in shared data.
        fn pick(&mut self, shared: &[u8]) -> Vec<u8> {
            let mut ledger = Ledger::from_bytes(shared).unwrap();
            ledger.refresh(0);
            self.member.read(&ledger, &mut self.loads, 0);
            let ticket = self.loads.start(self.ids[0], SHARE, 0);
            self.write(&mut ledger);
            self.loads.end(ticket, 0);
            ledger.to_bytes()
        }
    }

    fn exchange(criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group("exchange");
        for (workers, endpoints) in [(1, 4), (4, 4), (16, 4), (64, 4), (16, 100), (16, 1_000)] {
            let mut ledger = Ledger::new(1, 0);
            let mut others: Vec<Worker> = (1..=workers).map(|id| Worker::new(id, endpoints)).collect();
            others.iter_mut().for_each(|worker| worker.write(&mut ledger));
            let (mut shared, mut picks) = (ledger.to_bytes(), others.remove(0));
            group.bench_function(format!("{workers} workers, {endpoints} endpoints"), |bencher| {
                bencher.iter(|| shared = picks.pick(black_box(&shared)));
            });
        }
    }

    criterion_group!(benches, exchange);
}

#[cfg(not(target_family = "wasm"))]
fn main() {
    native::benches();
    criterion::Criterion::default().configure_from_args().final_summary();
}

#[cfg(target_family = "wasm")]
fn main() {}
