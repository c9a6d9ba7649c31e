//! What the events of a stream have in common: all but their text, and a few values that say nothing.
//!
//! ```text
//! event = part value part [value part]…
//! ```
//!
//! A server writes the same lines, model and punctuation around each piece of its answer. An event that is as one that
//! was read but for its one string of interest says the same in other words, and is changed in the same way: only that
//! string need be looked at, and the numbers of its `usage`, where it reports that so far. Other values may differ, too, if nothing
//! is looked for where they stand: an id or a time of each event's own, a number by which a server counts its events, the
//! `index` of choices that take turns, logprobs. These are found by comparing: where an event first differs from the pattern,
//! a value of that kind may differ from then on.

use memchr::{memchr, memchr3};
use wide::u8x16;

use super::counts::Count;
use crate::openai::json::short_string_bytes;

/// The longest event that is learnt: with its names, no server's event of one token is longer.
const MAX_EVENT_BYTES: usize = 2_048;

/// Values that may differ: the text, up to four numbers of the usage, and what else servers were seen to change from event
/// to event.
const MAX_VALUES: usize = 8;

/// Digits of a count that fits 32 bits, whichever they are.
const MAX_COUNT_DIGITS: usize = 9;

/// Bytes that are compared at a time.
const BLOCK_BYTES: usize = 16;
/// The same where much is to be compared.
const LARGE_BLOCK_BYTES: usize = 4 * BLOCK_BYTES;

/// What was learnt of one stream. The default is nothing.
#[derive(Debug, Default)]
pub(super) struct EventPattern {
    /// As the server writes it.
    read: Frame,
    /// What stands between its parts.
    kinds: Vec<ValueKind>,
    /// Which of them is the text.
    text: usize,
    /// As the client is to see it, where that is something else.
    written: Option<Frame>,
}

/// What stands around an event's values, part by part.
#[derive(Debug, Default)]
struct Frame {
    bytes: Vec<u8>,
    /// Where in them each part ends.
    ends: Vec<usize>,
}

/// What may stand in a value's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueKind {
    /// The one string of interest.
    Text,
    /// A whole number of the usage.
    Count(Count),
    /// Any string or word: nothing is looked for there.
    Scalar,
    /// The same, or any list or object.
    Any,
}

/// A value of an event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value {
    pub kind: ValueKind,
    /// How long it is, with its quotes or brackets.
    pub bytes: usize,
    /// Where in the event it ends.
    pub end: usize,
    /// Where it ends in the event as the client is to see it.
    pub written_end: usize,
}

/// From where to where a value goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Span {
    start: usize,
    end: usize,
}

/// That an event is not like the one learnt.
#[derive(Debug)]
struct Difference<'p> {
    /// Where the part begins that is not there.
    from: usize,
    part: &'p [u8],
}

/// An event that is like the one learnt.
#[derive(Debug)]
pub(super) struct Alike<'p, 'a> {
    event: &'a [u8],
    values: [Span; MAX_VALUES],
    pattern: &'p EventPattern,
}

impl<'p, 'a> Alike<'p, 'a> {
    /// As the server has sent it.
    pub(super) fn bytes(&self) -> usize {
        self.event.len()
    }

    /// Whether the text is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.values.get(self.pattern.text).is_some_and(|text| text.end - text.start == b"\"\"".len())
    }

    /// What it says of the usage, in its order.
    pub(super) fn counts(&self) -> impl Iterator<Item = (Count, &[u8])> {
        let values = self.pattern.kinds.iter().zip(&self.values);
        values.filter_map(|(kind, value)| match kind {
            ValueKind::Count(count) => Some((*count, self.event.get(value.start..value.end)?)),
            ValueKind::Text | ValueKind::Scalar | ValueKind::Any => None,
        })
    }

    /// All of it, as the client is to see it.
    pub(super) fn written(&self) -> impl Iterator<Item = &[u8]> {
        let frame = self.pattern.written.as_ref().unwrap_or(&self.pattern.read);
        let values =
            self.values.iter().map(|value| self.event.get(value.start..value.end).unwrap_or_default());
        frame.parts().zip(values).flat_map(|(part, value)| [part, value])
    }
}

impl Difference<'_> {
    /// Where the event begins to differ.
    fn place_in(&self, event: &[u8]) -> usize {
        let bytes = event.get(self.from..).unwrap_or_default();
        self.from + self.part.iter().zip(bytes).take_while(|(one, other)| one == other).count()
    }
}

impl Value {
    fn start(&self) -> usize {
        self.end.saturating_sub(self.bytes)
    }

    /// Whether this place is in it, or right behind.
    fn has(&self, place: usize) -> bool {
        (self.start()..=self.end).contains(&place)
    }
}

impl EventPattern {
    /// Learns from an event, with the blank line that ends it, that goes on as `written`, if that is something else.
    /// Nothing in it is of interest but its one text and its counts; `values` are these and those in whose place any other
    /// would do.
    pub(super) fn learn(&mut self, event: &[u8], written: Option<&[u8]>, values: &[Value]) {
        let mut known = [Span::default(); MAX_VALUES];
        let differs_at =
            self.compare(event, &mut known).unwrap_or_else(|difference| difference.place_in(event));
        let differs = |value: &&Value| {
            matches!(value.kind, ValueKind::Text | ValueKind::Count(_))
                || value.has(differs_at)
                || known.iter().any(|known| value.has(known.start))
        };
        let differing = || values.iter().filter(differs).take(MAX_VALUES);
        self.kinds.clear();
        self.kinds.extend(differing().map(|value| value.kind));
        let text = self.kinds.iter().position(|kind| *kind == ValueKind::Text);
        self.text = text.unwrap_or(MAX_VALUES);
        self.written = written.map(|_| Frame::default());
        let is_learnt = text.is_some()
            && event.len() <= MAX_EVENT_BYTES
            && self.read.set(event, differing().map(|value| (value.bytes, value.end)))
            && self.written.iter_mut().zip(written).all(|(frame, written)| {
                frame.set(written, differing().map(|value| (value.bytes, value.written_end)))
            });
        if !is_learnt {
            self.read.ends.clear();
        }
    }

    /// Whether what was learnt passes as it came.
    pub(super) fn is_unchanged(&self) -> bool {
        self.written.is_none()
    }

    /// An event that is like the one learnt, if it stands whole at the front of the bytes.
    pub(super) fn find<'p, 'a>(&'p self, bytes: &'a [u8]) -> Option<Alike<'p, 'a>> {
        if self.read.ends.is_empty() {
            return None;
        }
        let mut values = [Span::default(); MAX_VALUES];
        let end = self.compare(bytes, &mut values).ok()?;
        Some(Alike { event: bytes.get(..end)?, values, pattern: self })
    }

    /// Where the event that is like the one learnt ends, and its values.
    fn compare<'p>(&'p self, bytes: &[u8], values: &mut [Span; MAX_VALUES]) -> Result<usize, Difference<'p>> {
        let mut place = 0;
        let mut parts = self.read.parts();
        for (kind, value) in self.kinds.iter().zip(values) {
            place = same_to(bytes, place, parts.next().unwrap_or_default())?;
            let length = bytes.get(place..).and_then(|rest| kind.length(rest));
            let length = length.ok_or(Difference { from: place, part: &[] })?;
            *value = Span { start: place, end: place + length };
            place += length;
        }
        same_to(bytes, place, parts.next().unwrap_or_default())
    }
}

impl Frame {
    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let part = self.bytes.get(start..*end).unwrap_or_default();
            start = *end;
            part
        })
    }

    /// Takes what stands around these values of an event, each given by its length and where it ends. `false` if one of them
    /// is no value: with a colon behind it, it would be a name, and what it says would count for what follows.
    fn set(&mut self, event: &[u8], values: impl Iterator<Item = (usize, usize)>) -> bool {
        self.bytes.clear();
        self.ends.clear();
        let mut from = 0;
        for (length, end) in values {
            let part = event.get(from..end.saturating_sub(length));
            let is_value = matches!(event.get(end), Some(b',' | b'}' | b']'));
            let Some(part) = part.filter(|_| is_value) else { return false };
            self.add(part);
            from = end;
        }
        self.add(event.get(from..).unwrap_or_default());
        true
    }

    fn add(&mut self, part: &[u8]) {
        self.bytes.extend_from_slice(part);
        self.ends.push(self.bytes.len());
    }
}

impl ValueKind {
    /// How long the value is that begins here, if it is of this kind and ends in this line.
    fn length(self, bytes: &[u8]) -> Option<usize> {
        match (bytes.first()?, self) {
            (_, ValueKind::Count(_)) => digits(bytes),
            (b'"', _) => string_bytes(bytes),
            (_, ValueKind::Text) => None,
            (b'{', ValueKind::Any) => bracket_bytes(bytes, b'{', b'}'),
            (b'[', ValueKind::Any) => bracket_bytes(bytes, b'[', b']'),
            _ => Some(word_bytes(bytes)).filter(|length| *length > 0),
        }
    }
}

/// The place behind `part`, which is to stand at this place.
fn same_to<'p>(bytes: &[u8], place: usize, part: &'p [u8]) -> Result<usize, Difference<'p>> {
    let end = place + part.len();
    let is_there = bytes.get(place..end).is_some_and(|other| is_same(part, other));
    if is_there { Ok(end) } else { Err(Difference { from: place, part }) }
}

/// How many digits there are, if they are a number that fits a count.
fn digits(bytes: &[u8]) -> Option<usize> {
    let length = bytes.iter().position(|byte| !byte.is_ascii_digit())?;
    (1..=MAX_COUNT_DIGITS).contains(&length).then_some(length)
}

/// How long the word is that begins here, if a value could end behind it.
fn word_bytes(bytes: &[u8]) -> usize {
    let ends = |byte: &u8| {
        matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n' | b':' | b'"' | b'{' | b'[')
    };
    bytes.iter().position(ends).unwrap_or(0)
}

/// How long the string is that begins here, with its quotes, if it ends in this line.
fn string_bytes(bytes: &[u8]) -> Option<usize> {
    let text = bytes.get(1..)?;
    if let Some(length) = text.first_chunk().and_then(short_string_bytes) {
        return Some(length + b"\"\"".len());
    }
    let mut rest = text;
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

/// How long the list or object is that begins here, if it ends in this line. Brackets of the other kind need not be looked at:
/// in JSON they are balanced.
fn bracket_bytes(bytes: &[u8], open: u8, close: u8) -> Option<usize> {
    let mut depth = 0_usize;
    let mut rest = bytes;
    loop {
        let place = memchr3(b'"', open, close, rest)?;
        let byte = *rest.get(place)?;
        let behind = rest.get(place..)?;
        if byte == b'"' {
            rest = behind.get(string_bytes(behind)?..)?;
            continue;
        }
        rest = behind.get(1..)?;
        depth = if byte == open { depth + 1 } else { depth - 1 };
        if depth == 0 {
            let value = bytes.get(..bytes.len() - rest.len())?;
            return memchr(b'\n', value).is_none().then_some(value.len());
        }
    }
}

/// Whether two slices of one length are the same. A loop over bytes takes longer in WebAssembly.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let (Some(last), Some(other_last)) = (one.last_chunk::<BLOCK_BYTES>(), other.last_chunk::<BLOCK_BYTES>())
    else {
        return one == other;
    };
    let (large, rest) = one.as_chunks::<LARGE_BLOCK_BYTES>();
    let (other_large, other_rest) = other.as_chunks::<LARGE_BLOCK_BYTES>();
    // The last one overlaps those before.
    large.iter().zip(other_large).all(|(one, other)| are_same(one, other))
        && are_same(rest, other_rest)
        && are_same(last, other_last)
}

/// Whether all whole blocks are the same.
fn are_same(one: &[u8], other: &[u8]) -> bool {
    let blocks = one.as_chunks().0.iter().zip(other.as_chunks().0);
    let differing = blocks
        .fold(u8x16::ZERO, |differing, (one, other)| differing | (u8x16::new(*one) ^ u8x16::new(*other)));
    differing == u8x16::ZERO
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// What stands in a template for a value of each kind.
    const PLACES: [(&str, ValueKind); 5] = [
        ("TEXT", ValueKind::Text),
        ("PROMPT", ValueKind::Count(Count::Prompt)),
        ("COMPLETION", ValueKind::Count(Count::Completion)),
        ("SCALAR", ValueKind::Scalar),
        ("ANY", ValueKind::Any),
    ];

    const EVENT: &str = "event: x\ndata: {\"id\":\"1\",\"delta\": TEXT,\"more\":null}\n\n";
    const EVENT_WITH_OTHERS: &str =
        "data: {\"id\":SCALAR,\"model\":\"m\",\"delta\": TEXT,\"n\":[SCALAR],\"logprobs\":ANY}\n\n";

    /// The event that is made of a template and these values, and where they stand in it: their kind, length and end.
    fn event(template: &str, values: &[&str]) -> (String, Vec<(ValueKind, usize, usize)>) {
        let (mut event, mut places, mut rest) = (String::new(), vec![], template);
        for value in values {
            let next = PLACES
                .iter()
                .filter_map(|(name, kind)| Some((rest.find(name)?, *name, *kind)))
                .min_by_key(|next| next.0);
            let (place, name, kind) = next.unwrap();
            event += &rest[..place];
            event += value;
            rest = &rest[place + name.len()..];
            places.push((kind, value.len(), event.len()));
        }
        (event + rest, places)
    }

    /// Learns from one event after the other, each given by its values.
    fn learnt(template: &str, written: &str, events: &[&[&str]]) -> EventPattern {
        let mut pattern = EventPattern::default();
        for values in events {
            let (read, places) = event(template, values);
            let (changed, written_places) = event(written, values);
            let value = |((kind, bytes, end), (_, _, written_end))| Value { kind, bytes, end, written_end };
            let values: Vec<Value> = places.into_iter().zip(written_places).map(value).collect();
            pattern.learn(read.as_bytes(), (written != template).then_some(changed.as_bytes()), &values);
        }
        pattern
    }

    /// What of `stream` is like what was learnt, as the client is to see it, and whether its text is empty.
    fn found(pattern: &EventPattern, stream: &str) -> Option<(String, bool)> {
        let alike = pattern.find(stream.as_bytes())?;
        assert_eq!(alike.event, &stream.as_bytes()[..alike.bytes()]);
        let written = alike.written().collect::<Vec<_>>().concat();
        Some((String::from_utf8(written).unwrap(), alike.is_empty()))
    }

    /// After one event made of this template comes `stream`, which begins with one like it, or does not.
    fn check(template: &str, stream: &str, alike: Option<&str>) {
        let found = found(&learnt(template, template, &[&["\"text\""]]), stream);
        let expected = alike.map(|alike| (alike.to_owned(), alike.contains(": \"\",")));
        assert_eq!(found, expected, "{template} {stream}");
    }

    #[test]
    fn an_event_that_begins_and_ends_as_the_one_learnt_is_known_by_its_text() {
        for text in ["", "word", "é", r"\n", r#"\"a\""#, r"\\", "a text that is longer than a block"] {
            let event = EVENT.replace("TEXT", &format!("\"{text}\""));
            for behind in ["", "d", "\n", EVENT] {
                check(EVENT, &format!("{event}{behind}"), Some(&event));
            }
        }
    }

    #[test]
    fn other_events_are_not() {
        let other = |document: &str| format!("event: x\ndata: {document}\n\n");
        let like = EVENT.replace("TEXT", "\"text\"");
        for event in [
            "".to_owned(),
            like.trim_end().to_owned(),
            like.replace("event: x", "event: y"),
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
        assert!(EventPattern::default().find(b"").is_none());
        let name = "data: {\"delta\": TEXT:{}}\n\n";
        check(name, &name.replace("TEXT", "\"text\""), None);
        let long = format!("data: {{\"id\":\"{}\",\"delta\": TEXT}}\n\n", "1".repeat(MAX_EVENT_BYTES));
        check(&long, &long.replace("TEXT", "\"text\""), None);
    }

    #[test]
    fn what_is_like_a_changed_event_is_changed_likewise() {
        let written = EVENT.replace("\"1\"", "\"one\"").replace(",\"more\":null", "");
        let pattern = learnt(EVENT, &written, &[&["\"text\""]]);
        assert!(!pattern.is_unchanged());
        let next = |template: &str| event(template, &["\"next\""]).0;
        assert_eq!(found(&pattern, &next(EVENT)), Some((next(&written), false)));
    }

    #[test]
    fn values_that_say_nothing_may_differ_once_they_have() {
        const FIRST: [&str; 4] = ["\"a-1\"", "\"text\"", "1", "null"];
        const SECOND: [&str; 4] = ["\"a-23\"", "\"text\"", "2", "null"];
        const THIRD: [&str; 4] = ["\"a-23\"", "\"text\"", "2", "{\"content\":[]}"];
        let written = EVENT_WITH_OTHERS.replace(",\"model\":\"m\"", "");
        let learnt = |events: &[&[&str]]| learnt(EVENT_WITH_OTHERS, &written, events);
        let is_known = |pattern: &EventPattern, values: [&str; 4]| {
            let found = found(pattern, &event(EVENT_WITH_OTHERS, &values).0);
            let expected = event(&written, &values).0;
            found
                .map(|(found, is_empty)| assert_eq!((found, is_empty), (expected, values[1] == "\"\"")))
                .is_some()
        };
        // One more with each event that is read: it is where that one first differs.
        let [one, two, three, four] = [
            &[&FIRST[..]][..],
            &[&FIRST, &SECOND],
            &[&FIRST, &SECOND, &SECOND],
            &[&FIRST, &SECOND, &FIRST, &THIRD],
        ]
        .map(learnt);
        assert!(is_known(&one, ["\"a-1\"", "\"\"", "1", "null"]) && !is_known(&one, SECOND));
        assert!(is_known(&two, ["\"a-4\"", "\"x\"", "2", "null"]) && !is_known(&two, FIRST));
        assert!(is_known(&three, ["\"a-4\"", "\"x\"", "2", "null"]));
        for values in [
            FIRST,
            SECOND,
            THIRD,
            ["7", "\"\"", "-1.5e3", "[[1],\"]\",{\"a\":\"\\\"]\"}]"],
            ["true", "\"é\"", "\"a\\\"\"", "{\"{\":\"}\"}"],
        ] {
            assert!(is_known(&four, values), "{values:?}");
        }
        for values in [
            ["[]", "\"\"", "1", "null"],
            ["1", "null", "1", "null"],
            ["1", "\"\"", "", "null"],
            ["1", "\"\"", "{}", "null"],
            ["1", "\"\"", "1", "{\"a\":\n1}"],
            ["1", "\"\"", "1", "[}"],
            ["1", "\"\"", "1", "[\"]"],
            ["1", "\"\"", "1 ", "null"],
            ["1:", "\"\"", "1", "null"],
            ["\"a\nb\"", "\"\"", "1", "null"],
        ] {
            assert!(!is_known(&four, values), "{values:?}");
        }
    }

    #[test]
    fn numbers_of_the_usage_are_given_whether_they_differ_or_not() {
        let template = "data: {\"delta\": TEXT,\"usage\":{\"prompt\":PROMPT,\"completion\":COMPLETION}}\n\n";
        let pattern = learnt(template, template, &[&["\"text\"", "55", "1"]]);
        let counts = |prompt, completion| {
            let (event, _) = event(template, &["\"\"", prompt, completion]);
            let alike = pattern.find(event.as_bytes())?;
            Some(alike.counts().map(|(count, number)| (count, number.to_vec())).collect::<Vec<_>>())
        };
        for (prompt, completion) in [("55", "1"), ("55", "2"), ("999999999", "000000001")] {
            let numbers = [(Count::Prompt, prompt), (Count::Completion, completion)];
            let numbers = numbers.map(|(count, number)| (count, number.as_bytes().to_vec()));
            assert_eq!(counts(prompt, completion), Some(numbers.to_vec()));
        }
        for other in ["", "-1", "+1", "1.0", "1e2", "null", "\"1\"", "1234567890", " 1", "{}"] {
            assert_eq!((counts(other, "1"), counts("1", other)), (None, None), "{other}");
        }
    }

    #[test]
    fn bytes_are_the_same_if_none_differs() {
        let bytes: Vec<u8> = (0..200).collect();
        for length in 0..bytes.len() {
            let one = &bytes[..length];
            assert!(is_same(one, one));
            for place in 0..length {
                let mut other = one.to_vec();
                other[place] ^= 1;
                assert!(!is_same(&other, one), "{place} of {length}");
            }
        }
    }
}
