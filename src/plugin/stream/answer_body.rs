//! The body of one answer on its way to the client: what it has cost is read, and what must be changed is.
//!
//! The server's own bytes are read first ([`AnswerUsage`]). Then the usage goes that was asked for on the client's behalf
//! ([`HiddenUsage`]), and then the model's name is given back ([`AnswerModel`]). Compressed answers pass, neither read nor
//! changed.

use std::borrow::Cow;

use crate::header_pairs::HeaderPairs;
use crate::openai::{AnswerFormat, AnswerModel, AnswerUsage, HiddenUsage, Usage};
use crate::plugin::calls::warn;
use crate::plugin::host::{self, Buffer, Headers};
use crate::stats::{EndedAnswer, ReadAnswer};

/// What is done with one answer. The default is nothing.
#[derive(Default)]
pub struct Answer {
    /// Whether it tells what the request has cost, in whatever form.
    has_usage: bool,
    is_encoded: bool,
    is_streamed: bool,
    usage: Option<Box<AnswerUsage>>,
    hidden_usage: Option<Box<HiddenUsage>>,
    model: Option<Box<AnswerModel>>,
    /// What takes the place of the whole body, once.
    replacement: Option<Vec<u8>>,
}

impl Answer {
    /// The model's name is to be given back as it was asked for.
    pub fn restore_model(&mut self, sent: &str, asked: &str) {
        self.model = Some(Box::new(AnswerModel::new(sent, asked)));
    }

    /// If it is a stream, its usage was asked for on the client's behalf.
    pub fn hide_usage(&mut self) {
        self.hidden_usage = Some(Box::default());
    }

    /// Puts `body` in place of the answer's.
    pub fn replace(&mut self, body: Vec<u8>) {
        *self = Answer { replacement: Some(body), ..Answer::default() };
    }

    /// The answer's headers are here. `has_usage`: it is no error, and to a request that was read.
    pub fn begin(&mut self, has_usage: bool, headers: &HeaderPairs) {
        if !(has_usage || self.is_changed()) {
            return;
        }
        if headers.value("content-encoding").is_some_and(|encoding| !encoding.is_empty()) {
            *self = Answer { has_usage, is_encoded: true, ..Answer::default() };
            return;
        }
        let format = AnswerFormat::of(&headers.value("content-type").unwrap_or_default());
        self.has_usage = has_usage;
        self.is_streamed = format == Some(AnswerFormat::Events);
        if has_usage {
            self.usage = format.map(|format| Box::new(AnswerUsage::new(format)));
        }
        if !self.is_streamed {
            self.hidden_usage = None;
        }
        if self.is_changed() {
            warn("content-length", host::remove_header(Headers::Response, "content-length"));
        }
    }

    fn is_changed(&self) -> bool {
        self.hidden_usage.is_some() || self.model.is_some()
    }

    /// `size` more bytes of the body are here. `end`: they are the last.
    pub fn push(&mut self, size: usize, end: bool) {
        if let Some(replacement) = &mut self.replacement {
            let body = std::mem::take(replacement);
            return warn("the answer", host::replace_buffer(Buffer::ResponseBody, size, &body));
        }
        if self.usage.is_none() && !self.is_changed() {
            return;
        }
        let bytes = if size > 0 { self.read(size) } else { Vec::new() };
        if let Some(usage) = &mut self.usage {
            usage.push(&bytes);
        }
        if let Cow::Owned(changed) = self.change(&bytes, end)
            && changed != bytes
        {
            warn("the answer", host::replace_buffer(Buffer::ResponseBody, size, &changed));
        }
    }

    /// If the host does not tell, the answer is from now on neither read nor changed.
    fn read(&mut self, size: usize) -> Vec<u8> {
        host::buffer(Buffer::ResponseBody, size).map(Option::unwrap_or_default).unwrap_or_else(|error| {
            warn("the answer", Err(error));
            *self = Answer { has_usage: self.has_usage, ..Answer::default() };
            Vec::new()
        })
    }

    fn change<'a>(&mut self, bytes: &'a [u8], end: bool) -> Cow<'a, [u8]> {
        let without_usage = match &mut self.hidden_usage {
            Some(hidden) => hidden.push(bytes, end),
            None => Cow::Borrowed(bytes),
        };
        match &mut self.model {
            Some(model) => Cow::Owned(model.push(&without_usage, end)),
            None => without_usage,
        }
    }

    /// What the answer has told of its cost, if it came to its end.
    pub fn usage_when_complete(&self) -> Option<Option<Usage>> {
        self.usage.as_ref().filter(|usage| usage.is_complete()).map(|usage| usage.usage())
    }

    /// What is to be recorded of it, if it was no error. `complete`: the server has ended it.
    pub fn ended(&self, complete: bool, first_output_ms: Option<u64>) -> Option<EndedAnswer> {
        if !self.has_usage {
            return None;
        }
        if self.is_encoded {
            return Some(EndedAnswer::Encoded);
        }
        let usage = self.usage.as_ref();
        Some(EndedAnswer::Read(ReadAnswer {
            usage: usage.and_then(|usage| usage.usage()),
            output_events: usage.map_or(0, |usage| usage.output_events()),
            complete: complete || usage.is_some_and(|usage| usage.is_complete()),
            first_output_ms: first_output_ms.filter(|_| self.is_streamed),
        }))
    }
}
