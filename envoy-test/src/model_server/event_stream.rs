//! Streamed answers: server-sent events, each flushed by itself, as tokens appear.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use super::answers::{EventShape, Subject, Usage};
use super::api::Api;
use super::counters::RequestInFlight;
use super::engine::Output;
use super::knobs::{FailInside, InnerFailure};
use super::live_engine::Generation;
use super::response::Body;

/// The comment that vLLM 0.32 sends where nothing else has been sent for a while.
pub const KEEP_ALIVE: &str = ": keep-alive\n\n";
/// That of llama.cpp.
pub const EMPTY_COMMENT: &str = ":\n\n";

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
    pub fail_inside: Option<FailInside>,
    pub comment: &'static str,
    /// The silence after which the comment is sent.
    pub keep_alive: Option<Duration>,
}

/// What a stream has next.
enum Next {
    /// Its last token but those sent already.
    Output(Output),
    Silence,
    End,
}

impl EventStream {
    pub fn into_body(self) -> Body {
        let pending = self.shape.at_once(&self.subject).into();
        let progress = Progress { answer: self, usage: Usage::default(), pending, ended: false };
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
        if self.ended && self.pending.is_empty() && self.answer.fail_inside.is_none() {
            let Subject { model, .. } = &self.answer.subject;
            self.answer.in_flight.count_tokens(model.trim_matches('"'), self.usage.reported(self.answer.api));
            self.answer.in_flight.complete();
        }
        Some(Ok(Frame::data(Bytes::from(event))))
    }

    /// Waits for the next output and queues its events.
    async fn fetch(&mut self) {
        if self.fails() {
            return;
        }
        match self.next().await {
            Next::Output(output) => self.send(&output),
            Next::Silence => self.pending.push_back(self.answer.comment.to_owned()),
            Next::End => self.ended = true,
        }
    }

    /// Fails if the server is configured to, at this token.
    fn fails(&mut self) -> bool {
        let EventStream { subject, shape, fail_inside, in_flight, .. } = &mut self.answer;
        let Some(FailInside { how, .. }) =
            fail_inside.as_ref().filter(|failure| self.usage.completion_tokens >= failure.after_tokens)
        else {
            return false;
        };
        if let InnerFailure::Error { code } = how {
            self.pending.extend(shape.failure(subject, &self.usage, *code));
        }
        in_flight.fail();
        self.ended = true;
        true
    }

    async fn next(&mut self) -> Next {
        let silence = self.answer.keep_alive;
        let output = self.next_output();
        let output = match silence {
            Some(silence) => match tokio::time::timeout(silence, output).await {
                Ok(output) => output,
                Err(_) => return Next::Silence,
            },
            None => output.await,
        };
        output.map_or(Next::End, Next::Output)
    }

    fn send(&mut self, output: &Output) {
        let EventStream { subject, shape, block_tokens, .. } = &mut self.answer;
        let usage = Usage::of(output, *block_tokens);
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
    async fn next_output(&mut self) -> Option<Output> {
        let EventStream { generation, stream_interval, .. } = &mut self.answer;
        loop {
            let output = generation.next().await?;
            let unsent = output.output_tokens - self.usage.completion_tokens;
            if output.previous.is_none() || output.finished || unsent >= *stream_interval {
                return Some(output);
            }
        }
    }
}
