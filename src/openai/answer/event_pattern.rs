//! What the events of a stream have in common: all but their text, and perhaps one number.
//!
//! ```text
//! event = beginning value [middle value] ending
//! value = "text" | digits
//! ```
//!
//! A server writes the same lines, id, model and punctuation around each piece of its answer. An event that is as one that
//! was read but for its one string of interest says the same in other words, and is changed in the same way: only that
//! string need be looked at. Many servers count their events, or have several choices whose events take turns: one number
//! may differ, too, if nothing is looked for where it stands. It is the one in which the event that is learnt first differed
//! from the one before.

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
    /// What stands between its parts.
    values: [Value; 2],
    /// As the client is to see it, where that is something else.
    written: Option<Frame>,
}

/// What stands around an event's values: its beginning, what is between them, and its ending.
#[derive(Debug, Default)]
struct Frame([Vec<u8>; 3]);

#[derive(Debug, Clone, Copy, Default)]
enum Value {
    Text,
    Number,
    /// Behind the event, where no number may differ.
    #[default]
    Nothing,
}

/// The values of one event that may differ.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values {
    /// The string of interest, in its quotes.
    pub text: Stretch,
    /// A word where nothing is looked for; the default if there is none.
    pub number: Stretch,
}

/// Where in an event a value stands, in bytes. The default is empty and behind the event.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stretch {
    pub bytes: usize,
    /// What stands behind it.
    pub behind: usize,
}

/// An event that is like the one learnt.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Alike<'p, 'a> {
    /// As the client is to see it.
    pub parts: [&'p [u8]; 3],
    /// What stands between the parts, as it is spelled; strings in their quotes.
    pub values: [&'a [u8]; 2],
}

impl Alike<'_, '_> {
    /// Whether the text is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.values.iter().any(|value| value.len() == b"\"\"".len() && value.first() == Some(&b'"'))
    }

    /// All of it, as the client is to see it.
    pub(super) fn written(&self) -> [&[u8]; 5] {
        let [beginning, middle, ending] = self.parts;
        let [first, second] = self.values;
        [beginning, first, middle, second, ending]
    }
}

impl EventPattern {
    /// Learns from an event, with the blank line that ends it, in which nothing else is of interest but these values.
    pub(super) fn learn(&mut self, event: &[u8], values: &Values) {
        self.written = None;
        // With a colon behind it, it would be a name, and what it says would count for what follows.
        let is_value = |value: Stretch| matches!(value.behind_in(event).first(), Some(b',' | b'}' | b']'));
        let Values { text, number } = *values;
        let are_values = is_value(text) && (number.bytes == 0 || is_value(number));
        if !are_values || event.len() > MAX_EVENT_BYTES {
            self.read = Frame::default();
            return;
        }
        self.read.set(event, values);
        self.values = match number {
            Stretch { bytes: 0, .. } => [Value::Text, Value::Nothing],
            number if number.behind > text.behind => [Value::Number, Value::Text],
            _ => [Value::Text, Value::Number],
        };
    }

    /// The event that was learnt last goes on as `written`, with the same values at these places.
    pub(super) fn learn_change(&mut self, written: &[u8], values: &Values) {
        self.written.get_or_insert_default().set(written, values);
    }

    /// Whether what was learnt passes as it came.
    pub(super) fn is_unchanged(&self) -> bool {
        self.written.is_none()
    }

    /// Takes an event that is like the one learnt off the front of the bytes, if it is there whole. The error is where
    /// the bytes begin to differ.
    pub(super) fn take<'p, 'a>(&'p self, bytes: &mut &'a [u8]) -> Result<Alike<'p, 'a>, usize> {
        let mut rest = *bytes;
        let Some(values) = self.read(&mut rest) else { return Err(bytes.len() - rest.len()) };
        *bytes = rest;
        let Frame(parts) = self.written.as_ref().unwrap_or(&self.read);
        Ok(Alike { parts: parts.each_ref().map(Vec::as_slice), values })
    }

    /// The values of an event that is like the one learnt; `None` where what is read begins to differ.
    fn read<'a>(&self, rest: &mut &'a [u8]) -> Option<[&'a [u8]; 2]> {
        let Frame([beginning, middle, ending]) = &self.read;
        let [first, second] = self.values;
        take_same(rest, beginning).filter(|()| !beginning.is_empty())?;
        let first = first.take(rest)?;
        take_same(rest, middle)?;
        let second = second.take(rest)?;
        take_same(rest, ending)?;
        Some([first, second])
    }
}

impl Frame {
    fn set(&mut self, event: &[u8], values: &Values) {
        let (text, number) = (values.text, values.number);
        let (first, second) = if number.behind > text.behind { (number, text) } else { (text, number) };
        let middle = first.behind_in(event);
        let parts = [first.ahead_in(event), second.ahead_in(middle), second.behind_in(event)];
        for (kept, part) in self.0.iter_mut().zip(parts) {
            kept.clear();
            kept.extend_from_slice(part);
        }
    }
}

impl Stretch {
    fn ahead_in(self, event: &[u8]) -> &[u8] {
        event.get(..event.len().saturating_sub(self.behind + self.bytes)).unwrap_or_default()
    }

    fn behind_in(self, event: &[u8]) -> &[u8] {
        event.get(event.len().saturating_sub(self.behind)..).unwrap_or_default()
    }
}

impl Value {
    fn take<'a>(self, rest: &mut &'a [u8]) -> Option<&'a [u8]> {
        let bytes = match self {
            Value::Text => string_bytes(rest)?,
            Value::Number => Some(digits(rest)).filter(|digits| *digits > 0)?,
            Value::Nothing => 0,
        };
        let (value, behind) = rest.split_at_checked(bytes)?;
        *rest = behind;
        Some(value)
    }
}

/// Takes what is the same off the front of `rest`; `None` if that is not all of `part`.
fn take_same(rest: &mut &[u8], part: &[u8]) -> Option<()> {
    let same = same_bytes(part, rest);
    *rest = rest.get(same..)?;
    (same == part.len()).then_some(())
}

fn digits(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| byte.is_ascii_digit()).count()
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

/// How many bytes are the same at the front of both. A loop over bytes takes longer in WebAssembly.
fn same_bytes(one: &[u8], other: &[u8]) -> usize {
    let bytes = one.len().min(other.len());
    let (Some(one), Some(other)) = (one.get(..bytes), other.get(..bytes)) else { return 0 };
    let (Some(last), Some(other_last)) = (one.last_chunk(), other.last_chunk()) else {
        return one.iter().zip(other).take_while(|(one, other)| one == other).count();
    };
    let blocks = one.as_chunks().0.iter().zip(other.as_chunks().0);
    for (place, (block, other_block)) in blocks.enumerate() {
        let same = same_in_block(block, other_block);
        if same != ALL_SAME {
            return place * BLOCK_BYTES + same.trailing_ones() as usize;
        }
    }
    // It overlaps the one before.
    bytes - BLOCK_BYTES + same_in_block(last, other_last).trailing_ones() as usize
}

/// A bit for each byte.
fn same_in_block(one: &[u8; BLOCK_BYTES], other: &[u8; BLOCK_BYTES]) -> u32 {
    u8x16::new(*one).simd_eq(u8x16::new(*other)).to_bitmask()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const TEXT: &str = "\"text\"";
    const NUMBER: &str = "12";

    /// Where the values of an event stand.
    fn values(event: &str) -> Values {
        let stretch = |value: &str| {
            let (_, behind) = event.split_once(value)?;
            Some(Stretch { bytes: value.len(), behind: behind.len() })
        };
        Values { text: stretch(TEXT).unwrap(), number: stretch(NUMBER).unwrap_or_default() }
    }

    fn learnt(event: &str, written: &str) -> EventPattern {
        let mut pattern = EventPattern::default();
        pattern.learn(event.as_bytes(), &values(event));
        if written != event {
            pattern.learn_change(written.as_bytes(), &values(written));
        }
        pattern
    }

    /// `event` is learnt from with its text at `"text"`; `stream` begins with one like it, with this text, or with none.
    fn check(event: &str, stream: &str, text: Option<&str>) {
        let pattern = learnt(event, event);
        let mut rest = stream.as_bytes();
        let found = pattern.take(&mut rest).ok().map(|alike| {
            assert_eq!(alike.is_empty(), text == Some(""));
            alike.written().concat()
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
        assert_eq!(EventPattern::default().take(&mut &b"\"text\""[..]), Err(0));
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
        let alike = pattern.take(&mut next.as_bytes()).map(|alike| alike.written().concat());
        let expected = "event: x\ndata: {\"id\":\"one\",\"delta\": \"next\"}\n\n";
        assert_eq!(alike, Ok(expected.as_bytes().to_vec()));
    }

    #[test]
    fn one_number_may_differ_ahead_of_the_text_or_behind_it() {
        for event in [
            "data: {\"n\":12,\"model\":\"m\",\"delta\":\"text\",\"more\":null}\n\n",
            "data: {\"delta\":\"text\",\"model\":\"m\",\"ns\":[12]}\n\n",
        ] {
            let written = event.replace(",\"model\":\"m\"", "");
            let like = |event: &str, number: &str| event.replace("text", "").replace(NUMBER, number);
            for number in ["0", "13", "9876543210"] {
                let next = like(event, number);
                let pattern = learnt(event, &written);
                let alike = pattern.take(&mut next.as_bytes()).unwrap();
                assert!(alike.is_empty());
                assert_eq!(alike.written().concat(), like(&written, number).as_bytes());
            }
            for other in ["", "-1", "1.5", "null", "\"1\"", "1 "] {
                check(event, &like(event, other), None);
            }
        }
        let name = "data: {\"delta\":\"text\",12:{}}\n\n";
        check(name, name, None);
    }

    #[test]
    fn other_events_differ_somewhere() {
        for (event, place) in
            [("", 0), (&EVENT[..7], 7), ("event: y", 7), (&EVENT.replace("text", "text\n"), 34)]
        {
            assert_eq!(learnt(EVENT, EVENT).take(&mut event.as_bytes()), Err(place), "{event}");
        }
    }

    #[test]
    fn bytes_are_the_same_up_to_the_first_that_differs() {
        let bytes: Vec<u8> = (0..40).collect();
        for length in 0..bytes.len() {
            let one = bytes.get(..length).unwrap();
            assert_eq!((same_bytes(one, &bytes), same_bytes(&bytes, one)), (length, length));
            for place in 0..length {
                let mut other = one.to_vec();
                *other.get_mut(place).unwrap() ^= 1;
                assert_eq!(same_bytes(&other, &bytes), place, "{length}");
            }
        }
    }
}
