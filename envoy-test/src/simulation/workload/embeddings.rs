//! Embeddings beside chat: many inputs of very unequal length that are computed and not answered with tokens, and between
//! them chats, which are.

use fastrand::Rng;

use super::{Session, draw};

/// Of all requests.
const EMBEDDINGS_SHARE: f64 = 0.6;

pub fn sessions(requests: usize, rate_per_s: f64, rng: &mut Rng) -> Vec<Session> {
    let arrivals: Vec<_> = draw::poisson(rate_per_s, rng).take(requests).collect();
    let session = |starts| {
        if rng.f64() < EMBEDDINGS_SHARE {
            let input = draw::fresh_text(draw::log_uniform(20, 4_000, rng), rng);
            return Session::single(starts, input, 1);
        }
        Session::single(starts, draw::fresh_text(rng.usize(100..=500), rng), rng.usize(100..=300))
    };
    arrivals.into_iter().map(session).collect()
}
