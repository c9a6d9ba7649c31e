//! Which of up to sixty-four bytes have a meaning in a JSON string: a bit each, the first byte's the lowest.

use wide::u8x16;

/// Bytes that are looked at together in long strings: as many as a number has bits.
pub(super) const BLOCK_BYTES: usize = 64;
/// The same where a string is likely to end: a block of its own.
pub(in crate::openai) const SHORT_BLOCK_BYTES: usize = 16;

/// Where this byte stands.
pub(super) fn places_of(byte: u8, block: &[u8]) -> u64 {
    places(block, |bytes| equal(bytes, byte))
}

/// Where quotes stand, and control characters (below 0x20), which may not stand in a string: unless escaped, each ends it.
pub(super) fn string_ends(block: &[u8]) -> u64 {
    // Those bytes, and 0x22, are the ones that are at most 0x20 once the bit of two is turned over.
    places(block, |bytes| (bytes ^ u8x16::splat(2)).simd_le(u8x16::splat(b' ')))
}

/// How long a string is that ends in this block, if it has no escape and does not end its line.
pub(in crate::openai) fn short_string_bytes(block: &[u8; SHORT_BLOCK_BYTES]) -> Option<usize> {
    let bytes = u8x16::new(*block);
    let ends = equal(bytes, b'"') | equal(bytes, b'\\') | equal(bytes, b'\n');
    let length = ends.to_bitmask().trailing_zeros() as usize;
    (block.get(length) == Some(&b'"')).then_some(length)
}

/// Where a letter stands that may be behind a backslash, but for `u`.
pub(super) fn escape_letters(block: &[u8]) -> u64 {
    // By its lower half, the one such letter; where there are three, the others are looked for by themselves.
    let by_lower = u8x16::new([!0, 0, b'b', 0, b't', 0, b'f', 0, 0, 0, 0, 0, b'\\', 0, b'n', b'/']);
    places(block, |bytes| {
        let letter = by_lower.shuffle(bytes & u8x16::splat(0xf)).simd_eq(bytes);
        letter | equal(bytes, b'"') | equal(bytes, b'r')
    })
}

/// What kinds of bytes have been seen, wherever they stood.
#[derive(Debug, Clone, Copy)]
pub(super) struct SeenBytes {
    lowest: u8x16,
    /// Every bit that was set in one of them.
    set: u8x16,
}

impl SeenBytes {
    /// None yet.
    pub fn none() -> SeenBytes {
        SeenBytes { lowest: u8x16::splat(b' '), set: u8x16::ZERO }
    }

    /// These, too.
    pub fn add(&mut self, block: &[u8]) {
        for bytes in side_by_side(block) {
            self.lowest = self.lowest.min(bytes);
            self.set |= bytes;
        }
    }

    /// Whether one was a control character (below 0x20).
    pub fn has_controls(self) -> bool {
        self.lowest.simd_lt(u8x16::splat(b' ')).to_bitmask() != 0
    }

    /// Whether all were ASCII.
    pub fn is_ascii(self) -> bool {
        self.set.to_bitmask() == 0
    }
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
        let ends = places(|byte| byte == b'"' || byte < b' ');
        assert_eq!(string_ends(block), ends, "{block:?}");
        assert_eq!(string_ends(&block[..SHORT_BLOCK_BYTES]), ends & 0xffff, "{block:?}");
        assert_eq!(places_of(b'\\', block), places(|byte| byte == b'\\'), "{block:?}");
        assert_eq!(escape_letters(block), places(|byte| br#""\/bfnrt"#.contains(&byte)), "{block:?}");
        let mut seen = SeenBytes::none();
        for block in [&[b'a'; BLOCK_BYTES], block, &[b'a'; BLOCK_BYTES]] {
            seen.add(block);
        }
        assert_eq!(seen.is_ascii(), block.is_ascii(), "{block:?}");
        assert_eq!(seen.has_controls(), block.iter().any(|byte| *byte < b' '), "{block:?}");
    }

    #[test]
    fn every_byte_is_found_wherever_it_stands() {
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
    fn every_place_is_found() {
        for place in 0..BLOCK_BYTES {
            for byte in *b"\"\\/\n" {
                let mut block = [b'u'; BLOCK_BYTES];
                block[place] = byte;
                check(&block);
            }
        }
    }
}
