//! Exchanges recorded from a real vLLM, replayed: requests, answers and metrics pages as they came.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use crate::gateway::{BODY_MODES, Setup};
use envoy_test::envoy::binary::project_root;
use envoy_test::envoy::{Client, Protocol, Request};

pub fn fixture(name: &str) -> Vec<u8> {
    let file: PathBuf = project_root().join("tests/fixtures/vllm-0.32").join(name);
    std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The body of a recorded answer.
pub fn recorded_body(name: &str) -> Vec<u8> {
    recorded_body_of("vllm-0.32", name)
}

/// The body of an answer that this server gave.
pub fn recorded_body_of(server: &str, name: &str) -> Vec<u8> {
    let file = project_root().join("tests/fixtures").join(server).join(name);
    let answer = std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    answer[end + 4..].to_vec()
}

/// A server that answers `/metrics` with a recorded page, and any other request with a recorded body, cut in
/// pieces of a few bytes.
fn replay(page: &str, answer: &str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (page, answer) = (Arc::new(fixture(page)), Arc::new(recorded_body(answer)));
    let kind =
        if answer.starts_with(b"data:") { "text/event-stream; charset=utf-8" } else { "application/json" };
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (page, answer) = (page.clone(), answer.clone());
            std::thread::spawn(move || serve(stream, &page, kind, &answer));
        }
    });
    address
}

fn serve(mut stream: TcpStream, page: &[u8], kind: &str, answer: &[u8]) -> std::io::Result<()> {
    while let Some((head, _)) = read_request(&mut stream)? {
        let scrape = head.starts_with("GET /metrics");
        let (kind, body, piece) = if scrape { ("text/plain", page, page.len()) } else { (kind, answer, 7) };
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n")?;
        for part in body.chunks(piece) {
            write!(stream, "{:x}\r\n", part.len())?;
            stream.write_all(part)?;
            stream.write_all(b"\r\n")?;
        }
        stream.write_all(b"0\r\n\r\n")?;
    }
    Ok(())
}

/// The head and the body of the next request, once both have come, the body as it is on the wire; `None` when the
/// connection is closed.
pub fn read_request(stream: &mut TcpStream) -> std::io::Result<Option<(String, String)>> {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&seen).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let chunked_end = body.ends_with("0\r\n\r\n") || !head.contains("chunked");
            if chunked_end && length.is_none_or(|length| body.len() >= length.parse().unwrap_or(0)) {
                return Ok(Some((head.to_owned(), body.to_owned())));
            }
        }
        match stream.read(&mut buffer)? {
            0 => return Ok(None),
            count => seen.extend(&buffer[..count]),
        }
    }
}

/// A pod with a queue and the adapter lora-a, and one that is idle. The recorded request is picked where `expected`
/// says, its model is in the log, and the recorded answer comes back byte for byte.
fn check(exchange: &str, model: &str, expected: usize, why: &str) {
    for configuration in BODY_MODES {
        let answer = format!("{exchange}.http");
        let pods = [replay("metrics_queue_lora.txt", &answer), replay("metrics_idle.txt", &answer)];
        let gateway = Setup::new(configuration).pods(vec![]).unscraped().start_with(|envoy, _| {
            envoy.place_endpoints(&pods);
        });
        let client = Client::new(gateway.envoy.address(), Protocol::Http1);
        let request = || Request::post("/v1/chat/completions").header("content-type", "application/json");
        crate::gateway::until("both pages are read", || {
            client.send_blocking(request().body(fixture(&format!("{exchange}.req.json")))).unwrap();
            let lines = gateway.envoy.access_log().unwrap();
            let last = lines.last();
            last.is_some_and(|line| {
                line["picked"].as_str().is_some_and(|picked| picked.starts_with(&pods[expected].to_string()))
            }) && last
                .is_some_and(|line| line["decision"].as_str().is_some_and(|decision| decision.contains(why)))
        });
        let answered =
            client.send_blocking(request().body(fixture(&format!("{exchange}.req.json")))).unwrap();
        assert_eq!(answered.body(), recorded_body(&answer), "{configuration}: {exchange}");
        let line = gateway.envoy.access_log().unwrap().pop().unwrap();
        assert_eq!(
            (&line["model"], &line["status"]),
            (&model.into(), &200.into()),
            "{configuration}: {line}"
        );
    }
}

#[test]
fn a_recorded_chat_goes_to_the_idle_server() {
    check("chat", "tiny", 1, " in_flight=0 waiting_tokens=0 queue=0 running=0 kv=0.00");
}

#[test]
fn a_recorded_stream_passes_byte_for_byte() {
    check("chat_stream_usage", "tiny", 1, "queue=0");
}
