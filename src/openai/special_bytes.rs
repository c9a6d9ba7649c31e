//! Which of sixteen bytes have a meaning in a JSON string: a bit each, the first byte's the lowest.
//!
//! With the vectors of wasm, all sixteen bytes are compared at once; elsewhere eight, as a number. For a byte `x`
//! below 0x80, `x + 0x7f` has its high bit set unless `x` is zero, and no sum carries into the next byte.

/// Bytes that are looked at together.
pub(super) const BLOCK_BYTES: usize = 16;

/// Where a block has special bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SpecialBytes {
    pub quotes: u32,
    pub backslashes: u32,
    /// Below 0x20: they must be escaped in JSON.
    pub controls: u32,
}

impl SpecialBytes {
    /// Whether there is one.
    pub fn any(self) -> bool {
        self.quotes | self.backslashes | self.controls != 0
    }

    /// Of this block.
    #[cfg(target_feature = "simd128")]
    pub fn of(block: &[u8; BLOCK_BYTES]) -> SpecialBytes {
        use std::arch::wasm32::{i8x16_bitmask, i8x16_eq, i8x16_splat, u8x16_lt, u8x16_splat, u64x2};

        let (low, high) = halves(block);
        let bytes = u64x2(low, high);
        let places_of = |byte: u8| u32::from(i8x16_bitmask(i8x16_eq(bytes, i8x16_splat(byte as i8))));
        SpecialBytes {
            quotes: places_of(b'"'),
            backslashes: places_of(b'\\'),
            controls: u32::from(i8x16_bitmask(u8x16_lt(bytes, u8x16_splat(b' ')))),
        }
    }

    /// Of this block.
    #[cfg(not(target_feature = "simd128"))]
    pub fn of(block: &[u8; BLOCK_BYTES]) -> SpecialBytes {
        let (low, high) = halves(block);
        let places = |marked: fn(u64) -> u64| gather(marked(low)) | gather(marked(high)) << 8;
        SpecialBytes {
            quotes: places(|bytes| zeros(bytes ^ (EACH * u64::from(b'"')))),
            backslashes: places(|bytes| zeros(bytes ^ (EACH * u64::from(b'\\')))),
            controls: places(|bytes| zeros(bytes & (EACH * 0xe0))),
        }
    }
}

/// Which bytes of a block may stand behind a backslash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EscapeLetters {
    /// `"`, `\\`, `/`, `b`, `f`, `n`, `r`, `t`, `u`.
    pub known: u32,
    /// `u`, which four digits must follow.
    pub numbered: u32,
}

impl EscapeLetters {
    /// Of this block. A letter is known if the table of its lower half and that of its upper half have a bit in common,
    /// which stands for the upper half: 2, 5, 6 or 7.
    #[cfg(target_feature = "simd128")]
    pub fn of(block: &[u8; BLOCK_BYTES]) -> EscapeLetters {
        use std::arch::wasm32::{
            i8x16, i8x16_bitmask, i8x16_eq, i8x16_ne, i8x16_splat, i8x16_swizzle, u8x16_shr, u64x2, v128_and,
        };

        let (low, high) = halves(block);
        let bytes = u64x2(low, high);
        let by_lower = i8x16(0, 0, 0b1101, 0, 0b1000, 0b1000, 0b100, 0, 0, 0, 0, 0, 0b10, 0, 0b100, 0b1);
        let by_upper = i8x16(0, 0, 0b1, 0, 0, 0b10, 0b100, 0b1000, 0, 0, 0, 0, 0, 0, 0, 0);
        let lower = i8x16_swizzle(by_lower, v128_and(bytes, i8x16_splat(0xf)));
        let upper = i8x16_swizzle(by_upper, u8x16_shr(bytes, 4));
        EscapeLetters {
            known: u32::from(i8x16_bitmask(i8x16_ne(v128_and(lower, upper), i8x16_splat(0)))),
            numbered: u32::from(i8x16_bitmask(i8x16_eq(bytes, i8x16_splat(b'u' as i8)))),
        }
    }

    /// Of this block.
    #[cfg(not(target_feature = "simd128"))]
    pub fn of(block: &[u8; BLOCK_BYTES]) -> EscapeLetters {
        let places = |is: fn(u8) -> bool| {
            block.iter().rev().fold(0, |places, byte| places << 1 | u32::from(is(*byte)))
        };
        EscapeLetters {
            known: places(|byte| {
                matches!(byte, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' | b'u')
            }),
            numbered: places(|byte| byte == b'u'),
        }
    }
}

/// The block as two numbers.
fn halves(block: &[u8; BLOCK_BYTES]) -> (u64, u64) {
    let number = u128::from_le_bytes(*block);
    (number as u64, (number >> 64) as u64)
}

#[cfg(not(target_feature = "simd128"))]
const EACH: u64 = 0x0101_0101_0101_0101;

/// The high bits of the bytes that are zero.
#[cfg(not(target_feature = "simd128"))]
fn zeros(bytes: u64) -> u64 {
    const LOW_BITS: u64 = EACH * 0x7f;
    !(((bytes & LOW_BITS) + LOW_BITS) | bytes | LOW_BITS)
}

/// The high bits of eight bytes side by side: the product has the bit of byte `n` at place `56 + n`.
#[cfg(not(target_feature = "simd128"))]
fn gather(high_bits: u64) -> u32 {
    ((high_bits >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn every_byte_is_told_at_every_place() {
        for byte in 0..=u8::MAX {
            for (place, others) in (0..BLOCK_BYTES).flat_map(|place| [(place, b'a'), (place, byte)]) {
                let mut block = [others; BLOCK_BYTES];
                block[place] = byte;
                let places = |is: fn(u8) -> bool| -> u32 {
                    block.iter().enumerate().map(|(place, byte)| u32::from(is(*byte)) << place).sum()
                };
                let expected = SpecialBytes {
                    quotes: places(|byte| byte == b'"'),
                    backslashes: places(|byte| byte == b'\\'),
                    controls: places(|byte| byte < b' '),
                };
                assert_eq!(SpecialBytes::of(&block), expected, "{byte} at {place}");
                let expected = EscapeLetters {
                    known: places(|byte| br#""\/bfnrtu"#.contains(&byte)),
                    numbered: places(|byte| byte == b'u'),
                };
                assert_eq!(EscapeLetters::of(&block), expected, "{byte} at {place}");
            }
        }
    }
}
