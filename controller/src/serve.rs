//! Health and metrics over HTTP: `/healthz`, `/readyz`, `/metrics`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::store::Store;

/// Bytes of a request that are read; its first line is all that counts.
const MAX_REQUEST_BYTES: usize = 4_096;
/// How long a client may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is counted.
#[derive(Debug, Default)]
pub struct Counters {
    /// Times that it was worked out what there should be.
    pub plans: AtomicU64,
    /// Times that this, or writing it, failed.
    pub failures: AtomicU64,
    /// Resources written or deleted.
    pub writes: AtomicU64,
    /// Statuses written.
    pub statuses: AtomicU64,
    /// Resources that are refused now.
    pub refused: AtomicU64,
    /// Whether it is this controller that works.
    pub is_leader: AtomicBool,
}

impl Counters {
    /// One more.
    pub fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn page(&self) -> String {
        let leader = u64::from(self.is_leader.load(Ordering::Relaxed));
        let values = [
            ("plans_total", "counter", self.plans.load(Ordering::Relaxed)),
            ("failures_total", "counter", self.failures.load(Ordering::Relaxed)),
            ("writes_total", "counter", self.writes.load(Ordering::Relaxed)),
            ("statuses_written_total", "counter", self.statuses.load(Ordering::Relaxed)),
            ("refused_resources", "gauge", self.refused.load(Ordering::Relaxed)),
            ("leader", "gauge", leader),
        ];
        let lines = values.map(|(name, kind, value)| {
            let name = format!("inference_picker_controller_{name}");
            format!("# TYPE {name} {kind}\n{name} {value}\n")
        });
        lines.concat()
    }
}

/// Answers for as long as the process lives.
pub async fn serve(listener: TcpListener, store: Arc<Store>, counters: Arc<Counters>) {
    loop {
        let Ok((connection, _)) = listener.accept().await else { continue };
        let (store, counters) = (Arc::clone(&store), Arc::clone(&counters));
        tokio::spawn(async move {
            // A client that is too slow gets no answer.
            let _ = tokio::time::timeout(PATIENCE, answer(connection, &store, &counters)).await;
        });
    }
}

async fn answer(mut connection: TcpStream, store: &Store, counters: &Counters) -> std::io::Result<()> {
    let mut request = [0; MAX_REQUEST_BYTES];
    let read = connection.read(&mut request).await?;
    let line = request.get(..read).unwrap_or_default();
    let path = String::from_utf8_lossy(line).split(' ').nth(1).unwrap_or_default().to_owned();
    let (status, body) = match path.as_str() {
        "/healthz" => ("200 OK", "ok\n".to_owned()),
        "/readyz" if store.is_ready() => ("200 OK", "ok\n".to_owned()),
        "/readyz" => ("503 Service Unavailable", "not everything has been listed yet\n".to_owned()),
        "/metrics" => ("200 OK", counters.page()),
        _ => ("404 Not Found", "there are /healthz, /readyz and /metrics\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    connection.write_all(format!("{head}{body}").as_bytes()).await?;
    connection.shutdown().await
}
