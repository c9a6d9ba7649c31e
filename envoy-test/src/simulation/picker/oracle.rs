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
        let best = earliest(engines.len(), |pod, limit| {
            let prompt = EngineRequest {
                prompt: request.prompt.to_vec(),
                output_tokens: 1,
                adapter: request.adapter.map(str::to_owned),
                cache_salt: None,
            };
            first_output(engines[pod].clone(), prompt, now, limit)
        });
        self.rng.choice(best).unwrap_or_default()
    }
}

/// Of so many pods, those with the earliest first token. Each is asked in turn for one that is not later than those before.
pub(crate) fn earliest(
    pods: usize,
    mut first_token: impl FnMut(usize, Duration) -> Option<Duration>,
) -> Vec<usize> {
    let (mut earliest, mut best) = (Duration::MAX, Vec::new());
    for pod in 0..pods {
        let Some(at) = first_token(pod, earliest) else { continue };
        if at < earliest {
            earliest = at;
            best.clear();
        }
        best.push(pod);
    }
    best
}

/// When the request would have its first output there; `None` if later than `limit`.
pub(crate) fn first_output(
    mut engine: Engine,
    request: EngineRequest,
    now: Duration,
    limit: Duration,
) -> Option<Duration> {
    let id = engine.submit(now, request).ok()?;
    loop {
        let at = engine.next_event().filter(|&at| at <= limit)?;
        if engine.advance(at).iter().any(|output| output.request == id) {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model_server::engine::EngineSettings;

    fn busy_with(prompt: &[u32], output_tokens: usize) -> Engine {
        let mut engine = Engine::new(EngineSettings::default());
        let request =
            EngineRequest { prompt: prompt.to_vec(), output_tokens, adapter: None, cache_salt: None };
        engine.submit(Duration::ZERO, request).unwrap();
        engine
    }

    fn check(prompt: &[u32], engines: &[Engine], now: Duration, expected: usize) {
        let mut oracle = Oracle::new(Rng::with_seed(1));
        assert_eq!(
            oracle.pick(&Request { key: 0, prompt, adapter: None, session: None }, engines, now),
            expected
        );
    }

    #[test]
    fn it_takes_the_engine_that_is_idle_or_the_one_that_knows_the_prompt() {
        let (prompt, other): (Vec<u32>, Vec<u32>) = ((0..1_000).collect(), (1_000..2_000).collect());
        let idle = Engine::new(EngineSettings::default());
        check(&prompt, &[busy_with(&other, 10), idle.clone()], Duration::ZERO, 1);
        let mut knows = busy_with(&prompt, 1);
        knows.advance(Duration::from_secs(1));
        check(&prompt, &[idle.clone(), knows.clone()], Duration::from_secs(1), 1);
        check(&other, &[busy_with(&prompt, 10), idle], Duration::ZERO, 1);
    }
}
