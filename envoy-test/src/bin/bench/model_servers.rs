//! Model servers that answer at once with the same few bytes, stream the same events at a steady pace, and have a
//! recorded page of metrics. They cost little, so that a machine of two cores is busy with Envoy.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::{Context, Result};
use envoy_test::model_server::RENDER_REFUSED;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::sleep;

use crate::message::{Message, MessageStream};

/// What every request but one for metrics is answered.
pub const ANSWER: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"llama","choices":[{"index":0,"message":{"role":"assistant","content":"Yes."},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}"#;

/// What a request's body says that is answered with a stream.
pub const STREAMING: &str = r#""stream":true"#;
/// Events with output in a stream.
pub const STREAM_EVENTS: usize = 200;
/// One of them, as long as vLLM's.
const EVENT: &str = r#"data: {"id":"chatcmpl-91a80df6f288df33","object":"chat.completion.chunk","created":1,"model":"llama","choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null,"token_ids":null}]}"#;
/// The event more for those that ask for their usage.
const USAGE_EVENT: &str = r#"data: {"id":"chatcmpl-91a80df6f288df33","object":"chat.completion.chunk","created":1,"model":"llama","choices":[],"usage":{"prompt_tokens":9,"total_tokens":209,"completion_tokens":200}}"#;
/// Between two events, so that Envoy gets each by itself.
const PACE: Duration = Duration::from_millis(2);

/// A page of a busy vLLM with adapters, 66 KB.
const METRICS: &str = include_str!("../../../../tests/fixtures/vllm-0.32/metrics_queue_lora.txt");
/// That server had requests queued and a small KV cache; these have neither, so that no pod seems better than the others.
const REQUESTS: &str = "vllm:num_requests_";
const SMALL_CACHE: &str = r#"kv_cache_size_tokens="9600""#;
const LARGE_CACHE: &str = r#"kv_cache_size_tokens="9600000""#;

/// The answers to requests, one for all servers and connections.
static ANSWERED: LazyLock<Vec<u8>> = LazyLock::new(|| response("application/json", ANSWER));
/// As vLLM 0.32 answers whoever asks which tokens a prompt has.
static RENDER: LazyLock<Vec<u8>> =
    LazyLock::new(|| response_with("403 Forbidden", "application/json", RENDER_REFUSED));
/// What some gateways ask for before they send any request: the list of vLLM 0.32, with fewer fields.
static MODELS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    response(
        "application/json",
        r#"{"object":"list","data":[{"id":"llama","object":"model","owned_by":"vllm"}]}"#,
    )
});
static IDLE: LazyLock<Vec<u8>> = LazyLock::new(|| response("text/plain", &page(Page::Idle)));
static BUSY: LazyLock<Vec<u8>> = LazyLock::new(|| response("text/plain", &page(Page::Busy)));

/// What servers say of their load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Page {
    /// Nothing runs.
    Idle,
    /// As much as was recorded: others' requests.
    Busy,
}

impl Page {
    fn response(self) -> &'static [u8] {
        match self {
            Page::Idle => &IDLE,
            Page::Busy => &BUSY,
        }
    }
}

fn page(page: Page) -> String {
    let idle = |line: &str| match line.rsplit_once(' ') {
        Some((name, _)) if page == Page::Idle && line.starts_with(REQUESTS) => format!("{name} 0.0\n"),
        _ => format!("{line}\n"),
    };
    METRICS.lines().map(idle).collect::<String>().replace(SMALL_CACHE, LARGE_CACHE)
}

/// Where its end is asked which tokens a prompt has.
const RENDER_PATH: &str = "/render ";

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
        ModelServers::start_with(runtime, count, Page::Idle)
    }

    /// The same, with this page.
    pub fn start_with(runtime: &Runtime, count: u32, page: Page) -> Result<ModelServers> {
        let counters = Arc::new(Counters::default());
        let mut addresses = Vec::new();
        for index in 0..count {
            let ip = Ipv4Addr::from(u32::from(FIRST_ADDRESS) + index);
            let listener = runtime.block_on(TcpListener::bind((ip, 0))).context("starting model servers")?;
            addresses.push(listener.local_addr()?);
            runtime.spawn(accept(listener, page, counters.clone()));
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

async fn accept(listener: TcpListener, page: Page, counters: Arc<Counters>) {
    let Ok(address) = listener.local_addr() else { return };
    let own_name: Arc<str> = address.to_string().into();
    while let Ok((stream, _)) = listener.accept().await {
        // A connection that breaks is seen by the client, which fails for want of an answer.
        tokio::spawn(serve(stream, own_name.clone(), page, counters.clone()));
    }
}

async fn serve(stream: TcpStream, own_name: Arc<str>, page: Page, counters: Arc<Counters>) -> Result<()> {
    let mut stream = MessageStream::new(stream)?;
    while let Some(request) = stream.next().await? {
        if request.head.lines().next().is_some_and(|line| line.contains(RENDER_PATH)) {
            stream.write(&RENDER).await?;
            continue;
        }
        if request.head.starts_with("GET /v1/models ") {
            stream.write(&MODELS).await?;
            continue;
        }
        let scrapes = count(&counters, &request, &own_name);
        let body = std::str::from_utf8(request.body).unwrap_or_default();
        if body.contains(STREAMING) {
            let asks = body.contains(r#""include_usage":true"#);
            stream_events(&stream, asks).await?;
        } else {
            stream.write(if scrapes { page.response() } else { &ANSWERED }).await?;
        }
    }
    Ok(())
}

async fn stream_events(stream: &MessageStream, with_usage: bool) -> Result<()> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write(head.as_bytes()).await?;
    let last = with_usage.then_some(USAGE_EVENT).into_iter().chain(["data: [DONE]"]);
    for event in std::iter::repeat_n(EVENT, STREAM_EVENTS).chain(last) {
        stream.write(format!("{:x}\r\n{event}\n\n\r\n", event.len() + 2).as_bytes()).await?;
        sleep(PACE).await;
    }
    Ok(stream.write(b"0\r\n\r\n").await?)
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
    response_with("200 OK", content_type, body)
}

fn response_with(status: &str, content_type: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}")
        .into()
}
