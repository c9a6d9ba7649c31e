//! Reads the pods' own metrics while requests are sent: for the pictures, and for whoever picks by them.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use inference_picker::metrics::{EndpointMetrics, ModelServer, read};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::envoy::{Client, Connection, Protocol, Request};

/// How long a pod has to answer a look.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pods of a pool and what they say, from the moment they are watched.
pub struct PodsWatch {
    addresses: Vec<SocketAddr>,
    pods: Mutex<Vec<Pod>>,
}

/// What was read of one pod.
#[derive(Debug, Clone, Default)]
pub struct Pod {
    /// `None` if the last look failed.
    pub latest: Option<EndpointMetrics>,
    /// Of the first look that succeeded.
    pub first: Option<EndpointMetrics>,
    /// Of the last one that did.
    pub last: Option<EndpointMetrics>,
    /// When, and the share of the KV cache in use.
    pub kv_cache: Vec<(Duration, f64)>,
}

impl PodsWatch {
    pub fn new(addresses: Vec<SocketAddr>) -> PodsWatch {
        let pods = vec![Pod::default(); addresses.len()];
        PodsWatch { addresses, pods: Mutex::new(pods) }
    }

    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub fn pods(&self) -> MutexGuard<'_, Vec<Pod>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads every pod once.
    pub async fn look_at_all(&self, started_at: Instant) {
        let looks = (0..self.addresses.len()).map(async |pod| self.look_at(pod, &mut None, started_at).await);
        futures_util::future::join_all(looks).await;
    }

    /// Reads every pod at this interval until that has ended; what is kept counts from `started_at`.
    pub async fn run(&self, every: Duration, started_at: Instant, ended: &Notify) {
        let watches = (0..self.addresses.len()).map(|pod| self.watch(pod, every, started_at));
        tokio::select! {
            _ = futures_util::future::join_all(watches) => ended.notified().await,
            () = ended.notified() => {}
        }
        self.look_at_all(started_at).await;
    }

    async fn watch(&self, pod: usize, every: Duration, started_at: Instant) {
        let mut connection = None;
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look_at(pod, &mut connection, started_at).await;
        }
    }

    async fn look_at(&self, pod: usize, kept: &mut Option<Connection>, started_at: Instant) {
        let client = Client::new(self.addresses[pod], Protocol::Http1);
        let metrics = timeout(PATIENCE, metrics(client, kept)).await;
        let now = started_at.elapsed();
        self.pods()[pod].note(metrics.ok().and_then(Result::ok), now);
    }
}

/// Asks over the connection of the last time, if there is one.
async fn metrics(client: Client, kept: &mut Option<Connection>) -> Result<EndpointMetrics> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => client.connect().await?,
    };
    let mut answer = connection.open_stream(Request::get("/metrics")).await?;
    let mut page = Vec::new();
    while let Some(chunk) = answer.next_chunk().await? {
        page.extend_from_slice(&chunk.data);
    }
    *kept = Some(connection);
    ensure!(answer.status == 200, "metrics were answered with {}", answer.status);
    Ok(read(ModelServer::Vllm, &page)?)
}

impl Pod {
    fn note(&mut self, metrics: Option<EndpointMetrics>, now: Duration) {
        if let Some(metrics) = &metrics {
            self.kv_cache.push((now, f64::from(metrics.kv_cache_utilization.unwrap_or_default())));
            self.first.get_or_insert_with(|| metrics.clone());
            self.last = Some(metrics.clone());
        }
        self.latest = metrics;
    }

    /// Prompt tokens looked up in the prefix cache while it was watched, and those of them that were found.
    pub fn prefix_cache(&self) -> (f64, f64) {
        let (Some(first), Some(last)) = (&self.first, &self.last) else { return (0.0, 0.0) };
        let grown = |of: fn(&EndpointMetrics) -> Option<f64>| {
            of(last).unwrap_or_default() - of(first).unwrap_or_default()
        };
        (grown(|metrics| metrics.prefix_cache_queries), grown(|metrics| metrics.prefix_cache_hits))
    }
}
