//! Faults, one after the other, in front of a real Envoy under load, and what its clients see of each: what the
//! end-to-end tests hold against what was promised, and `make bench-faults` writes into `docs/reliability.md`.

mod by_clients;
mod list;
mod stage;
mod way_to_admin;

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

pub use by_clients::BY_CLIENTS;
pub use list::{GATEWAY, METRICS, PODS};
pub use stage::{STOP_ITERATION, Stage};
pub use way_to_admin::WayToAdmin;

use crate::envoy::{Configuration, Request};
use crate::load::{Load, Seen};
use crate::model_server::Knobs;

/// Clients, each of which sends one request after the other.
pub const CLIENTS: usize = 8;
/// Workers of the gateway, unless others are asked for.
pub const WORKERS: u32 = 2;
/// How long a client waits for an answer, of which the longest takes a tenth of a second where nothing is wrong.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// How long all is well before the fault begins, and after it has ended.
const BEFORE: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_secs(2);
/// Output tokens of each request, so many events of a stream.
const ANSWER_TOKENS: usize = 8;

/// Something that goes wrong while clients send.
pub struct Fault {
    pub name: &'static str,
    /// Which configuration of `filter-config/` it happens to.
    pub configuration: &'static str,
    /// Whether the plugin is one of which a large body is the end.
    pub little_memory: bool,
    /// What is special about Envoy's configuration.
    pub prepare: fn(&mut Configuration),
    pub happening: Happening,
    /// How long it lasts, besides the time that its beginning takes.
    pub lasts: Duration,
    pub promise: Promise,
}

/// What happens, and to whom.
#[derive(Clone, Copy)]
pub enum Happening {
    /// The first pod is set so, and back.
    ToFirst(fn(&mut Knobs)),
    /// Every pod is set so, and back.
    ToAll(fn(&mut Knobs)),
    /// This is done when it begins, and when it ends.
    ToGateway(Act, Act),
}

pub type Act = fn(&mut Stage) -> Result<()>;

/// How many requests may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    NoFailure,
    /// And nothing is left in flight.
    NothingLeft,
    /// Answers may break off that have begun.
    NoFailureBeforeTheAnswer,
    /// Before the answer, this many at most in each second of the fault.
    AtMostPerSecond(usize),
    /// None once so much time has passed since its end.
    NoFailureLaterThan(Duration),
}

/// What came of a fault. Times are counted from the start of the load.
pub struct Outcome {
    pub seen: Seen,
    /// Requests that the first pod got while it lasted.
    pub sent_to_first_pod: u64,
    pub began: Duration,
    pub ended: Duration,
    /// What is in flight when all clients are done.
    pub left_in_flight: u64,
    pub problem: Option<String>,
}

impl Fault {
    /// Starts pods and an Envoy, sends, and lets the fault happen.
    pub fn run(&self, workers: u32) -> Result<Outcome> {
        let mut stage = Stage::start(workers, self.configuration, self.little_memory, self.prepare)?;
        let load = Load { client: stage.client(), clients: CLIENTS, patience: PATIENCE, request: &chat };
        let mut times = (Duration::ZERO, Duration::ZERO, 0);
        let mut done = Ok(());
        let seen = load.during(|started_at| {
            std::thread::sleep(BEFORE);
            done = self.happen(&mut stage, started_at).map(|happened| times = happened);
            std::thread::sleep(AFTER);
        });
        done?;
        let (began, ended, sent_to_first_pod) = times;
        let left_in_flight = if self.promise == Promise::NothingLeft { stage.left_in_flight()? } else { 0 };
        let mut outcome = Outcome { seen, sent_to_first_pod, began, ended, left_in_flight, problem: None };
        outcome.problem = self.broken_promise(&outcome);
        Ok(outcome)
    }

    /// When it began and ended, and how many requests the first pod got meanwhile.
    fn happen(&self, stage: &mut Stage, started_at: Instant) -> Result<(Duration, Duration, u64)> {
        let began = started_at.elapsed();
        let before = stage.sent_to_first_pod();
        self.happening.begin(stage)?;
        std::thread::sleep(self.lasts);
        let sent = stage.sent_to_first_pod() - before;
        self.happening.end(stage)?;
        Ok((began, started_at.elapsed(), sent))
    }

    fn broken_promise(&self, outcome: &Outcome) -> Option<String> {
        let failed = outcome.seen.failed_before_answer();
        let broken = match self.promise {
            Promise::NoFailure => !outcome.seen.failures.is_empty(),
            Promise::NothingLeft => !outcome.seen.failures.is_empty() || outcome.left_in_flight > 0,
            Promise::NoFailureBeforeTheAnswer => failed > 0,
            Promise::AtMostPerSecond(most) => {
                failed > most * (outcome.ended - outcome.began).as_secs() as usize
            }
            Promise::NoFailureLaterThan(time) => {
                outcome.seen.failures.iter().any(|failure| failure.after > outcome.ended + time)
            }
        };
        let words = || {
            let complaints = outcome.seen.complaints();
            let left = outcome.left_in_flight;
            format!(
                "{:?} was promised for: {}; {left} are in flight\n{complaints:#?}",
                self.promise, self.name
            )
        };
        broken.then(words)
    }
}

impl Happening {
    fn begin(self, stage: &mut Stage) -> Result<()> {
        match self {
            Happening::ToFirst(change) => stage.pods.server(0).set(change),
            Happening::ToAll(change) => stage.pods.servers().for_each(|pod| pod.set(change)),
            Happening::ToGateway(begin, _) => begin(stage)?,
        }
        Ok(())
    }

    fn end(self, stage: &mut Stage) -> Result<()> {
        match self {
            Happening::ToGateway(_, end) => end(stage)?,
            _ => stage.pods.servers().for_each(|pod| pod.set(|knobs| *knobs = Knobs::default())),
        }
        Ok(())
    }
}

impl Outcome {
    /// From the beginning of the fault to the last failure; from its end, where failures outlast it.
    pub fn time_to_recover(&self) -> Option<(Duration, &'static str)> {
        let last = self.seen.failures.iter().map(|failure| failure.after).max()?;
        Some(match last.checked_sub(self.ended) {
            Some(late) => (late, "after its end"),
            None => (last.saturating_sub(self.began), "after its beginning"),
        })
    }
}

/// A short request; every other one is streamed.
fn chat() -> Request {
    let unique = fastrand::u64(..);
    let question = format!("{unique:016x}: which pod will this be?");
    Request::post("/v1/chat/completions").json(&json!({
        "model": "tiny",
        "max_tokens": ANSWER_TOKENS,
        "stream": unique.is_multiple_of(2),
        "messages": [{"role": "user", "content": question}],
    }))
}
