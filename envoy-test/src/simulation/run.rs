//! The loop: arrivals, ticks and engines' steps, in the order of virtual time.
//!
//! At one instant requests arrive first, then the picker ticks, then engines end and start steps, so that requests that
//! come at once start in one step. The run ends when every request has been answered.
//!
//! A prompt that one engine computes for another is moved there as by llm-d's sidecar: what was computed is fetched when the
//! first engine has answered, and the second one generates from it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::picker::{Picker, Request};
use super::workload::Session;
use crate::model_server::Sidecar;
use crate::model_server::engine::{CacheTotals, Engine, EngineRequest, Output, Refusal, RequestId};
use crate::model_server::tokens::output_token;

/// A request that was answered; one that was shed has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Requests are numbered as they arrive.
    pub key: usize,
    pub pod: usize,
    pub arrived: Duration,
    pub first_output: Duration,
    pub ended: Duration,
    pub prompt_tokens: usize,
    pub cached_tokens: usize,
    pub output_tokens: usize,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// In the order in which they ended.
    pub answers: Vec<Answer>,
    /// Of each pod.
    pub caches: Vec<CacheTotals>,
}

struct Run<'a> {
    sessions: Vec<Progress>,
    /// The session's place and the time of its next turn, the next first.
    due: BinaryHeap<Reverse<(Duration, usize)>>,
    engines: Vec<Engine>,
    /// When which engine next ends or starts a step, the next first; every engine with work has one entry.
    steps: BinaryHeap<Reverse<(Duration, usize)>>,
    picker: &'a mut dyn Picker,
    /// Of each engine.
    in_flight: Vec<HashMap<RequestId, Part>>,
    /// What is on its way between engines, by when it is there and by the request's key.
    transfers: BTreeMap<(Duration, usize), Part>,
    sent: usize,
    answers: Vec<Answer>,
}

/// What an engine does for a request.
#[derive(Debug, Clone)]
struct Part {
    key: usize,
    /// The place of its session.
    place: usize,
    arrived: Duration,
    /// Where the answer is generated, and of what, if this engine only computes the prompt.
    next: Option<(usize, EngineRequest)>,
}

/// How far a session has come.
struct Progress {
    session: Session,
    next_turn: usize,
    /// All that was said.
    said: Vec<u32>,
}

/// Plays the sessions to their end.
pub fn run(sessions: Vec<Session>, engines: Vec<Engine>, picker: &mut dyn Picker) -> Result<Record> {
    let due = sessions.iter().enumerate().map(|(place, session)| Reverse((session.starts, place)));
    let mut run = Run {
        due: due.collect(),
        sessions: sessions.into_iter().map(Progress::new).collect(),
        in_flight: vec![HashMap::new(); engines.len()],
        transfers: BTreeMap::new(),
        engines,
        steps: BinaryHeap::new(),
        picker,
        sent: 0,
        answers: Vec::new(),
    };
    while let Some(now) = run.next_event() {
        run.send_due(now)?;
        run.receive_due(now)?;
        run.tick(now);
        while let Some(pod) = run.next_step(now) {
            run.advance(pod, now);
        }
    }
    let caches = run.engines.iter().map(Engine::cache_totals).collect();
    Ok(Record { answers: run.answers, caches })
}

impl Progress {
    fn new(session: Session) -> Progress {
        Progress { session, next_turn: 0, said: Vec::new() }
    }
}

impl Run<'_> {
    /// When something happens next; nothing, once nobody arrives and no engine works.
    fn next_event(&self) -> Option<Duration> {
        let arrival = self.due.peek().map(|Reverse((at, _))| *at);
        let step = self.steps.peek().map(|Reverse((at, _))| *at);
        let transfer = self.transfers.keys().next().map(|(at, _)| *at);
        let next = [arrival, step, transfer].into_iter().flatten().min()?;
        Some(self.picker.next_tick().map_or(next, |tick| tick.min(next)))
    }

    fn tick(&mut self, now: Duration) {
        if self.picker.next_tick().is_some_and(|tick| tick <= now) {
            self.picker.tick(&self.engines, now);
        }
    }

    fn send_due(&mut self, now: Duration) -> Result<()> {
        while let Some(&Reverse((at, place))) = self.due.peek()
            && at <= now
        {
            self.due.pop();
            self.send(place, now)?;
        }
        Ok(())
    }

    fn send(&mut self, place: usize, now: Duration) -> Result<()> {
        let progress = &mut self.sessions[place];
        let turn = &mut progress.session.turns[progress.next_turn];
        progress.said.extend(std::mem::take(&mut turn.text));
        let output_tokens = turn.output_tokens;
        let Session { adapter, name, .. } = &progress.session;
        let adapter_name = adapter.as_deref();
        let request =
            Request { key: self.sent, prompt: &progress.said, adapter: adapter_name, session: *name };
        let Some(pod) = self.picker.pick_or_shed(&request, &self.engines, now) else {
            self.sent += 1;
            return Ok(());
        };
        let prefill_pod = self.picker.prefill_pod(self.sent);
        let (prompt, adapter) = (progress.said.clone(), adapter.clone());
        let request = EngineRequest { prompt, output_tokens, adapter, cache_salt: None };
        let part = Part { key: self.sent, place, arrived: now, next: None };
        self.sent += 1;
        match prefill_pod {
            None => self.submit(pod, part, |engine| engine.submit(now, request)),
            Some(prefill_pod) => {
                let prompt = EngineRequest { output_tokens: 1, ..request.clone() };
                let part = Part { next: Some((pod, request)), ..part };
                self.submit(prefill_pod, part, |engine| engine.submit(now, prompt))
            }
        }
    }

    fn submit(
        &mut self,
        pod: usize,
        part: Part,
        submit: impl FnOnce(&mut Engine) -> Result<RequestId, Refusal>,
    ) -> Result<()> {
        let worked = self.engines[pod].next_event().is_some();
        let id = submit(&mut self.engines[pod]).map_err(|refusal| anyhow!("refused: {refusal:?}"))?;
        if !worked {
            self.note_step(pod);
        }
        self.in_flight[pod].insert(id, part);
        Ok(())
    }

    /// Has engines generate from what has been fetched by now.
    fn receive_due(&mut self, now: Duration) -> Result<()> {
        while let Some(entry) = self.transfers.first_entry().filter(|entry| entry.key().0 <= now) {
            let mut part = entry.remove();
            if let Some((pod, request)) = part.next.take() {
                self.submit(pod, part, |engine| engine.submit_computed(now, request))?;
            }
        }
        Ok(())
    }

    /// Takes out the next engine that has something to do by now.
    fn next_step(&mut self, now: Duration) -> Option<usize> {
        let due = self.steps.peek().is_some_and(|Reverse((at, _))| *at <= now);
        let Reverse((_, pod)) = due.then(|| self.steps.pop()).flatten()?;
        Some(pod)
    }

    fn note_step(&mut self, pod: usize) {
        self.steps.extend(self.engines[pod].next_event().map(|at| Reverse((at, pod))));
    }

    fn advance(&mut self, pod: usize, now: Duration) {
        let outputs = self.engines[pod].advance(now);
        self.note_step(pod);
        for output in outputs {
            let Some(part) = self.in_flight[pod].get(&output.request) else { continue };
            if output.previous.is_none() && part.next.is_none() {
                self.picker.first_output(part.key, &output);
            }
            if output.finished
                && let Some(part) = self.in_flight[pod].remove(&output.request)
            {
                self.finish(pod, part, &output);
            }
        }
    }

    /// The engine has done its part.
    fn finish(&mut self, pod: usize, part: Part, output: &Output) {
        if part.next.is_some() {
            let there = output.at + Sidecar::default().transfer_time(output.prompt_tokens);
            self.transfers.insert((there, part.key), part);
            return;
        }
        self.picker.ended(part.key, output);
        self.answers.push(Answer { arrived: part.arrived, ..Answer::new(part.key, pod, output) });
        self.follow_up(part.place, output);
    }

    /// Has the session's next turn come after a pause.
    fn follow_up(&mut self, place: usize, output: &Output) {
        let progress = &mut self.sessions[place];
        progress.next_turn += 1;
        match progress.session.turns.get(progress.next_turn) {
            Some(turn) => {
                progress.said.extend((0..output.output_tokens).map(output_token));
                self.due.push(Reverse((output.at + turn.pause, place)));
            }
            // A long run need not remember what was said.
            None => progress.said = Vec::new(),
        }
    }
}

impl Answer {
    /// The time for each token after the first, in the mean; nothing where there was none.
    pub fn per_token(&self) -> Option<Duration> {
        let further = u32::try_from(self.output_tokens.checked_sub(1)?).ok().filter(|&tokens| tokens > 0)?;
        Some((self.ended - self.first_output) / further)
    }

    fn new(key: usize, pod: usize, output: &Output) -> Answer {
        Answer {
            key,
            pod,
            arrived: output.arrived,
            first_output: output.first,
            ended: output.at,
            prompt_tokens: output.prompt_tokens,
            cached_tokens: output.cached_tokens,
            output_tokens: output.output_tokens,
        }
    }
}
