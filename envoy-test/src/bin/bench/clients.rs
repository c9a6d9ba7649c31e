//! Clients that each send one request after the other on a connection that is kept, as fast as they are answered.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::message::MessageStream;
use crate::model_servers::{ANSWER, STREAM_EVENTS, STREAMING};

/// Enough to keep one worker thread of Envoy busy all the time.
const CLIENTS: u64 = 16;

/// Streams take a while whatever Envoy does; with so many it is busy for a good part of the time.
const STREAMING_CLIENTS: u64 = 64;

/// The parts of streams that may come joined with others, in hundredths; of more it is not known what each costs.
const JOINED_PERCENT_MAX: u64 = 10;

/// What stands in a request for the client's number, in as many digits as there are letters `x`: by it a session is named, of
/// which each client has its own.
pub const CLIENT: &str = "client-xx";

pub struct Clients {
    connections: Vec<MessageStream>,
}

impl Clients {
    /// Connects as many as such a request needs.
    pub async fn connect(address: SocketAddr, request: &[u8]) -> Result<Clients> {
        let clients = if is_streaming(request) { STREAMING_CLIENTS } else { CLIENTS };
        Clients::connect_many(address, clients).await
    }

    /// Connects so many.
    pub async fn connect_many(address: SocketAddr, clients: u64) -> Result<Clients> {
        let mut connections = Vec::new();
        for _ in 0..clients {
            connections.push(MessageStream::new(TcpStream::connect(address).await?)?);
        }
        Ok(Clients { connections })
    }

    /// Sends the request `count` times or a few times more, the same number by each client. Returns how often, when
    /// all have been answered as they should be.
    pub async fn send(&mut self, request: &Arc<[u8]>, count: u64) -> Result<u64> {
        let clients = self.connections.len() as u64;
        let count_each = count.div_ceil(clients);
        let name_at = request.windows(CLIENT.len()).position(|window| window == CLIENT.as_bytes());
        let mut tasks = JoinSet::new();
        for (number, connection) in self.connections.drain(..).enumerate() {
            tasks.spawn(send_repeatedly(connection, of_client(request, name_at, number), count_each));
        }
        let mut parts = 0;
        while let Some(ended) = tasks.join_next().await {
            let (connection, own_parts) = ended??;
            self.connections.push(connection);
            parts += own_parts;
        }
        if is_streaming(request) {
            let events = STREAM_EVENTS as u64 * count_each * clients;
            let least = events * (100 - JOINED_PERCENT_MAX) / 100;
            ensure!(
                parts >= least,
                "streams of {events} events came in {parts} parts: the machine is too busy"
            );
        }
        Ok(count_each * clients)
    }
}

/// The request as the client of this number sends it, whose name is at this place if it is in there.
fn of_client(request: &Arc<[u8]>, name_at: Option<usize>, number: usize) -> Arc<[u8]> {
    let Some((before, rest)) = name_at.and_then(|place| request.split_at_checked(place)) else {
        return request.clone();
    };
    let name = format!("client-{number:02}");
    [before, name.as_bytes(), &rest[CLIENT.len()..]].concat().into()
}

/// Returns in how many parts streams came, too.
async fn send_repeatedly(
    mut connection: MessageStream,
    request: Arc<[u8]>,
    count: u64,
) -> Result<(MessageStream, u64)> {
    let streamed = is_streaming(&request);
    let mut parts = 0;
    for _ in 0..count {
        connection.write(&request).await?;
        if streamed {
            parts += connection.next_stream().await? as u64;
            continue;
        }
        let answer = connection.next().await?.context("Envoy closed the connection")?;
        let is_right = answer.head.starts_with("HTTP/1.1 200 ") && answer.body == ANSWER.as_bytes();
        ensure!(is_right, "not the answer expected: {}{}", answer.head, String::from_utf8_lossy(answer.body));
    }
    Ok((connection, parts))
}

/// Whether a request asks for a stream.
pub fn is_streaming(request: &[u8]) -> bool {
    request.windows(STREAMING.len()).any(|window| window == STREAMING.as_bytes())
}
