//! What others have sent to a server, as far as a step shows that it has not finished.
//!
//! ```text
//! unfinished tokens = STEP_WEIGHT × min(time since the page last changed, LONGEST_STEP_MS) × prefill speed
//! ```
//!
//! A server's page is that of the end of its last step: requests that have come since are not in it, nor is how much of a long
//! prompt is still to be computed. But a step that only generates takes a hundredth of a second, and one that computes prompts a
//! tenth or more. So a page that counts others' requests and stands still tells that prompts are being computed, and the longer
//! it does, the more of them there are. Where there are no requests of others nothing is counted.

/// The longest step that is believed in, in milliseconds: 2,048 tokens at 8 a millisecond.
const LONGEST_STEP_MS: u64 = 250;

/// A step that has lasted for so long is likely to last for as long again, and what has come since is computed behind it. 1 to 4
/// is about as good (twenty gateways without peers).
const STEP_WEIGHT: f64 = 2.0;

/// Prompt tokens of others that a server with this speed has yet to compute, whose step has lasted so long.
pub(super) fn unfinished_tokens(step_ms: u64, prefill_tokens_per_ms: f64) -> u64 {
    (STEP_WEIGHT * step_ms.min(LONGEST_STEP_MS) as f64 * prefill_tokens_per_ms) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_longer_step_has_more_tokens_and_none_has_more_than_the_longest() {
        let tokens = [0, 50, 250, 10_000].map(|step_ms| unfinished_tokens(step_ms, 8.0));
        assert_eq!(tokens, [0, 800, 4_000, 4_000]);
    }
}
