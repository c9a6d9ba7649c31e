//! Knows what nobody can know: it tries the request on a copy of each engine, and takes the one where its first token
//! comes soonest. Greedy: it does not ask what that does to the others, nor to requests still to come.

use std::time::Duration;

use fastrand::Rng;

use super::{Picker, Request};
use crate::model_server::engine::{Engine, EngineRequest};

pub struct Oracle {
    rng: Rng,
}

impl Oracle {
    pub fn new(rng: Rng) -> Oracle {
        Oracle { rng }
    }
}

impl Picker for Oracle {
    fn pick(&mut self, request: &Request<'_>, engines: &[Engine], now: Duration) -> usize {
        let mut earliest = Duration::MAX;
        let mut best = Vec::new();
        for (pod, engine) in engines.iter().enumerate() {
            let Some(at) = first_output(engine, request.prompt, now, earliest) else { continue };
            if at < earliest {
                earliest = at;
                best.clear();
            }
            best.push(pod);
        }
        self.rng.choice(best).unwrap_or_default()
    }
}

/// When the prompt would have its first output there; `None` if later than `limit`.
fn first_output(engine: &Engine, prompt: &[u32], now: Duration, limit: Duration) -> Option<Duration> {
    let mut engine = engine.clone();
    let request =
        EngineRequest { prompt: prompt.to_vec(), output_tokens: 1, adapter: None, cache_salt: None };
    let id = engine.submit(now, request).ok()?;
    loop {
        let at = engine.next_event().filter(|&at| at <= limit)?;
        if engine.advance(at).iter().any(|output| output.request == id) {
            return Some(at);
        }
    }
}
