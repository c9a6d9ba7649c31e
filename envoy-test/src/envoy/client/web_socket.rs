//! A WebSocket's client, over HTTP/1.1 (RFC 6455) and over HTTP/2 (extended CONNECT, RFC 8441). Over HTTP/2 it sends the key
//! too, which RFC 8441 has no use for: Envoy adds none for a server that speaks HTTP/1.1 and refuses a handshake without.

use anyhow::{Context, Result, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper::ext::Protocol as ConnectProtocol;
use hyper::header::HeaderMap;
use hyper::{Method, Request, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{Protocol, within_limit};

/// What carries a WebSocket: a connection, or a stream of one.
trait Carrier: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Carrier for T {}

/// An open WebSocket. Dropping it is a client that leaves.
pub struct WebSocket {
    socket: WebSocketStream<Box<dyn Carrier>>,
    headers: HeaderMap,
}

impl WebSocket {
    /// Opens one; an answer that is no consent is an error.
    pub async fn open(address: SocketAddr, protocol: Protocol, path: &str) -> Result<Self> {
        within_limit(async {
            match protocol {
                Protocol::Http1 => Self::open_by_upgrade(address, path).await,
                Protocol::Http2 => Self::open_by_connect(address, path).await,
            }
        })
        .await
    }

    async fn open_by_upgrade(address: SocketAddr, path: &str) -> Result<Self> {
        let stream: Box<dyn Carrier> = Box::new(TcpStream::connect(address).await?);
        let (socket, answer) =
            tokio_tungstenite::client_async(format!("ws://{address}{path}"), stream).await?;
        Ok(Self { socket, headers: answer.headers().clone() })
    }

    async fn open_by_connect(address: SocketAddr, path: &str) -> Result<Self> {
        let stream = TokioIo::new(TcpStream::connect(address).await?);
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(Method::CONNECT)
            .version(Version::HTTP_2)
            .uri(format!("http://{address}{path}"))
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", generate_key())
            .extension(ConnectProtocol::from_static("websocket"))
            .body(Empty::<bytes::Bytes>::new())?;
        let answer = sender.send_request(request).await?;
        ensure!(answer.status() == StatusCode::OK, "the answer's status is {}", answer.status());
        let headers = answer.headers().clone();
        let carrier: Box<dyn Carrier> = Box::new(TokioIo::new(hyper::upgrade::on(answer).await?));
        Ok(Self { socket: WebSocketStream::from_raw_socket(carrier, Role::Client, None).await, headers })
    }

    /// A header of the answer to the handshake.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Sends an event.
    pub async fn send(&mut self, event: &Value) -> Result<()> {
        Ok(self.socket.send(Message::text(event.to_string())).await?)
    }

    /// The next event.
    pub async fn receive(&mut self) -> Result<Value> {
        within_limit(async {
            match self.socket.next().await.context("the connection was closed")?? {
                Message::Text(text) => Ok(serde_json::from_str(&text)?),
                other => bail!("no text came, but {other:?}"),
            }
        })
        .await
    }

    /// Closes it, as both sides agree.
    pub async fn close(mut self) -> Result<()> {
        within_limit(async {
            self.socket.close(None).await?;
            while let Some(Ok(_)) = self.socket.next().await {}
            Ok(())
        })
        .await
    }
}
