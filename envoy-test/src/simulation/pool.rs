//! The engines that requests are picked for.

use crate::model_server::DEFAULT_LORA_SLOTS;
use crate::model_server::engine::{Engine, EngineSettings};

/// How much slower the slow engine is.
const SLOWNESS: f64 = 3.0;

/// Engines of one kind, but for what is said here.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolSettings {
    pub pods: usize,
    /// Whether the first engine is three times slower than the others.
    pub slow_pod: bool,
    /// How fast the engines are, of the usual speed.
    pub engine_speed: f64,
    /// The part of the usual 60,000 tokens that each KV cache holds.
    pub kv_share: f64,
    /// Whether the engines cache as SGLang's do, and print its page.
    pub radix_cache: bool,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self { pods: 4, slow_pod: false, engine_speed: 1.0, kv_share: 1.0, radix_cache: false }
    }
}

impl PoolSettings {
    pub fn engines(&self) -> Vec<Engine> {
        (0..self.pods).map(|index| Engine::new(self.engine(index))).collect()
    }

    /// What all engines compute together, in engines of the usual speed.
    pub fn speed(&self) -> f64 {
        (0..self.pods).map(|index| self.engine(index).speed).sum()
    }

    fn engine(&self, index: usize) -> EngineSettings {
        let usual = EngineSettings::default();
        let slowness = if self.slow_pod && index == 0 { SLOWNESS } else { 1.0 };
        let settings = EngineSettings {
            speed: usual.speed * self.engine_speed / slowness,
            blocks: (usual.blocks as f64 * self.kv_share) as usize,
            lora_slots: DEFAULT_LORA_SLOTS,
            ..usual
        };
        if self.radix_cache { settings.with_radix_cache() } else { settings }
    }
}
