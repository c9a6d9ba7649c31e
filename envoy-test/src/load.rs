//! Clients that send one request after the other while something happens to the gateway. Every answer is counted.
//!
//! Each request has a connection of its own, so that a connection that is closed under it is the gateway's doing. A
//! request that is not answered within the load's patience counts as failed, and its client leaves.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::{sleep, timeout};

use crate::envoy::{Client, Request};

/// A client whose request failed waits as long before the next, as clients do; and failures do not crowd out the rest.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(20);
/// How much of an answer that is an error is shown.
const SHOWN_BYTES: usize = 200;

/// Who sends what.
#[derive(Clone, Copy)]
pub struct Load<'a> {
    pub client: Client,
    /// How many clients send at the same time.
    pub clients: usize,
    /// How long a client waits for the end of an answer.
    pub patience: Duration,
    pub request: &'a (dyn Fn() -> Request + Sync),
}

/// What clients saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Answers with status 200 that came to their end.
    pub good: usize,
    pub failures: Vec<Failure>,
}

/// A request that got no answer, an error, or half an answer.
#[derive(Debug)]
pub struct Failure {
    /// When, counted from the start of the load.
    pub after: Duration,
    /// Whether the head of a good answer had come: what has begun cannot be tried again.
    pub had_begun: bool,
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = if self.had_begun { "in mid-answer" } else { "before its answer" };
        write!(formatter, "after {} ms, {when}: {}", self.after.as_millis(), self.what)
    }
}

impl Seen {
    /// The failures of requests whose answer had not begun.
    pub fn failed_before_answer(&self) -> usize {
        self.failures.iter().filter(|failure| !failure.had_begun).count()
    }

    /// The failures of requests whose answer had.
    pub fn broke_off(&self) -> usize {
        self.failures.len() - self.failed_before_answer()
    }

    pub fn requests(&self) -> usize {
        self.good + self.failures.len()
    }

    /// The failures in words, for a test to compare with none.
    pub fn complaints(&self) -> Vec<String> {
        self.failures.iter().map(Failure::to_string).collect()
    }

    fn add(&mut self, other: Seen) {
        self.good += other.good;
        self.failures.extend(other.failures);
    }
}

impl Load<'_> {
    /// Sends while `act` runs, which gets the time when the load began; then waits for the last answers.
    pub fn during(&self, act: impl FnOnce(Instant)) -> Seen {
        let stop = AtomicBool::new(false);
        let started_at = Instant::now();
        std::thread::scope(|scope| {
            let clients = scope.spawn(|| self.send_until(&stop, started_at));
            act(started_at);
            stop.store(true, Ordering::Relaxed);
            clients.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn send_until(&self, stop: &AtomicBool, started_at: Instant) -> Seen {
        let clients = (0..self.clients).map(|_| self.send_in_turn(stop, started_at));
        let all = crate::envoy::blocking::wait_for(futures_util::future::join_all(clients));
        all.into_iter().fold(Seen::default(), |mut sum, seen| {
            sum.add(seen);
            sum
        })
    }

    async fn send_in_turn(&self, stop: &AtomicBool, started_at: Instant) -> Seen {
        let mut seen = Seen::default();
        while !stop.load(Ordering::Relaxed) {
            let had_begun = AtomicBool::new(false);
            let answered = timeout(self.patience, ask(self.client, (self.request)(), &had_begun)).await;
            let what = match answered {
                Ok(Ok(None)) => {
                    seen.good += 1;
                    continue;
                }
                Ok(Ok(Some(error))) => error,
                Ok(Err(error)) => format!("{error:#}"),
                Err(_) => format!("no answer within {:?}", self.patience),
            };
            let had_begun = had_begun.into_inner();
            seen.failures.push(Failure { after: started_at.elapsed(), had_begun, what });
            sleep(PAUSE_AFTER_FAILURE).await;
        }
        seen
    }
}

/// Sends one request. `None`: it was answered well; else what was answered in place of that.
async fn ask(client: Client, request: Request, had_begun: &AtomicBool) -> Result<Option<String>> {
    let mut answer = client.open(request).await?;
    let is_good = answer.status == 200;
    had_begun.store(is_good, Ordering::Relaxed);
    let mut error = Vec::new();
    while let Some(chunk) = answer.next_chunk().await? {
        if !is_good {
            error.extend(chunk.data.iter().take(SHOWN_BYTES));
        }
    }
    Ok((!is_good).then(|| format!("{}: {}", answer.status, String::from_utf8_lossy(&error))))
}
