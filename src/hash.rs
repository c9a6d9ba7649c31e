//! One hash of bytes that is the same in every worker, on every machine and after every start.

use twox_hash::XxHash64;
use wide::u32x4;

/// Bytes at each end of something long by which it is distinguished, besides its length.
const DIGESTED_END_BYTES: usize = 512;

/// FNV-1a with 64 bits (Fowler, Noll and Vo; offset basis and prime as they published them), and the finishing mix of
/// MurmurHash3 behind it, because FNV's high bits depend little on the last bytes.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mix(hash)
}

/// Distinguishes long texts that are not made to look alike: XXH64 of both ends, seeded with the length. It costs the same
/// however long they are.
pub fn digest(bytes: &[u8]) -> u64 {
    let (begin, rest) = bytes.split_at(bytes.len().min(DIGESTED_END_BYTES));
    let end = rest.last_chunk::<DIGESTED_END_BYTES>().map_or(rest, |end| end);
    XxHash64::oneshot(XxHash64::oneshot(bytes.len() as u64, begin), end)
}

/// The finishing mix of MurmurHash3 (Austin Appleby): every bit of the result depends on every bit of `hash`.
pub fn mix(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// The same for four hashes of 32 bits side by side (the constants are those that Chris Wellons found with hash-prospector).
/// No two hashes have the same.
#[inline]
pub fn mix32(hashes: u32x4) -> u32x4 {
    let hashes = (hashes ^ (hashes >> 16)) * u32x4::splat(0x7feb_352d);
    let hashes = (hashes ^ (hashes >> 15)) * u32x4::splat(0x846c_a68b);
    hashes ^ (hashes >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// Of these places, each has the lowest tie-break in as many draws as any other.
    #[track_caller]
    fn check_lots(places: &[u32]) {
        const DRAWS: u32 = 100_000;
        let mut rng = fastrand::Rng::with_seed(1);
        let mut won = vec![0; places.len()];
        for _ in 0..DRAWS {
            let draw = rng.u32(..);
            let tie_break = |place: &usize| mix32(u32x4::splat(draw ^ places[*place])).to_array()[0];
            let lowest = (0..places.len()).min_by_key(tie_break);
            won[lowest.unwrap()] += 1;
        }
        let share = f64::from(DRAWS) / places.len() as f64;
        let is_fair = |won: &u32| (f64::from(*won) - share).abs() < 5.0 * share.sqrt();
        assert!(won.iter().all(is_fair), "{places:?}: {won:?}");
    }

    #[test]
    fn a_digest_distinguishes_texts_by_their_length_and_both_ends() {
        let text = |length: usize, changed: usize| -> Vec<u8> {
            (0..length).map(|place| place as u8 ^ u8::from(place == changed)).collect()
        };
        let mut digests = std::collections::HashSet::new();
        for length in (0..1_500).chain([1 << 20]) {
            let digest_of = |changed| digest(&text(length, changed));
            assert!(digests.insert(digest_of(usize::MAX)), "{length}");
            for changed in [0, 511, length.saturating_sub(512), length.saturating_sub(1)] {
                assert!(
                    changed >= length || digest_of(changed) != digest_of(usize::MAX),
                    "{length} {changed}"
                );
            }
        }
    }

    #[test]
    fn lots_of_one_draw_are_fair() {
        check_lots(&[0, 1]);
        check_lots(&[0, 1, 2]);
        check_lots(&[3, 4, 900]);
        check_lots(&(0..10).collect::<Vec<_>>());
        check_lots(&(5..300).collect::<Vec<_>>());
    }
}
