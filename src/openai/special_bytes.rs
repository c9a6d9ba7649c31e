//! Which of up to sixty-four bytes have a meaning in a JSON string: a bit each, the first byte's the lowest.

use wide::u8x16;

/// Bytes that are looked at together in long strings: as many as a number has bits.
pub(super) const BLOCK_BYTES: usize = 64;
/// The same where a string is likely to end: a block of its own.
pub(super) const SHORT_BLOCK_BYTES: usize = 16;

/// What is special about a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SpecialBytes {
    /// Quotes, and control characters (below 0x20), which may not stand in a string: unless escaped, each ends it.
    pub ends: u64,
    /// Backslashes.
    pub backslashes: u64,
    /// Whether all bytes are ASCII.
    pub is_ascii: bool,
}

/// What is special about this block.
pub(super) fn special_bytes<const BYTES: usize>(block: &[u8; BYTES]) -> SpecialBytes {
    let all = side_by_side(block).fold(u8x16::ZERO, |all, bytes| all | bytes);
    SpecialBytes {
        ends: places(block, quotes_and_controls),
        backslashes: places(block, |bytes| equal(bytes, b'\\')),
        is_ascii: all.to_bitmask() == 0,
    }
}

/// Where this block has a letter that may stand behind a backslash, but for `u`.
pub(super) fn escape_letters(block: &[u8; BLOCK_BYTES]) -> u64 {
    // By its lower half, the one such letter; where there are three, the others are looked for by themselves.
    let by_lower = u8x16::new([!0, 0, b'b', 0, b't', 0, b'f', 0, 0, 0, 0, 0, b'\\', 0, b'n', b'/']);
    places(block, |bytes| {
        let letter = by_lower.shuffle(bytes & u8x16::splat(0xf)).simd_eq(bytes);
        letter | equal(bytes, b'"') | equal(bytes, b'r')
    })
}

/// The bytes below 0x20 and the quote, 0x22, are those that are at most 0x20 once the bit of two is turned over.
fn quotes_and_controls(bytes: u8x16) -> u8x16 {
    (bytes ^ u8x16::splat(2)).simd_le(u8x16::splat(b' '))
}

fn side_by_side(block: &[u8]) -> impl DoubleEndedIterator<Item = u8x16> {
    block.as_chunks().0.iter().map(|bytes| u8x16::new(*bytes))
}

fn equal(bytes: u8x16, byte: u8) -> u8x16 {
    bytes.simd_eq(u8x16::splat(byte))
}

/// The bytes that `mark` marks.
fn places(block: &[u8], mark: impl Fn(u8x16) -> u8x16) -> u64 {
    let marked = side_by_side(block).map(|bytes| u64::from(mark(bytes).to_bitmask()));
    marked.rev().fold(0, |places, marked| places << 16 | marked)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn check(block: &[u8; BLOCK_BYTES]) {
        let places = |is: fn(u8) -> bool| -> u64 {
            block.iter().enumerate().map(|(place, byte)| u64::from(is(*byte)) << place).sum()
        };
        let expected = SpecialBytes {
            ends: places(|byte| byte == b'"' || byte < b' '),
            backslashes: places(|byte| byte == b'\\'),
            is_ascii: block.is_ascii(),
        };
        assert_eq!(special_bytes(block), expected, "{block:?}");
        let first = block.first_chunk::<SHORT_BLOCK_BYTES>().unwrap();
        let expected = SpecialBytes {
            ends: expected.ends & 0xffff,
            backslashes: expected.backslashes & 0xffff,
            is_ascii: first.is_ascii(),
        };
        assert_eq!(special_bytes(first), expected, "{first:?}");
        assert_eq!(escape_letters(block), places(|byte| br#""\/bfnrt"#.contains(&byte)), "{block:?}");
    }

    #[test]
    fn every_byte_is_told_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            check(&[byte; BLOCK_BYTES]);
            for place in [0, 7, 8, 15, 16, 40, 63] {
                let mut block = [b'a'; BLOCK_BYTES];
                block[place] = byte;
                check(&block);
            }
        }
    }

    #[test]
    fn every_place_is_told() {
        for place in 0..BLOCK_BYTES {
            for byte in *b"\"\\/\n" {
                let mut block = [b'u'; BLOCK_BYTES];
                block[place] = byte;
                check(&block);
            }
        }
    }
}
