//! A table of conversations: [`BUCKETS`] buckets, among which keys are spread by a hash with a secret. Each has room for the
//! same number of entries, and forgets first what was unused for longest.

use super::{Bucket, EndpointKey, Entry, SessionKey};
use crate::hash::mix;

/// Buckets of a table. With the default of 262,144 entries a full one has 64, which are 2 KiB: one takes a microsecond or two to
/// be read and written.
pub const BUCKETS: usize = 4_096;

/// How often a bucket is tried to be written that others write at the same time.
const MAX_TRIES: usize = 16;

/// Where the buckets of a table are.
pub trait Buckets {
    /// What chooses a key's bucket: drawn at random, and the same for all who share the buckets.
    fn secret(&self) -> u64;

    /// The bytes of a bucket, and their version; `None` where it was never written.
    fn read(&self, bucket: usize) -> Option<(Vec<u8>, u32)>;

    /// Writes a bucket, unless it has another version since it was read; whether it is written.
    fn write(&self, bucket: usize, bytes: &[u8], version: Option<u32>) -> bool;
}

/// How much is remembered of conversations, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Entries of the whole table.
    pub max: usize,
    /// How long one is remembered without being used, in milliseconds.
    pub expire_after_ms: u64,
}

/// How many entries were forgotten.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Forgotten {
    /// They were not used for too long.
    pub expired: u32,
    /// Others took their room.
    pub displaced: u32,
    /// Their endpoint was started anew.
    pub restarted: u32,
}

/// A table; where its buckets are is the caller's to know.
#[derive(Debug, Clone)]
pub struct Table {
    retention: Retention,
    /// The bucket that was looked up last, its place and its version: soon after, it is noted there where the request went.
    looked_up: Option<(usize, Bucket, u32)>,
}

impl Table {
    /// One that remembers so much.
    pub fn new(retention: Retention) -> Table {
        Table { retention, looked_up: None }
    }

    /// What is known of a conversation.
    pub fn get(&mut self, buckets: &impl Buckets, key: SessionKey, now_ms: u64) -> Option<Entry> {
        let place = bucket_of(key, buckets);
        let (bucket, version) = read(buckets, place);
        let entry = bucket.get(key, self.retention.expire_after_ms, now_ms);
        self.looked_up = version.map(|version| (place, bucket, version));
        entry
    }

    /// Notes where a conversation was served last. Nothing is noted if others are faster time and again.
    pub fn put(&mut self, buckets: &impl Buckets, entry: &Entry) -> Forgotten {
        let (place, Retention { max, expire_after_ms }) = (bucket_of(entry.key, buckets), self.retention);
        let looked_up = self.looked_up.take().filter(|(looked_up, ..)| *looked_up == place);
        let mut looked_up = looked_up.map(|(_, bucket, version)| (bucket, Some(version)));
        for _ in 0..MAX_TRIES {
            let (before, version) = looked_up.take().unwrap_or_else(|| read(buckets, place));
            let after = before.with(entry, max.div_ceil(BUCKETS), expire_after_ms);
            if buckets.write(place, after.as_bytes(), version) {
                let is_known = before.entries().any(|other| other.key == entry.key);
                let gone = (before.len() + 1).saturating_sub(after.len() + usize::from(is_known));
                if gone == 0 {
                    return Forgotten::default();
                }
                let expired = before.expired(expire_after_ms, entry.used_ms).min(gone);
                return Forgotten {
                    expired: expired as u32,
                    displaced: (gone - expired) as u32,
                    ..Forgotten::default()
                };
            }
        }
        Forgotten::default()
    }

    /// Forgets the entries of an endpoint that was started anew.
    pub fn forget(buckets: &impl Buckets, endpoint: EndpointKey) -> Forgotten {
        let restarted = (0..BUCKETS).map(|bucket| forget_in(buckets, bucket, endpoint)).sum();
        Forgotten { restarted, ..Forgotten::default() }
    }
}

fn bucket_of(key: SessionKey, buckets: &impl Buckets) -> usize {
    mix(key.to_bits() ^ buckets.secret()) as usize % BUCKETS
}

fn read(buckets: &impl Buckets, place: usize) -> (Bucket, Option<u32>) {
    let found = buckets.read(place);
    let version = found.as_ref().map(|(_, version)| *version);
    (found.map(|(bytes, _)| Bucket::from_bytes(bytes)).unwrap_or_default(), version)
}

fn forget_in(buckets: &impl Buckets, place: usize, endpoint: EndpointKey) -> u32 {
    for _ in 0..MAX_TRIES {
        let (before, version) = read(buckets, place);
        let after = before.without(endpoint);
        let gone = before.len().saturating_sub(after.len());
        if gone == 0 {
            return 0;
        }
        if buckets.write(place, after.as_bytes(), version) {
            return gone as u32;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::HashMap;

    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const HOUR_MS: u64 = 3_600_000;

    /// Buckets in memory. Of so many writes to come somebody else is faster.
    #[derive(Default)]
    struct InMemory {
        values: RefCell<HashMap<usize, (Vec<u8>, u32)>>,
        faster: RefCell<usize>,
        reads: RefCell<usize>,
    }

    impl Buckets for InMemory {
        fn secret(&self) -> u64 {
            77
        }

        fn read(&self, bucket: usize) -> Option<(Vec<u8>, u32)> {
            *self.reads.borrow_mut() += 1;
            self.values.borrow().get(&bucket).cloned()
        }

        fn write(&self, bucket: usize, bytes: &[u8], version: Option<u32>) -> bool {
            let mut values = self.values.borrow_mut();
            let current = values.get(&bucket).map(|(_, version)| *version);
            let is_other = std::mem::take(&mut *self.faster.borrow_mut());
            if is_other > 0 {
                *self.faster.borrow_mut() = is_other - 1;
                return false;
            }
            if version.is_some() && version != current {
                return false;
            }
            values.insert(bucket, (bytes.to_vec(), current.unwrap_or(0) + 1));
            true
        }
    }

    fn table(max: usize) -> Table {
        Table::new(Retention { max, expire_after_ms: HOUR_MS })
    }

    fn entry(name: u64, used_ms: u64) -> Entry {
        let key = SessionKey::of_stored(&name.to_le_bytes());
        Entry { key, endpoint: EndpointKey::from_bits(name % 4), used_ms, tokens: 0, turnover_tokens: 0 }
    }

    #[test]
    fn a_hundred_thousand_are_all_known_in_bounded_room() {
        let (buckets, mut table) = (InMemory::default(), table(262_144));
        let forgotten = (0..100_000).map(|name| table.put(&buckets, &entry(name, name))).collect::<Vec<_>>();
        assert!(forgotten.iter().all(|gone| *gone == Forgotten::default()));
        for name in 0..100_000 {
            assert_eq!(table.get(&buckets, entry(name, 0).key, 100_000), Some(entry(name, name)));
        }
        let bytes: usize = buckets.values.borrow().values().map(|(bytes, _)| bytes.len()).sum();
        assert_eq!(bytes, 100_000 * 32 + BUCKETS);
    }

    #[test]
    fn what_is_looked_up_and_then_noted_is_read_once_unless_others_have_written_meanwhile() {
        let (buckets, mut one, mut other) = (InMemory::default(), table(262_144), table(262_144));
        let reads = |doing: &mut dyn FnMut()| {
            let before = *buckets.reads.borrow();
            doing();
            *buckets.reads.borrow() - before
        };
        one.put(&buckets, &entry(7, 0));
        let looked_up = &mut || assert_eq!(one.get(&buckets, entry(7, 0).key, 1), Some(entry(7, 0)));
        assert_eq!(reads(looked_up), 1);
        assert_eq!(reads(&mut || _ = one.put(&buckets, &entry(7, 2))), 0);
        assert_eq!(reads(&mut || _ = one.put(&buckets, &entry(7, 3))), 1, "without a look before it");

        // Another name of the same bucket, of which there are many more names than buckets.
        let place = |name| bucket_of(entry(name, 0).key, &buckets);
        let neighbour = (8..).find(|name| place(*name) == place(7)).unwrap();
        one.get(&buckets, entry(7, 0).key, 4);
        other.put(&buckets, &entry(neighbour, 4));
        assert_eq!(reads(&mut || _ = one.put(&buckets, &entry(7, 5))), 1);
        for name in [7, neighbour] {
            assert!(one.get(&buckets, entry(name, 0).key, 6).is_some(), "{name}");
        }
    }

    #[test]
    fn a_flood_of_names_takes_no_more_room_and_what_it_displaces_is_counted() {
        let (buckets, mut table) = (InMemory::default(), table(BUCKETS * 2));
        let displaced: u32 = (0..50_000).map(|name| table.put(&buckets, &entry(name, 0)).displaced).sum();
        let kept: usize = buckets.values.borrow().values().map(|(bytes, _)| bytes.len() / 32).sum();
        assert_eq!(kept, BUCKETS * 2);
        assert_eq!(displaced as usize, 50_000 - kept);
    }

    #[test]
    fn what_has_expired_is_counted_when_it_makes_room() {
        let (buckets, mut table) = (InMemory::default(), table(1));
        let first = entry(1, 0);
        let bucket = bucket_of(first.key, &buckets);
        let second =
            (2..).map(|name| entry(name, HOUR_MS)).find(|entry| bucket_of(entry.key, &buckets) == bucket);
        table.put(&buckets, &first);
        assert_eq!(table.put(&buckets, &second.unwrap()), Forgotten { expired: 1, ..Forgotten::default() });
        assert_eq!(
            table.put(&buckets, &second.unwrap()),
            Forgotten::default(),
            "the same again displaces nobody"
        );
    }

    #[test]
    fn whoever_is_faster_is_waited_for_but_not_for_ever() {
        let (buckets, mut table) = (InMemory::default(), table(100));
        for (faster, is_noted) in [(MAX_TRIES - 1, true), (MAX_TRIES, false)] {
            *buckets.faster.borrow_mut() = faster;
            let entry = entry(faster as u64, 0);
            table.put(&buckets, &entry);
            assert_eq!(table.get(&buckets, entry.key, 0).is_some(), is_noted);
            *buckets.faster.borrow_mut() = 0;
        }
    }

    #[test]
    fn an_endpoint_that_is_another_is_forgotten_everywhere() {
        let (buckets, mut table) = (InMemory::default(), table(262_144));
        let noted = (0..1_000).map(|name| table.put(&buckets, &entry(name, 0)));
        assert!(noted.into_iter().all(|gone| gone == Forgotten::default()));
        assert_eq!(Table::forget(&buckets, EndpointKey::from_bits(1)).restarted, 250);
        assert_eq!(Table::forget(&buckets, EndpointKey::from_bits(1)), Forgotten::default());
        let known = (0..1_000).filter(|name| table.get(&buckets, entry(*name, 0).key, 0).is_some());
        assert!(known.eq((0..1_000).filter(|name| name % 4 != 1)));
    }
}
