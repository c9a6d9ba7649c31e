//! How many tokens a model's prompts and answers have, learnt from the usage that servers report.
//!
//! ```text
//! prompt tokens = estimate × (Σ prompt tokens reported ÷ Σ their estimates)
//! answer tokens = Σ completion tokens reported ÷ answers
//! ```
//!
//! Estimates are made of the prompt's bytes (four to a token); how far that is off depends on the model's tokenizer
//! and the language its users write in. Both ratios start at a default and forget (see [`DecayedRatio`]).

use std::collections::HashMap;

use crate::decayed_ratio::DecayedRatio;

/// Models that are distinguished; of more, only the defaults are known.
const MAX_MODELS: usize = 4_096;

/// Estimated tokens that the default, one to one, counts for.
const SCALE_WEIGHT_TOKENS: f64 = 2_000.0;
/// Estimated tokens over which a scale is learnt.
const SCALE_MEMORY_TOKENS: f64 = 1_000_000.0;
/// The factor by which estimates may be off, either way: what a server reports beyond that is not believed.
const MAX_SCALE: f64 = 16.0;
/// Estimated tokens for which one prompt counts at most. How long a client makes it look is the client's to choose: no single
/// one may decide what is believed of all.
const MAX_LEARNT_TOKENS: f64 = 2_000.0;

/// Tokens of an answer until some have been seen: a paragraph or two.
const DEFAULT_ANSWER_TOKENS: f64 = 200.0;
/// Answers that the default counts for.
const ANSWER_WEIGHT: f64 = 10.0;
/// Answers over which their length is learnt.
const ANSWER_MEMORY: f64 = 1_000.0;

/// What is known of each model, by its name at the servers.
#[derive(Debug, Default)]
pub struct TokenEstimator {
    by_model: HashMap<String, Sizes>,
}

#[derive(Debug)]
struct Sizes {
    scale: DecayedRatio,
    answer_tokens: DecayedRatio,
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes {
            scale: DecayedRatio::new(1.0, SCALE_WEIGHT_TOKENS, SCALE_MEMORY_TOKENS),
            answer_tokens: DecayedRatio::new(DEFAULT_ANSWER_TOKENS, ANSWER_WEIGHT, ANSWER_MEMORY),
        }
    }
}

impl TokenEstimator {
    /// A prompt's size, at least 1, from its estimate.
    pub fn prompt_tokens(&self, model: &str, estimated_tokens: u32) -> u32 {
        let scale = self.by_model.get(model).map_or(1.0, |sizes| sizes.scale.value());
        ((f64::from(estimated_tokens) * scale).round() as u32).max(1)
    }

    /// The length to expect of an answer.
    pub fn answer_tokens(&self, model: &str) -> u32 {
        self.by_model.get(model).map_or(DEFAULT_ANSWER_TOKENS, |sizes| sizes.answer_tokens.value()) as u32
    }

    /// A server has reported what a prompt with this estimate and its answer came to. Whether it was learnt: of too many
    /// models nothing is.
    pub fn observe(
        &mut self,
        model: &str,
        estimated_tokens: u32,
        prompt_tokens: u32,
        completion_tokens: Option<u32>,
    ) -> bool {
        if !self.by_model.contains_key(model) {
            if self.by_model.len() >= MAX_MODELS {
                return false;
            }
            self.by_model.insert(model.to_owned(), Sizes::default());
        }
        let Some(sizes) = self.by_model.get_mut(model) else { return false };
        let estimated = f64::from(estimated_tokens);
        let reported = f64::from(prompt_tokens).max(estimated / MAX_SCALE).min(estimated * MAX_SCALE);
        let part = (MAX_LEARNT_TOKENS / estimated).min(1.0);
        sizes.scale.observe(reported * part, estimated * part);
        if let Some(tokens) = completion_tokens {
            sizes.answer_tokens.observe(f64::from(tokens), 1.0);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn sizes_are_guesses_until_servers_have_reported_and_each_model_has_its_own() {
        let mut sizes = TokenEstimator::default();
        assert_eq!((sizes.prompt_tokens("m", 300), sizes.answer_tokens("m")), (300, 200));
        for _ in 0..2_000 {
            sizes.observe("m", 1_000, 1_500, Some(20));
        }
        assert_eq!((sizes.prompt_tokens("m", 300), sizes.answer_tokens("m")), (450, 20));
        assert_eq!((sizes.prompt_tokens("n", 300), sizes.answer_tokens("n")), (300, 200));
    }

    #[test]
    fn an_answer_whose_length_is_not_reported_teaches_nothing_about_lengths() {
        let mut sizes = TokenEstimator::default();
        sizes.observe("m", 10, 10, None);
        assert_eq!(sizes.answer_tokens("m"), 200);
    }

    #[test]
    fn what_cannot_be_is_not_believed() {
        let mut sizes = TokenEstimator::default();
        for _ in 0..1_000 {
            sizes.observe("m", 1_000, u32::MAX, Some(1));
        }
        assert!(sizes.prompt_tokens("m", 100) <= 1_600);
        for _ in 0..5_000 {
            sizes.observe("m", 1_000, 0, Some(1));
        }
        assert!(sizes.prompt_tokens("m", 160) >= 10);
        assert_eq!(sizes.prompt_tokens("m", 0), 1);
    }

    #[test]
    fn no_single_prompt_decides_for_all_however_long() {
        let mut sizes = TokenEstimator::default();
        for _ in 0..2_000 {
            sizes.observe("m", 1_000, 1_000, Some(1));
        }
        for reported in [1, u32::MAX] {
            sizes.observe("m", 50_000_000, reported, Some(1));
            assert!((950..=1_100).contains(&sizes.prompt_tokens("m", 1_000)), "{reported}: {sizes:?}");
        }
    }

    #[test]
    fn no_number_of_names_makes_it_grow_without_end() {
        let mut sizes = TokenEstimator::default();
        for name in 0..MAX_MODELS + 10 {
            sizes.observe(&name.to_string(), 1, 1, Some(1));
        }
        assert_eq!(sizes.by_model.len(), MAX_MODELS);
    }
}
