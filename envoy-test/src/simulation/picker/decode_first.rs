//! llm-d's rule for disaggregated prefill, as its pages describe it: the endpoint that decodes is picked first; if more than a
//! fixed number of the prompt's tokens were not sent there before, one that computes prompts is picked, too. Both by the scores of
//! [`DefaultWeights`].

use std::collections::HashMap;
use std::time::Duration;

use fastrand::Rng;

use super::default_weights::DefaultWeights;
use super::{Picker, Request};
use crate::model_server::engine::{Engine, Output};

pub struct DecodeFirst {
    scores: DefaultWeights,
    /// The first ones of the engines compute prompts.
    prefill_pods: usize,
    threshold_tokens: usize,
    /// Who computes the prompts of requests in flight, by their keys.
    prefills: HashMap<usize, usize>,
}

impl DecodeFirst {
    pub fn new(engines: &[Engine], prefill_pods: usize, threshold_tokens: usize, rng: Rng) -> DecodeFirst {
        let scores = DefaultWeights::new(engines, rng);
        DecodeFirst { scores, prefill_pods, threshold_tokens, prefills: HashMap::new() }
    }
}

impl Picker for DecodeFirst {
    fn pick(&mut self, request: &Request<'_>, _engines: &[Engine], _now: Duration) -> usize {
        let (prefill_pods, prompt) = (self.prefill_pods, request.prompt);
        let (decode_pod, known) = self.scores.choose_known(prompt, |pod| pod >= prefill_pods);
        let uncached = prompt.len() as f64 * (1.0 - known);
        if uncached >= self.threshold_tokens as f64 {
            let (prefill_pod, _) = self.scores.choose_known(prompt, |pod| pod < prefill_pods);
            self.prefills.insert(request.key, prefill_pod);
        }
        decode_pod
    }

    fn prefill_pod(&self, key: usize) -> Option<usize> {
        self.prefills.get(&key).copied()
    }

    fn ended(&mut self, key: usize, _output: &Output) {
        self.prefills.remove(&key);
    }

    fn next_tick(&self) -> Option<Duration> {
        self.scores.next_tick()
    }

    fn tick(&mut self, engines: &[Engine], now: Duration) {
        self.scores.tick(engines, now);
    }
}
