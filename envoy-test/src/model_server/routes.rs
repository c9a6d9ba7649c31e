//! Which path is answered by what.

use std::convert::Infallible;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};

use super::answers::models;
use super::metrics::unix_seconds;
use super::request::Api;
use super::response::{Body, empty, json, sign};
use super::server::Server;
use super::{control, inference, scrape};

/// Answers any request to one of `servers`.
pub async fn answer(
    servers: Arc<[Arc<Server>]>,
    server: Arc<Server>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    server.counters.lock().note_path(request.uri().path());
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
    let path = request.uri().path();
    match (request.method(), path) {
        (&Method::GET, "/metrics") => scrape::answer(server).await,
        (&Method::GET, "/health") => unless_hanging(server, empty(StatusCode::OK)).await,
        (&Method::GET, "/v1/models") => {
            let list = models::list(&server.settings, unix_seconds() as u64);
            unless_hanging(server, json(StatusCode::OK, list)).await
        }
        (&Method::POST, "/v1/audio/transcriptions") => inference::transcribe(server, request).await,
        (&Method::POST, path) => match Api::at_path(path) {
            Some(api) => inference::answer(server, api, request).await,
            None => not_found(),
        },
        _ => not_found(),
    }
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
