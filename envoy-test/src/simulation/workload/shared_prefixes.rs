//! Questions about documents: the document first, then the question. A few documents are asked about often, many
//! rarely, and all of them together do not fit into one engine's cache.

use std::ops::RangeInclusive;

use fastrand::Rng;

use super::{Session, draw};

const DOCUMENTS: usize = 200;
const DOCUMENT_TOKENS: RangeInclusive<usize> = 500..=2_500;

pub fn sessions(requests: usize, rate_per_s: f64, rng: &mut Rng) -> Vec<Session> {
    about(DOCUMENTS, DOCUMENT_TOKENS, requests, rate_per_s, rng)
}

/// The same about another number of documents, of another length.
pub fn about(
    documents: usize,
    document_tokens: RangeInclusive<usize>,
    requests: usize,
    rate_per_s: f64,
    rng: &mut Rng,
) -> Vec<Session> {
    let popularity = draw::Popularity::of(documents);
    let documents: Vec<_> =
        (0..documents).map(|_| draw::fresh_text(rng.usize(document_tokens.clone()), rng)).collect();
    let arrivals: Vec<_> = draw::poisson(rate_per_s, rng).take(requests).collect();
    let session = |starts| {
        let document = &documents[popularity.draw(rng)];
        let question = draw::fresh_text(rng.usize(20..=100), rng);
        Session::single(starts, [document.as_slice(), &question].concat(), rng.usize(50..=150))
    };
    arrivals.into_iter().map(session).collect()
}
