//! One walk over an answer while it streams by, for all who want to know something of it or change something in it.
//!
//! A document is cut into tokens, a stream of events into lines ([`EventLines`]) and the documents in them. Each token is
//! shown, with what it means at its place ([`super::place`]), to whoever watches:
//!
//! | who | what for |
//! |---|---|
//! | [`Counts`] | what the answer has cost |
//! | [`Progress`] | its first output, its end, and whether it failed |
//! | [`ModelName`] | the model's name as the client asked for it |
//! | [`HiddenUsage`] | the usage that the client did not ask for |
//! | [`Id`] | the id under which its server has stored it |
//!
//! [`ModelName`] and [`HiddenUsage`] may hold back what has come, replace it or take it out ([`Passage`]). All read the same: names mean the
//! same however they are spelled, broken JSON is no error, and what is read of it is the same however the answer is cut.
//!
//! Events that are like the one before but for their text and some numbers are not walked through ([`EventPattern`]). In
//! memory are a few words, what an event's pattern has, and what is held back.
//!
//! Not done here: a document that is spread over several `data:` lines is not put together, and lines that end with a lone CR
//! are not distinguished; no server sends them. The length of the answer changes, so a `content-length` is the caller's to
//! remove, and a compressed answer is the caller's to keep away.

use std::borrow::Cow;

use super::counts::{Counts, Usage};
use super::event_lines::{EventLines, Line, Part};
use super::event_pattern::{EventPattern, Value, ValueKind};
use super::failure::AnswerFailure;
use super::format::AnswerFormat;
use super::hidden_usage::HiddenUsage;
use super::id::Id;
use super::model::ModelName;
use super::passage::{Held, Mark, Passage};
use super::place::Place;
use super::progress::Progress;
use super::says::Says;
use crate::openai::json::{JsonTokens, Token};

/// Values of an event that are kept to see which of them differ from event to event: a server's has about a dozen.
const MAX_EVENT_VALUES: usize = 32;

/// Bytes that are kept of a line that is no `data:` line: enough to recognise [`ERROR_LINES`].
const MAX_LINE_BYTES: usize = 16;

/// What the line says of an event that is an error.
const ERROR_LINES: [&[u8]; 2] = [b"event: error", b"event:error"];

/// The reading of one answer.
#[derive(Debug)]
pub struct AnswerReader {
    format: AnswerFormat,
    lines: EventLines,
    tokens: JsonTokens,
    place: Place,
    event: Event,
    pattern: EventPattern,
    usage: Counts,
    progress: Progress,
    hidden_usage: Option<HiddenUsage>,
    model: Option<ModelName>,
    id: Option<Id>,
    held: Held,
}

/// The event being read.
#[derive(Debug, Default)]
struct Event {
    /// Whether anything of it has come but comments.
    has_begun: bool,
    /// How the line begins that is being read, if it is no `data:` line.
    line: Vec<u8>,
    /// Whether a line has called it an error.
    is_error: bool,
    /// Those of its values that may stand in a pattern: its text, and what says nothing. As many as there is room for.
    values: Vec<Value>,
    /// What of it may serve to know those like it; `None` where its beginning came with an earlier piece.
    sample: Option<Sample>,
}

/// An event that began in the piece being read.
#[derive(Debug)]
struct Sample {
    /// Where in the piece.
    from: usize,
    /// Where it goes to the client.
    written_from: Mark,
    /// What had been changed before.
    changes: usize,
    /// How many of its tokens say something.
    reporting: u32,
}

impl Event {
    /// A value that may stand in a pattern has come.
    fn add(&mut self, value: Value) {
        if self.values.len() < MAX_EVENT_VALUES {
            self.values.push(value);
        }
    }
}

impl AnswerReader {
    /// For an answer in this format, of which nothing is changed.
    pub fn new(format: AnswerFormat) -> AnswerReader {
        AnswerReader {
            format,
            lines: EventLines::new(),
            tokens: JsonTokens::new(),
            place: Place::new(),
            event: Event::default(),
            pattern: EventPattern::default(),
            usage: Counts::default(),
            progress: Progress::default(),
            hidden_usage: None,
            model: None,
            id: None,
            held: Held::default(),
        }
    }

    /// Takes out the usage of a stream that was asked for on the client's behalf, and puts back what it had moved.
    pub fn hide_usage(&mut self) {
        self.hidden_usage = Some(HiddenUsage::default()).filter(|_| self.format == AnswerFormat::Events);
    }

    /// Replaces the model's name `sent`, which the servers know, by the one that the client `asked` for.
    pub fn rename_model(&mut self, sent: &str, asked: &str) {
        self.model = Some(ModelName::new(sent, asked));
    }

    /// Has the answer's id looked for.
    pub fn look_for_id(&mut self) {
        self.id = Some(Id::default());
    }

    /// Takes out the answer's id, once it is here.
    pub fn take_id(&mut self) -> Option<Vec<u8>> {
        self.id.as_mut()?.take()
    }

    /// Whether anything of the answer may be changed.
    pub fn changes(&self) -> bool {
        self.hidden_usage.is_some() || self.model.is_some()
    }

    /// Takes the next bytes of the answer; returns what may go on now. `end`: these were the last.
    ///
    /// All that was returned, joined, is the answer as the client is to see it, however its bytes were cut. Held back is at
    /// most 8 KiB (`MAX_HELD_BYTES`).
    pub fn push<'a>(&mut self, bytes: &'a [u8], end: bool) -> Cow<'a, [u8]> {
        if !end && self.pass_alike(bytes) {
            return Cow::Borrowed(bytes);
        }
        let mut passage = Passage::new(std::mem::take(&mut self.held), bytes);
        match self.format {
            AnswerFormat::Document => self.read_document(&mut passage, bytes),
            AnswerFormat::Events => self.read_events(&mut passage, bytes),
        }
        if end {
            self.end(&mut passage);
        }
        let hidden = self.hidden_usage.iter().flat_map(HiddenUsage::held);
        let name = self.model.iter().filter_map(ModelName::held);
        let (released, held) = passage.release(hidden.chain(name).filter(|_| !end));
        self.held = held;
        released
    }

    /// What the answer says it has cost, as far as it came. `None` as long as it does not report the prompt's size.
    pub fn usage(&self) -> Option<Usage> {
        self.usage.usage()
    }

    /// Events with output in them, be it one token or several: text, reasoning, arguments of a tool's call. One for
    /// a document with output in `choices`.
    pub fn output_events(&self) -> u32 {
        self.progress.output_events()
    }

    /// Whether the first output is here: of a stream the first event that only a computed prompt can have, of a document its
    /// first byte.
    pub fn has_output(&self) -> bool {
        self.progress.has_output()
    }

    /// Whether the answer has come to its end: the document is closed, or an event says that it was the last
    /// (`[DONE]`, `response.completed` and its like, `message_stop`).
    pub fn is_complete(&self) -> bool {
        self.progress.is_complete()
    }

    /// That the answer failed, as far as it came: it says so, or it ended without any output.
    pub fn failure(&self) -> Option<AnswerFailure> {
        self.progress.failure.failure()
    }

    fn read_document(&mut self, passage: &mut Passage<'_>, bytes: &[u8]) {
        self.read(passage, bytes);
        self.progress.read_document(self.tokens.is_fresh());
    }

    fn read_events(&mut self, passage: &mut Passage<'_>, bytes: &[u8]) {
        self.event.sample = None;
        let mut rest = bytes;
        while self.take_alike(passage, &mut rest) {}
        while let Some(part) = self.lines.next(&mut rest) {
            match part {
                Part::Start(text) => {
                    // The CR of a blank line begins nothing.
                    if text != b"\r" {
                        self.begin_event(passage);
                    }
                    passage.pass(text.len());
                }
                Part::Data(text) => self.read(passage, text),
                Part::Other(text) => self.read_other(passage, text),
                Part::End(line) => {
                    passage.pass(1);
                    self.end_line(line);
                    if line == Line::Blank {
                        self.end_event(passage, bytes);
                        while self.take_alike(passage, &mut rest) {}
                    }
                }
            }
        }
    }

    /// Takes a piece that is nothing but events like one before, but for their text, and passes as it came. Most pieces are.
    fn pass_alike(&mut self, piece: &[u8]) -> bool {
        if piece.is_empty() || self.is_within_event() || !self.held.is_empty() || !self.pattern.is_unchanged()
        {
            return false;
        }
        let (mut rest, mut outputs) = (piece, 0);
        while !rest.is_empty() {
            let Some(alike) = self.pattern.find(rest) else { return false };
            outputs += u32::from(!alike.is_empty());
            // Read anew if another kind of event follows: the last number counts.
            self.usage.set_all(alike.counts());
            rest = rest.get(alike.bytes()..).unwrap_or_default();
        }
        self.progress.count_alike(outputs);
        if let Some(hidden) = &mut self.hidden_usage {
            hidden.pass_event();
        }
        self.held.pass(piece.len());
        true
    }

    fn is_within_event(&self) -> bool {
        self.event.has_begun || !self.lines.is_at_start()
    }

    /// Takes an event off the front that is like one before but for its text, and that goes the same way.
    fn take_alike(&mut self, passage: &mut Passage<'_>, rest: &mut &[u8]) -> bool {
        if rest.is_empty() || self.is_within_event() {
            return false;
        }
        let Some(alike) = self.pattern.find(rest) else { return false };
        self.progress.count_alike(u32::from(!alike.is_empty()));
        self.usage.set_all(alike.counts());
        if let Some(hidden) = &mut self.hidden_usage {
            hidden.pass_event();
        }
        let bytes = alike.bytes();
        *rest = rest.get(bytes..).unwrap_or_default();
        if self.pattern.is_unchanged() {
            passage.pass(bytes);
        } else {
            passage.pass_as(bytes, alike.written());
        }
        true
    }

    /// Whatever of an event comes first, if it is no comment.
    fn begin_event(&mut self, passage: &Passage<'_>) {
        if std::mem::replace(&mut self.event.has_begun, true) {
            return;
        }
        self.event.sample = Some(Sample {
            from: passage.read(),
            written_from: passage.mark(),
            changes: passage.changes(),
            reporting: 0,
        });
        self.event.values.clear();
        if let Some(hidden) = &mut self.hidden_usage {
            hidden.begin_event(passage);
        }
    }

    /// More of a line that is no `data:` line.
    fn read_other(&mut self, passage: &mut Passage<'_>, text: &[u8]) {
        let room = MAX_LINE_BYTES.saturating_sub(self.event.line.len());
        self.event.line.extend_from_slice(text.get(..room).unwrap_or(text));
        if !self.event.line.starts_with(b":") {
            self.begin_event(passage);
        }
        passage.pass(text.len());
    }

    fn end_line(&mut self, line: Line) {
        match line {
            Line::Data => self.progress.end_line(self.tokens.is_fresh(), self.event.is_error),
            Line::Other => {
                self.event.is_error |= ERROR_LINES.contains(&self.event.line.trim_ascii_end());
                self.event.line.clear();
            }
            Line::Blank => {}
        }
        self.tokens.restart();
        if let Some(hidden) = &mut self.hidden_usage {
            hidden.end_line(line == Line::Data);
        }
        if let Some(model) = &mut self.model {
            model.end_line();
        }
    }

    /// A blank line has come.
    fn end_event(&mut self, passage: &mut Passage<'_>, piece: &[u8]) {
        let hidden_usage = self.hidden_usage.as_mut();
        let is_taken_out = hidden_usage.is_some_and(|hidden| hidden.end_event(passage));
        let is_usual = !is_taken_out && self.progress.failure.failure().is_none();
        let sample = self.event.sample.take().filter(|_| is_usual);
        if let Some(sample) = sample.filter(|sample| sample.reporting == 1) {
            self.learn(passage, &sample, piece.get(sample.from..passage.read()).unwrap_or_default());
        }
        self.event.has_begun = false;
        self.event.is_error = false;
    }

    fn learn(&mut self, passage: &mut Passage<'_>, sample: &Sample, event: &[u8]) {
        let is_changed = passage.changes() != sample.changes;
        let written = is_changed.then(|| passage.since(sample.written_from).unwrap_or_default());
        self.pattern.learn(event, written, &self.event.values);
    }

    /// Reads more of a document.
    fn read(&mut self, passage: &mut Passage<'_>, bytes: &[u8]) {
        let mut rest = bytes;
        // From where on the value goes that is being read.
        let mut value = None;
        loop {
            let ahead = rest;
            let token = self.tokens.next(&mut rest);
            let read = ahead.len() - rest.len();
            passage.pass(read);
            let Some(token) = token else { break };
            let says = self.show(passage, token);
            let Some(sample) = &mut self.event.sample else { continue };
            sample.reporting += u32::from(says.is_reporting());
            let from = match token {
                Token::Key => {
                    value = Some(rest);
                    continue;
                }
                Token::Open(_) => {
                    value = ahead.get(read - 1..).filter(|_| says == Says::Never(ValueKind::Any));
                    continue;
                }
                Token::Word => Some(self.tokens.text().len() + rest.len()),
                Token::Close { .. } if says != Says::Never(ValueKind::Any) => None,
                Token::Text | Token::Close { .. } => value.take().map(|value| value.trim_ascii_start().len()),
            };
            if let (Some(from), Some(kind)) = (from, says.value_kind()) {
                let written_end = passage.mark().since(sample.written_from);
                let end = passage.read() - sample.from;
                self.event.add(Value { kind, bytes: from.saturating_sub(rest.len()), end, written_end });
            }
        }
    }

    /// Shows a token to all who watch.
    fn show(&mut self, passage: &mut Passage<'_>, token: Token) -> Says {
        let seen = self.place.see(token, self.tokens.depth(), self.tokens.text());
        let says = if seen.spot.is_dull() {
            Says::Never(if seen.may_be_any() { ValueKind::Any } else { ValueKind::Scalar })
        } else {
            self.progress.see(&seen).or(self.usage.see(&seen))
        };
        if let Some(model) = &mut self.model {
            model.see(&seen, passage);
        }
        if let Some(hidden) = &mut self.hidden_usage {
            hidden.see(&seen, passage);
        }
        if let Some(id) = &mut self.id {
            id.see(&seen);
        }
        if let Token::Open(bracket) = token
            && !seen.spot.is_of_interest()
        {
            self.tokens.skip(bracket);
        }
        says
    }

    /// The answer is over: what was begun is as it is.
    fn end(&mut self, passage: &mut Passage<'_>) {
        if self.format == AnswerFormat::Events {
            self.end_line(self.lines.line());
            if let Some(hidden) = &mut self.hidden_usage {
                hidden.end_event(passage);
            }
        }
        self.progress.end();
    }
}
