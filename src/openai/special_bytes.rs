//! Which of up to sixty-four bytes have a meaning in a JSON string: a bit each, the first byte's the lowest.
//!
//! With the vectors of wasm, sixteen bytes are compared at once; elsewhere eight, as a number. For a byte `x`
//! below 0x80, `x + 0x7f` has its high bit set unless `x` is zero, and no sum carries into the next byte.

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

#[cfg(target_feature = "simd128")]
pub(super) use vectors::{escape_letters, special_bytes};

#[cfg(not(target_feature = "simd128"))]
pub(super) use numbers::{escape_letters, special_bytes};

#[cfg(target_feature = "simd128")]
mod vectors {
    use std::arch::wasm32::{
        i8x16_bitmask, i8x16_eq, i8x16_splat, i8x16_swizzle, u8x16, u8x16_le, u8x16_splat, u64x2, v128,
        v128_and, v128_or, v128_xor,
    };

    use super::{BLOCK_BYTES, SpecialBytes};

    /// What is special about this block.
    pub fn special_bytes<const BYTES: usize>(block: &[u8; BYTES]) -> SpecialBytes {
        let all = vectors(block).fold(u8x16_splat(0), |all, bytes| v128_or(all, bytes));
        SpecialBytes {
            ends: places(block, quotes_and_controls),
            backslashes: places(block, |bytes| equal(bytes, b'\\')),
            is_ascii: i8x16_bitmask(all) == 0,
        }
    }

    /// Where this block has a letter that may stand behind a backslash, but for `u`.
    pub fn escape_letters(block: &[u8; BLOCK_BYTES]) -> u64 {
        // By its lower half, the one such letter; where there are three, the others are looked for by themselves.
        let by_lower = u8x16(!0, 0, b'b', 0, b't', 0, b'f', 0, 0, 0, 0, 0, b'\\', 0, b'n', b'/');
        places(block, |bytes| {
            let letter = i8x16_eq(i8x16_swizzle(by_lower, v128_and(bytes, i8x16_splat(0xf))), bytes);
            v128_or(letter, v128_or(equal(bytes, b'"'), equal(bytes, b'r')))
        })
    }

    /// The bytes below 0x20 and the quote, 0x22, are those that are at most 0x20 once the bit of two is turned over.
    fn quotes_and_controls(bytes: v128) -> v128 {
        u8x16_le(v128_xor(bytes, u8x16_splat(2)), u8x16_splat(b' '))
    }

    fn vectors(block: &[u8]) -> impl DoubleEndedIterator<Item = v128> {
        block.as_chunks().0.iter().map(|bytes| {
            let number = u128::from_le_bytes(*bytes);
            u64x2(number as u64, (number >> 64) as u64)
        })
    }

    fn equal(bytes: v128, byte: u8) -> v128 {
        i8x16_eq(bytes, u8x16_splat(byte))
    }

    /// The bytes that `mark` marks.
    fn places(block: &[u8], mark: impl Fn(v128) -> v128) -> u64 {
        let marked = vectors(block).map(|bytes| u64::from(i8x16_bitmask(mark(bytes))));
        marked.rev().fold(0, |places, marked| places << 16 | marked)
    }
}

#[cfg(not(target_feature = "simd128"))]
mod numbers {
    use super::{BLOCK_BYTES, SpecialBytes};

    /// One in each byte.
    const EACH: u64 = 0x0101_0101_0101_0101;

    /// What is special about this block.
    pub fn special_bytes<const BYTES: usize>(block: &[u8; BYTES]) -> SpecialBytes {
        let ends = |bytes: u64| equal(bytes, b'"') | zeros(bytes & (EACH * 0xe0));
        SpecialBytes {
            ends: places(block, ends),
            backslashes: places(block, |bytes| equal(bytes, b'\\')),
            is_ascii: block.is_ascii(),
        }
    }

    /// Where this block has a letter that may stand behind a backslash, but for `u`.
    pub fn escape_letters(block: &[u8; BLOCK_BYTES]) -> u64 {
        let is_letter = |byte: &u8| matches!(byte, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't');
        block.iter().rev().fold(0, |places, byte| places << 1 | u64::from(is_letter(byte)))
    }

    /// The high bits of the bytes that are this one.
    fn equal(bytes: u64, byte: u8) -> u64 {
        zeros(bytes ^ (EACH * u64::from(byte)))
    }

    /// The high bits of the bytes that are zero.
    fn zeros(bytes: u64) -> u64 {
        const LOW_BITS: u64 = EACH * 0x7f;
        !(((bytes & LOW_BITS) + LOW_BITS) | bytes | LOW_BITS)
    }

    /// The bytes whose high bits `marked` sets.
    fn places(block: &[u8], marked: impl Fn(u64) -> u64) -> u64 {
        let numbers = block.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
        numbers.rev().fold(0, |places, bytes| places << 8 | gather(marked(bytes)))
    }

    /// The high bits of eight bytes side by side: the product has the bit of byte `n` at place `56 + n`.
    fn gather(high_bits: u64) -> u64 {
        (high_bits >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
    }
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
