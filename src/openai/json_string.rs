//! Where a JSON string ends and how many bytes it stands for, without decoding it.
//!
//! Most bytes of a request are inside of strings, so this looks at eight of them at a time.

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
    let mut rest = text;
    let mut escaping_bytes = 0;
    let mut has_numbered_escapes = false;
    loop {
        let special = skip_plain(rest);
        rest = match special {
            [b'"', rest @ ..] => {
                let length = text.len() - special.len();
                let content = text.get(..length)?;
                let decoded_bytes = length - escaping_bytes;
                return Some(JsonString { content, decoded_bytes, has_numbered_escapes, rest });
            }
            [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', rest @ ..] => {
                escaping_bytes += 1;
                rest
            }
            [b'\\', b'u', rest @ ..] => {
                let (digits, rest) = rest.split_first_chunk::<4>()?;
                escaping_bytes += 3;
                has_numbered_escapes = true;
                digits.iter().all(u8::is_ascii_hexdigit).then_some(rest)?
            }
            _ => return None,
        };
    }
}

/// What is left from the first byte on that does not stand for itself: a quote, a backslash, a control character.
fn skip_plain(text: &[u8]) -> &[u8] {
    let mut rest = text;
    while let Some((word, next)) = rest.split_first_chunk::<8>() {
        let special = special_bytes(u64::from_le_bytes(*word));
        if special != 0 {
            return rest.get(special.trailing_zeros() as usize / 8..).unwrap_or_default();
        }
        rest = next;
    }
    while let [b' '..=b'!' | b'#'..=b'[' | b']'.., next @ ..] = rest {
        rest = next;
    }
    rest
}

const EACH_BYTE: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x80 * EACH_BYTE;

/// The high bits of the bytes that are special. Only the lowest one is exact: the subtractions borrow from the
/// bytes above a special one.
fn special_bytes(word: u64) -> u64 {
    // This swaps the quote (0x22) and the space (0x20), so that the control characters and the quote are below 0x21.
    let quote_or_control = (word ^ (0x02 * EACH_BYTE)).wrapping_sub(0x21 * EACH_BYTE);
    let backslash = (word ^ (0x5c * EACH_BYTE)).wrapping_sub(EACH_BYTE);
    (quote_or_control | backslash) & !word & HIGH_BITS
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn check(content: &str, decoded_bytes: usize) {
        for plain in 0..20 {
            let content = format!("{}{content}", "é".repeat(plain));
            let text = format!("{content}\", \"next\"");
            let expected = JsonString {
                content: content.as_bytes(),
                decoded_bytes: decoded_bytes + 2 * plain,
                has_numbered_escapes: content.contains(r"\u"),
                rest: b", \"next\"",
            };
            assert_eq!(read_string(text.as_bytes()), Some(expected), "{text}");
        }
    }

    fn refused(content: &[u8]) {
        for plain in 0..20 {
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
