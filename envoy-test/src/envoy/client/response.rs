//! An answer: as it comes, or whole.

use super::within_limit;
use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use serde_json::Value;
use std::time::{Duration, Instant};

/// A part of a body, as it came.
#[derive(Debug, Clone)]
pub struct Chunk {
    pub data: Bytes,
    /// Counted from the sending of the request.
    pub arrived_after: Duration,
}

/// An answer whose body is still coming. Dropping it before its end is a client that leaves.
pub struct ResponseStream {
    pub status: u16,
    pub headers: HeaderMap,
    /// There once the body ended.
    pub trailers: Option<HeaderMap>,
    body: Incoming,
    sent_at: Instant,
}

impl ResponseStream {
    pub(super) fn new(answer: hyper::Response<Incoming>, sent_at: Instant) -> Self {
        let (head, body) = answer.into_parts();
        Self { status: head.status.as_u16(), headers: head.headers, trailers: None, body, sent_at }
    }

    /// The next part of the body; none at its end. A body that breaks off is an error.
    pub async fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        within_limit(self.next_chunk_unlimited()).await
    }

    async fn next_chunk_unlimited(&mut self) -> Result<Option<Chunk>> {
        while let Some(frame) = self.body.frame().await {
            match frame.context("the answer broke off")?.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    return Ok(Some(Chunk { data, arrived_after: self.sent_at.elapsed() }));
                }
                Err(other) => self.trailers = other.into_trailers().ok(),
            }
        }
        Ok(None)
    }

    pub(super) async fn rest(mut self) -> Result<Response> {
        let mut chunks = Vec::new();
        while let Some(chunk) = self.next_chunk_unlimited().await? {
            chunks.push(chunk);
        }
        Ok(Response { status: self.status, headers: self.headers, chunks, trailers: self.trailers })
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    /// The body in the parts it came in.
    pub chunks: Vec<Chunk>,
    pub trailers: Option<HeaderMap>,
}

impl Response {
    /// The first header of this name, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub fn body(&self) -> Vec<u8> {
        self.chunks.iter().flat_map(|chunk| chunk.data.iter().copied()).collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body()).into_owned()
    }

    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body())
            .with_context(|| format!("the answer is not JSON: {}", self.text()))
    }
}
