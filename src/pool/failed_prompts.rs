//! Prompts that failed lately: whether they or their endpoints are to blame.
//!
//! A prompt can make any server fail. One that has failed at one endpoint says something of that one, until it fails at
//! another too: from then on it says nothing of any, until it has been answered. So a prompt that fails everywhere can count
//! against the endpoint where it failed first and no other, however often it is sent; and an endpoint that fails by itself is
//! charged with all of its failures, as its prompts are answered elsewhere, or fail there alone.

use crate::load::LoadId;

/// Prompts of a pool that are remembered; the one that failed longest ago leaves first.
const MAX_FAILED_PROMPTS: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blame {
    /// It has failed at this endpoint alone.
    Endpoint(LoadId),
    /// It has failed at several.
    Prompt,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct FailedPrompts {
    /// By the prompts' digests, the one that failed last comes last.
    prompts: Vec<(u64, Blame)>,
}

impl FailedPrompts {
    /// A request with this prompt has failed there; whether that says something of the endpoint.
    pub fn failed(&mut self, prompt: u64, id: LoadId) -> bool {
        let before = self.prompts.iter().find(|(known, _)| *known == prompt).map(|(_, blame)| *blame);
        self.prompts.retain(|(known, _)| *known != prompt);
        let blame = match before {
            None => Blame::Endpoint(id),
            Some(same) if same == Blame::Endpoint(id) => same,
            Some(_) => Blame::Prompt,
        };
        if self.prompts.len() == MAX_FAILED_PROMPTS {
            let mut is_first = true;
            self.prompts.retain(|_| !std::mem::take(&mut is_first));
        }
        self.prompts.push((prompt, blame));
        blame != Blame::Prompt
    }

    /// It has been answered: it is not to blame.
    pub fn answered(&mut self, prompt: u64) {
        self.prompts.retain(|(known, _)| *known != prompt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::LoadTracker;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// What is said of which endpoint: a failure of a prompt at an endpoint (`true`: it counts against it), or its answer.
    #[track_caller]
    fn check(story: &[(u64, Option<(u8, bool)>)]) {
        let mut loads = LoadTracker::default();
        let mut prompts = FailedPrompts::default();
        for (step, (prompt, failure)) in story.iter().enumerate() {
            match failure {
                None => prompts.answered(*prompt),
                Some((endpoint, counts)) => {
                    let id = loads.id(([10, 0, 0, *endpoint], 8000).into());
                    assert_eq!(prompts.failed(*prompt, id), *counts, "step {step} of {story:?}");
                }
            }
        }
    }

    #[test]
    fn a_prompt_that_fails_everywhere_counts_against_the_first_endpoint_alone() {
        check(&[(7, Some((1, true))), (7, Some((1, true))), (7, Some((2, false))), (7, Some((3, false)))]);
        check(&[(7, Some((1, true))), (7, Some((2, false))), (7, Some((1, false))), (7, Some((2, false)))]);
    }

    #[test]
    fn an_endpoint_that_fails_is_charged_with_every_prompt_that_fails_there_alone() {
        check(&[(7, Some((1, true))), (8, Some((1, true))), (9, Some((1, true)))]);
        check(&[(7, Some((1, true))), (7, None), (7, Some((1, true))), (7, None), (7, Some((2, true)))]);
        check(&[(7, Some((1, true))), (7, Some((2, false))), (7, None), (7, Some((2, true)))]);
    }

    #[test]
    fn no_more_prompts_are_remembered_than_there_is_room_for() {
        let mut prompts = FailedPrompts::default();
        let id = LoadTracker::default().id(([10, 0, 0, 1], 8000).into());
        assert!((0..10_000).all(|prompt| prompts.failed(prompt, id)));
        assert_eq!(prompts.prompts.len(), MAX_FAILED_PROMPTS);
    }
}
