//! Drives an engine in real time: a task waits for the next step's end and hands each token to its request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};

use super::counters::SharedCounters;
use super::engine::{Engine, EngineRequest, EngineSettings, Output, Refusal, RequestId};
use super::metrics::Statistics;

/// An engine whose time is the machine's.
#[derive(Debug)]
pub struct LiveEngine {
    started: Instant,
    state: Mutex<State>,
    counters: SharedCounters,
    wake: Notify,
}

#[derive(Debug)]
struct State {
    engine: Engine,
    statistics: Statistics,
    listeners: HashMap<RequestId, mpsc::UnboundedSender<Output>>,
}

/// How an engine takes a request.
type Submit = fn(&mut Engine, Duration, EngineRequest) -> Result<RequestId, Refusal>;

impl LiveEngine {
    pub fn new(settings: EngineSettings, statistics: Statistics, counters: SharedCounters) -> Self {
        let state = State { engine: Engine::new(settings), statistics, listeners: HashMap::new() };
        Self { started: Instant::now(), state: Mutex::new(state), counters, wake: Notify::new() }
    }

    /// Runs until the task is dropped.
    pub async fn run(self: Arc<Self>) {
        loop {
            let next = self.catch_up().engine.next_event();
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until((self.started + at).into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.wake.notified() => {}
            }
        }
    }

    /// Time since the server started.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub fn submit(self: &Arc<Self>, request: EngineRequest) -> Result<Generation, Refusal> {
        self.take(request, Engine::submit)
    }

    /// The same, of a request whose prompt was computed elsewhere.
    pub fn submit_computed(self: &Arc<Self>, request: EngineRequest) -> Result<Generation, Refusal> {
        self.take(request, Engine::submit_computed)
    }

    fn take(self: &Arc<Self>, request: EngineRequest, submit: Submit) -> Result<Generation, Refusal> {
        let mut state = self.catch_up();
        let id = submit(&mut state.engine, self.now(), request)?;
        let (sender, outputs) = mpsc::unbounded_channel();
        state.listeners.insert(id, sender);
        self.wake.notify_one();
        Ok(Generation { engine: Arc::clone(self), id, outputs })
    }

    /// Begins anew with nothing cached and nothing counted, as vLLM 0.32 and llama.cpp 0.3.36 were seen to do when they were
    /// killed and started again. Requests break off.
    pub fn restart(&self) {
        let mut state = self.catch_up();
        let engine = Engine::new(state.engine.settings().clone());
        *state = State { engine, statistics: Statistics::default(), listeners: HashMap::new() };
    }

    pub fn set_speed(&self, speed: f64) {
        self.catch_up().engine.set_speed(speed);
    }

    /// Looks at the engine and its statistics as they are now.
    pub fn read<T>(&self, look: impl FnOnce(&Engine, &mut Statistics) -> T) -> T {
        let State { engine, statistics, .. } = &mut *self.catch_up();
        look(engine, statistics)
    }

    fn cancel(&self, id: RequestId) {
        let mut state = self.catch_up();
        state.listeners.remove(&id);
        if state.engine.cancel(id) {
            state.statistics.note_abort();
        }
    }

    /// Brings the engine to the present, however late the task's timer is.
    fn catch_up(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        while let Some(at) = state.engine.next_event().filter(|&at| at <= now) {
            for output in state.engine.advance(at) {
                self.count(&output);
                state.deliver(output);
            }
            let State { engine, statistics, .. } = &mut *state;
            statistics.note_adapters(engine, at);
            statistics.note_gauges(engine.gauges(), at);
        }
        state
    }

    fn count(&self, output: &Output) {
        let mut counters = self.counters.lock();
        counters.completion_tokens += 1;
        if output.previous.is_none() {
            counters.prompt_tokens += output.prompt_tokens as u64;
            counters.cached_tokens += output.cached_tokens as u64;
        }
    }
}

impl State {
    fn deliver(&mut self, output: Output) {
        self.statistics.observe(&output);
        if let Some(listener) = self.listeners.get(&output.request) {
            // The receiver may be gone already; its `Drop` is about to cancel the request.
            let _ = listener.send(output);
        }
        if output.finished {
            self.listeners.remove(&output.request);
        }
    }
}

/// The tokens of one request as they appear. Dropping it cancels what is left.
#[derive(Debug)]
pub struct Generation {
    engine: Arc<LiveEngine>,
    id: RequestId,
    outputs: mpsc::UnboundedReceiver<Output>,
}

impl Generation {
    /// The next token; `None` after the last.
    pub async fn next(&mut self) -> Option<Output> {
        self.outputs.recv().await
    }

    /// Waits for the last token.
    pub async fn last(&mut self) -> Option<Output> {
        let mut last = None;
        while let Some(output) = self.next().await {
            last = Some(output);
        }
        last
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.engine.cancel(self.id);
    }
}
