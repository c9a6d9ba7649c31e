//! Retrieval-augmented generation: instructions that all share, four documents in the order in which the search ranks them,
//! and a question. Two prompts with the same documents share only those at the start that have the same order.

use fastrand::Rng;

use super::{Session, draw};

const INSTRUCTION_TOKENS: usize = 300;
const DOCUMENTS: usize = 100;
const DOCUMENT_TOKENS: std::ops::RangeInclusive<usize> = 4_000..=6_000;
const DOCUMENTS_OF_PROMPT: usize = 4;

pub fn sessions(requests: usize, rate_per_s: f64, rng: &mut Rng) -> Vec<Session> {
    let popularity = draw::Popularity::of(DOCUMENTS);
    let instructions = draw::fresh_text(INSTRUCTION_TOKENS, rng);
    let documents: Vec<_> =
        (0..DOCUMENTS).map(|_| draw::fresh_text(rng.usize(DOCUMENT_TOKENS), rng)).collect();
    let arrivals: Vec<_> = draw::poisson(rate_per_s, rng).take(requests).collect();
    let session = |starts| {
        let mut prompt = instructions.clone();
        for document in found(&popularity, rng) {
            prompt.extend(&documents[document]);
        }
        prompt.extend(draw::fresh_text(rng.usize(20..=100), rng));
        Session::single(starts, prompt, rng.usize(50..=300))
    };
    arrivals.into_iter().map(session).collect()
}

/// Different documents, shuffled.
fn found(popularity: &draw::Popularity, rng: &mut Rng) -> Vec<usize> {
    let mut found = Vec::with_capacity(DOCUMENTS_OF_PROMPT);
    while found.len() < DOCUMENTS_OF_PROMPT {
        let document = popularity.draw(rng);
        if !found.contains(&document) {
            found.push(document);
        }
    }
    rng.shuffle(&mut found);
    found
}
