//! Cuts a stream of server-sent events into lines, whatever the pieces it comes in cut.
//!
//! Lines end with LF or CRLF. A document is looked for in each `data:` line by itself, as the servers send it; one
//! that is spread over several lines is not put together.

use memchr::memchr;

/// What begins a line that holds a document.
const DATA_FIELD: &[u8] = b"data:";

/// The reading of one stream.
#[derive(Debug)]
pub(super) struct EventLines {
    place: Place,
}

/// Where in a line the next byte stands.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// At the beginning: what is missing of [`DATA_FIELD`].
    Start(&'static [u8]),
    Data,
    Other,
}

/// A part of one line. Joined, the parts' bytes and one LF for each end are the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// What may become `data:` or has just become it, or the CR of a blank line.
    Start(&'a [u8]),
    /// Behind `data:`.
    Data(&'a [u8]),
    /// In any other line.
    Other(&'a [u8]),
    /// The LF.
    End(Line),
}

/// What kind of line has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// It is empty, and so ends an event.
    Blank,
    /// It began with `data:`.
    Data,
    Other,
}

impl EventLines {
    pub(super) fn new() -> EventLines {
        EventLines { place: Place::Start(DATA_FIELD) }
    }

    /// The line being read, by what of it has come.
    pub(super) fn line(&self) -> Line {
        match self.place {
            Place::Data => Line::Data,
            Place::Start(_) if self.is_at_start() => Line::Blank,
            Place::Start(_) | Place::Other => Line::Other,
        }
    }

    /// Whether the next byte is a line's first, or stands behind the CR of a line that may be blank.
    pub(super) fn is_at_start(&self) -> bool {
        matches!(self.place, Place::Start(missing) if missing.len() == DATA_FIELD.len())
    }

    /// The next part, which is taken off `bytes`; `None` when they are used up.
    pub(super) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Part<'a>> {
        if bytes.first()? == &b'\n' {
            *bytes = bytes.get(1..)?;
            let line = self.line();
            self.place = Place::Start(DATA_FIELD);
            return Some(Part::End(line));
        }
        if let Place::Start(missing) = self.place
            && let Some(start) = self.read_start(missing, bytes)
        {
            return Some(Part::Start(start));
        }
        let text = take(bytes, memchr(b'\n', bytes).unwrap_or(bytes.len()));
        Some(if matches!(self.place, Place::Data) { Part::Data(text) } else { Part::Other(text) })
    }

    /// As much of the line's beginning as goes on towards `data:`; where nothing does, the line is another.
    fn read_start<'a>(&mut self, missing: &'static [u8], bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
        let is_return = missing.len() == DATA_FIELD.len() && bytes.first() == Some(&b'\r');
        let found = missing.iter().zip(*bytes).take_while(|(wanted, byte)| wanted == byte).count();
        self.place = match missing.get(found..)? {
            [] => Place::Data,
            _ if found == 0 && !is_return => Place::Other,
            still_missing => Place::Start(still_missing),
        };
        let start = take(bytes, if is_return { 1 } else { found });
        (!start.is_empty()).then_some(start)
    }
}

/// Takes so many bytes off the beginning.
fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at_checked(count).unwrap_or((bytes, &[]));
    *bytes = rest;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// The lines of a stream that comes in such pieces: what is behind `data:` in brackets, `!` ahead of other text.
    fn lines<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
        let (mut lines, mut found, mut all) = (EventLines::new(), String::new(), vec![]);
        let mut kind = ' ';
        for mut piece in pieces {
            while let Some(part) = lines.next(&mut piece) {
                let (part_kind, text) = match part {
                    Part::Start(text) => (' ', text),
                    Part::Data(text) => ('=', text),
                    Part::Other(text) => ('!', text),
                    Part::End(line) => (' ', if line == Line::Blank { &b"(blank)\n"[..] } else { b"\n" }),
                };
                if part_kind != kind && part_kind != ' ' {
                    found.push(part_kind);
                }
                kind = part_kind;
                found.push_str(str::from_utf8(text).unwrap());
                all.extend(text.strip_prefix(b"(blank)").unwrap_or(text));
            }
        }
        assert_eq!(String::from_utf8(all).unwrap(), found.replace(['=', '!'], "").replace("(blank)", ""));
        found
    }

    /// The same whole, byte by byte, and in two pieces however cut.
    fn check(stream: &str, expected: &str) {
        let bytes = stream.as_bytes();
        assert_eq!(lines([bytes]), expected, "{stream:?}");
        assert_eq!(lines(bytes.chunks(1)), expected, "{stream:?}");
        for cut in 0..=bytes.len() {
            let (first, second) = bytes.split_at(cut);
            assert_eq!(lines([first, second]), expected, "cut at {cut}: {stream:?}");
        }
    }

    #[test]
    fn data_is_distinguished_from_other_lines() {
        check("data: {}\ndata:x\n", "data:= {}\ndata:=x\n");
        check("event: data: x\n: y\ndatas: z\n data: a\n", "!event: data: x\n!: y\ndata!s: z\n! data: a\n");
        check("data\ndat", "data\ndat");
    }

    #[test]
    fn a_blank_line_ends_in_either_way() {
        check("\n\r\ndata:\n\r\n", "(blank)\n\r(blank)\ndata:\n\r(blank)\n");
        check("data:a\r\n\r\n", "data:=a\r\n\r(blank)\n");
    }
}
