//! One request: what the host says of it goes to the worker, and what was decided goes to the host, last.
//!
//! ```text
//! headers ─► Reading ─► body ─┬─► Sent ─► answer ─► end
//!                             ├─► Waiting ─► (tick) ─► Sent
//!                             └─► answered by the plugin
//! ```

mod account;
mod anew;
mod answer;
mod answer_body;
mod request;

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use self::account::Account;
use self::anew::Anew;
use self::answer_body::Answer;
use super::calls::{publish, publish_if, warn};
use super::host::{self, Clock, Headers};
use super::own_answers::{answer_error, refuse};
use super::worker::Worker;
use crate::config::PickTo;
use crate::decide::{Decision, Pick};
use crate::first_pass::{FirstPass, Head};
use crate::log_fields::LogField;
use crate::openai::{ApiError, ExpectedBody, NotFound, Stored};
use crate::picker::{Released, Sent};
use crate::prefill::PromptBy;
use crate::promise::{Forecast, Promise};
use crate::sessions::{Conversation, Name};

/// The header that names the endpoints, best first, to Envoy's override_host load balancing.
const PICK_HEADER: &str = "x-gateway-destination-endpoint";
/// The header that names the endpoint that computes the prompt, to the one that generates the answer.
const PREFILL_HEADER: &str = "x-prefiller-host-port";
/// The filter state that a filter behind the plugin copies into that header, in deferred mode.
const PREFILL_STATE: &str = "llm_prefill";
/// The header that names the engine of the endpoint that is to run the request, where it has several, as vLLM and SGLang read it.
const RANK_HEADER: &str = "x-data-parallel-rank";
/// The filter state that a filter behind the plugin copies into that header, in deferred mode.
const RANK_STATE: &str = "llm_data_parallel_rank";
/// The header that has the token of a session, in requests and in answers.
const TOKEN_HEADER: &str = "x-session-token";
/// How Envoy's details of an answer begin that its server broke off.
const BROKEN_OFF: &[u8] = b"upstream_reset_after_response_started";

/// One request and its answer.
pub struct Stream {
    id: u32,
    worker: Rc<RefCell<Worker<Waiter>>>,
    /// Shared with the queue while the request waits, so that it can be sent from the worker's tick.
    state: Waiter,
    /// What the body is read as, by the headers; they can be read no more in deferred mode once they have been let go.
    expected: Option<ExpectedBody>,
    /// What was decided before Envoy sent it once more.
    first_pass: Option<FirstPass>,
    /// What its headers are, if it may be begun anew; until it is decided.
    head: Option<Head>,
    /// What it takes to begin it anew, if it may be.
    anew: Option<Anew>,
    /// The place of the pool that serves it in place of its own.
    fallback: Option<usize>,
    /// Whether the route that was found may not be the one it gets: the client had the header by which routes are chosen.
    is_misrouted: bool,
    /// Whether the endpoint is asked to report its load, and the client did not ask.
    asks_for_load: bool,
    /// Whether the request announced its length.
    has_length: bool,
    /// Who asks, by the header that distinguishes users.
    user: Option<Vec<u8>>,
    /// The objective that the request names, where that is trusted.
    objective: Option<String>,
    /// What it is promised by its headers, where those are trusted.
    promise: Promise,
    /// Its tenant, by a header.
    tenant: Option<String>,
    /// What it says by its path of something that a server stores.
    stored: Option<Stored>,
    /// Whether its answer may be something that a server stores.
    may_store: bool,
    /// The conversation that it belongs to by its path, or its body.
    conversation: Option<Conversation>,
    /// The session that its headers name.
    session: Option<Name>,
    /// The token that its client holds.
    token: Option<Vec<u8>>,
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
    /// It waits in the queue of the pool at this place; with what it takes to begin it anew for another one, if it may be.
    Waiting { pool: usize, since_ms: u64, anew: Option<Vec<u8>> },
    /// It was sent to a pick.
    Sent(SentStream),
}

/// A request that was sent to a pick.
pub struct SentStream {
    pool: usize,
    /// The pick: addresses as Envoy writes them, in whose order they are tried.
    destinations: String,
    sent: Sent,
    /// Whether the route may have led to another pool.
    is_pool_guessed: bool,
    /// Whether the answer is one of the server's, and no error.
    succeeded: bool,
    /// Whether nothing has come from its endpoint yet: no output, and no failure.
    is_silent: bool,
    /// Whether the answer has come to its end.
    is_over: bool,
    /// The answer, if it says that something is not there.
    not_found: Option<NotFound>,
    /// What is expected of its endpoint, if it is promised something.
    forecast: Option<Box<Forecast>>,
}

impl SentStream {
    fn first_choice(&self) -> &str {
        self.destinations.split(',').next().unwrap_or_default()
    }

    /// It is known who serves the request, and so whose route it got: it counts there from now on. `false`: it was none of a
    /// pool's.
    fn settle_pool(&mut self, worker: &mut Worker<Waiter>, served_by: &[u8], now_ms: u64) -> bool {
        let Some(pool) = worker.picker.pool_of_endpoint(served_by, self.pool) else { return false };
        if pool != self.pool {
            // Of what was named, this was that pool's first choice.
            self.pool = pool;
            self.destinations = String::from_utf8_lossy(served_by).into_owned();
            worker.move_to(&mut self.sent, pool, &self.destinations, served_by, now_ms);
        }
        true
    }
}

/// How a request that waits is reached from the worker's tick.
pub type Waiter = Rc<RefCell<State>>;

/// Passes to the server what was picked besides itself: by a header, or by the filter state that becomes one.
fn name_to_server(pick_to: PickTo, (header, state): (&str, &str), value: &str) {
    match pick_to {
        PickTo::Header => warn(header, host::set_header(Headers::Request, header, value)),
        PickTo::FilterState => publish(state, value),
    }
}

/// Does what was decided for a request that has waited, outside of the request's own callbacks.
pub fn release(released: Released<Waiter>, worker: &RefCell<Worker<Waiter>>, now_ms: u64) {
    let Released { id, waiter: state, decision, resolved } = released;
    if let Err(error) = host::set_effective_context(id) {
        log::error!("a queued request cannot be resumed: {error:?}");
        return;
    }
    let mut first_pass = None;
    if let State::Waiting { pool, since_ms, anew } = state.replace(State::Idle) {
        let wait_ms = now_ms.saturating_sub(since_ms);
        worker.borrow_mut().recorder.record(|stats| stats.left_queue(pool, wait_ms));
        first_pass = anew;
    }
    if let (Decision::BeginAnew(error), Some(first_pass)) = (&decision, first_pass) {
        Anew::begin(&first_pass);
        publish(LogField::Decision.name(), "begun anew");
        return answer_error(error);
    }
    if act(&state, worker, resolved.pool, decision, now_ms) == Action::Continue {
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
            expected: None,
            first_pass: None,
            head: None,
            anew: None,
            fallback: None,
            is_misrouted: false,
            asks_for_load: false,
            has_length: false,
            user: None,
            objective: None,
            promise: Promise::default(),
            tenant: None,
            stored: None,
            may_store: false,
            conversation: None,
            session: None,
            token: None,
            account: None,
            answer: Answer::default(),
            has_output: false,
        }
    }

    /// Whether the worker has no other stream: besides those only the root context holds it.
    fn is_last(&self) -> bool {
        Rc::strong_count(&self.worker) <= 2
    }

    /// Answers with an error.
    fn refuse(&self, error: &ApiError) -> Action {
        refuse(&mut self.worker.borrow_mut().recorder, error)
    }

    /// The answer is over. `complete`: it has come to its end.
    fn close_account(&mut self, complete: bool, clock: &mut Clock) {
        if let Some(mut account) = self.account.take() {
            if let State::Sent(sent) = &*self.state.borrow() {
                account.set_forecast(sent.forecast.as_deref().copied());
            }
            account.close(&self.answer, complete, &mut self.worker.borrow_mut(), clock.now_ms());
        }
    }

    /// Gives back what the request had in flight, or its place in the queue.
    fn end(&mut self, clock: &mut Clock) {
        match self.state.replace(State::Idle) {
            State::Sent(mut sent) => {
                let mut worker = self.worker.borrow_mut();
                let now_ms = clock.now_ms();
                let usage = self.answer.usage_when_complete();
                if let Some(usage) = usage {
                    worker.picker.answered(&mut sent.sent, sent.pool, usage, now_ms);
                }
                if sent.succeeded && self.has_output && !sent.is_over && is_broken_off() {
                    worker.answer_broke_off(sent.pool, &sent.sent, now_ms);
                }
                if sent.is_silent {
                    worker.abandoned(sent.pool, &sent.sent, now_ms);
                }
                if sent.not_found.is_some_and(|answer| answer.is_about_model()) {
                    worker.model_missing(sent.pool, &sent.sent, now_ms);
                }
                worker.end(sent.sent, now_ms);
            }
            State::Waiting { pool, .. } => self.worker.borrow_mut().forget(pool, self.id),
            State::Idle | State::Unpicked | State::Reading { .. } => {}
        }
    }
}

/// Whether it was the server that ended the answer before its end, and not the client that left.
fn is_broken_off() -> bool {
    let details = host::property("response\0code_details").ok().flatten();
    details.is_some_and(|details| details.starts_with(BROKEN_OFF))
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _headers: usize, end_of_stream: bool) -> Action {
        self.request_begins(end_of_stream)
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        self.request_body(size, end_of_stream)
    }

    fn on_http_request_trailers(&mut self, _trailers: usize) -> Action {
        // With trailers the body's end is never announced.
        self.request_trailers()
    }

    fn on_http_response_headers(&mut self, _headers: usize, end_of_stream: bool) -> Action {
        self.answer_begins(end_of_stream);
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        self.answer_body(size, end_of_stream);
        Action::Continue
    }

    fn on_http_response_trailers(&mut self, _trailers: usize) -> Action {
        // With trailers the body's end is never announced.
        self.answer_ends(&mut Clock::default());
        Action::Continue
    }

    fn on_log(&mut self) {
        // The stream is over, however it ended.
        let mut clock = Clock::default();
        if self.was_begun_anew() {
            self.account = None;
        }
        self.close_account(false, &mut clock);
        self.end(&mut clock);
        if self.is_last() {
            self.worker.borrow_mut().recorder.flush();
        }
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
    let fields = worker.borrow().config().publish;
    let pick = match decision {
        Decision::Send(pick) => pick,
        Decision::Fallback(reason) => {
            publish_if(fields, LogField::Decision, reason);
            *state.borrow_mut() = State::Unpicked;
            return Action::Continue;
        }
        Decision::Refuse(error) | Decision::BeginAnew(error) => {
            return refuse(&mut worker.borrow_mut().recorder, &error);
        }
    };
    let mut worker = worker.borrow_mut();
    let sent = worker.send(&pick, pool, now_ms);
    if worker.config().pick_to == PickTo::Header {
        warn(PICK_HEADER, host::set_header(Headers::Request, PICK_HEADER, &pick.destinations));
    }
    if let PromptBy::Other(other) = &pick.prompt_by {
        name_to_server(worker.config().pick_to, (PREFILL_HEADER, PREFILL_STATE), &other.address);
    }
    if let Some(rank) = pick.rank {
        name_to_server(worker.config().pick_to, (RANK_HEADER, RANK_STATE), &rank.to_string());
    }
    publish_if(fields, LogField::Destinations, &pick.destinations);
    publish_if(fields, LogField::Decision, &pick.explanation);
    if let Some(forecast) = &pick.forecast {
        let expected_ms = forecast.first_token_ms.to_string();
        publish_if(fields, LogField::ExpectedTimeToFirstToken, &expected_ms);
    }
    let Pick { destinations, is_pool_guessed, forecast, .. } = pick;
    *state.borrow_mut() = State::Sent(SentStream {
        pool,
        destinations,
        sent,
        is_pool_guessed,
        succeeded: false,
        is_silent: true,
        is_over: false,
        not_found: None,
        forecast,
    });
    Action::Continue
}
