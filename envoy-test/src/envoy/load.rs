//! Clients that keep a gateway busy: each sends a request, reads its answer to the end, rests, and sends the next.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::runtime::{Builder, Runtime};

use super::{Client, Request};

/// Runs until it is dropped.
pub struct Load {
    _runtime: Runtime,
}

impl Load {
    /// `clients` at once, each resting for up to `rest_max`; `request` makes the request number so many.
    pub fn start(
        client: Client,
        clients: usize,
        rest_max: Duration,
        request: impl Fn(usize) -> Request + Send + Sync + 'static,
    ) -> Result<Load> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let request = Arc::new(request);
        for first in 0..clients {
            let request = Arc::clone(&request);
            runtime.spawn(async move {
                for index in (first..).step_by(clients) {
                    tokio::time::sleep(rest_max.mul_f64(fastrand::f64())).await;
                    // Whether it is answered is for those to say who look at the gateway.
                    let _ = client.send(request(index)).await;
                }
            });
        }
        Ok(Load { _runtime: runtime })
    }
}
