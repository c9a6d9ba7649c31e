//! Clients that each send one request after the other on a connection that is kept, as fast as they are answered.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::message::MessageStream;
use crate::model_servers::ANSWER;

/// Enough to keep one worker thread of Envoy busy all the time.
const CLIENTS: u64 = 16;

pub struct Clients {
    connections: Vec<MessageStream>,
}

impl Clients {
    pub async fn connect(address: SocketAddr) -> Result<Clients> {
        let mut connections = Vec::new();
        for _ in 0..CLIENTS {
            connections.push(MessageStream::new(TcpStream::connect(address).await?)?);
        }
        Ok(Clients { connections })
    }

    /// Sends the request `count` times or a few times more, the same number by each client. Returns how often, when
    /// all have been answered as they should be.
    pub async fn send(&mut self, request: &Arc<[u8]>, count: u64) -> Result<u64> {
        let count_each = count.div_ceil(CLIENTS);
        let mut tasks = JoinSet::new();
        for connection in self.connections.drain(..) {
            tasks.spawn(send_repeatedly(connection, request.clone(), count_each));
        }
        while let Some(connection) = tasks.join_next().await {
            self.connections.push(connection??);
        }
        Ok(count_each * CLIENTS)
    }
}

async fn send_repeatedly(
    mut connection: MessageStream,
    request: Arc<[u8]>,
    count: u64,
) -> Result<MessageStream> {
    for _ in 0..count {
        connection.write(&request).await?;
        let answer = connection.next().await?.context("Envoy closed the connection")?;
        let is_right = answer.head.starts_with("HTTP/1.1 200 ") && answer.body == ANSWER.as_bytes();
        ensure!(is_right, "not the answer expected: {}{}", answer.head, String::from_utf8_lossy(answer.body));
    }
    Ok(connection)
}
