//! What following a session costs of the core: its bucket is read, it is looked up, and it is noted where the request goes.

#[cfg(not(target_family = "wasm"))]
mod native {
    use std::cell::RefCell;
    use std::hint::black_box;

    use criterion::{Criterion, criterion_group};
    use inference_picker::load::EndpointKey;
    use inference_picker::sessions::{BUCKETS, Buckets, Entry, Retention, SessionKey, Table};

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

    /// A request of a session, from its name to the note of it.
    fn follow(table: &mut Table, buckets: &InMemory, name: &str, endpoint: EndpointKey) -> Option<Entry> {
        let key = SessionKey::of_stored(name.as_bytes());
        let known = table.get(buckets, key, 1_000);
        let entry = Entry { key, endpoint, used_ms: 1_000, tokens: 2_000, turnover_tokens: 0 };
        table.put(buckets, &entry);
        known
    }

    fn session(criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group("session");
        for sessions in [16, 100_000] {
            let buckets = InMemory(RefCell::new(vec![None; BUCKETS]));
            let mut table = Table::new(RETENTION);
            let endpoint = EndpointKey::of(([10, 0, 0, 1], 8_000).into());
            let names: Vec<String> = (0..sessions).map(name).collect();
            for name in &names {
                follow(&mut table, &buckets, name, endpoint);
            }
            let mut turns = names.iter().cycle();
            group.bench_function(format!("looked up and noted, one of {sessions}"), |bencher| {
                bencher.iter(|| {
                    let name = turns.next().map_or("", String::as_str);
                    follow(&mut table, &buckets, black_box(name), endpoint)
                });
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

#[cfg(target_family = "wasm")]
fn main() {}
