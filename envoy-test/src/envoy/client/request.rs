//! A request, and the many ways its body can be sent.

use anyhow::{Result, anyhow};
use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use http_body_util::{Either, Full};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, TRAILER};
use hyper::{Method, Uri};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;

use super::Protocol;

pub(super) type Body = Either<Full<Bytes>, Channel<Bytes>>;

/// How many frames may wait for the connection to take them.
const FRAME_QUEUE_LENGTH: usize = 1;

/// A request to send. The body goes out whole and with its length, unless [`Request::in_frames_of`] or
/// [`Request::trailer`] ask for a stream of frames (chunked in HTTP/1.1).
#[derive(Debug, Clone)]
pub struct Request {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    frame_bytes: Option<usize>,
    pause: Duration,
    trailers: HeaderMap,
}

impl Request {
    pub fn new(method: Method, path: &str) -> Self {
        Self {
            method,
            path: path.to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            frame_bytes: None,
            pause: Duration::ZERO,
            trailers: HeaderMap::new(),
        }
    }

    pub fn get(path: &str) -> Self {
        Self::new(Method::GET, path)
    }

    pub fn post(path: &str) -> Self {
        Self::new(Method::POST, path)
    }

    /// Adds a header; the value may be any bytes a header may hold, also such as are not UTF-8.
    #[track_caller]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        append(&mut self.headers, name, value.as_ref());
        self
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub fn json(mut self, body: &Value) -> Self {
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.body(body.to_string())
    }

    /// Sends the body as a stream of frames of so many bytes, without announcing its length.
    pub fn in_frames_of(mut self, frame_bytes: usize) -> Self {
        self.frame_bytes = Some(frame_bytes.max(1));
        self
    }

    /// Waits before every frame but the first, and before the trailers.
    pub fn pausing(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Adds a trailer, sent behind the body.
    #[track_caller]
    pub fn trailer(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        append(&mut self.trailers, name, value.as_ref());
        self
    }

    /// The request as hyper sends it. Must be called in a runtime: a streamed body is fed by a task of its own.
    pub(super) fn into_hyper(
        mut self,
        address: SocketAddr,
        protocol: Protocol,
    ) -> Result<hyper::Request<Body>> {
        let host = self.headers.remove(HOST).map_or_else(|| Ok(address.to_string().parse()?), anyhow::Ok)?;
        let mut request = hyper::Request::new(Either::Left(Full::default()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target(&host, protocol)?;
        *request.headers_mut() = self.headers.clone();
        if protocol == Protocol::Http1 {
            request.headers_mut().insert(HOST, host);
            // hyper sends only the trailers that are announced.
            for name in self.trailers.keys() {
                request.headers_mut().append(TRAILER, name.as_str().parse()?);
            }
        }
        *request.body_mut() = self.into_body();
        Ok(request)
    }

    /// HTTP/2 takes the authority from an absolute address; HTTP/1.1 has the path alone and the header `host`.
    fn target(&self, host: &HeaderValue, protocol: Protocol) -> Result<Uri> {
        match protocol {
            Protocol::Http1 => Ok(self.path.parse()?),
            Protocol::Http2 => Ok(format!("http://{}{}", host.to_str()?, self.path).parse()?),
        }
    }

    fn into_body(self) -> Body {
        if self.frame_bytes.is_none() && self.trailers.is_empty() {
            return Either::Left(Full::new(self.body));
        }
        let (sender, body) = Channel::new(FRAME_QUEUE_LENGTH);
        tokio::spawn(self.feed(sender));
        Either::Right(body)
    }

    /// Ends early where the connection no longer takes the body, as when the server answered before its end.
    async fn feed(self, mut sender: Sender<Bytes>) -> Result<()> {
        let gone = |_| anyhow!("the connection no longer takes the body");
        let frame_bytes = self.frame_bytes.unwrap_or(self.body.len()).max(1);
        for (index, frame) in self.body.chunks(frame_bytes).enumerate() {
            if index > 0 {
                tokio::time::sleep(self.pause).await;
            }
            sender.send_data(self.body.slice_ref(frame)).await.map_err(gone)?;
        }
        if !self.trailers.is_empty() {
            tokio::time::sleep(self.pause).await;
            sender.send_trailers(self.trailers).await.map_err(gone)?;
        }
        Ok(())
    }
}

#[track_caller]
fn append(headers: &mut HeaderMap, name: &str, value: &[u8]) {
    match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value)) {
        (Ok(name), Ok(value)) => headers.append(name, value),
        _ => panic!("{name:?} with this value is no header; a RawConnection sends what is not HTTP"),
    };
}
