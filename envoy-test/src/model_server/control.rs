//! The tests' own endpoints, which no real server has: `GET` and `POST /sim/knobs`, `GET /sim/counters`.
//!
//! `?server=ip:port` addresses another server of the same process; that is how one that refuses connections
//! is brought back from outside.

use std::sync::Arc;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde_json::Value;

use super::response::{Body, json};
use super::server::Server;

/// Bytes of a body with knobs: they are a few fields.
const KNOBS_BYTES_MAX: usize = 64 << 10;

/// Answers a request below `/sim/`.
pub async fn answer(
    servers: &[Arc<Server>],
    server: &Arc<Server>,
    request: Request<Incoming>,
) -> Response<Body> {
    let Some(server) = addressed(servers, server, request.uri().query()) else {
        return refuse(StatusCode::NOT_FOUND, "no such server");
    };
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/sim/counters") => show(&server.counters.snapshot()),
        (&Method::GET, "/sim/knobs") => show(&server.knobs()),
        (&Method::POST, "/sim/knobs") => set_knobs(&server, request.into_body()).await,
        _ => refuse(StatusCode::NOT_FOUND, "no such path"),
    }
}

fn addressed(servers: &[Arc<Server>], own: &Arc<Server>, query: Option<&str>) -> Option<Arc<Server>> {
    match query.and_then(|query| query.strip_prefix("server=")) {
        Some(address) => servers.iter().find(|server| server.address.to_string() == address).cloned(),
        None => Some(Arc::clone(own)),
    }
}

async fn set_knobs(server: &Server, body: Incoming) -> Response<Body> {
    let Ok(body) = Limited::new(body, KNOBS_BYTES_MAX).collect().await else {
        return refuse(StatusCode::BAD_REQUEST, "the body is too long or broke off");
    };
    let set = server.knobs().patched(&body.to_bytes()).and_then(|knobs| server.set_knobs(knobs));
    match set {
        Ok(()) => show(&server.knobs()),
        Err(error) => refuse(StatusCode::BAD_REQUEST, &error),
    }
}

fn show(value: &impl Serialize) -> Response<Body> {
    match serde_json::to_string(value) {
        Ok(text) => json(StatusCode::OK, text),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn refuse(status: StatusCode, reason: &str) -> Response<Body> {
    json(status, format!(r#"{{"error":{}}}"#, Value::from(reason)))
}
