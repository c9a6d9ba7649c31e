//! Sends requests when they are due, whether or not those before them were answered, and reports what came of each.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::chooser::Chooser;
use super::gateway::Gateway;
use super::request::{self, Said};
use crate::simulation::workload::{Session, Turn};

/// Where the name of a session goes: the first place in which the plugin looks by default.
const SESSION_HEADER: &str = "x-session-id";
/// Where the pick goes that was made here.
const PICK_HEADER: &str = "x-gateway-destination-endpoint";
/// Whoever has no whole answer by then has none.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much of an answer that is an error is printed.
const SHOWN_BYTES: usize = 200;

/// Sends to one gateway. Times are counted from its start.
pub struct Sender {
    pub gateway: Gateway,
    /// The base model.
    pub model: String,
    /// Who picks here, if it is not the gateway.
    pub chooser: Option<Mutex<Box<dyn Chooser>>>,
    /// By how much the pauses between turns are shorter than the traffic says.
    pub speed: f64,
    pub started_at: Instant,
    /// Requests sent; numbers them.
    pub sent: AtomicUsize,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub due: Duration,
    /// When it was really sent.
    pub sent: Duration,
    /// Or what went wrong.
    pub observed: Result<Observed, String>,
}

/// What was seen of an answer that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    pub first_output: Duration,
    pub ended: Duration,
    pub output_tokens: usize,
}

impl Sender {
    /// Plays all sessions to their end.
    pub async fn play_all(self: &Arc<Self>, sessions: Vec<Session>) -> Vec<Answer> {
        let mut playing = JoinSet::new();
        for session in sessions {
            let sender = Arc::clone(self);
            playing.spawn(async move { sender.play(session).await });
        }
        playing.join_all().await.into_iter().flatten().collect()
    }

    /// A session ends with the first turn that has no whole answer.
    async fn play(&self, session: Session) -> Vec<Answer> {
        let (mut answers, mut prompt, mut due) = (Vec::new(), String::new(), session.starts);
        for turn in session.turns {
            due += turn.pause.div_f64(self.speed);
            prompt += &request::text_of(&turn.text);
            sleep_until(self.started_at + due).await;
            let sent = self.started_at.elapsed();
            let key = self.sent.fetch_add(1, Ordering::Relaxed);
            let name = session.name.map(|name| format!("session-{name}"));
            let asked = self.ask(key, &prompt, &turn, (session.adapter.as_deref(), name.as_deref()));
            let asked = timeout(PATIENCE, asked).await.context("no answer in time").flatten();
            if asked.is_err() {
                self.begun(key);
            }
            let observed = asked.map(|(observed, said)| {
                prompt += &said.text;
                observed
            });
            let observed = observed.map_err(|error| format!("{error:#}"));
            answers.push(Answer { due, sent, observed: observed.clone() });
            let Ok(observed) = observed else { break };
            due = observed.ended;
        }
        answers
    }

    async fn ask(
        &self,
        key: usize,
        prompt: &str,
        turn: &Turn,
        (adapter, session): (Option<&str>, Option<&str>),
    ) -> Result<(Observed, Said)> {
        let body = request::body(adapter.unwrap_or(&self.model), prompt, turn.output_tokens);
        let mut request =
            self.gateway.post("/v1/completions").header("content-type", "application/json").body(body);
        if let Some(session) = session {
            request = request.header(SESSION_HEADER, session);
        }
        if let Some(mut chooser) = self.chooser() {
            let picked = chooser.choose(key, prompt, adapter);
            request = request.header(PICK_HEADER, picked.to_string());
        }
        let mut stream = self.gateway.client().open(request).await?;
        let (mut answer, mut first_output) = (Vec::new(), None);
        while let Some(chunk) = stream.next_chunk().await? {
            if first_output.is_none() {
                first_output = Some(self.started_at.elapsed());
                self.begun(key);
            }
            answer.extend_from_slice(&chunk.data);
        }
        let ended = self.started_at.elapsed();
        let shown = || String::from_utf8_lossy(&answer[..answer.len().min(SHOWN_BYTES)]).into_owned();
        ensure!(stream.status == 200, "{}: {}", stream.status, shown());
        let said = request::said(&answer);
        ensure!(said.is_whole, "the answer broke off");
        let first_output = first_output.unwrap_or(ended);
        Ok((Observed { first_output, ended, output_tokens: said.output_tokens }, said))
    }

    fn chooser(&self) -> Option<MutexGuard<'_, Box<dyn Chooser>>> {
        self.chooser.as_ref().map(|chooser| chooser.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn begun(&self, key: usize) {
        if let Some(mut chooser) = self.chooser() {
            chooser.begun(key);
        }
    }
}
