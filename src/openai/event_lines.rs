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
    End {
        /// Whether the line is empty, and so ends an event.
        blank: bool,
    },
}

impl EventLines {
    pub(super) fn new() -> EventLines {
        EventLines { place: Place::Start(DATA_FIELD) }
    }

    /// The next part, which is taken off `bytes`; `None` when they are used up.
    pub(super) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Part<'a>> {
        if bytes.first()? == &b'\n' {
            *bytes = bytes.get(1..)?;
            let blank = matches!(self.place, Place::Start(missing) if missing.len() == DATA_FIELD.len());
            self.place = Place::Start(DATA_FIELD);
            return Some(Part::End { blank });
        }
        if let Place::Start(missing) = self.place
            && let Some(start) = self.read_start(missing, bytes)
        {
            return Some(Part::Start(start));
        }
        let (text, rest) = bytes.split_at(memchr(b'\n', bytes).unwrap_or(bytes.len()));
        *bytes = rest;
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
        let (start, rest) = bytes.split_at(if is_return { 1 } else { found });
        *bytes = rest;
        (!start.is_empty()).then_some(start)
    }
}
