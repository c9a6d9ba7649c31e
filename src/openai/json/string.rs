//! Where a JSON string ends and how many bytes it stands for, without decoding it.
//!
//! Most bytes of a request are inside of strings, so this looks at sixty-four of them at a time: which are quotes and which
//! backslashes is a bit each ([`places_of`]). The bit behind every backslash that is not itself escaped is an escaped byte;
//! the first quote that is none ends the string. Control characters, which may not be there, need not be found: that there
//! was one is enough ([`SeenBytes`]). No branch depends on where in the block an escape is: processors cannot foresee it.

use super::special_bytes::{
    BLOCK_BYTES, SHORT_BLOCK_BYTES, SeenBytes, escape_letters, places_of, string_ends,
};

/// A string as it stands in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::openai) struct JsonString<'a> {
    /// The raw text between the quotes.
    pub content: &'a [u8],
    /// The bytes it stands for in UTF-8; each half of a surrogate pair counts as three.
    pub decoded_bytes: usize,
    /// Whether characters are escaped by number, as in `\u00e9`.
    pub has_numbered_escapes: bool,
    /// Whether it is ASCII. One that is may be taken for one that is not, for what stands a few bytes behind it.
    pub is_ascii: bool,
    /// What follows the closing quote.
    pub rest: &'a [u8],
}

/// Reads the string whose opening quote was just read. `None` if it does not end, or has a control character or an
/// escape that JSON does not know. Whether it is UTF-8 is not looked at.
pub(in crate::openai) fn read_string(text: &[u8]) -> Option<JsonString<'_>> {
    read_short(text).or_else(|| read_long(text))
}

/// Reads a string without escapes that ends in the first block. Keys do, and most values.
fn read_short(text: &[u8]) -> Option<JsonString<'_>> {
    let block = text.first_chunk::<SHORT_BLOCK_BYTES>()?;
    let ends = string_ends(block);
    let length = ends.trailing_zeros();
    if ends == 0 || places_of(b'\\', block).trailing_zeros() < length {
        return None;
    }
    let mut seen = SeenBytes::none();
    seen.add(block);
    let (content, behind) = text.split_at_checked(length as usize)?;
    Some(JsonString {
        content,
        decoded_bytes: content.len(),
        has_numbered_escapes: false,
        is_ascii: seen.is_ascii(),
        rest: behind.strip_prefix(b"\"")?,
    })
}

fn read_long(text: &[u8]) -> Option<JsonString<'_>> {
    let mut escapes = Escapes::default();
    let mut seen = SeenBytes::none();
    let mut rest = text;
    loop {
        let padding;
        let (block, next) = match rest.split_first_chunk() {
            Some((block, next)) => (block, Some(next)),
            None => {
                padding = padded(rest);
                (&padding, None)
            }
        };
        let quotes = places_of(b'"', block);
        let ends = escapes.read(block, quotes, rest)?;
        if ends == 0 {
            seen.add(block);
            rest = next?;
            continue;
        }
        if seen.has_controls() || string_ends(block) & !quotes & below(ends) != 0 {
            return None;
        }
        seen.add(block);
        let length = text.len() - rest.len() + ends.trailing_zeros() as usize;
        let (content, behind) = text.split_at_checked(length)?;
        return Some(JsonString {
            content,
            decoded_bytes: length.checked_sub(escapes.escaping_bytes)?,
            has_numbered_escapes: escapes.numbered,
            is_ascii: seen.is_ascii(),
            rest: behind.strip_prefix(b"\"")?,
        });
    }
}

/// All bits below the lowest one that is set; all bits if there is none.
fn below(places: u64) -> u64 {
    places.wrapping_sub(1) & !places
}

/// What is left of the text, and then nothing that could end a string.
fn padded(rest: &[u8]) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    if let Some(place) = block.get_mut(..rest.len()) {
        place.copy_from_slice(rest);
    }
    block
}

/// The escapes of one string, as far as it is read.
#[derive(Default)]
struct Escapes {
    /// One if the block before ended with a backslash that escapes the first byte of the next, zero otherwise.
    open: u64,
    /// Bytes that stand for nothing of their own.
    escaping_bytes: usize,
    numbered: bool,
}

impl Escapes {
    /// Takes note of what is escaped in a block, up to the end of the string; `text` begins with the block. Returns the quotes
    /// that are not escaped: the first ends the string. `None` if JSON does not know one of the escapes.
    fn read(&mut self, block: &[u8; BLOCK_BYTES], quotes: u64, text: &[u8]) -> Option<u64> {
        let backslashes = places_of(b'\\', block);
        if quotes | backslashes | self.open == 0 {
            return Some(0);
        }
        let escaped = self.escaped(backslashes);
        let ends = quotes & !escaped;
        let escaped = escaped & below(ends);
        self.escaping_bytes += escaped.count_ones() as usize;
        let others = escaped & !(quotes | backslashes);
        if others != 0 {
            self.check(block, others, text)?;
        }
        Some(ends)
    }

    /// The bytes of a block that stand behind a backslash that is itself not escaped.
    ///
    /// In a run of backslashes every other one is escaped, beginning with the second. Adding to a run the bit at which it
    /// begins turns all its bits over and sets the one behind; doing so only for runs that begin at odd places leaves a
    /// number that says, at the byte behind each run, whether even or odd places are escaped.
    fn escaped(&mut self, backslashes: u64) -> u64 {
        const EVEN: u64 = 0x5555_5555_5555_5555;
        let backslashes = backslashes & !self.open;
        let behind = backslashes << 1 | self.open;
        let odd_starts = backslashes & !EVEN & !behind;
        let (turned, goes_on) = odd_starts.overflowing_add(backslashes);
        self.open = u64::from(goes_on);
        (EVEN ^ turned << 1) & behind
    }

    /// Looks at the bytes of `block` at these places, which are escaped and neither quotes nor backslashes.
    fn check(&mut self, block: &[u8; BLOCK_BYTES], escaped: u64, text: &[u8]) -> Option<()> {
        // New lines are most of them.
        let mut numbered = escaped & !places_of(b'n', block);
        if numbered != 0 {
            // What is no letter is to be a number, of which there are few.
            numbered &= !escape_letters(block);
        }
        while numbered != 0 {
            let escape = text.get(numbered.trailing_zeros() as usize..)?;
            let digits = escape.strip_prefix(b"u")?.first_chunk::<4>()?;
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

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn check(content: &str, decoded_bytes: usize) {
        for plain in (0..140).map(|bytes| format!("{}{}", "é".repeat(bytes / 2), "a".repeat(bytes % 2))) {
            let content = format!("{plain}{content}");
            let text = format!("{content}\", \"next\"");
            let expected = JsonString {
                content: content.as_bytes(),
                decoded_bytes: decoded_bytes + plain.len(),
                has_numbered_escapes: content.contains(r"\u"),
                is_ascii: plain.is_ascii() && content.is_ascii(),
                rest: b", \"next\"",
            };
            assert_eq!(read_string(text.as_bytes()), Some(expected), "{text}");
        }
    }

    fn refused(content: &[u8]) {
        for plain in 0..140 {
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
    fn control_characters_may_stand_behind_a_string() {
        for plain in 0..140 {
            let text = format!("{}\\n\"\n\t}}\r\n", "a".repeat(plain));
            let string = read_string(text.as_bytes()).map(|string| (string.decoded_bytes, string.rest));
            assert_eq!(string, Some((plain + 1, &b"\n\t}\r\n"[..])), "{text}");
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
