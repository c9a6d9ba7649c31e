//! What the events of a stream have in common: all but their text.
//!
//! ```text
//! event = beginning "text" ending
//! ```
//!
//! A server writes the same lines, id, model and punctuation around each piece of its answer. An event that begins and ends
//! as one that was read, and has but one string between, says the same in other words, and is changed in the same way:
//! only that string need be looked at.

use std::ops::Range;

use memchr::memchr3;
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
    /// As the server writes it.
    read: Frame,
    /// Bytes of the text of the event that was learnt, with its quotes.
    text_bytes: usize,
    /// As the client is to see it, where that is something else.
    written: Option<Frame>,
}

/// What stands around an event's text.
#[derive(Debug, Default)]
struct Frame {
    beginning: Vec<u8>,
    ending: Vec<u8>,
}

/// An event that is like the one learnt, in the parts that the client is to see.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Alike<'p, 'a> {
    pub beginning: &'p [u8],
    /// The text as it is spelled, in its quotes.
    pub text: &'a [u8],
    pub ending: &'p [u8],
}

impl Alike<'_, '_> {
    /// Whether the text is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.text.len() <= b"\"\"".len()
    }
}

impl EventPattern {
    /// Learns from an event, with the blank line that ends it, whose only string of interest stands at `value`, in quotes
    /// and perhaps behind whitespace.
    pub(super) fn learn(&mut self, event: &[u8], value: Range<usize>) {
        self.read.clear();
        self.written = None;
        let quote = |place: &usize| event.get(*place) == Some(&b'"');
        let Some(opening) = value.clone().find(quote) else { return };
        // With a colon behind it, it would be a name, and what it says would count for what follows.
        let is_value = matches!(event.get(value.end), Some(b',' | b'}'));
        if is_value && event.len() <= MAX_EVENT_BYTES {
            self.text_bytes = value.end.saturating_sub(opening);
            self.read.set(event, opening, value.end);
        }
    }

    /// The event that was learnt last goes on as `written`, where its string ends so many bytes ahead of the end.
    pub(super) fn learn_change(&mut self, written: &[u8], ending_bytes: usize) {
        let text_end = written.len().saturating_sub(ending_bytes);
        let mut frame = Frame::default();
        frame.set(written, text_end.saturating_sub(self.text_bytes), text_end);
        self.written = Some(frame);
    }

    /// Whether what was learnt passes as it came.
    pub(super) fn is_unchanged(&self) -> bool {
        self.written.is_none()
    }

    /// Takes an event that is like the one learnt off the front of the bytes, if it is there whole.
    pub(super) fn take<'p, 'a>(&'p self, bytes: &mut &'a [u8]) -> Option<Alike<'p, 'a>> {
        let Frame { beginning, ending } = &self.read;
        let (first, behind) = bytes.split_at_checked(beginning.len())?;
        if beginning.is_empty() || !is_same(first, beginning) {
            return None;
        }
        let (text, behind) = behind.split_at_checked(string_bytes(behind)?)?;
        let (last, rest) = behind.split_at_checked(ending.len())?;
        if !is_same(last, ending) {
            return None;
        }
        *bytes = rest;
        let Frame { beginning, ending } = self.written.as_ref().unwrap_or(&self.read);
        Some(Alike { beginning, text, ending })
    }
}

impl Frame {
    fn clear(&mut self) {
        self.beginning.clear();
        self.ending.clear();
    }

    fn set(&mut self, event: &[u8], text_from: usize, text_end: usize) {
        self.beginning.extend_from_slice(event.get(..text_from).unwrap_or_default());
        self.ending.extend_from_slice(event.get(text_end..).unwrap_or_default());
    }
}

/// How long the string is that begins here, with its quotes, if it ends in this line.
fn string_bytes(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes.strip_prefix(b"\"")?;
    loop {
        let place = memchr3(b'"', b'\\', b'\n', rest)?;
        let behind = rest.get(place + 1..)?;
        rest = match rest.get(place)? {
            b'"' => return Some(bytes.len() - behind.len()),
            b'\\' if behind.first()? != &b'\n' => behind.get(1..)?,
            _ => return None,
        };
    }
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

    const VALUE: &str = " \"text\"";

    fn learnt(event: &str, written: &str) -> EventPattern {
        let begins = event.find(VALUE).unwrap();
        let mut pattern = EventPattern::default();
        pattern.learn(event.as_bytes(), begins..begins + VALUE.len());
        if written != event {
            let (_, ending) = written.split_once(VALUE).unwrap();
            pattern.learn_change(written.as_bytes(), ending.len());
        }
        pattern
    }

    /// `event` is learnt from with its text at ` "text"`; `stream` begins with one like it, with this text, or with none.
    fn check(event: &str, stream: &str, text: Option<&str>) {
        let pattern = learnt(event, event);
        let mut rest = stream.as_bytes();
        let found = pattern.take(&mut rest).map(|alike| {
            assert_eq!(alike.is_empty(), alike.text == b"\"\"");
            [alike.beginning, alike.text, alike.ending].concat()
        });
        let expected = text.map(|text| event.replace("text", text));
        assert_eq!(found.as_deref(), expected.as_ref().map(String::as_bytes), "{event} {stream}");
        assert_eq!(rest.len(), stream.len() - expected.map_or(0, |event| event.len()));
    }

    const EVENT: &str = "event: x\ndata: {\"id\":\"1\",\"delta\": \"text\",\"more\":null}\n\n";

    #[test]
    fn an_event_that_begins_and_ends_as_the_one_learnt_is_known_by_its_text() {
        for text in ["", "word", "é", r"\n", r#"\"a\""#, r"\\"] {
            let event = EVENT.replace("text", text);
            for behind in ["", "d", "\n", EVENT] {
                check(EVENT, &format!("{event}{behind}"), Some(text));
            }
        }
    }

    #[test]
    fn other_events_are_not() {
        let other = |document: &str| format!("event: x\ndata: {document}\n\n");
        for event in [
            "".to_owned(),
            EVENT.trim_end().to_owned(),
            EVENT.replace("event: x", "event: y"),
            other("{}"),
            other(r#"{"id":"2","delta": "text","more":null}"#),
            other(r#"{"id":"1","delta": "text","more":1234}"#),
            other(r#"{"id":"1","delta": "text","more":null} "#),
            other(r#"{"id":"1","delta": "a","usage":"b","more":null}"#),
            other(r#"{"id":"1","delta": "a\","more":null}"#),
            other("{\"id\":\"1\",\"delta\": \"a\nb\",\"more\":null}"),
            other("{\"id\":\"1\",\"delta\": \"a\\\nb\",\"more\":null}"),
            other(r#"{"id":"1","delta": null,"more":null}"#),
            other(r#"{"id":"1","delta": ","more":null}"#),
            other(r#"{"id":"1","delta": ,"more":null}"#),
        ] {
            check(EVENT, &event, None);
        }
    }

    #[test]
    fn nothing_is_known_before_anything_is_learnt_nor_of_what_is_too_long_or_no_value() {
        assert_eq!(EventPattern::default().take(&mut &b"\"text\""[..]), None);
        let name = "data: {\"delta\": \"text\":{}}\n\n";
        check(name, name, None);
        let long = format!("data: {{\"id\":\"{}\",\"delta\": \"text\"}}\n\n", "1".repeat(MAX_EVENT_BYTES));
        check(&long, &long, None);
    }

    #[test]
    fn what_is_like_a_changed_event_is_changed_likewise() {
        let pattern = learnt(EVENT, &EVENT.replace("\"1\"", "\"one\"").replace(",\"more\":null", ""));
        assert!(!pattern.is_unchanged());
        let next = EVENT.replace("text", "next");
        let alike = pattern
            .take(&mut next.as_bytes())
            .map(|alike| [alike.beginning, alike.text, alike.ending].concat());
        let expected = "event: x\ndata: {\"id\":\"one\",\"delta\": \"next\"}\n\n";
        assert_eq!(alike.as_deref(), Some(expected.as_bytes()));
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
