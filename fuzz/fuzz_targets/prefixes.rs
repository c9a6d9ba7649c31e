//! What happens to prompts, one after the other: the index of prefixes matches what a naive search finds, one that is too
//! small for all of it no more than that, within its bound, and one whose endpoint has little room what a list of blocks holds.
#![no_main]

#[path = "../../tests/prefix_world/mod.rs"]
mod prefix_world;

use libfuzzer_sys::fuzz_target;
use prefix_world::{ENOUGH_BLOCKS, Step, Tight, WORKERS, World, prompt};

/// Blocks of an index that forgets.
const FEW_BLOCKS: usize = 20;
/// Tokens that an endpoint with little room has room for.
const FEW_TOKENS: u64 = 1_000;
/// Prompts this long at most.
const LETTERS: usize = 8;

fuzz_target!(|bytes: &[u8]| {
    let steps = steps(bytes);
    let (mut large, mut small) = (World::new(ENOUGH_BLOCKS), World::new(FEW_BLOCKS));
    let mut tight = Tight::new(FEW_TOKENS);
    for step in &steps {
        large.step(step.clone());
        small.step(step.clone());
        tight.step(step.clone());
        assert!(small.index.len() <= FEW_BLOCKS);
    }
    assert_eq!(large.index.len(), large.naive_len());
    for step in &steps {
        let Step::Sent { letters, .. } = step else { continue };
        let blocks = prompt(letters);
        for world in [&large, &small] {
            assert_eq!(world.holders(&blocks), world.matches(&blocks));
        }
        assert_eq!(tight.matched(&blocks), tight.naive_match(&blocks));
        for endpoint in 0..3 {
            assert_eq!(large.matched(endpoint, &blocks), large.naive_match(endpoint, &blocks));
            assert!(small.matched(endpoint, &blocks) <= small.naive_match(endpoint, &blocks));
        }
    }
});

/// Two bytes a step: what happens and where, and the prompt's letters, a bit each.
fn steps(bytes: &[u8]) -> Vec<Step> {
    let pairs = bytes.chunks_exact(2).take(60);
    let steps = pairs.map(|pair| {
        let (what, rest) = (pair[0] % 12, pair[1]);
        let endpoint = usize::from(pair[0] / 12 % 3);
        match what {
            0..=3 => Step::Sent { endpoint, letters: letters(rest, pair[0] / 36) },
            4..=5 => Step::Answered { which: usize::from(rest) },
            6 => Step::Lost { worker: u64::from(rest) % WORKERS },
            7 => Step::Dropped { which: usize::from(rest) },
            8 => Step::Restarted { endpoint },
            10 => Step::Reported { endpoint, letters: letters(rest, pair[0] / 36), was_held: true },
            11 => Step::Reported { endpoint, letters: letters(rest, pair[0] / 36), was_held: false },
            _ => Step::Replaced { endpoint },
        }
    });
    steps.collect()
}

fn letters(bits: u8, length: u8) -> Vec<u8> {
    (0..usize::from(length) % (LETTERS + 1)).map(|place| bits >> place & 1).collect()
}
