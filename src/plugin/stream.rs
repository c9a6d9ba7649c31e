//! One request: what the host says of it goes to the worker, and what was decided goes to the host, last.

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use super::host::{self, Buffer, Headers, HostError, LogLevel};
use super::worker::Worker;
use crate::config::PickTo;
use crate::decide::{Decision, Pick};
use crate::load::Ticket;
use crate::openai::{ApiError, InferenceRequest, is_inference_request, read_request, replace_model};

/// The header that names the endpoints, best first, to Envoy's override_host load balancing.
const PICK_HEADER: &str = "x-gateway-destination-endpoint";

/// One request and its answer.
pub struct Stream {
    worker: Rc<RefCell<Worker>>,
    state: State,
}

enum State {
    /// Nothing is to be done: not a pool's, or answered by the plugin, or sent without a pick.
    Idle,
    /// The body is coming; the route leads to the pool at this place.
    Reading { pool: usize },
    /// It was sent to a pick.
    Sent(Sent),
    /// Envoy itself answers, and this is put in place of its words.
    Translating(Vec<u8>),
}

struct Sent {
    pool: usize,
    /// The first choice as Envoy writes addresses.
    first_choice: String,
    ticket: Ticket,
}

impl Stream {
    pub fn new(worker: Rc<RefCell<Worker>>) -> Stream {
        Stream { worker, state: State::Idle }
    }

    /// Whether the body is to be read, and how much of it the client announces.
    fn is_inference() -> bool {
        let header = |name| host::header(Headers::Request, name).ok().flatten();
        is_inference_request(
            &header(":method").unwrap_or_default(),
            &header(":path").unwrap_or_default(),
            header("content-type").as_deref(),
            header("content-encoding").as_deref(),
        )
    }

    /// The headers of an inference request are here: wait for the body.
    fn start_reading(&mut self, pool: usize) -> Action {
        let worker = self.worker.borrow();
        let (limit, pick_to) = (worker.config.max_body_bytes, worker.config.pick_to);
        let rewrites = worker.config.models.iter().any(|model| !model.targets.is_empty());
        drop(worker);
        let announced = host::header(Headers::Request, "content-length").ok().flatten();
        let announced =
            announced.and_then(|length| String::from_utf8_lossy(&length).parse().ok()).unwrap_or(0);
        if limit < announced {
            return refuse(&ApiError::body_too_large(limit));
        }
        self.state = State::Reading { pool };
        match pick_to {
            PickTo::Header => Action::Pause,
            PickTo::FilterState => {
                // Headers cannot be changed once the body comes; the buffer filter behind sets the length anew.
                if rewrites {
                    warn("content-length", host::remove_request_header("content-length"));
                }
                Action::Continue
            }
        }
    }

    /// The whole body is here: read it, decide, act.
    fn finish_reading(&mut self, pool: usize) -> Action {
        self.state = State::Idle;
        let limit = self.worker.borrow().config.max_body_bytes;
        let body = host::buffer(Buffer::RequestBody, limit).ok().flatten().unwrap_or_default();
        let request = match read_request(&body) {
            Ok(request) => request,
            Err(error) => return refuse(&error),
        };
        publish("llm_model", &request.model);
        let now_ms = host::now_ms();
        let decision = self.worker.borrow_mut().decide(pool, &request, now_ms);
        if let Decision::Send(pick) = &decision {
            publish("llm_target_model", pick.target_model.as_deref().unwrap_or(&request.model));
            self.rewrite(&body, &request, pick);
        }
        self.act(pool, decision, now_ms)
    }

    /// Replaces the model's name in the body, and nothing else.
    fn rewrite(&self, body: &[u8], request: &InferenceRequest<'_>, pick: &Pick) {
        let Some(target) = &pick.target_model else { return };
        let rewritten = replace_model(body, &request.model_spans, target);
        warn("the body", host::replace_buffer(Buffer::RequestBody, body.len(), &rewritten));
        if self.worker.borrow().config.pick_to == PickTo::Header
            && matches!(host::header(Headers::Request, "content-length"), Ok(Some(_)))
        {
            let length = rewritten.len().to_string();
            warn("content-length", host::set_header(Headers::Request, "content-length", &length));
        }
    }

    fn act(&mut self, pool: usize, decision: Decision, now_ms: u64) -> Action {
        let pick = match decision {
            Decision::Send(pick) => pick,
            Decision::Fallback(reason) => {
                publish("llm_decision", reason);
                return Action::Continue;
            }
            Decision::Refuse(error) => return refuse(&error),
        };
        let mut worker = self.worker.borrow_mut();
        let ticket = worker.send(&pick, now_ms);
        if worker.config.pick_to == PickTo::Header {
            warn(PICK_HEADER, host::set_header(Headers::Request, PICK_HEADER, &pick.destinations));
        }
        drop(worker);
        publish("llm_dest", &pick.destinations);
        publish("llm_decision", &pick.explanation);
        let first_choice = pick.destinations.split(',').next().unwrap_or_default().to_owned();
        self.state = State::Sent(Sent { pool, first_choice, ticket });
        Action::Continue
    }

    /// The answer begins: note who gave it, and whether it is a failure.
    fn answered(&mut self) {
        let State::Sent(sent) = &mut self.state else {
            return;
        };
        let now_ms = host::now_ms();
        let mut worker = self.worker.borrow_mut();
        let served_by = host::property(&["upstream", "address"]).ok().flatten().unwrap_or_default();
        if !served_by.is_empty() && served_by != sent.first_choice.as_bytes() {
            // A retry, or the fallback policy: the first choice did not answer.
            worker.endpoint_answered(sent.pool, sent.ticket.load_id(), false, now_ms);
            if !worker.move_to(&mut sent.ticket, sent.pool, &served_by) {
                return;
            }
        }
        let status = host::header(Headers::Response, ":status").ok().flatten().unwrap_or_default();
        let succeeded = status.first() != Some(&b'5');
        worker.endpoint_answered(sent.pool, sent.ticket.load_id(), succeeded, now_ms);
    }
}

impl Stream {
    /// Gives back what the request had in flight.
    fn end(&mut self) {
        if let State::Sent(sent) = std::mem::replace(&mut self.state, State::Idle) {
            self.worker.borrow_mut().end(sent.ticket);
        }
    }

    /// What to answer where Envoy itself has answered a pool's request in plain text: because of a body larger than
    /// it buffers, say, or because no endpoint could be reached. Clients expect an OpenAI error object.
    fn own_words_of_envoy(&self) -> Option<Vec<u8>> {
        if matches!(self.state, State::Idle) {
            return None;
        }
        let header = |name| host::header(Headers::Response, name).ok().flatten().unwrap_or_default();
        let status =
            String::from_utf8_lossy(&header(":status")).parse().ok().filter(|status| *status >= 400)?;
        if !header("content-type").starts_with(b"text/plain") {
            return None;
        }
        let details = host::property(&["response", "code_details"]).ok().flatten()?;
        if details == b"via_upstream" {
            return None;
        }
        let body = ApiError::from_envoy(status, &String::from_utf8_lossy(&details)).body();
        warn("content-type", host::set_header(Headers::Response, "content-type", "application/json"));
        warn(
            "content-length",
            host::set_header(Headers::Response, "content-length", &body.len().to_string()),
        );
        Some(body)
    }
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _headers: usize, end_of_stream: bool) -> Action {
        // Whatever the route: no client chooses its host.
        warn(PICK_HEADER, host::remove_request_header(PICK_HEADER));
        let cluster = host::property(&["xds", "cluster_name"]).ok().flatten().unwrap_or_default();
        let pool = self.worker.borrow().config.pool_of_cluster(&cluster);
        let Some(pool) = pool else { return Action::Continue };
        if !Stream::is_inference() {
            let now_ms = host::now_ms();
            let decision = self.worker.borrow_mut().decide_unread(pool, now_ms);
            return self.act(pool, decision, now_ms);
        }
        if end_of_stream { self.finish_reading(pool) } else { self.start_reading(pool) }
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        let State::Reading { pool } = self.state else {
            return Action::Continue;
        };
        let limit = self.worker.borrow().config.max_body_bytes;
        if size > limit {
            self.state = State::Idle;
            return refuse(&ApiError::body_too_large(limit));
        }
        if end_of_stream { self.finish_reading(pool) } else { Action::Pause }
    }

    fn on_http_request_trailers(&mut self, _trailers: usize) -> Action {
        // With trailers the body's end is never announced.
        match self.state {
            State::Reading { pool } => self.finish_reading(pool),
            _ => Action::Continue,
        }
    }

    fn on_http_response_headers(&mut self, _headers: usize, _end_of_stream: bool) -> Action {
        self.answered();
        if let Some(body) = self.own_words_of_envoy() {
            self.end();
            self.state = State::Translating(body);
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, _end_of_stream: bool) -> Action {
        if size == 0 {
            return Action::Continue;
        }
        match &mut self.state {
            State::Sent(sent) => self.worker.borrow_mut().first_output(&mut sent.ticket),
            State::Translating(body) => {
                let body = std::mem::take(body);
                warn("the answer", host::replace_buffer(Buffer::ResponseBody, size, &body));
            }
            State::Idle | State::Reading { .. } => {}
        }
        Action::Continue
    }

    fn on_log(&mut self) {
        // The stream is over, however it ended.
        self.end();
    }
}

/// Answers with an OpenAI error object.
fn refuse(error: &ApiError) -> Action {
    publish("llm_decision", &format!("refused: {}", error.code));
    let headers = [("content-type", "application/json")];
    warn("the answer", host::respond(error.status, error.code, &headers, &error.body()));
    Action::Pause
}

/// Publishes filter state `wasm.NAME`. What a client wrote may not break a log line.
fn publish(name: &str, value: &str) {
    let harmless: String =
        value.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect();
    warn(name, host::set_filter_state(name, harmless.as_bytes()));
}

fn warn(what: &str, result: Result<(), HostError>) {
    if let Err(error) = result {
        host::log(LogLevel::Warn, &format!("inference-picker: the host refused to change {what}: {error:?}"));
    }
}
