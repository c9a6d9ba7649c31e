//! A server that answers with what it was sent, so that tests see what really went over the wire.

use anyhow::Result;
use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::thread;
use tokio::net::TcpListener;

/// Answers HTTP/1.1 and HTTP/2 until the test program ends.
pub struct EchoServer {
    pub address: SocketAddr,
}

impl EchoServer {
    pub fn start() -> Self {
        let (tell_address, address) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell_address.send(listener.local_addr().unwrap()).unwrap();
                accept_all(listener).await;
            });
        });
        Self { address: address.recv().unwrap() }
    }
}

async fn accept_all(listener: TcpListener) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let server = Builder::new(TokioExecutor::new());
            // A client that leaves is no concern of the echo.
            let _ = server.serve_connection(TokioIo::new(stream), service_fn(echo)).await;
        });
    }
}

/// Each frame of the answer's body is one fact, so that the answer comes in several frames.
async fn echo(request: Request<Incoming>) -> Result<Response<Channel<Bytes>>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?;
    let trailers = body.trailers().map(names_and_values);
    let seen = json!({
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "version": format!("{:?}", head.version),
        "headers": names_and_values(&head.headers),
        "trailers": trailers,
        "body": String::from_utf8_lossy(&body.to_bytes()),
    });
    let (mut sender, body) = Channel::new(1);
    tokio::spawn(async move {
        for half in halves(&seen.to_string()) {
            let _ = sender.send_data(Bytes::from(half)).await;
            tokio::task::yield_now().await;
        }
    });
    Ok(Response::new(body))
}

fn halves(text: &str) -> [String; 2] {
    let (first, second) = text.split_at(text.len() / 2);
    [first.to_owned(), second.to_owned()]
}

fn names_and_values(headers: &HeaderMap) -> Value {
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes())))
        .collect()
}
