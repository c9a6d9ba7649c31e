//! The reference endpoint picker with the schedule that llm-d's guide recommends (its `prefix-cache-affinity-filter` before
//! its `token-load-scorer`).
//!
//! ```text
//! warm  = pods to which AFFINITY of the prompt's blocks were sent
//! kept  = warm, unless there are none or the least loaded of them has
//!         penalty × tokens_per_s more tokens in flight than the least loaded of the others; then all
//! pick  = of those kept the one with the fewest tokens in flight and of this prompt uncached, equal ones at random
//! tokens in flight = uncached prompt tokens of requests whose answer has not begun
//! ```

use std::collections::HashMap;
use std::time::Duration;

use fastrand::Rng;

use super::sent_blocks::{SentBlocks, block_hashes};
use super::{Picker, Request};
use crate::model_server::engine::{Engine, Output};

/// The share of the prompt's blocks that makes a pod a warm one.
const AFFINITY: f64 = 0.8;

/// What the schedule knows of the pods.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// How fast they compute prompts.
    pub tokens_per_s: f64,
    /// How much longer a prompt may wait for a warm pod.
    pub penalty: Duration,
}

impl Figures {
    /// Those that the guide gives, for its own GPUs.
    pub const GUIDE: Figures = Figures { tokens_per_s: 15_928.0, penalty: Duration::from_secs(18) };
    /// Those of the simulated pods, with a penalty that is no longer than a first token may take.
    pub const POOL: Figures = Figures { tokens_per_s: 8_333.0, penalty: Duration::from_secs(1) };

    fn penalty_tokens(self) -> f64 {
        self.tokens_per_s * self.penalty.as_secs_f64()
    }
}

pub struct GuideSchedule {
    figures: Figures,
    /// Uncached prompt tokens in flight on each pod.
    tokens: Vec<usize>,
    /// Requests whose answer has not begun: the pod of each, and its uncached tokens.
    waiting: HashMap<usize, (usize, usize)>,
    sent: SentBlocks,
    rng: Rng,
}

impl GuideSchedule {
    pub fn new(engines: &[Engine], figures: Figures, rng: Rng) -> GuideSchedule {
        let (tokens, waiting) = (vec![0; engines.len()], HashMap::new());
        GuideSchedule { figures, tokens, waiting, sent: SentBlocks::new(engines), rng }
    }

    /// Picks for the request of this key, of the pods that are there; of all, if none is.
    pub fn choose(&mut self, key: usize, prompt: &[u32], is_there: impl Fn(usize) -> bool) -> usize {
        let blocks = block_hashes(prompt);
        let mut pods: Vec<usize> = (0..self.tokens.len()).filter(|&pod| is_there(pod)).collect();
        if pods.is_empty() {
            pods = (0..self.tokens.len()).collect();
        }
        let pods = self.kept(pods, &blocks);
        let uncached = |pod: usize| (prompt.len() as f64 * (1.0 - self.sent.share(pod, &blocks))) as usize;
        let loads: Vec<(usize, usize)> =
            pods.into_iter().map(|pod| (pod, self.tokens[pod] + uncached(pod))).collect();
        let fewest = loads.iter().map(|(_, load)| *load).min().unwrap_or_default();
        let best = loads.into_iter().filter(|(_, load)| *load == fewest).map(|(pod, _)| pod);
        let picked = self.rng.choice(best.collect::<Vec<usize>>()).unwrap_or_default();
        let uncached = uncached(picked);
        self.tokens[picked] += uncached;
        self.waiting.insert(key, (picked, uncached));
        self.sent.note(picked, blocks);
        picked
    }

    /// The answer to the request of this key has begun, or there will be none.
    pub fn begun(&mut self, key: usize) {
        if let Some((pod, tokens)) = self.waiting.remove(&key) {
            self.tokens[pod] -= tokens;
        }
    }

    fn kept(&self, pods: Vec<usize>, blocks: &[u64]) -> Vec<usize> {
        let is_warm = |pod: &usize| !blocks.is_empty() && self.sent.share(*pod, blocks) >= AFFINITY;
        let (warm, others): (Vec<usize>, Vec<usize>) = pods.iter().partition(|pod| is_warm(pod));
        let most = self.fewest_tokens(&others) as f64 + self.figures.penalty_tokens();
        let is_overloaded = !others.is_empty() && self.fewest_tokens(&warm) as f64 > most;
        if warm.is_empty() || is_overloaded { pods } else { warm }
    }

    fn fewest_tokens(&self, pods: &[usize]) -> usize {
        pods.iter().map(|&pod| self.tokens[pod]).min().unwrap_or_default()
    }
}

impl Picker for GuideSchedule {
    fn pick(&mut self, request: &Request<'_>, _engines: &[Engine], _now: Duration) -> usize {
        self.choose(request.key, request.prompt, |_| true)
    }

    fn first_output(&mut self, key: usize, _output: &Output) {
        self.begun(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model_server::engine::EngineSettings;

    fn schedule() -> GuideSchedule {
        let engines = vec![Engine::new(EngineSettings::default()); 2];
        GuideSchedule::new(&engines, Figures::GUIDE, Rng::with_seed(1))
    }

    fn prompt(first: u32, tokens: u32) -> Vec<u32> {
        (first..first + tokens).collect()
    }

    #[test]
    fn a_prompt_goes_where_nearly_all_of_it_is_and_else_where_the_fewest_tokens_are_in_flight() {
        let mut schedule = schedule();
        let warm = schedule.choose(0, &prompt(0, 1_600), |_| true);
        assert_eq!(schedule.choose(1, &prompt(0, 1_920), |_| true), warm, "five sixths of it are there");
        schedule.choose(2, &prompt(5_000, 1_920), |pod| pod == warm);
        assert_ne!(
            schedule.choose(3, &prompt(0, 3_200), |_| true),
            warm,
            "half of it is there, but more is in flight"
        );
        for key in 0..3 {
            schedule.begun(key);
        }
        assert_eq!(schedule.choose(4, &prompt(9_000, 160), |_| true), warm, "its tokens are computed");
    }

    #[test]
    fn what_a_pod_has_of_a_prompt_counts_even_where_it_is_too_little_to_be_warm() {
        for key in (0..20).step_by(2) {
            let mut schedule = schedule();
            let first = schedule.choose(key, &prompt(0, 1_600), |_| true);
            schedule.begun(key);
            assert_eq!(schedule.choose(key + 1, &prompt(0, 3_200), |_| true), first);
        }
    }

    #[test]
    fn a_warm_pod_that_would_take_too_much_longer_is_left() {
        let mut schedule = schedule();
        let warm = schedule.choose(0, &prompt(0, 1_600), |_| true);
        let penalty = Figures::GUIDE.penalty_tokens() as u32;
        schedule.choose(1, &prompt(5_000, penalty / 2), |pod| pod == warm);
        assert_eq!(schedule.choose(2, &prompt(0, 1_600), |_| true), warm);
        schedule.choose(3, &prompt(900_000, penalty / 2), |pod| pod == warm);
        assert_ne!(schedule.choose(4, &prompt(0, 1_600), |_| true), warm);
    }
}
