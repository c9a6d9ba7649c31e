//! Short questions with long answers, as of models that reason: what fills the servers is what they decode.

use fastrand::Rng;

use super::{Session, draw};

pub fn sessions(requests: usize, rate_per_s: f64, rng: &mut Rng) -> Vec<Session> {
    let arrivals: Vec<_> = draw::poisson(rate_per_s, rng).take(requests).collect();
    let session = |starts| {
        let question = draw::fresh_text(rng.usize(50..=500), rng);
        Session::single(starts, question, draw::log_uniform(1_000, 8_000, rng))
    };
    arrivals.into_iter().map(session).collect()
}
