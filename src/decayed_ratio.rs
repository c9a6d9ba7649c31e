//! A ratio of two sums that forgets.
//!
//! `value = (prior × weight + Σ numerators) ÷ (weight + Σ denominators)`, where both sums are halved whenever the lower
//! one has reached `memory`. So it starts at the prior, is an average over many observations in which large ones count
//! for more, and follows a change within about `memory`.

/// See the module's documentation.
#[derive(Debug, Clone, Copy)]
pub struct DecayedRatio {
    numerator: f64,
    denominator: f64,
    memory: f64,
}

impl DecayedRatio {
    /// A ratio that is `prior` until something is observed, and holds on to it as if it had been seen over `weight`, in
    /// the denominator's unit, as `memory` is.
    pub const fn new(prior: f64, weight: f64, memory: f64) -> DecayedRatio {
        DecayedRatio { numerator: prior * weight, denominator: weight, memory }
    }

    /// A ratio of which nothing has been seen, and that is no number until something is: for [`Self::value_beside`].
    pub const fn unseen(memory: f64) -> DecayedRatio {
        DecayedRatio { numerator: 0.0, denominator: 0.0, memory }
    }

    /// Adds what was seen. What is no number, or below zero, is left out.
    pub fn observe(&mut self, numerator: f64, denominator: f64) {
        if !(numerator.is_finite() && denominator.is_finite() && numerator >= 0.0 && denominator >= 0.0) {
            return;
        }
        self.numerator += numerator;
        self.denominator += denominator;
        if self.denominator >= self.memory {
            self.numerator /= 2.0;
            self.denominator /= 2.0;
        }
    }

    /// The ratio; never below zero.
    pub fn value(&self) -> f64 {
        self.numerator / self.denominator
    }

    /// The ratio if besides `prior` had been seen, over `weight`; never below zero.
    pub fn value_beside(&self, prior: f64, weight: f64) -> f64 {
        (prior * weight + self.numerator) / (weight + self.denominator)
    }

    /// Both sums, the upper one first.
    pub fn sums(&self) -> (f64, f64) {
        (self.numerator, self.denominator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn it_is_its_prior_then_the_average_of_what_was_seen_then_what_is_seen_now() {
        let mut ratio = DecayedRatio::new(8.0, 100.0, 1_000.0);
        assert_eq!(ratio.value(), 8.0);
        ratio.observe(1_200.0, 300.0);
        assert_eq!(ratio.value(), 5.0);
        for _ in 0..100 {
            ratio.observe(2_000.0, 1_000.0);
        }
        assert!((ratio.value() - 2.0).abs() < 1e-6, "{ratio:?}");
    }

    #[test]
    fn what_is_no_number_changes_nothing() {
        let mut ratio = DecayedRatio::new(1.0, 1.0, 10.0);
        for (numerator, denominator) in [(f64::NAN, 1.0), (1.0, f64::INFINITY), (-1.0, 1.0), (1.0, -1.0)] {
            ratio.observe(numerator, denominator);
        }
        assert_eq!(ratio.value(), 1.0);
    }
}
