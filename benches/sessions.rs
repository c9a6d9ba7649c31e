//! What following a session costs of the core: its bucket is read, it is looked up, and it is noted where the request goes. Natively,
//! and in V8, which is Envoy's engine, too:
//!
//! ```sh
//! cargo bench --bench sessions
//! CARGO_TARGET_WASM32_WASIP1_RUNNER="node benches/in_v8.mjs" cargo bench --bench sessions --target wasm32-wasip1
//! ```

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
mod sessions {
    use std::cell::RefCell;

    use inference_picker::load::EndpointKey;
    use inference_picker::sessions::{BUCKETS, Buckets, Entry, Retention, SessionKey, Table};

    /// How many sessions there are.
    pub const SESSIONS: [usize; 2] = [16, 100_000];

    /// As by default.
    const RETENTION: Retention = Retention { max: 262_144, expire_after_ms: 7_200_000 };

    /// A bucket's bytes and their version, if it was ever written.
    type Value = Option<(Vec<u8>, u32)>;

    /// Buckets as the host has them: what is read is a copy.
    struct InMemory(RefCell<Vec<Value>>);

    impl Buckets for InMemory {
        fn secret(&self) -> u64 {
            7
        }

        fn read(&self, bucket: usize) -> Option<(Vec<u8>, u32)> {
            self.0.borrow()[bucket].clone()
        }

        fn write(&self, bucket: usize, bytes: &[u8], version: Option<u32>) -> bool {
            let place = &mut self.0.borrow_mut()[bucket];
            let is_current = version.is_none() || version == place.as_ref().map(|(_, version)| *version);
            if is_current {
                *place = Some((bytes.to_vec(), version.unwrap_or(0) + 1));
            }
            is_current
        }
    }

    fn name(session: usize) -> String {
        format!("2f1c9a52-5c0b-4a6e-9b1d-{session:012}")
    }

    /// Requests of so many sessions in turn.
    pub struct Requests {
        table: Table,
        buckets: InMemory,
        names: Vec<String>,
        next: usize,
    }

    impl Requests {
        /// Each session has had one.
        pub fn of(sessions: usize) -> Requests {
            let buckets = InMemory(RefCell::new(vec![None; BUCKETS]));
            let names = (0..sessions).map(name).collect();
            let mut requests = Requests { table: Table::new(RETENTION), buckets, names, next: 0 };
            (0..sessions).for_each(|_| _ = requests.follow());
            requests
        }

        /// The next one, from its session's name to the note of it; what was known of the session.
        pub fn follow(&mut self) -> Option<Entry> {
            let key = SessionKey::of_stored(self.names[self.next].as_bytes());
            self.next = (self.next + 1) % self.names.len();
            let known = self.table.get(&self.buckets, key, 1_000);
            let endpoint = EndpointKey::of(([10, 0, 0, 1], 8_000).into());
            let entry = Entry { key, endpoint, used_ms: 1_000, tokens: 2_000, turnover_tokens: 0 };
            self.table.put(&self.buckets, &entry);
            known
        }
    }
}

#[cfg(not(target_family = "wasm"))]
mod native {
    use std::hint::black_box;

    use criterion::{Criterion, criterion_group};

    use super::sessions::{Requests, SESSIONS};

    fn session(criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group("session");
        for sessions in SESSIONS {
            let mut requests = Requests::of(sessions);
            group.bench_function(format!("looked up and noted, one of {sessions}"), |bencher| {
                bencher.iter(|| black_box(requests.follow()));
            });
        }
    }

    criterion_group!(benches, session);
}

#[cfg(not(target_family = "wasm"))]
fn main() {
    native::benches();
    criterion::Criterion::default().configure_from_args().final_summary();
}

#[cfg(all(target_family = "wasm", target_os = "wasi"))]
#[expect(clippy::disallowed_methods, reason = "a benchmark needs a clock, and WASI's is there")]
fn main() {
    use std::hint::black_box;
    use std::time::Instant;

    const ROUNDS: usize = 21;
    const REQUESTS: u32 = 50_000;
    for sessions in sessions::SESSIONS {
        let mut requests = sessions::Requests::of(sessions);
        let mut round_ns = || {
            let start = Instant::now();
            (0..REQUESTS).for_each(|_| _ = black_box(requests.follow()));
            start.elapsed().as_nanos() / u128::from(REQUESTS)
        };
        let mut rounds_ns: Vec<u128> = (0..ROUNDS).map(|_| round_ns()).collect();
        rounds_ns.sort_unstable();
        println!("session: looked up and noted, one of {sessions}: {} ns", rounds_ns[ROUNDS / 2]);
    }
}

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
fn main() {}
