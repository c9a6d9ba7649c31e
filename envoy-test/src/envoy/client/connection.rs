//! One connection to a server.

use super::request::Body;
use super::{Protocol, Request, Response, ResponseStream, within_limit};
use anyhow::{Context, Result};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use std::time::Instant;
use tokio::net::TcpStream;

/// A connection that serves one request after the other, without opening another in between.
pub struct Connection {
    address: SocketAddr,
    sender: Sender,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Connection {
    pub(super) async fn open(address: SocketAddr, protocol: Protocol) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        let stream = TokioIo::new(stream);
        // The tasks end with their connection; what goes wrong on it, the request's future reports.
        let sender = match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(stream).await?;
                tokio::spawn(connection);
                Sender::Http1(sender)
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
                tokio::spawn(connection);
                Sender::Http2(sender)
            }
        };
        Ok(Self { address, sender })
    }

    /// Like [`super::Client::open`], on this connection.
    pub async fn open_stream(&mut self, request: Request) -> Result<ResponseStream> {
        within_limit(self.head_of_answer(request)).await
    }

    /// Like [`super::Client::send`], on this connection.
    pub async fn send(&mut self, request: Request) -> Result<Response> {
        within_limit(async { self.head_of_answer(request).await?.rest().await }).await
    }

    async fn head_of_answer(&mut self, request: Request) -> Result<ResponseStream> {
        let sent_at = Instant::now();
        let answer = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request.into_hyper(self.address, Protocol::Http1)?).await
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request.into_hyper(self.address, Protocol::Http2)?).await
            }
        };
        Ok(ResponseStream::new(answer.context("waiting for an answer")?, sent_at))
    }
}
