//! One bucket: some entries, the one that was used last first.
//!
//! Its bytes are a format number and the entries, with numbers in little-endian order:
//!
//! ```text
//! key: 8 bytes | endpoint: 8 | last used, in milliseconds of the host's monotonic clock: 8 | tokens: 4 | turned over: 4
//! ```

use super::{EndpointKey, SessionKey};

/// Changes with the bytes.
const FORMAT: u8 = 1;

/// The bytes of an entry.
const ENTRY_BYTES: usize = 32;

/// Where a conversation was served last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Which conversation.
    pub key: SessionKey,
    /// By whom.
    pub endpoint: EndpointKey,
    /// When, in milliseconds of the host's monotonic clock.
    pub used_ms: u64,
    /// The tokens of it that the endpoint has by then: those of its last prompt.
    pub tokens: u32,
    /// The low bits of how many tokens the endpoint's cache has turned over by then.
    pub turnover_tokens: u32,
}

impl Entry {
    fn from_bytes(bytes: &[u8; ENTRY_BYTES]) -> Option<Entry> {
        let (key, rest) = bytes.split_first_chunk()?;
        let (endpoint, rest) = rest.split_first_chunk()?;
        let (used_ms, rest) = rest.split_first_chunk()?;
        let (tokens, rest) = rest.split_first_chunk()?;
        Some(Entry {
            key: SessionKey::from_bits(u64::from_le_bytes(*key)),
            endpoint: EndpointKey::from_bits(u64::from_le_bytes(*endpoint)),
            used_ms: u64::from_le_bytes(*used_ms),
            tokens: u32::from_le_bytes(*tokens),
            turnover_tokens: u32::from_le_bytes(rest.try_into().ok()?),
        })
    }

    fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..8].copy_from_slice(&self.key.to_bits().to_le_bytes());
        bytes[8..16].copy_from_slice(&self.endpoint.to_bits().to_le_bytes());
        bytes[16..24].copy_from_slice(&self.used_ms.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.tokens.to_le_bytes());
        bytes[28..].copy_from_slice(&self.turnover_tokens.to_le_bytes());
        bytes
    }

    /// Whether it was not used for so long. One that is dated later than now is as old as one that is as much older.
    fn is_expired(&self, expire_after_ms: u64, now_ms: u64) -> bool {
        now_ms.abs_diff(self.used_ms) >= expire_after_ms
    }
}

/// A bucket, as it was read.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Bucket {
    bytes: Vec<u8>,
}

impl Bucket {
    /// Takes bytes for a bucket; what is none is an empty one.
    pub fn from_bytes(bytes: Vec<u8>) -> Bucket {
        let is_one =
            matches!(bytes.split_first(), Some((&FORMAT, rest)) if rest.len().is_multiple_of(ENTRY_BYTES));
        Bucket { bytes: if is_one { bytes } else { Vec::new() } }
    }

    /// The bytes to write.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its entries, the one that was used last first.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.written().iter().filter_map(Entry::from_bytes)
    }

    /// The bytes of each entry.
    fn written(&self) -> &[[u8; ENTRY_BYTES]] {
        let (entries, _) = self.bytes.get(1..).unwrap_or_default().as_chunks();
        entries
    }

    /// The entry of this key, unless it was not used for so long.
    pub fn get(&self, key: SessionKey, expire_after_ms: u64, now_ms: u64) -> Option<Entry> {
        self.entries()
            .find(|entry| entry.key == key)
            .filter(|entry| !entry.is_expired(expire_after_ms, now_ms))
    }

    /// The same with this entry first, in place of any of its key, and without those that have expired or find no room among so
    /// many.
    #[must_use]
    pub fn with(&self, entry: &Entry, most: usize, expire_after_ms: u64) -> Bucket {
        let is_kept =
            |other: Entry| other.key != entry.key && !other.is_expired(expire_after_ms, entry.used_ms);
        let others = self.written().iter().filter(|bytes| Entry::from_bytes(bytes).is_some_and(is_kept));
        let own = entry.to_bytes();
        Bucket::of(std::iter::once(&own).chain(others).take(most), most.min(self.len() + 1))
    }

    /// The same without the entries of this endpoint.
    #[must_use]
    pub fn without(&self, endpoint: EndpointKey) -> Bucket {
        let is_kept = |entry: Entry| entry.endpoint != endpoint;
        let others = self.written().iter().filter(|bytes| Entry::from_bytes(bytes).is_some_and(is_kept));
        Bucket::of(others, self.len())
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.bytes.len() / ENTRY_BYTES
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of them have not been used for so long.
    pub(super) fn expired(&self, expire_after_ms: u64, now_ms: u64) -> usize {
        self.entries().filter(|entry| entry.is_expired(expire_after_ms, now_ms)).count()
    }

    /// One of entries of these bytes; there is room at once for so many.
    fn of<'a>(entries: impl Iterator<Item = &'a [u8; ENTRY_BYTES]>, room: usize) -> Bucket {
        let mut bytes = Vec::with_capacity(1 + room * ENTRY_BYTES);
        bytes.push(FORMAT);
        entries.for_each(|entry| bytes.extend_from_slice(entry));
        Bucket { bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const HOUR_MS: u64 = 3_600_000;

    fn entry(key: u64, used_ms: u64) -> Entry {
        let endpoint = EndpointKey::from_bits(key % 3);
        Entry { key: SessionKey::from_bits(key), endpoint, used_ms, tokens: 7, turnover_tokens: 8 }
    }

    fn keys(bucket: &Bucket) -> Vec<u64> {
        bucket.entries().map(|entry| entry.key.to_bits()).collect()
    }

    /// These were used one after the other, where there is room for four.
    fn used(uses: &[(u64, u64)]) -> Bucket {
        uses.iter()
            .fold(Bucket::default(), |bucket, (key, used_ms)| bucket.with(&entry(*key, *used_ms), 4, HOUR_MS))
    }

    #[test]
    fn what_was_used_last_is_first_and_what_finds_no_room_is_forgotten() {
        assert_eq!(keys(&used(&[(1, 0), (2, 1), (3, 2)])), [3, 2, 1]);
        assert_eq!(keys(&used(&[(1, 0), (2, 1), (1, 2)])), [1, 2]);
        assert_eq!(keys(&used(&[(1, 0), (2, 1), (3, 2), (4, 3), (1, 4), (5, 5)])), [5, 1, 4, 3]);
    }

    #[test]
    fn what_was_not_used_for_too_long_is_not_found_and_makes_room() {
        let bucket = used(&[(1, 0), (2, HOUR_MS - 1)]);
        let get = |key, now_ms| bucket.get(SessionKey::from_bits(key), HOUR_MS, now_ms);
        assert_eq!(get(1, HOUR_MS - 1), Some(entry(1, 0)));
        assert_eq!(get(1, HOUR_MS), None);
        assert_eq!(get(2, HOUR_MS), Some(entry(2, HOUR_MS - 1)));
        assert_eq!(get(3, 0), None);
        assert_eq!(bucket.expired(HOUR_MS, HOUR_MS), 1);
        assert_eq!(keys(&bucket.with(&entry(3, HOUR_MS), 4, HOUR_MS)), [3, 2]);
        assert_eq!(get(2, u64::MAX), None, "a clock that is far ahead makes nothing last");
        assert_eq!(
            used(&[(1, u64::MAX)]).get(SessionKey::from_bits(1), HOUR_MS, 5),
            None,
            "nor does an entry"
        );
    }

    #[test]
    fn an_endpoint_that_is_another_loses_its_entries_and_no_others() {
        let bucket = used(&[(1, 0), (2, 1), (3, 2), (4, 3)]);
        assert_eq!(keys(&bucket.without(EndpointKey::from_bits(1))), [3, 2]);
        assert_eq!(bucket.without(EndpointKey::from_bits(9)), bucket);
    }

    #[test]
    fn bytes_that_are_no_bucket_are_an_empty_one() {
        let bytes = used(&[(1, 0), (2, 1)]).as_bytes().to_vec();
        assert_eq!(keys(&Bucket::from_bytes(bytes.clone())), [2, 1]);
        for length in 0..bytes.len() {
            let cut = Bucket::from_bytes(bytes[..length].to_vec());
            assert!(
                cut.len() == usize::from(length == 33) && cut.is_empty() == (length != 33),
                "cut at {length}"
            );
        }
        assert!(Bucket::from_bytes([&[FORMAT + 1], &bytes[1..]].concat()).is_empty());
    }
}
