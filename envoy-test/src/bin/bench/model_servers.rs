//! Model servers that answer at once with the same few bytes, and with a recorded page of metrics. They cost little,
//! so that a machine of two cores is busy with Envoy.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use crate::message::{Message, MessageStream};

/// What every request but one for metrics is answered.
pub const ANSWER: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"llama","choices":[{"index":0,"message":{"role":"assistant","content":"Yes."},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}"#;

/// A page of a busy vLLM with adapters, 66 KB.
const METRICS: &str = include_str!("../../../../tests/fixtures/vllm-0.32/metrics_queue_lora.txt");

const PICK_HEADER: &str = "x-gateway-destination-endpoint";

/// The first server's IP address; the others have the ones after it.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 1);

/// What all servers together have been asked.
#[derive(Debug, Default)]
pub struct Counters {
    requests: AtomicU64,
    picked_requests: AtomicU64,
    scrapes: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Requests, without those for metrics.
    pub requests: u64,
    /// Those of them that carried a pick, and came to the server that it names first.
    pub picked_requests: u64,
    pub scrapes: u64,
}

pub struct ModelServers {
    pub addresses: Vec<SocketAddr>,
    counters: Arc<Counters>,
}

impl ModelServers {
    /// Starts so many servers, each on an address of its own, until the runtime ends.
    pub fn start(runtime: &Runtime, count: u32) -> Result<ModelServers> {
        let counters = Arc::new(Counters::default());
        let mut addresses = Vec::new();
        for index in 0..count {
            let ip = Ipv4Addr::from(u32::from(FIRST_ADDRESS) + index);
            let listener = runtime.block_on(TcpListener::bind((ip, 0))).context("starting model servers")?;
            addresses.push(listener.local_addr()?);
            runtime.spawn(accept(listener, counters.clone()));
        }
        Ok(ModelServers { addresses, counters })
    }

    pub fn counts(&self) -> Counts {
        Counts {
            requests: self.counters.requests.load(Relaxed),
            picked_requests: self.counters.picked_requests.load(Relaxed),
            scrapes: self.counters.scrapes.load(Relaxed),
        }
    }
}

impl Counts {
    /// What has come since `before`.
    pub fn since(self, before: Counts) -> Counts {
        Counts {
            requests: self.requests - before.requests,
            picked_requests: self.picked_requests - before.picked_requests,
            scrapes: self.scrapes - before.scrapes,
        }
    }
}

async fn accept(listener: TcpListener, counters: Arc<Counters>) {
    let Ok(address) = listener.local_addr() else { return };
    let own_name: Arc<str> = address.to_string().into();
    while let Ok((stream, _)) = listener.accept().await {
        // A connection that breaks is seen by the client, which fails for want of an answer.
        tokio::spawn(serve(stream, own_name.clone(), counters.clone()));
    }
}

async fn serve(stream: TcpStream, own_name: Arc<str>, counters: Arc<Counters>) -> Result<()> {
    let mut stream = MessageStream::new(stream)?;
    let (answer, metrics) = (response("application/json", ANSWER), response("text/plain", METRICS));
    while let Some(request) = stream.next().await? {
        let bytes = if count(&counters, &request, &own_name) { &metrics } else { &answer };
        stream.write(bytes).await?;
    }
    Ok(())
}

/// Counts a request; whether it is one for metrics.
fn count(counters: &Counters, request: &Message<'_>, own_name: &str) -> bool {
    if request.head.starts_with("GET /metrics ") {
        counters.scrapes.fetch_add(1, Relaxed);
        return true;
    }
    counters.requests.fetch_add(1, Relaxed);
    let pick = request.header(PICK_HEADER).and_then(|pick| pick.split(',').next());
    if pick == Some(own_name) {
        counters.picked_requests.fetch_add(1, Relaxed);
    }
    false
}

fn response(content_type: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}")
        .into()
}
