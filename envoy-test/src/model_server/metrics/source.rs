//! Everything a page shows of one server.

use std::time::Duration;

use super::statistics::Statistics;
use crate::model_server::engine::{Engine, Gauges};
use crate::model_server::knobs::FixedGauges;

/// Everything a page shows.
pub struct PageSource<'a> {
    pub engine: &'a Engine,
    pub statistics: &'a Statistics,
    /// Shown in place of the engine's own gauges.
    pub fixed: &'a FixedGauges,
    pub model: &'a str,
    pub context_tokens: usize,
    /// The engine's time.
    pub now: Duration,
}

impl PageSource<'_> {
    pub fn waiting(&self) -> f64 {
        self.fixed.waiting.unwrap_or(self.gauges().waiting as f64)
    }

    pub fn running(&self) -> f64 {
        self.fixed.running.unwrap_or(self.gauges().running as f64)
    }

    pub fn kv_cache_usage(&self) -> f64 {
        self.fixed.kv_cache_usage.unwrap_or(self.gauges().kv_cache_usage)
    }

    pub fn evictable_tokens(&self) -> usize {
        self.gauges().evictable_tokens
    }

    pub fn active_adapters(&self) -> usize {
        self.gauges().active_adapters.len()
    }

    /// Those of the engine, or of its last busy moment for as long as they linger.
    fn gauges(&self) -> &Gauges {
        let own = self.engine.gauges();
        let lingers = |at: Duration| {
            let age = self.now.saturating_sub(at);
            self.fixed.linger_ms.is_some_and(|linger_ms| age < Duration::from_millis(linger_ms))
        };
        match &self.statistics.last_busy {
            Some((busy, at)) if own.running + own.waiting == 0 && lingers(*at) => busy,
            _ => own,
        }
    }
}
