//! The answer's way out: who gave it, its first output, and what it says of its endpoint.

use super::{State, Stream, TOKEN_HEADER};
use crate::header_pairs::HeaderPairs;
use crate::metrics::{LOAD_HEADER, read_load};
use crate::openai::{AnswerFailure, NotFound, is_encoded};
use crate::plugin::calls::{headers_of, warn};
use crate::plugin::host::{self, Buffer, Clock, Headers};
use crate::plugin::own_answers::{EnvoyReply, announce_error};

/// The status of an answer that says that something is not there: the path, or the model.
const NOT_FOUND: u16 = 404;
/// The status by which some servers say that they are full; others say 503.
const TOO_MANY_REQUESTS: u16 = 429;

impl Stream {
    /// The answer's headers are here.
    pub(super) fn answer_begins(&mut self, end_of_stream: bool) {
        if self.is_passed_over() {
            return;
        }
        let mut clock = Clock::default();
        let headers = headers_of(Headers::Response);
        let status = headers.value(":status").and_then(|status| str::from_utf8(&status).ok()?.parse().ok());
        let of_envoy = self.of_envoy(status, &headers);
        self.answered(status, of_envoy.as_ref(), &headers, &mut clock);
        self.fallback_answered(status, &mut clock);
        let is_begun_anew = self.begin_anew(status, clock.now_ms());
        if self.asks_for_load && headers.value(LOAD_HEADER).is_some() {
            warn(LOAD_HEADER, host::remove_header(Headers::Response, LOAD_HEADER));
        }
        match of_envoy {
            Some(of_envoy) => self.translate(of_envoy, !is_begun_anew, &mut clock),
            None => {
                let succeeded = matches!(status, Some(200..300));
                if succeeded && self.may_store {
                    self.answer.look_for_id();
                }
                self.answer.begin(self.reports_usage() && succeeded, &headers);
                self.hand_out_token();
            }
        }
        // What is begun anew is closed when it is clear that it was.
        if end_of_stream && !is_begun_anew {
            self.answer_ends(&mut clock);
        }
    }

    /// `size` more bytes of the answer's body are here.
    pub(super) fn answer_body(&mut self, size: usize, end_of_stream: bool) {
        if size > 0 {
            self.read_not_found(size);
        }
        self.answer.push(size, end_of_stream);
        if let Some(id) = self.answer.take_id() {
            self.note_stored(&id);
        }
        let mut clock = Clock::default();
        if self.answer.has_output() {
            self.first_output(&mut clock);
        }
        self.judge(end_of_stream, &mut clock);
        if end_of_stream {
            self.close_account(true, &mut clock);
        }
    }

    /// The server has ended the answer, and not with the last bytes of its body.
    pub(super) fn answer_ends(&mut self, clock: &mut Clock) {
        self.answer.end();
        self.judge(true, clock);
        self.close_account(true, clock);
    }

    /// The answer begins, with this status: note who gave it, and whether it is a failure. A good one counts as such
    /// with its first output: a server may send its headers, and hang then.
    fn answered(
        &mut self,
        status: Option<u16>,
        of_envoy: Option<&EnvoyReply>,
        headers: &HeaderPairs,
        clock: &mut Clock,
    ) {
        if let Some(account) = &mut self.account {
            account.answered(status);
        }
        let mut state = self.state.borrow_mut();
        let State::Sent(sent) = &mut *state else { return };
        let mut worker = self.worker.borrow_mut();
        let served_by = host::property("upstream\0address").ok().flatten().unwrap_or_default();
        if served_by.is_empty() || of_envoy.is_some_and(EnvoyReply::is_overflow) {
            // Envoy or another filter has answered: that says nothing of any endpoint.
            sent.is_silent = false;
            return;
        }
        let now_ms = clock.now_ms();
        if sent.is_pool_guessed && !sent.settle_pool(&mut worker, &served_by, now_ms) {
            sent.is_silent = false;
            return;
        }
        if served_by != sent.first_choice().as_bytes() {
            // A retry, or the fallback policy. An endpoint that is not the pool's was not reached by way of the first choice.
            sent.is_silent =
                worker.move_to(&mut sent.sent, sent.pool, &sent.destinations, &served_by, now_ms);
            if !sent.is_silent {
                return;
            }
            if status != Some(NOT_FOUND) && !self.follows_stored() {
                worker.passed_over(sent.pool, &sent.sent, now_ms);
            }
            worker.recorder.record(|stats| [stats.retried(sent.pool, sent.first_choice())]);
        }
        if status == Some(NOT_FOUND) && self.account.is_some() && !self.follows_stored() {
            sent.not_found = Some(NotFound::new(is_encoded(headers.value("content-encoding").as_deref())));
        }
        if let Some(reported) = headers.value(LOAD_HEADER).and_then(|value| read_load(&value)) {
            worker.picker.load_reported(sent.pool, &sent.sent, reported, now_ms);
        }
        sent.succeeded = matches!(status, Some(200..300));
        if !sent.succeeded {
            sent.is_silent = false;
            match status {
                Some(TOO_MANY_REQUESTS | 500..600) => worker.failed(sent.pool, &sent.sent, now_ms),
                _ => worker.picker.succeeded(sent.pool, &sent.sent, now_ms),
            }
        }
    }

    /// The answer's first output is here, unless its status is an error's.
    fn first_output(&mut self, clock: &mut Clock) {
        if self.is_passed_over() || std::mem::replace(&mut self.has_output, true) {
            return;
        }
        let now_ms = clock.now_ms();
        if let Some(account) = &mut self.account {
            account.first_output(now_ms);
        }
        if let State::Sent(sent) = &mut *self.state.borrow_mut()
            && sent.succeeded
        {
            sent.is_silent = false;
            let mut worker = self.worker.borrow_mut();
            worker.first_output(&mut sent.sent, now_ms);
            worker.picker.succeeded(sent.pool, &sent.sent, now_ms);
        }
    }

    /// A status may have promised too much: an answer that says that it failed, or ends without any output, is a failure of
    /// its endpoint, unless it blames the client.
    fn judge(&mut self, is_over: bool, clock: &mut Clock) {
        let State::Sent(sent) = &mut *self.state.borrow_mut() else { return };
        let failure = self.answer.failure();
        if !sent.succeeded || failure.is_none() && !is_over {
            return;
        }
        let mut worker = self.worker.borrow_mut();
        sent.is_over = is_over;
        let now_ms = clock.now_ms();
        if failure.is_none() && !sent.is_silent {
            return worker.picker.answer_completed(sent.pool, &sent.sent, now_ms);
        }
        sent.is_silent = false;
        sent.succeeded = failure.is_none();
        if failure.is_some_and(AnswerFailure::blames_endpoint) {
            worker.answer_failed(sent.pool, &sent.sent, self.has_output, now_ms);
        } else {
            worker.picker.succeeded(sent.pool, &sent.sent, now_ms);
        }
    }

    /// Gives the client the token of its session, where sessions have one and the one it holds is not for this endpoint.
    fn hand_out_token(&self) {
        let state = self.state.borrow();
        let State::Sent(sent) = &*state else { return };
        if !sent.succeeded || self.account.is_none() {
            return;
        }
        let token = self.worker.borrow().token(sent.pool, &sent.sent, self.token.as_deref());
        if let Some(token) = token {
            warn(TOKEN_HEADER, host::set_header(Headers::Response, TOKEN_HEADER, &token));
        }
    }

    /// The answer says by which id its endpoint has stored it, before the client can know.
    fn note_stored(&self, id: &[u8]) {
        if let State::Sent(sent) = &*self.state.borrow()
            && sent.succeeded
        {
            self.worker.borrow_mut().has_stored(sent.pool, &sent.sent, id, host::now_ms());
        }
    }

    /// `size` more bytes are here of an answer that may say that something is not there.
    fn read_not_found(&mut self, size: usize) {
        let State::Sent(sent) = &mut *self.state.borrow_mut() else { return };
        let Some(answer) = &mut sent.not_found else { return };
        let bytes = host::buffer(Buffer::ResponseBody, answer.wanted(size)).ok().flatten();
        answer.push(&bytes.unwrap_or_default());
    }

    /// Whether the request names what a server has stored, so that others have 404 for it, whatever they are asked for.
    fn follows_stored(&self) -> bool {
        self.conversation.is_some()
    }

    /// Whether it is the answer to a prompt, which says what it has cost.
    fn reports_usage(&self) -> bool {
        self.account.is_some() && self.expected.as_ref().is_some_and(|expected| expected.api().has_prompt())
    }

    /// Whether nothing is to be known of the answer.
    fn is_passed_over(&self) -> bool {
        self.account.is_none() && matches!(*self.state.borrow(), State::Idle)
    }

    /// Why Envoy itself has answered, if it has.
    fn of_envoy(&self, status: Option<u16>, headers: &HeaderPairs) -> Option<EnvoyReply> {
        let is_idle = matches!(*self.state.borrow(), State::Idle);
        EnvoyReply::new(status.filter(|_| !is_idle)?, headers)
    }

    /// Puts an error in place of the answer, when its text is here.
    fn translate(&mut self, of_envoy: EnvoyReply, is_counted: bool, clock: &mut Clock) {
        self.end(clock);
        let reply = of_envoy.into_reply();
        if is_counted {
            self.worker.borrow_mut().recorder.record(|stats| [stats.refused(reply.code())]);
        }
        announce_error();
        self.answer.translate(reply);
    }
}
