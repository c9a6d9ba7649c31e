//! The realtime API's WebSocket, byte by byte.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// The example of RFC 6455.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A message as a client sends it: whole, short, and masked with zeros.
fn frame(message: &str) -> Vec<u8> {
    let length = u8::try_from(message.len()).unwrap();
    [&[0x81, 0x80 | length, 0, 0, 0, 0], message.as_bytes()].concat()
}

/// Reads until `end` has come.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(end) {
        seen.push(tokio::time::timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
    }
    String::from_utf8_lossy(&seen).into_owned()
}

#[tokio::test]
async fn a_websocket_is_opened_greeted_and_refused_models_that_there_are_not() {
    let servers = quick();
    let mut stream = TcpStream::connect(servers.server(0).address()).await.unwrap();
    let request = format!(
        "GET /v1/realtime HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = read_until(&mut stream, "\r\n\r\n").await.to_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains(&format!("sec-websocket-accept: {}", ACCEPT.to_lowercase())), "{head}");
    let greeting = read_until(&mut stream, "}").await;
    assert!(greeting.contains(r#""type":"session.created""#), "{greeting}");
    for (message, code) in [
        (r#"{"type":"session.update","model":"nope"}"#, "model_not_found"),
        (r#"{"type":"else"}"#, "unknown_event"),
        ("{", "invalid_json"),
    ] {
        stream.write_all(&frame(message)).await.unwrap();
        let said = read_until(&mut stream, "}").await;
        assert!(said.contains(code), "{said}");
    }
    assert_eq!(servers.server(0).counters().requests_to_for("/v1/realtime", "nope"), 1);
}

#[tokio::test]
async fn without_a_key_nothing_is_opened() {
    let servers = quick();
    assert_eq!(get(&servers.server(0), "/v1/realtime").await.status, 426);
}
