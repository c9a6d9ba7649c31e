//! Which path is answered by what.

use std::convert::Infallible;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{HOST, HeaderValue, LOCATION};
use hyper::{Method, Request, Response, StatusCode};

use super::answers::models;
use super::api::Api;
use super::metrics::unix_seconds;
use super::request::{model_of, parse_json};
use super::response::{Body, empty, json, sign};
use super::server::Server;
use super::settings::Dialect;
use super::small_requests::{self, SmallApi};
use super::{control, inference, realtime, scrape, sidecar};

/// What vLLM 0.32 answers at `/v1/completions/render` and `/v1/chat/completions/render` unless it is started with
/// `--enable-scale-out`: some gateways ask it which tokens a prompt has.
pub const RENDER_REFUSED: &str = r#"{"error":{"message":"Scale-out endpoints are disabled. Restart vllm serve with --enable-scale-out to enable them.","type":"PermissionDeniedError","param":null,"code":403}}"#;

/// Answers any request to one of `servers`.
pub async fn answer(
    servers: Arc<[Arc<Server>]>,
    server: Arc<Server>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    server.counters.lock().note_path(request.uri().path());
    if let Some(prefiller) = request.headers().get(sidecar::HEADER) {
        server.counters.lock().note_prefiller(&String::from_utf8_lossy(prefiller.as_bytes()));
    }
    let request_id = format!("{:0>32}", server.next_id());
    let mut response = if request.uri().path().starts_with("/sim/") {
        control::answer(&servers, &server, request).await
    } else {
        model_server_answer(&server, request).await
    };
    sign(&mut response, &server.served_by, &request_id);
    Ok(response)
}

async fn model_server_answer(server: &Arc<Server>, request: Request<Incoming>) -> Response<Body> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => scrape::answer(server).await,
        (&Method::GET, "/health") => unless_hanging(server, empty(StatusCode::OK)).await,
        (&Method::GET, "/v1/models") => {
            let list = models::list(&server.models(), server.settings.context_tokens, unix_seconds() as u64);
            unless_hanging(server, json(StatusCode::OK, list)).await
        }
        (&Method::GET, "/v1/realtime") => realtime::answer(server, request),
        (&Method::GET, path) if let Some(answer) = server.stored.answer(path) => answer,
        (&Method::POST, _) => post_answer(server, request).await,
        _ => not_found(),
    }
}

async fn post_answer(server: &Arc<Server>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    match path.as_str() {
        "/v1/load_lora_adapter" => small_requests::change_adapters(server, true, request.into_body()).await,
        "/v1/unload_lora_adapter" => {
            small_requests::change_adapters(server, false, request.into_body()).await
        }
        path if path.ends_with("/render") && server.settings.dialect == Dialect::Vllm => {
            note_model(server, path, request).await;
            json(StatusCode::FORBIDDEN, RENDER_REFUSED.to_owned())
        }
        path => match (Api::at_path(path), SmallApi::at_path(path)) {
            (Some(api), _) => inference::answer(server, api, request).await,
            (None, Some(api)) => small_requests::answer(server, api, request).await,
            (None, None) if let Some(answer) = server.stored.answer(path) => answer,
            (None, None) => no_such_path(server, path, request).await,
        },
    }
}

async fn note_model(server: &Server, path: &str, request: Request<Incoming>) {
    let body = inference::read_body(request.into_body()).await.and_then(|body| parse_json(&body));
    if let Ok(body) = body {
        server.counters.lock().note_model(path, model_of(&body).unwrap_or_default());
    }
}

/// Which model was asked for is noted all the same. One slash too many is sent to the path without it (vLLM 0.32).
async fn no_such_path(server: &Server, path: &str, request: Request<Incoming>) -> Response<Body> {
    let location = request.headers().get(HOST).and_then(|host| location_of(host.to_str().ok()?, path));
    note_model(server, path, request).await;
    location.map_or_else(not_found, |location| {
        let mut response = empty(StatusCode::TEMPORARY_REDIRECT);
        response.headers_mut().insert(LOCATION, location);
        response
    })
}

fn location_of(host: &str, path: &str) -> Option<HeaderValue> {
    let path = path.strip_suffix('/')?;
    let is_known = Api::at_path(path).is_some() || SmallApi::at_path(path).is_some();
    is_known.then(|| HeaderValue::try_from(format!("http://{host}{path}")).ok()).flatten()
}

async fn unless_hanging(server: &Server, response: Response<Body>) -> Response<Body> {
    if server.knobs().hang {
        std::future::pending::<()>().await;
    }
    response
}

fn not_found() -> Response<Body> {
    json(StatusCode::NOT_FOUND, r#"{"detail":"Not Found"}"#.to_owned())
}
