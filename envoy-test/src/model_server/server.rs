//! The state of one running server, shared by its connections.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hyper::header::HeaderValue;
use tokio::sync::watch;

use super::counters::SharedCounters;
use super::knobs::{Knobs, MetricsMode};
use super::live_engine::LiveEngine;
use super::metrics::{PageSource, Statistics, render};
use super::models::ServedModels;
use super::settings::ServerSettings;
use super::stored::Stored;

/// One running server.
#[derive(Debug)]
pub struct Server {
    /// With the port it really has.
    pub address: SocketAddr,
    pub settings: ServerSettings,
    pub engine: Arc<LiveEngine>,
    pub counters: SharedCounters,
    pub stored: Stored,
    /// The value of `x-served-by`.
    pub served_by: HeaderValue,
    knobs: watch::Sender<Knobs>,
    /// Whether the port takes connections.
    listening: watch::Sender<bool>,
    /// What `/metrics` shows while it is frozen.
    frozen_page: Mutex<String>,
    answers: AtomicU64,
}

impl Server {
    pub fn new(address: SocketAddr, settings: ServerSettings) -> Arc<Self> {
        let counters = SharedCounters::default();
        let engine = LiveEngine::new(settings.engine_settings(), Statistics::default(), counters.clone());
        let knobs = Knobs { speed: settings.engine.speed, ..Knobs::default() };
        Arc::new(Self {
            address,
            settings,
            engine: Arc::new(engine),
            counters,
            stored: Stored::default(),
            served_by: HeaderValue::try_from(address.to_string())
                .unwrap_or_else(|_| HeaderValue::from_static("")),
            knobs: watch::Sender::new(knobs),
            listening: watch::Sender::new(true),
            frozen_page: Mutex::default(),
            answers: AtomicU64::new(0),
        })
    }

    pub fn knobs(&self) -> Knobs {
        self.knobs.borrow().clone()
    }

    pub fn models(&self) -> ServedModels {
        ServedModels::of(&self.settings, &self.knobs.borrow())
    }

    pub fn watch_knobs(&self) -> watch::Receiver<Knobs> {
        self.knobs.subscribe()
    }

    pub fn listening(&self) -> &watch::Sender<bool> {
        &self.listening
    }

    pub fn set_knobs(&self, knobs: Knobs) -> Result<(), String> {
        knobs.check()?;
        self.engine.set_speed(knobs.speed);
        if knobs.metrics == MetricsMode::Frozen && self.knobs().metrics != MetricsMode::Frozen {
            *self.frozen_page.lock().unwrap_or_else(PoisonError::into_inner) = self.page();
        }
        self.knobs.send_replace(knobs);
        Ok(())
    }

    /// The `/metrics` page as it is now.
    pub fn page(&self) -> String {
        self.with_page_source(|source| render(source, self.settings.metrics_page))
    }

    pub fn frozen_page(&self) -> String {
        self.frozen_page.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn with_page_source<T>(&self, show: impl FnOnce(&PageSource) -> T) -> T {
        let fixed = self.knobs().gauges;
        let models = self.models();
        let model = models.first();
        self.engine.read(|engine, statistics| {
            let (context_tokens, now) = (self.settings.context_tokens, self.engine.now());
            show(&PageSource { engine, statistics, fixed: &fixed, model, context_tokens, now })
        })
    }

    /// Milliseconds since the server started.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.engine.now().as_millis()).unwrap_or(u64::MAX)
    }

    /// Sixteen hexadecimal digits that no other answer of this machine's servers has.
    pub fn next_id(&self) -> String {
        format!("{:04x}{:012x}", self.address.port(), self.answers.fetch_add(1, Ordering::Relaxed))
    }
}
