//! The reference endpoint picker of the Gateway API's inference extension with the default weights of its binary, as far as
//! its picks go: a weighted sum of scores from 0 to 1, of which the highest wins.
//!
//! ```text
//! score  = 2 × queue + 2 × KV cache + 3 × prefix
//! queue  = (longest queue − its queue) ÷ (longest − shortest queue), 1 where all are equal
//! KV     = 1 − KV-cache utilization
//! prefix = blocks of the prompt that were last sent there ÷ blocks of the prompt
//! ```
//!
//! Queues and utilization are as of the last scrape: what has been sent since does not count. Which blocks are where is
//! remembered from its own picks ([`SentBlocks`]).

use std::time::Duration;

use fastrand::Rng;

use super::sent_blocks::{SentBlocks, block_hashes};
use super::{Picker, Request};
use crate::model_server::engine::{Engine, Gauges};

const QUEUE_WEIGHT: f64 = 2.0;
const KV_CACHE_WEIGHT: f64 = 2.0;
const PREFIX_WEIGHT: f64 = 3.0;

const SCRAPE_INTERVAL: Duration = Duration::from_millis(50);
pub struct DefaultWeights {
    /// Of each pod, as last scraped.
    gauges: Vec<Gauges>,
    sent: SentBlocks,
    next_scrape: Duration,
    rng: Rng,
}

impl DefaultWeights {
    pub fn new(engines: &[Engine], rng: Rng) -> DefaultWeights {
        let gauges = vec![Gauges::default(); engines.len()];
        DefaultWeights { gauges, sent: SentBlocks::new(engines), next_scrape: Duration::ZERO, rng }
    }

    /// Takes over what was scraped of a pod.
    pub fn observe(&mut self, pod: usize, gauges: Gauges) {
        self.gauges[pod] = gauges;
    }

    /// The best of the pods that are there; of all, if none is.
    pub fn choose(&mut self, prompt: &[u32], is_there: impl Fn(usize) -> bool) -> usize {
        self.choose_known(prompt, is_there).0
    }

    /// The same, with the share of the prompt that was sent there before.
    pub fn choose_known(&mut self, prompt: &[u32], is_there: impl Fn(usize) -> bool) -> (usize, f64) {
        let blocks = block_hashes(prompt);
        let scores = self.scores(&blocks);
        let mut pods: Vec<usize> = (0..scores.len()).filter(|&pod| is_there(pod)).collect();
        if pods.is_empty() {
            pods = (0..scores.len()).collect();
        }
        let highest = pods.iter().map(|&pod| scores[pod]).fold(f64::MIN, f64::max);
        pods.retain(|&pod| scores[pod] == highest);
        let picked = self.rng.choice(pods).unwrap_or_default();
        let known = self.sent.share(picked, &blocks);
        self.sent.note(picked, blocks);
        (picked, known)
    }

    fn scores(&self, blocks: &[u64]) -> Vec<f64> {
        let queues = || self.gauges.iter().map(|gauges| gauges.waiting);
        let (shortest, longest) = (queues().min().unwrap_or(0), queues().max().unwrap_or(0));
        let score = |(pod, gauges): (usize, &Gauges)| {
            let queue = match longest - shortest {
                0 => 1.0,
                range => (longest - gauges.waiting) as f64 / range as f64,
            };
            QUEUE_WEIGHT * queue
                + KV_CACHE_WEIGHT * (1.0 - gauges.kv_cache_usage)
                + PREFIX_WEIGHT * self.sent.share(pod, blocks)
        };
        self.gauges.iter().enumerate().map(score).collect()
    }
}

impl Picker for DefaultWeights {
    fn pick(&mut self, request: &Request<'_>, _engines: &[Engine], _now: Duration) -> usize {
        self.choose(request.prompt, |_| true)
    }

    fn next_tick(&self) -> Option<Duration> {
        Some(self.next_scrape)
    }

    fn tick(&mut self, engines: &[Engine], _now: Duration) {
        self.next_scrape += SCRAPE_INTERVAL;
        self.gauges = engines.iter().map(|engine| engine.gauges().clone()).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model_server::engine::{EngineRequest, EngineSettings};

    fn engines() -> Vec<Engine> {
        vec![Engine::new(EngineSettings::default()); 4]
    }

    fn pick(picker: &mut DefaultWeights, prompt: &[u32], engines: &[Engine]) -> usize {
        picker.pick(&Request { key: 0, prompt, adapter: None, session: None }, engines, Duration::ZERO)
    }

    #[test]
    fn a_prompt_goes_where_its_start_went() {
        let engines = engines();
        let mut picker = DefaultWeights::new(&engines, Rng::with_seed(1));
        let prompt: Vec<u32> = (0..320).collect();
        let first = pick(&mut picker, &prompt, &engines);
        for length in [320, 160, 64] {
            assert_eq!(pick(&mut picker, &prompt[..length], &engines), first, "{length} tokens");
        }
    }

    #[test]
    fn queues_count_as_of_the_last_scrape() {
        let mut engines = engines();
        let mut picker = DefaultWeights::new(&engines, Rng::with_seed(1));
        for engine in &mut engines[..3] {
            let request =
                EngineRequest { prompt: vec![1; 40_000], output_tokens: 1, adapter: None, cache_salt: None };
            engine.submit(Duration::ZERO, request.clone()).unwrap();
            engine.submit(Duration::ZERO, request).unwrap();
            engine.advance(Duration::from_secs(1));
        }
        let fresh_prompts = |from: u32| (0..50).map(move |prompt| vec![from + prompt; 16]);
        let before: Vec<_> = fresh_prompts(0).map(|prompt| pick(&mut picker, &prompt, &engines)).collect();
        assert!(before.iter().any(|&pod| pod != 3), "it cannot know yet");
        picker.tick(&engines, Duration::ZERO);
        for prompt in fresh_prompts(1_000) {
            assert_eq!(pick(&mut picker, &prompt, &engines), 3);
        }
    }
}
