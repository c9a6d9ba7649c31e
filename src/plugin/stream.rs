//! One request: what the host says of it goes to the worker, and what was decided goes to the host, last.
//!
//! ```text
//! headers ─► Reading ─► body ─┬─► Sent ─► answer ─► end
//!                             ├─► Waiting ─► (tick) ─► Sent
//!                             └─► answered by the plugin
//! ```

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use super::account::Account;
use super::answer::Answer;
use super::calls::{headers_of, publish, warn};
use super::host::{self, Buffer, Headers, LogLevel};
use super::own_answers::{OfEnvoy, announce, answer_models, refuse};
use super::peers;
use super::worker::Worker;
use crate::config::{PickTo, StickyBy};
use crate::decide::{Decision, Prepared};
use crate::header_pairs::HeaderPairs;
use crate::limits::Limit;
use crate::openai::{
    ApiError, InferenceRequest, apply_edits, include_usage, is_inference_path, is_json, is_model_list_path,
    model_edits, read_request,
};
use crate::picker::{Outcome, Released, Sent};

/// The header that names the endpoints, best first, to Envoy's override_host load balancing.
const PICK_HEADER: &str = "x-gateway-destination-endpoint";
/// The header that names the model to Envoy's routing, where another pool than the route's serves it.
const MODEL_HEADER: &str = "x-gateway-model-name";
/// The headers by which a host or a pool is chosen.
const CHOICES: [&str; 2] = [PICK_HEADER, MODEL_HEADER];
/// Which pool a request goes to is not known where its route is to be chosen anew, and not by its model.
const MISROUTED: Decision = Decision::Fallback("the client named a route");
/// Bytes of a header's value that tell one user from another; what follows does not count.
const MAX_USER_BYTES: usize = 256;

/// One request and its answer.
pub struct Stream {
    id: u32,
    worker: Rc<RefCell<Worker<Waiter>>>,
    /// Shared with the queue while the request waits, so that it can be sent from the worker's tick.
    state: Waiter,
    /// Kept, because headers can be read no more in deferred mode once they have been let go.
    path: Vec<u8>,
    /// Whether the route that was found is not the one it gets: the client had the header by which routes are chosen.
    is_misrouted: bool,
    /// Whether the request announced its length.
    has_length: bool,
    /// Who asks, by the header that tells users apart.
    user: Option<Vec<u8>>,
    /// There from the headers of a request that is to be read to its end.
    account: Option<Account>,
    answer: Answer,
    has_output: bool,
}

/// Where the request is on its way.
pub enum State {
    /// Nothing is to be done: not a pool's, or answered by the plugin.
    Idle,
    /// It is a pool's, and was left to Envoy's own load balancing.
    Unpicked,
    /// The body is coming; the route leads to the pool at this place.
    Reading { pool: usize },
    /// It waits in the queue of the pool at this place.
    Waiting { pool: usize, since_ms: u64 },
    /// It was sent to a pick.
    Sent(SentStream),
}

/// A request that was sent to a pick.
pub struct SentStream {
    pool: usize,
    /// The first choice as Envoy writes addresses.
    first_choice: String,
    sent: Sent,
    /// Whether the answer is one of the server's, and no error.
    succeeded: bool,
    /// Whether nothing has been heard of its endpoint yet: no output, and no failure.
    is_silent: bool,
}

/// How a request that waits is reached from the worker's tick.
pub type Waiter = Rc<RefCell<State>>;

/// Does what was decided for a request that has waited, outside of the request's own callbacks.
pub fn release(released: Released<Waiter>, worker: &RefCell<Worker<Waiter>>, now_ms: u64) {
    let Released { id, waiter: state, decision, prepared } = released;
    if let Err(error) = host::set_effective_context(id) {
        host::log(LogLevel::Error, &format!("inference-picker: a request that waited is lost: {error:?}"));
        return;
    }
    if let State::Waiting { pool, since_ms } = state.replace(State::Idle) {
        let wait_ms = now_ms.saturating_sub(since_ms);
        worker.borrow_mut().recorder.record(|stats| [stats.left_queue(pool, wait_ms)]);
    }
    if act(&state, worker, prepared.pool, decision, now_ms) == Action::Continue {
        warn("the request", host::resume_request());
    }
}

impl Stream {
    pub fn new(id: u32, worker: Rc<RefCell<Worker<Waiter>>>) -> Stream {
        let state = Rc::new(RefCell::new(State::Idle));
        Stream {
            id,
            worker,
            state,
            path: Vec::new(),
            is_misrouted: false,
            has_length: false,
            user: None,
            account: None,
            answer: Answer::default(),
            has_output: false,
        }
    }

    /// Answers with an error.
    fn refuse(&self, error: &ApiError) -> Action {
        refuse(&mut self.worker.borrow_mut().recorder, error)
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

    /// The answer begins, with this status: note who gave it, and whether it is a failure. A good one counts as such
    /// with its first output: a server may send its headers, and hang then.
    fn answered(&mut self, status: Option<u16>, of_envoy: Option<&OfEnvoy>, end_of_stream: bool) {
        if let Some(account) = &mut self.account {
            account.answered(status);
        }
        let mut state = self.state.borrow_mut();
        let State::Sent(sent) = &mut *state else { return };
        let mut worker = self.worker.borrow_mut();
        let served_by = host::property("upstream\0address").ok().flatten().unwrap_or_default();
        if served_by.is_empty() || of_envoy.is_some_and(OfEnvoy::is_overflow) {
            // Envoy or another filter has answered: that says nothing of any endpoint.
            sent.is_silent = false;
            return;
        }
        if served_by != sent.first_choice.as_bytes() {
            // A retry, or the fallback policy. An endpoint that is not the pool's was not reached by way of the first choice.
            let (first_choice, now_ms) = (sent.sent.load_id(), host::now_ms());
            sent.is_silent = worker.move_to(&mut sent.sent, sent.pool, &served_by, now_ms);
            if !sent.is_silent {
                return;
            }
            worker.endpoint_answered(sent.pool, first_choice, false, now_ms);
            worker.recorder.record(|stats| [stats.retried(sent.pool, &sent.first_choice)]);
        }
        let class = status.map(|status| status / 100);
        sent.succeeded = class == Some(2);
        if !sent.succeeded || end_of_stream {
            sent.is_silent = false;
            worker.endpoint_answered(sent.pool, sent.sent.load_id(), class != Some(5), host::now_ms());
        }
    }

    /// More of the answer's body is here: the first of it is the first output, unless it is an error.
    fn first_output(&mut self) {
        if self.is_passed_over() || std::mem::replace(&mut self.has_output, true) {
            return;
        }
        let now_ms = host::now_ms();
        if let Some(account) = &mut self.account {
            account.first_output(now_ms);
        }
        if let State::Sent(sent) = &mut *self.state.borrow_mut()
            && sent.succeeded
        {
            sent.is_silent = false;
            let mut worker = self.worker.borrow_mut();
            worker.first_output(&sent.sent, now_ms);
            worker.endpoint_answered(sent.pool, sent.sent.load_id(), true, now_ms);
        }
    }

    /// Whether nothing is to be known of the answer.
    fn is_passed_over(&self) -> bool {
        self.account.is_none() && matches!(*self.state.borrow(), State::Idle)
    }

    /// Why Envoy itself has answered, if it has.
    fn of_envoy(&self, status: Option<u16>, headers: &HeaderPairs) -> Option<OfEnvoy> {
        let is_idle = matches!(*self.state.borrow(), State::Idle);
        OfEnvoy::new(status.filter(|_| !is_idle)?, headers)
    }

    /// Puts an error in place of the answer.
    fn translate(&mut self, error: &ApiError) {
        self.end();
        self.worker.borrow_mut().recorder.record(|stats| [stats.refused(error.code)]);
        let body = error.body();
        announce(&body);
        self.answer.replace(body);
    }

    /// The answer is over. `complete`: it has come to its end.
    fn close_account(&mut self, complete: bool) {
        if let Some(account) = self.account.take() {
            account.close(&self.answer, complete, &mut self.worker.borrow_mut());
        }
    }

    /// Gives back what the request had in flight, or its place in the queue.
    fn end(&mut self) {
        match self.state.replace(State::Idle) {
            State::Sent(mut sent) => {
                let mut worker = self.worker.borrow_mut();
                let now_ms = host::now_ms();
                if let Some(usage) = self.answer.usage_when_complete() {
                    worker.picker.answered(&mut sent.sent, sent.pool, usage, now_ms);
                }
                if sent.is_silent {
                    worker.abandoned(sent.pool, &sent.sent, now_ms);
                }
                worker.end(sent.sent, now_ms);
            }
            State::Waiting { pool, .. } => self.worker.borrow_mut().forget(pool, self.id),
            State::Idle | State::Unpicked | State::Reading { .. } => {}
        }
    }
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _headers: usize, end_of_stream: bool) -> Action {
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

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
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

    fn on_http_request_trailers(&mut self, _trailers: usize) -> Action {
        // With trailers the body's end is never announced.
        match self.pool_being_read() {
            Ok(pool) => self.finish_reading(pool),
            Err(action) => action,
        }
    }

    fn on_http_response_headers(&mut self, _headers: usize, end_of_stream: bool) -> Action {
        if self.is_passed_over() {
            return Action::Continue;
        }
        let headers = headers_of(Headers::Response);
        let status = headers.value(":status").and_then(|status| str::from_utf8(&status).ok()?.parse().ok());
        let of_envoy = self.of_envoy(status, &headers);
        self.answered(status, of_envoy.as_ref(), end_of_stream);
        match of_envoy {
            Some(of_envoy) => self.translate(&of_envoy.error()),
            None => {
                let succeeded = matches!(status, Some(200..300));
                self.answer.begin(self.account.is_some() && succeeded, &headers);
            }
        }
        if end_of_stream {
            self.close_account(true);
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if size > 0 {
            self.first_output();
        }
        self.answer.push(size, end_of_stream);
        if end_of_stream {
            self.close_account(true);
        }
        Action::Continue
    }

    fn on_http_response_trailers(&mut self, _trailers: usize) -> Action {
        self.close_account(true);
        Action::Continue
    }

    fn on_log(&mut self) {
        // The stream is over, however it ended.
        self.close_account(false);
        self.end();
    }
}

/// Does what was decided, in the effective context.
fn act(
    state: &RefCell<State>,
    worker: &RefCell<Worker<Waiter>>,
    pool: usize,
    decision: Decision,
    now_ms: u64,
) -> Action {
    let pick = match decision {
        Decision::Send(pick) => pick,
        Decision::Fallback(reason) => {
            publish("llm_decision", reason);
            *state.borrow_mut() = State::Unpicked;
            return Action::Continue;
        }
        Decision::Refuse(error) => return refuse(&mut worker.borrow_mut().recorder, &error),
    };
    let mut worker = worker.borrow_mut();
    let sent = worker.send(&pick, pool, now_ms);
    if worker.config().pick_to == PickTo::Header {
        warn(PICK_HEADER, host::set_header(Headers::Request, PICK_HEADER, &pick.destinations));
    }
    publish("llm_dest", &pick.destinations);
    publish("llm_decision", &pick.explanation);
    let first_choice = pick.first_choice().to_owned();
    *state.borrow_mut() =
        State::Sent(SentStream { pool, first_choice, sent, succeeded: false, is_silent: true });
    Action::Continue
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
