//! Where a JSON string ends and how many bytes it stands for, without decoding it.
//!
//! Most bytes of a request are inside of strings, so this looks at sixteen of them at a time: which are quotes,
//! backslashes or control characters is a bit each ([`SpecialBytes`]). The bit behind every backslash that is not itself
//! escaped is an escaped byte; the first quote that is none ends the string. No branch depends on where in the block an
//! escape is: processors cannot foresee it.

use super::special_bytes::{BLOCK_BYTES, EscapeLetters, SpecialBytes};

/// A string as it stands in JSON.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct JsonString<'a> {
    /// The raw text between the quotes.
    pub content: &'a [u8],
    /// The bytes it stands for in UTF-8; each half of a surrogate pair counts as three.
    pub decoded_bytes: usize,
    /// Whether characters are escaped by number, as in `\u00e9`.
    pub has_numbered_escapes: bool,
    /// What follows the closing quote.
    pub rest: &'a [u8],
}

/// Reads the string whose opening quote was just read. `None` if it does not end, or has a control character or an
/// escape that JSON does not know. Whether it is UTF-8 is not looked at.
pub(super) fn read_string(text: &[u8]) -> Option<JsonString<'_>> {
    let mut escapes = Escapes::default();
    let mut rest = text;
    loop {
        let padding;
        let (block, next) = match rest.split_first_chunk() {
            Some(split) => split,
            None => {
                padding = padded(rest);
                (&padding, &[][..])
            }
        };
        let special = SpecialBytes::of(block);
        if !special.any() && !escapes.open {
            rest = next;
            continue;
        }
        let escaped = escapes.escaped(special.backslashes);
        let end = special.quotes & !escaped;
        // All bits below the lowest one of `end`; all bits where there is none.
        let inside = end.wrapping_sub(1) & !end;
        if special.controls & inside != 0 {
            return None;
        }
        if escaped != 0 {
            escapes.count(block, escaped & inside, rest)?;
        }
        if end != 0 {
            let length = text.len() - rest.len() + end.trailing_zeros() as usize;
            let (content, behind) = text.split_at_checked(length)?;
            return Some(JsonString {
                content,
                decoded_bytes: length.checked_sub(escapes.escaping_bytes)?,
                has_numbered_escapes: escapes.numbered,
                rest: behind.get(1..)?,
            });
        }
        rest = next;
    }
}

/// What is left of the text, and then control characters: nothing ends in them.
fn padded(rest: &[u8]) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    block.iter_mut().zip(rest).for_each(|(place, byte)| *place = *byte);
    block
}

/// The escapes of one string, as far as it is read.
#[derive(Default)]
struct Escapes {
    /// Whether the block before ended with a backslash that escapes the first byte of the next.
    open: bool,
    /// Bytes that stand for nothing of their own.
    escaping_bytes: usize,
    numbered: bool,
}

impl Escapes {
    /// The bytes of a block that stand behind a backslash that is itself not escaped.
    fn escaped(&mut self, backslashes: u32) -> u32 {
        let first = u32::from(self.open);
        let escaped = if backslashes & (backslashes << 1 | first) == 0 {
            backslashes << 1 | first
        } else {
            escaped_in_runs(backslashes, first)
        };
        self.open = escaped >> BLOCK_BYTES != 0;
        escaped & ((1 << BLOCK_BYTES) - 1)
    }

    /// Takes note of the bytes of `block` at these places, which are escaped; `text` begins with the block. `None` if JSON
    /// does not know one of the escapes.
    fn count(&mut self, block: &[u8; BLOCK_BYTES], escaped: u32, text: &[u8]) -> Option<()> {
        let letters = EscapeLetters::of(block);
        if escaped & !letters.known != 0 {
            return None;
        }
        self.escaping_bytes += escaped.count_ones() as usize;
        let mut numbered = escaped & letters.numbered;
        while numbered != 0 {
            let digits = text.get(numbered.trailing_zeros() as usize + 1..)?.first_chunk::<4>()?;
            if !digits.iter().all(u8::is_ascii_hexdigit) {
                return None;
            }
            self.escaping_bytes += 2;
            self.numbered = true;
            numbered &= numbered - 1;
        }
        Some(())
    }
}

/// The same where backslashes stand side by side: every other one of them escapes.
fn escaped_in_runs(backslashes: u32, first: u32) -> u32 {
    let mut escaped = first;
    let mut escaping = backslashes & !escaped;
    while escaping != 0 {
        let lowest = escaping & escaping.wrapping_neg();
        escaped |= lowest << 1;
        escaping &= !(lowest | lowest << 1);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn check(content: &str, decoded_bytes: usize) {
        for plain in (0..40).map(|bytes| format!("{}{}", "é".repeat(bytes / 2), "a".repeat(bytes % 2))) {
            let content = format!("{plain}{content}");
            let text = format!("{content}\", \"next\"");
            let expected = JsonString {
                content: content.as_bytes(),
                decoded_bytes: decoded_bytes + plain.len(),
                has_numbered_escapes: content.contains(r"\u"),
                rest: b", \"next\"",
            };
            assert_eq!(read_string(text.as_bytes()), Some(expected), "{text}");
        }
    }

    fn refused(content: &[u8]) {
        for plain in 0..40 {
            let text = [&b"a".repeat(plain), content].concat();
            assert_eq!(read_string(&text), None, "{:?}", String::from_utf8_lossy(&text));
        }
    }

    #[test]
    fn a_string_ends_at_the_first_quote_that_is_not_escaped() {
        check("", 0);
        check("a", 1);
        check(r#"\""#, 1);
        check(r"\\", 1);
        check(r#"\\\"\\"#, 3);
    }

    #[test]
    fn escapes_count_as_what_they_stand_for() {
        check(r"\b\f\n\r\t\/", 6);
        check(r"\u4e2D\u0041", 6);
        check(r"\ud83d\ude00", 6);
        assert!(!read_string(br#"\\u0041""#).unwrap().has_numbered_escapes, "the backslash is escaped");
    }

    #[test]
    fn every_byte_that_needs_no_escape_is_plain() {
        let plain = (b' '..=u8::MAX).filter(|byte| !matches!(byte, b'"' | b'\\')).collect::<Vec<_>>();
        for start in 0..plain.len() {
            let text = [&plain[start..], b"\""].concat();
            assert_eq!(read_string(&text).map(|string| string.decoded_bytes), Some(plain.len() - start));
        }
    }

    #[test]
    fn control_characters_unknown_escapes_and_open_ends_are_refused() {
        for control in 0..b' ' {
            refused(&[control, b'"']);
            refused(&[b'\\', control, b'"']);
        }
        for content in
            [r#"\x""#, r#"\U0041""#, r#"\u004""#, r#"\u004g""#, r#"\u+041""#, "", "a", r"\", r"\u", r#"\""#]
        {
            refused(content.as_bytes());
        }
    }
}
