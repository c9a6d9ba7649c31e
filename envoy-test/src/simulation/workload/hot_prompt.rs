//! One long system prompt for all, and behind it what a user asks. The prompt is cached wherever it has been once; what
//! may go wrong is that everything gathers there.

use fastrand::Rng;

use super::{Session, draw};

const SYSTEM_TOKENS: usize = 2_000;

pub fn sessions(requests: usize, rate_per_s: f64, rng: &mut Rng) -> Vec<Session> {
    let system = draw::fresh_text(SYSTEM_TOKENS, rng);
    let arrivals: Vec<_> = draw::poisson(rate_per_s, rng).take(requests).collect();
    let session = |starts| {
        let question = draw::fresh_text(rng.usize(20..=200), rng);
        Session::single(starts, [system.as_slice(), &question].concat(), rng.usize(20..=80))
    };
    arrivals.into_iter().map(session).collect()
}
