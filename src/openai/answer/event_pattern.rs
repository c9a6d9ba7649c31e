//! What the events of a stream have in common: all but their text.
//!
//! ```text
//! event = beginning "text" ending
//! ```
//!
//! A server writes the same id, model and punctuation around each piece of its answer. An event that begins and ends as one
//! that was read, and has but one string between, says the same in other words: only that string need be looked at.

use std::ops::Range;

use memchr::memchr2;
use wide::u8x16;

/// The longest event that is learnt: with its names, no server's event of one token is longer.
const MAX_EVENT_BYTES: usize = 2_048;

/// Bytes that are compared at a time.
const BLOCK_BYTES: usize = 16;

/// Each of them is the same.
const ALL_SAME: u32 = 0xffff;

/// What was learnt of one stream. The default is nothing.
#[derive(Debug, Default)]
pub(super) struct EventPattern {
    beginning: Vec<u8>,
    ending: Vec<u8>,
}

impl EventPattern {
    /// Learns from an event whose only string of interest stands at `value`, in quotes and perhaps behind whitespace.
    pub(super) fn learn(&mut self, event: &[u8], value: Range<usize>) {
        let quote = |place: &usize| event.get(*place) == Some(&b'"');
        let opening = value.clone().find(quote);
        let Some((beginning, ending)) =
            opening.and_then(|opening| event.get(..opening).zip(event.get(value.end..)))
        else {
            return;
        };
        self.beginning.clear();
        self.ending.clear();
        // With a colon behind it, it would be a name, and what it says would count for what follows.
        if event.len() <= MAX_EVENT_BYTES && matches!(ending, [b',' | b'}', ..]) {
            self.beginning.extend_from_slice(beginning);
            self.ending.extend_from_slice(ending);
        }
    }

    /// The text of an event that is like the one learnt, as it is spelled.
    pub(super) fn text<'a>(&self, event: &'a [u8]) -> Option<&'a [u8]> {
        let (beginning, rest) = event.split_at_checked(self.beginning.len())?;
        let (value, ending) = rest.split_at_checked(rest.len().checked_sub(self.ending.len())?)?;
        let text = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        let is_alike = !beginning.is_empty()
            && is_same(beginning, &self.beginning)
            && is_same(ending, &self.ending)
            && is_one_string(text);
        is_alike.then_some(text)
    }
}

/// Whether no quote ends it before its end, and no escape reaches beyond that.
fn is_one_string(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(place) = memchr2(b'"', b'\\', rest) {
        let behind_escape = rest.get(place + 2..).filter(|_| rest.get(place) == Some(&b'\\'));
        match behind_escape {
            Some(behind) => rest = behind,
            None => return false,
        }
    }
    true
}

/// The same as `==` of the two, which looks at one byte at a time in WebAssembly.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let (blocks, rest) = one.as_chunks::<BLOCK_BYTES>();
    let (other_blocks, other_rest) = other.as_chunks::<BLOCK_BYTES>();
    let same_block = |(one, other): (&[u8; BLOCK_BYTES], &[u8; BLOCK_BYTES])| {
        u8x16::new(*one).simd_eq(u8x16::new(*other)).to_bitmask() == ALL_SAME
    };
    let same_byte = |(one, other)| one == other;
    one.len() == other.len()
        && blocks.iter().zip(other_blocks).all(same_block)
        && rest.iter().zip(other_rest).all(same_byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// `learnt` has its text at ` "text"`.
    fn check(learnt: &str, event: &str, text: Option<&str>) {
        const VALUE: &str = " \"text\"";
        let begins = learnt.find(VALUE).unwrap();
        let mut pattern = EventPattern::default();
        pattern.learn(learnt.as_bytes(), begins..begins + VALUE.len());
        let found = pattern.text(event.as_bytes());
        assert_eq!(found, text.map(str::as_bytes), "{learnt} {event}");
    }

    #[test]
    fn an_event_that_begins_and_ends_as_the_one_learnt_is_known_by_its_text() {
        let learnt = r#"{"id":"1","delta": "text","more":null}"#;
        for text in ["", "word", "é", r"\n", r#"\"a\""#, r"\\", r#"{"}"#.trim_matches('"')] {
            let event = learnt.replace("text", text);
            let expected = (!text.contains("{\"")).then_some(text);
            check(learnt, &event, expected);
        }
    }

    #[test]
    fn other_events_are_not() {
        let learnt = r#"{"id":"1","delta": "text","more":null}"#;
        for event in [
            "",
            "{}",
            r#"{"id":"2","delta": "text","more":null}"#,
            r#"{"id":"1","delta": "text","more":1234}"#,
            r#"{"id":"1","delta": "text","more":null} "#,
            r#"{"id":"1","delta": "a","usage":"b","more":null}"#,
            r#"{"id":"1","delta": "a\","more":null}"#,
            r#"{"id":"1","delta": null,"more":null}"#,
            r#"{"id":"1","delta": ","more":null}"#,
            r#"{"id":"1","delta": ,"more":null}"#,
        ] {
            check(learnt, event, None);
        }
    }

    #[test]
    fn nothing_is_known_before_anything_is_learnt_nor_of_what_is_too_long_or_no_value() {
        assert_eq!(EventPattern::default().text(b"\"text\""), None);
        let name = r#"{"delta": "text":{}}"#;
        check(name, name, None);
        let long = format!(r#"{{"id":"{}","delta": "text"}}"#, "1".repeat(MAX_EVENT_BYTES));
        check(&long, &long, None);
    }

    #[test]
    fn slices_are_the_same_if_all_their_bytes_are() {
        let bytes: Vec<u8> = (0..40).collect();
        for length in 0..bytes.len() {
            let one = bytes.get(..length).unwrap();
            assert!(is_same(one, one) && !is_same(one, &bytes));
            for place in 0..length {
                let mut other = one.to_vec();
                *other.get_mut(place).unwrap() ^= 1;
                assert!(!is_same(one, &other), "{length} {place}");
            }
        }
    }
}
