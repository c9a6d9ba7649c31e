//! Requests that run the model: from a body to an answer, whole or streamed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde_json::Value;

use super::answers::errors::ApiError;
use super::answers::{Subject, Usage, event_shape, whole, whole_failure};
use super::api::Api;
use super::counters::RequestInFlight;
use super::engine::EngineRequest;
use super::event_stream::{EMPTY_COMMENT, EventStream, KEEP_ALIVE};
use super::knobs::InnerFailure;
use super::live_engine::Generation;
use super::load_header;
use super::metrics::unix_seconds;
use super::models::ServedModels;
use super::ranks;
use super::request::{InferenceRequest, model_of, parse_json};
use super::response::{Body, json, status, with_type};
use super::server::Server;
use super::settings::Dialect;
use super::sidecar::{self, ComputedBy};

/// Bytes of a request body: far above what the plugin buffers, and no danger to the machine.
const BODY_BYTES_MAX: usize = 32 << 20;

/// Answers a request at one of the APIs' paths.
pub async fn answer(server: &Arc<Server>, api: Api, request: Request<Incoming>) -> Response<Body> {
    let mut in_flight = server.counters.begin_request(server.now_ms());
    let (head, body) = request.into_parts();
    match begin(server, api, &head.headers, body).await {
        Ok(run) if run.request.stream => run.stream(server, in_flight),
        Ok(run) => run.whole(server, &head.headers, in_flight).await,
        Err(NotBegun::Error(error)) => {
            in_flight.fail();
            json(error.status, error.body(api))
        }
        Err(NotBegun::Refused(answer)) => {
            in_flight.fail();
            *answer
        }
    }
}

/// Why a request does not run.
enum NotBegun {
    Error(ApiError),
    /// The endpoint that was to compute its prompt has said so.
    Refused(Box<Response<Body>>),
}

impl From<ApiError> for NotBegun {
    fn from(error: ApiError) -> Self {
        Self::Error(error)
    }
}

/// A request that the engine has taken.
struct Run {
    api: Api,
    request: InferenceRequest,
    subject: Subject,
    /// One for each prompt.
    generations: Vec<Generation>,
}

async fn begin(server: &Arc<Server>, api: Api, headers: &HeaderMap, body: Incoming) -> Result<Run, NotBegun> {
    let body = parse_json(&read_body(body).await?)?;
    server.counters.lock().note_model(api.path(), model_of(&body).unwrap_or_default());
    misbehave(server).await?;
    if server.knobs().fail_guided && body.get("guided_regex").is_some() {
        return Err(ApiError::failing(StatusCode::INTERNAL_SERVER_ERROR).into());
    }
    if let Some(rank) = ranks::named(api, headers, server.settings.metrics_page)? {
        *server.counters.lock().requests_by_rank.entry(rank).or_default() += 1;
    }
    let is_computed = compute_elsewhere(server, api, headers, &body).await?;
    let models = server.models();
    let model = models.find(api, &body)?;
    let request = InferenceRequest::from_body(api, &body)?;
    server.stored.check(&body)?;
    if let Some(sidecar) = server.settings.sidecar.as_ref().filter(|_| is_computed) {
        tokio::time::sleep(sidecar.transfer_time(request.prompts.iter().map(Vec::len).sum())).await;
        server.counters.lock().prefilled_elsewhere += 1;
    }
    let generations = submit(server, &models, model, &request, is_computed)?;
    let subject = subject(server, model, &request);
    if api == Api::Responses {
        server.stored.add(&format!("resp_{}", subject.id), &body);
    }
    Ok(Run { api, request, subject, generations })
}

/// Whether the sidecar has had the prompt computed elsewhere.
async fn compute_elsewhere(
    server: &Server,
    api: Api,
    headers: &HeaderMap,
    body: &Value,
) -> Result<bool, NotBegun> {
    let prefiller = headers.get(sidecar::HEADER).and_then(|value| value.to_str().ok());
    let Some((sidecar, prefiller)) = server.settings.sidecar.as_ref().zip(prefiller) else {
        return Ok(false);
    };
    match sidecar.prefill(api, body, prefiller).await {
        ComputedBy::Itself => Ok(false),
        ComputedBy::Other => Ok(true),
        ComputedBy::Refused(answer) => Err(NotBegun::Refused(Box::new(answer))),
    }
}

/// Hangs or fails if the knobs say so.
pub async fn misbehave(server: &Server) -> Result<(), ApiError> {
    let knobs = server.knobs();
    if knobs.hang {
        std::future::pending::<()>().await;
    }
    knobs.fail_status.map_or(Ok(()), |code| Err(ApiError::failing(status(code))))
}

pub async fn read_body(body: Incoming) -> Result<Bytes, ApiError> {
    let read = Limited::new(body, BODY_BYTES_MAX).collect().await;
    read.map(|body| body.to_bytes()).map_err(|error| match error.downcast_ref::<LengthLimitError>() {
        Some(_) => ApiError::body_too_large(),
        None => ApiError::bad_request("The request body broke off."),
    })
}

fn submit(
    server: &Server,
    models: &ServedModels,
    model: &str,
    request: &InferenceRequest,
    is_computed: bool,
) -> Result<Vec<Generation>, ApiError> {
    let adapter = models.is_adapter(model).then(|| model.to_owned());
    let submit_one = |prompt: &Vec<u32>| {
        let request = EngineRequest {
            prompt: prompt.clone(),
            output_tokens: request.output_tokens,
            adapter: adapter.clone(),
            cache_salt: request.cache_salt.clone(),
        };
        if is_computed { server.engine.submit_computed(request) } else { server.engine.submit(request) }
    };
    let generations: Result<Vec<_>, _> = request.prompts.iter().map(submit_one).collect();
    generations.map_err(|refusal| ApiError::refused(refusal, server.settings.engine.kv_cache_tokens()))
}

fn subject(server: &Server, model: &str, request: &InferenceRequest) -> Subject {
    let knobs = server.knobs();
    let forced = knobs.force_include_usage;
    Subject {
        id: server.next_id(),
        created: unix_seconds() as u64,
        model: Value::from(model).to_string(),
        include_usage: forced || request.include_usage,
        continuous_usage: forced || request.continuous_usage,
        dialect: server.settings.dialect,
        early_role: knobs.early_role,
    }
}

impl Run {
    async fn whole(
        mut self,
        server: &Server,
        headers: &HeaderMap,
        mut in_flight: RequestInFlight,
    ) -> Response<Body> {
        if let Some(InnerFailure::Error { code }) = server.knobs().fail_inside.map(|failure| failure.how) {
            in_flight.fail();
            return json(StatusCode::OK, whole_failure(self.api, &self.subject, code));
        }
        let mut results = Vec::with_capacity(self.generations.len());
        for generation in &mut self.generations {
            let last = generation.last().await;
            let usage = last.map(|output| Usage::of(&output, server.settings.engine.block_tokens));
            results.push(usage.unwrap_or_default());
        }
        let total = results.iter().copied().fold(Usage::default(), Usage::plus);
        in_flight.count_tokens(self.subject.model.trim_matches('"'), total.reported(self.api));
        in_flight.complete();
        let mut response = json(StatusCode::OK, whole(self.api, &self.subject, &results));
        if let Some(value) = load_header_value(server, headers) {
            response.headers_mut().insert(load_header::HEADER, value);
        }
        response
    }

    fn stream(mut self, server: &Server, in_flight: RequestInFlight) -> Response<Body> {
        let (Some(generation), Some(shape)) =
            (self.generations.pop(), event_shape(self.api, server.settings.dialect))
        else {
            unreachable!("a streamed request has one prompt and an API with a streamed form");
        };
        let knobs = server.knobs();
        let stream = EventStream {
            subject: self.subject,
            api: self.api,
            shape,
            generation,
            in_flight,
            block_tokens: server.settings.engine.block_tokens,
            stream_interval: server.settings.stream_interval,
            events_until_break: knobs.die_mid_stream,
            fail_inside: knobs.fail_inside,
            comment: match server.settings.dialect {
                Dialect::Vllm => KEEP_ALIVE,
                Dialect::LlamaCpp => EMPTY_COMMENT,
            },
            keep_alive: knobs.keep_alive_ms.map(Duration::from_millis),
        };
        with_type(StatusCode::OK, "text/event-stream; charset=utf-8", stream.into_body())
    }
}

fn load_header_value(server: &Server, headers: &HeaderMap) -> Option<HeaderValue> {
    let format = headers.get(load_header::FORMAT_HEADER)?.to_str().ok()?;
    let value = server.with_page_source(|source| load_header::value(format, source))?;
    HeaderValue::try_from(value).ok()
}
