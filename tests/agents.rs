//! A turn of an agent begins as the one before it, whatever the agent writes anew with every request.
#![cfg(not(target_family = "wasm"))]

use inference_picker::openai::{InferenceRequest, read_request};
use inference_picker::prefix::{BLOCK_BYTES, BlockHash, BlockHasher};

fn turn(agent: &str, number: usize) -> String {
    let file = format!("{}/tests/fixtures/agents/{agent}_{number}.json", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn blocks(request: &InferenceRequest<'_>) -> Vec<BlockHash> {
    let mut hasher = BlockHasher::new(&request.model, request.cache_salt);
    request.prompt.visit(|text| hasher.push(text));
    hasher.finish().hashes.to_vec()
}

/// Every block of a turn but the last, in which the end of its list stands, is one of the next turn's first.
#[test]
fn each_turn_holds_the_one_before_it() {
    for agent in ["claude_code", "translated", "codex"] {
        for number in [1, 2] {
            let [before, after] = [number, number + 1].map(|number| turn(agent, number));
            let before = blocks(&read_request(before.as_bytes()).unwrap());
            let after = blocks(&read_request(after.as_bytes()).unwrap());
            let shared = before.iter().zip(&after).take_while(|(one, other)| one == other).count();
            assert!(before.len() > 4_000 / BLOCK_BYTES, "{agent}: {} blocks", before.len());
            assert!(shared + 1 >= before.len(), "{agent} {number}: {shared} of {}", before.len());
        }
    }
}

#[test]
fn without_that_they_would_share_next_to_nothing() {
    let (one, other) = (turn("claude_code", 1), turn("claude_code", 2));
    let place = one.bytes().zip(other.bytes()).position(|(one, other)| one != other).unwrap();
    assert!(place < 600, "the first byte that differs: {place}");
}
