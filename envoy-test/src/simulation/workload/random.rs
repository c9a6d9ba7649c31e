//! Prompts of somewhat unequal length that share nothing: there is little to win here, and nothing may be lost.

use fastrand::Rng;

use super::{Session, draw};

pub fn sessions(requests: usize, rate_per_s: f64, rng: &mut Rng) -> Vec<Session> {
    let arrivals: Vec<_> = draw::poisson(rate_per_s, rng).take(requests).collect();
    let session =
        |starts| Session::single(starts, draw::fresh_text(rng.usize(310..=465), rng), rng.usize(40..=60));
    arrivals.into_iter().map(session).collect()
}
