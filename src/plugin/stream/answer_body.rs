//! The body of one answer on its way to the client: what it has cost and how far it is is read, and what must be changed is,
//! in one walk ([`AnswerReader`]). Encoded (compressed) answers pass, neither read nor changed.

use std::borrow::Cow;

use crate::header_pairs::HeaderPairs;
use crate::openai::{AnswerFailure, AnswerFormat, AnswerReader, LocalReply, Usage, is_encoded};
use crate::plugin::calls::warn;
use crate::plugin::host::{self, Buffer, Headers};
use crate::stats::{EndedAnswer, ReadAnswer};

/// What is done with one answer. The default is nothing.
#[derive(Default)]
pub struct Answer {
    /// Whether it reports what the request has cost, in whatever form.
    has_usage: bool,
    is_encoded: bool,
    is_streamed: bool,
    /// Whether anything of the body has come.
    has_bytes: bool,
    /// The model's name as it was sent and as it was asked for, where it is to be given back.
    renamed: Option<(String, String)>,
    /// Whether the usage of a stream was asked for on the client's behalf.
    hides_usage: bool,
    /// Whether its id is of interest.
    looks_for_id: bool,
    reader: Option<Box<AnswerReader>>,
    /// It is none of a server's, and an error object takes the place of its body.
    local_reply: Option<LocalReply>,
}

impl Answer {
    /// The model's name is to be given back as it was asked for.
    pub fn restore_model(&mut self, sent: &str, asked: &str) {
        self.renamed = Some((sent.to_owned(), asked.to_owned()));
    }

    /// If it is a stream, its usage was asked for on the client's behalf.
    pub fn hide_usage(&mut self) {
        self.hides_usage = true;
    }

    /// Its id is of interest.
    pub fn look_for_id(&mut self) {
        self.looks_for_id = true;
    }

    /// Takes out its id, once it is here.
    pub fn take_id(&mut self) -> Option<Vec<u8>> {
        self.reader.as_mut()?.take_id()
    }

    /// Puts an error object in place of its text.
    pub fn translate(&mut self, reply: LocalReply) {
        *self = Answer { local_reply: Some(reply), ..Answer::default() };
    }

    /// The answer's headers are here. `has_usage`: it is no error, and to a request that was read.
    pub fn begin(&mut self, has_usage: bool, headers: &HeaderPairs) {
        self.has_usage = has_usage;
        self.is_encoded = is_encoded(headers.value("content-encoding").as_deref());
        let format = AnswerFormat::of(&headers.value("content-type").unwrap_or_default());
        self.is_streamed = format == Some(AnswerFormat::Events) && !self.is_encoded;
        let Some(format) = format.filter(|_| !self.is_encoded) else { return };
        let mut reader = AnswerReader::new(format);
        if let Some((sent, asked)) = self.renamed.take() {
            reader.rename_model(&sent, &asked);
        }
        if self.hides_usage {
            reader.hide_usage();
        }
        if self.looks_for_id {
            reader.look_for_id();
        }
        if reader.changes() {
            warn("content-length", host::remove_header(Headers::Response, "content-length"));
        }
        self.reader =
            Some(Box::new(reader)).filter(|reader| has_usage || reader.changes() || self.looks_for_id);
    }

    /// `size` more bytes of the body are here. `end`: they are the last.
    pub fn push(&mut self, size: usize, end: bool) {
        self.has_bytes |= size > 0;
        if let Some(reply) = self.local_reply.take() {
            return self.push_local(reply, size, end);
        }
        if self.reader.is_none() {
            return;
        }
        let bytes = if size > 0 { self.read(size) } else { Vec::new() };
        if let Some(reader) = &mut self.reader
            && let Cow::Owned(changed) = reader.push(&bytes, end)
            && changed != bytes
        {
            warn("the answer", host::replace_buffer(Buffer::ResponseBody, size, &changed));
        }
    }

    /// Nothing goes out until the end.
    fn push_local(&mut self, mut reply: LocalReply, size: usize, end: bool) {
        if size > 0 {
            let bytes = host::buffer(Buffer::ResponseBody, reply.wanted(size)).ok().flatten();
            reply.push(&bytes.unwrap_or_default());
        }
        let body = if end {
            reply.body()
        } else {
            self.local_reply = Some(reply);
            Vec::new()
        };
        warn("the answer", host::replace_buffer(Buffer::ResponseBody, size, &body));
    }

    /// The server has ended the answer, and no more bytes come.
    pub fn end(&mut self) {
        if let Some(reader) = &mut self.reader {
            reader.push(b"", true);
        }
    }

    /// If the host does not give it, the answer is from now on neither read nor changed.
    fn read(&mut self, size: usize) -> Vec<u8> {
        host::buffer(Buffer::ResponseBody, size).map(Option::unwrap_or_default).unwrap_or_else(|error| {
            warn("the answer", Err(error));
            self.reader = None;
            Vec::new()
        })
    }

    /// Whether its first output is here. Of an answer that cannot be read, because it is encoded or of no known type, any byte
    /// is.
    pub fn has_output(&self) -> bool {
        self.reader.as_ref().map_or(self.has_bytes, |reader| reader.has_output())
    }

    /// That it failed, if it was no error by its status: it says so, or it ended without any output.
    pub fn failure(&self) -> Option<AnswerFailure> {
        self.read_answer()?.failure()
    }

    /// What is read of it, if it was no error by its status.
    fn read_answer(&self) -> Option<&AnswerReader> {
        self.reader.as_deref().filter(|_| self.has_usage)
    }

    /// What the answer has reported of its cost, if it came to its end.
    pub fn usage_when_complete(&self) -> Option<Option<Usage>> {
        let read = self.read_answer().filter(|answer| answer.is_complete() && answer.failure().is_none());
        read.map(AnswerReader::usage)
    }

    /// What is to be recorded of it, if it was no error. `complete`: the server has ended it.
    pub fn ended(&self, complete: bool, first_output_ms: Option<u64>) -> Option<EndedAnswer> {
        if !self.has_usage {
            return None;
        }
        if self.is_encoded {
            return Some(EndedAnswer::Encoded);
        }
        let read = self.read_answer();
        Some(EndedAnswer::Read(ReadAnswer {
            usage: read.and_then(AnswerReader::usage),
            output_events: read.map_or(0, AnswerReader::output_events),
            complete: complete || read.is_some_and(AnswerReader::is_complete),
            first_output_ms: first_output_ms.filter(|_| self.is_streamed),
        }))
    }
}
