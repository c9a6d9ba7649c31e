//! Streamed answers: server-sent events, each flushed by itself, as tokens appear.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use super::answers::{EventShape, Subject, Usage};
use super::counters::RequestInFlight;
use super::engine::Output;
use super::live_engine::Generation;
use super::request::Api;
use super::response::Body;

/// A streamed answer in the making. Dropping it, as hyper does when the client leaves, cancels the request.
pub struct EventStream {
    pub subject: Subject,
    pub api: Api,
    pub shape: Box<dyn EventShape>,
    pub generation: Generation,
    pub in_flight: RequestInFlight,
    pub block_tokens: usize,
    /// Tokens in each event but the first, which has one, and the last.
    pub stream_interval: usize,
    /// Events to send before the connection breaks.
    pub events_until_break: Option<usize>,
}

impl EventStream {
    pub fn into_body(self) -> Body {
        let progress =
            Progress { answer: self, usage: Usage::default(), pending: VecDeque::new(), ended: false };
        let frames = stream::unfold(progress, |mut progress| async move {
            // A pause after each event makes hyper write it out before it asks for the next.
            tokio::task::yield_now().await;
            let frame = progress.next_frame().await?;
            Some((frame, progress))
        });
        StreamBody::new(frames).boxed_unsync()
    }
}

struct Progress {
    answer: EventStream,
    /// Up to the last token.
    usage: Usage,
    pending: VecDeque<String>,
    ended: bool,
}

impl Progress {
    async fn next_frame(&mut self) -> Option<io::Result<Frame<Bytes>>> {
        if self.answer.events_until_break == Some(0) {
            return Some(Err(io::ErrorKind::ConnectionReset.into()));
        }
        while self.pending.is_empty() && !self.ended {
            self.fetch().await;
        }
        let event = self.pending.pop_front()?;
        if let Some(events) = &mut self.answer.events_until_break {
            *events -= 1;
        }
        if self.ended && self.pending.is_empty() {
            let Subject { model, .. } = &self.answer.subject;
            self.answer.in_flight.tell(model.trim_matches('"'), self.usage.told(self.answer.api));
            self.answer.in_flight.complete();
        }
        Some(Ok(Frame::data(Bytes::from(event))))
    }

    /// Waits for what is told next and queues its events.
    async fn fetch(&mut self) {
        let Some(output) = self.next_told().await else {
            self.ended = true;
            return;
        };
        let EventStream { subject, shape, block_tokens, .. } = &mut self.answer;
        let usage = Usage::of(&output, *block_tokens);
        let new_tokens = usage.completion_tokens - self.usage.completion_tokens;
        self.usage = usage;
        if output.previous.is_none() {
            self.pending.extend(shape.opening(subject, &usage));
        }
        self.pending.push_back(shape.tokens(subject, &usage, new_tokens, output.finished));
        if output.finished {
            self.pending.extend(shape.closing(subject, &usage));
            self.ended = true;
        }
    }

    /// Waits for the next token that an event ends with.
    async fn next_told(&mut self) -> Option<Output> {
        let EventStream { generation, stream_interval, .. } = &mut self.answer;
        loop {
            let output = generation.next().await?;
            let untold = output.output_tokens - self.usage.completion_tokens;
            if output.previous.is_none() || output.finished || untold >= *stream_interval {
                return Some(output);
            }
        }
    }
}
