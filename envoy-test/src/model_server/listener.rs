//! A server's port: takes connections, and closes all of them when the server is told to refuse.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::routes;
use super::server::Server;

/// Pause before another try to take the port back, or to accept after an error such as too many open files.
const RETRY: Duration = Duration::from_millis(10);

/// Opens a port that [`run`] can serve.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves until the task is dropped.
pub async fn run(servers: Arc<[Arc<Server>]>, server: Arc<Server>, first: std::net::TcpListener) {
    let mut knobs = server.watch_knobs();
    let mut listener = Some(first);
    loop {
        let Some(open) = listener.take().or_else(|| bind(server.address).ok()) else {
            tokio::time::sleep(RETRY).await;
            continue;
        };
        let Ok(open) = TcpListener::from_std(open) else {
            continue;
        };
        server.listening().send_replace(true);
        let mut connections = JoinSet::new();
        tokio::select! {
            () = accept(&servers, &server, open, &mut connections) => {}
            _ = knobs.wait_for(|knobs| knobs.refuse) => {}
        }
        connections.shutdown().await;
        server.listening().send_replace(false);
        // Fails only if the server itself is gone.
        let _ = knobs.wait_for(|knobs| !knobs.refuse).await;
    }
}

/// Never ends by itself. The listener closes when the future is dropped.
async fn accept(
    servers: &Arc<[Arc<Server>]>,
    server: &Arc<Server>,
    listener: TcpListener,
    connections: &mut JoinSet<()>,
) {
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(Arc::clone(servers), Arc::clone(server), stream));
                }
                Err(_) => tokio::time::sleep(RETRY).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(servers: Arc<[Arc<Server>]>, server: Arc<Server>, stream: TcpStream) {
    // Without it, small events wait for the acknowledgement of the ones before.
    let _ = stream.set_nodelay(true);
    let service =
        service_fn(move |request| routes::answer(Arc::clone(&servers), Arc::clone(&server), request));
    // A connection that ends badly is the client's doing, or was asked for by a knob.
    let builder = auto::Builder::new(TokioExecutor::new());
    let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
}
