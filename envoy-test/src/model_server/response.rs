//! Answers as hyper sends them, with the headers every answer of a real server carries.

use std::io;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::header::{CONTENT_TYPE, HeaderValue, SERVER, VARY};
use hyper::{Response, StatusCode};

/// A body that may come in pieces and may break off.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

pub fn full(content: impl Into<Bytes>) -> Body {
    Full::new(content.into()).map_err(|never| match never {}).boxed_unsync()
}

pub fn json(status: StatusCode, content: String) -> Response<Body> {
    with_type(status, "application/json", full(content))
}

pub fn with_type(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// A number from a knob as a status; knobs are checked when they are set.
pub fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Adds what every answer carries.
pub fn sign(response: &mut Response<Body>, served_by: &HeaderValue, request_id: &str) {
    let headers = response.headers_mut();
    headers.insert(SERVER, HeaderValue::from_static("uvicorn"));
    headers.insert(VARY, HeaderValue::from_static("Origin"));
    headers.insert("x-served-by", served_by.clone());
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert("x-request-id", id);
    }
}
