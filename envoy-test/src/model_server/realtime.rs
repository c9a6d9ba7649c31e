//! `GET /v1/realtime`: a WebSocket as vLLM 0.32 opens it for transcriptions. It greets with `session.created`, checks the
//! model of a `session.update`, and says of everything else that it does not know it; no audio is transcribed.

use std::io;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::metrics::unix_seconds;
use super::response::{Body, empty};
use super::server::Server;

/// What the key is hashed with (RFC 6455).
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// A whole message of text, and one that ends the connection.
const TEXT_FRAME: u8 = 0x81;
const CLOSE_OPCODE: u8 = 0x8;
/// The longest message that is read, in bytes: the length must fit the second byte, or the two after it.
const SHORT_LENGTH_MAX: usize = 125;
const MEDIUM_LENGTH_MARK: u8 = 126;

/// Switches protocols, and talks until the client leaves.
pub fn answer(server: &Arc<Server>, mut request: Request<Incoming>) -> Response<Body> {
    let Some(accept) = request.headers().get(SEC_WEBSOCKET_KEY).and_then(accept_value) else {
        return empty(StatusCode::UPGRADE_REQUIRED);
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let server = Arc::clone(server);
    tokio::spawn(async move {
        if let Ok(connection) = upgrade.await {
            // It ends when the client leaves, in whatever way.
            let _ = talk(&server, TokioIo::new(connection)).await;
        }
    });
    let mut response = empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

fn accept_value(key: &HeaderValue) -> Option<HeaderValue> {
    let hash = Sha1::new().chain_update(key.as_bytes()).chain_update(KEY_SUFFIX).finalize();
    HeaderValue::try_from(BASE64_STANDARD.encode(hash)).ok()
}

async fn talk(server: &Server, mut connection: TokioIo<Upgraded>) -> io::Result<()> {
    let id = format!("sess-{}", server.next_id());
    let created = json!({"type": "session.created", "id": id, "created": unix_seconds() as u64});
    send(&mut connection, &created).await?;
    while let Some(message) = receive(&mut connection).await? {
        if let Some(reply) = reply_to(server, &message) {
            send(&mut connection, &reply).await?;
        }
    }
    Ok(())
}

/// A known model is taken without a word.
fn reply_to(server: &Server, message: &[u8]) -> Option<Value> {
    let error = |message: String, code: &str| Some(json!({"type": "error", "error": message, "code": code}));
    let Ok(event) = serde_json::from_slice::<Value>(message) else {
        return error("Invalid JSON".to_owned(), "invalid_json");
    };
    if event["type"] != "session.update" {
        return error(format!("Unknown event type: {}", event["type"]), "unknown_event");
    }
    let model = event["model"].as_str().unwrap_or_default();
    server.counters.lock().note_model("/v1/realtime", model);
    let known = server.models().serves(model);
    if known { None } else { error(format!("The model `{model}` does not exist."), "model_not_found") }
}

async fn send(connection: &mut TokioIo<Upgraded>, event: &Value) -> io::Result<()> {
    let text = event.to_string();
    let mut frame = vec![TEXT_FRAME];
    match u8::try_from(text.len()) {
        Ok(length) if usize::from(length) <= SHORT_LENGTH_MAX => frame.push(length),
        _ => {
            frame.push(MEDIUM_LENGTH_MARK);
            frame.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    frame.extend(text.as_bytes());
    connection.write_all(&frame).await
}

/// The next message of a client, unmasked; none when it closes.
async fn receive(connection: &mut TokioIo<Upgraded>) -> io::Result<Option<Vec<u8>>> {
    let mut head = [0; 2];
    connection.read_exact(&mut head).await?;
    let [kind, length] = head;
    let length = match length & 0x7f {
        MEDIUM_LENGTH_MARK => usize::from(connection.read_u16().await?),
        short => usize::from(short),
    };
    let mut mask = [0; 4];
    connection.read_exact(&mut mask).await?;
    let mut message = vec![0; length];
    connection.read_exact(&mut message).await?;
    for (byte, mask) in message.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    Ok((kind & 0xf != CLOSE_OPCODE).then_some(message))
}
