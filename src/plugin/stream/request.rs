//! The request's way in: its headers, its body, what is decided, and what of it is changed.

use proxy_wasm::types::Action;

use super::account::Account;
use super::{PICK_HEADER, State, Stream, act};
use crate::config::{PickTo, StickyBy};
use crate::decide::{Decision, Prepared};
use crate::header_pairs::HeaderPairs;
use crate::limits::Limit;
use crate::openai::{
    ApiError, InferenceRequest, apply_edits, include_usage, is_inference_path, is_json, is_model_list_path,
    model_edits, read_request,
};
use crate::picker::Outcome;
use crate::plugin::calls::{headers_of, publish, warn};
use crate::plugin::host::{self, Buffer, Headers};
use crate::plugin::own_answers::answer_models;
use crate::plugin::peers;

/// The header that names the model to Envoy's routing, where another pool than the route's serves it.
const MODEL_HEADER: &str = "x-gateway-model-name";
/// The headers by which a host or a pool is chosen.
const CHOICES: [&str; 2] = [PICK_HEADER, MODEL_HEADER];
/// Which pool a request goes to is not known where its route is to be chosen anew, and not by its model.
const MISROUTED: Decision = Decision::Fallback("the client named a route");
/// Bytes of a header's value that tell one user from another; what follows does not count.
const MAX_USER_BYTES: usize = 256;

impl Stream {
    /// The request's headers are here.
    pub(super) fn request_begins(&mut self, end_of_stream: bool) -> Action {
        let cluster = host::property("xds\0cluster_name").ok().flatten().unwrap_or_default();
        if peers::is_route_of(self.worker.borrow().config(), &cluster) {
            let headers = headers_of(Headers::Request);
            warn("the answer", peers::answer(&headers.value(":path").unwrap_or_default()));
            return Action::Pause;
        }
        // Whatever the route: no client chooses its host, or its pool.
        let unchoose = |name: &&str| warn(name, host::remove_header(Headers::Request, name));
        let pool = self.worker.borrow().config().pool_of_cluster(&cluster);
        let Some(pool) = pool else {
            CHOICES.iter().for_each(unchoose);
            return Action::Continue;
        };
        // Here headers are read anyway, so that they are not there costs no call.
        let headers = headers_of(Headers::Request);
        CHOICES.iter().filter(|name| headers.value(name).is_some()).for_each(unchoose);
        self.is_misrouted = headers.value(MODEL_HEADER).is_some();
        if is_inference(&headers) {
            if headers.ask_for_upgrade() {
                return self.refuse(&ApiError::upgrade_not_served());
            }
            self.path = headers.value(":path").unwrap_or_default().into_owned();
            self.account = Some(Account::open());
            return if end_of_stream {
                self.finish_reading(pool)
            } else {
                self.start_reading(pool, &headers)
            };
        }
        if self.worker.borrow().config().answer_models && is_model_list(&headers) {
            return answer_models(self.worker.borrow().config());
        }
        let now_ms = host::now_ms();
        let decision =
            if self.is_misrouted { MISROUTED } else { self.worker.borrow_mut().decide_unread(pool, now_ms) };
        act(&self.state, &self.worker, pool, decision, now_ms)
    }

    /// `size` bytes of the request's body are here.
    pub(super) fn request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        let pool = match self.pool_being_read() {
            Ok(pool) => pool,
            Err(action) => return action,
        };
        let limit = self.worker.borrow().config().max_body_bytes;
        if size > limit {
            *self.state.borrow_mut() = State::Idle;
            return self.refuse(&ApiError::body_too_large(limit));
        }
        if end_of_stream { self.finish_reading(pool) } else { Action::Pause }
    }

    /// The request ends with trailers.
    pub(super) fn request_trailers(&mut self) -> Action {
        match self.pool_being_read() {
            Ok(pool) => self.finish_reading(pool),
            Err(action) => action,
        }
    }

    /// Notes who asks, where a header tells.
    fn read_user(&mut self, headers: &HeaderPairs) {
        let mut worker = self.worker.borrow_mut();
        let Some(StickyBy::Header(name)) = &worker.config().sticky_by else { return };
        let Some(user) = headers.value(name) else { return };
        if user.len() > MAX_USER_BYTES {
            worker.recorder.record(|stats| [stats.limit_reached(Limit::UserBytes, 1)]);
        }
        self.user = Some(user.iter().copied().take(MAX_USER_BYTES).collect());
    }

    /// The headers of an inference request are here: wait for the body.
    fn start_reading(&mut self, pool: usize, headers: &HeaderPairs) -> Action {
        self.read_user(headers);
        let worker = self.worker.borrow();
        let config = worker.config();
        let announced = headers.value("content-length");
        self.has_length = announced.is_some();
        let announced = announced.and_then(|length| str::from_utf8(&length).ok()?.parse().ok());
        if announced.is_some_and(|announced: usize| announced > config.max_body_bytes) {
            let error = ApiError::body_too_large(config.max_body_bytes);
            drop(worker);
            return self.refuse(&error);
        }
        *self.state.borrow_mut() = State::Reading { pool };
        match config.pick_to {
            PickTo::Header => Action::Pause,
            PickTo::FilterState => {
                // What stands behind holds the headers of these requests, and of no others.
                publish("llm_awaits_body", "true");
                // Headers cannot be changed once the body comes; the buffer filter behind sets the length anew.
                if config.include_usage || config.models.iter().any(|model| !model.targets.is_empty()) {
                    warn("content-length", host::remove_header(Headers::Request, "content-length"));
                }
                Action::Continue
            }
        }
    }

    /// The pool for which the body is being read; else what is done with more of the request.
    fn pool_being_read(&self) -> Result<usize, Action> {
        match *self.state.borrow() {
            State::Reading { pool } => Ok(pool),
            State::Waiting { .. } => Err(Action::Pause),
            State::Idle | State::Unpicked | State::Sent(_) => Err(Action::Continue),
        }
    }

    /// The whole body is here: read it, decide, act.
    fn finish_reading(&mut self, route_pool: usize) -> Action {
        *self.state.borrow_mut() = State::Idle;
        let limit = self.worker.borrow().config().max_body_bytes;
        let body = host::buffer(Buffer::RequestBody, limit).ok().flatten().unwrap_or_default();
        let request = match read_request(&body) {
            Ok(request) => request,
            Err(error) => return self.refuse(&error),
        };
        publish("llm_model", &request.model);
        publish("asm.llmproxy.request_model", &request.model);
        let user = self.user_of(&request);
        let prepared = self.worker.borrow_mut().picker.prepare(&request, user.as_deref(), route_pool);
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return self.refuse(&error),
        };
        publish("llm_target_model", prepared.target.as_deref().unwrap_or(&request.model));
        if let Some(account) = &mut self.account {
            account.set_labels(self.worker.borrow_mut().labels(&prepared));
        }
        self.edit_body(&body, &request, &prepared);
        if self.is_misrouted && !self.worker.borrow().config().publishes(&prepared.model) {
            return act(&self.state, &self.worker, prepared.pool, MISROUTED, host::now_ms());
        }
        if prepared.pool != route_pool || self.is_misrouted {
            self.change_route(&prepared.model);
        }
        self.decide(prepared)
    }

    fn decide(&mut self, prepared: Prepared) -> Action {
        let (now_ms, pool) = (host::now_ms(), prepared.pool);
        let outcome = self.worker.borrow_mut().decide(self.id, &prepared, || self.state.clone(), now_ms);
        match outcome {
            Outcome::Decided(decision) => act(&self.state, &self.worker, pool, decision, now_ms),
            Outcome::Waits => {
                *self.state.borrow_mut() = State::Waiting { pool, since_ms: now_ms };
                Action::Pause
            }
        }
    }

    /// What tells this user from others, where users are kept on one target.
    fn user_of(&mut self, request: &InferenceRequest<'_>) -> Option<Vec<u8>> {
        match self.worker.borrow().config().sticky_by {
            None => None,
            Some(StickyBy::Header(_)) => self.user.take(),
            Some(StickyBy::User) => request.user.map(|user| user.as_bytes().to_vec()),
        }
    }

    /// Changes in the body what the servers are to see otherwise, and nothing else: the model's name, and that a
    /// stream's usage is asked for.
    fn edit_body(&mut self, body: &[u8], request: &InferenceRequest<'_>, prepared: &Prepared) {
        let worker = self.worker.borrow();
        let mut edits = Vec::new();
        if let Some(target) = &prepared.target {
            edits = model_edits(&request.model_spans, target);
            if worker.config().restore_requested_model {
                self.answer.restore_model(target, &request.model);
            }
        }
        if worker.config().include_usage
            && let Some(edit) = include_usage(&self.path, body, request)
        {
            edits.push(edit);
            self.answer.hide_usage();
        }
        if edits.is_empty() {
            return;
        }
        let edited = apply_edits(body, edits);
        warn("the body", host::replace_buffer(Buffer::RequestBody, body.len(), &edited));
        if worker.config().pick_to == PickTo::Header && self.has_length {
            let length = edited.len().to_string();
            warn("content-length", host::set_header(Headers::Request, "content-length", &length));
        }
    }

    /// Another pool than the route's serves the model: has the route chosen anew, by the model's name.
    fn change_route(&self, model: &str) {
        match self.worker.borrow().config().pick_to {
            PickTo::Header => warn(MODEL_HEADER, host::set_header(Headers::Request, MODEL_HEADER, model)),
            // Routes can match on filter state `wasm.llm_model`, which has been published.
            PickTo::FilterState => {}
        }
        warn("the route", host::clear_route_cache());
    }
}

/// Whether it is a POST with a prompt to be read.
fn is_inference(headers: &HeaderPairs) -> bool {
    headers.value(":method").as_deref() == Some(b"POST")
        && is_inference_path(&headers.value(":path").unwrap_or_default())
        && is_json(headers.value("content-type").as_deref(), headers.value("content-encoding").as_deref())
}

/// Whether it is a GET that asks for the list of models.
fn is_model_list(headers: &HeaderPairs) -> bool {
    headers.value(":method").as_deref() == Some(b"GET")
        && is_model_list_path(&headers.value(":path").unwrap_or_default())
}
