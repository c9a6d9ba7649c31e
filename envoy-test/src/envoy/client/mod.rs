//! A small HTTP client for tests, which shows what other clients hide: frames, pauses, trailers, and when each part
//! of an answer came.
//!
//! It speaks cleartext HTTP/1.1 and HTTP/2 (prior knowledge). It does not follow redirects, retry, or keep
//! connections: each request has a connection of its own unless the test opens a [`Connection`] and keeps it.

mod connection;
mod raw;
mod request;
mod response;
mod web_socket;

use super::blocking;
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;

pub use connection::Connection;
pub use raw::RawConnection;
pub use request::Request;
pub use response::{Chunk, Response, ResponseStream};
pub use web_socket::WebSocket;

/// No test waits longer for an answer: Envoy's route timeout is 15 s unless a test sets another.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

#[derive(Debug, Clone, Copy)]
pub struct Client {
    address: SocketAddr,
    protocol: Protocol,
}

impl Client {
    pub fn new(address: SocketAddr, protocol: Protocol) -> Self {
        Self { address, protocol }
    }

    pub async fn connect(&self) -> Result<Connection> {
        Connection::open(self.address, self.protocol).await
    }

    /// Sends a request and returns when the head of the answer is here; its body is read from the stream.
    /// Dropping the stream before its end is a client that leaves.
    pub async fn open(&self, request: Request) -> Result<ResponseStream> {
        self.connect().await?.open_stream(request).await
    }

    /// Sends a request and returns the whole answer.
    pub async fn send(&self, request: Request) -> Result<Response> {
        self.connect().await?.send(request).await
    }

    /// Opens a connection for each request first, then sends all at once. The answers are in the requests' order.
    pub async fn burst(&self, requests: Vec<Request>) -> Result<Vec<Result<Response>>> {
        let mut ready = Vec::with_capacity(requests.len());
        for request in requests {
            ready.push((self.connect().await?, request));
        }
        let sent: Vec<_> = ready
            .into_iter()
            .map(|(mut connection, request)| tokio::spawn(async move { connection.send(request).await }))
            .collect();
        let mut answers = Vec::with_capacity(sent.len());
        for answer in sent {
            answers.push(answer.await.context("a request of the burst panicked")?);
        }
        Ok(answers)
    }

    pub fn send_blocking(&self, request: Request) -> Result<Response> {
        blocking::wait_for(self.send(request))
    }

    pub fn burst_blocking(&self, requests: Vec<Request>) -> Result<Vec<Result<Response>>> {
        blocking::wait_for(self.burst(requests))
    }
}

async fn within_limit<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(ANSWER_LIMIT, work)
        .await
        .with_context(|| format!("no complete answer within {ANSWER_LIMIT:?}"))?
}
