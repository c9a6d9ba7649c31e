//! Many requests at once, then nothing: what was picked a moment ago must count, though no metric shows it yet.

use std::time::Duration;

use fastrand::Rng;

use super::{Session, draw};

const BURST: usize = 24;

pub fn sessions(requests: usize, rate_per_s: f64, rng: &mut Rng) -> Vec<Session> {
    let between = Duration::from_secs_f64(BURST as f64 / rate_per_s);
    let session = |index: usize| {
        let starts = between * (index / BURST) as u32;
        Session::single(starts, draw::fresh_text(rng.usize(100..=900), rng), rng.usize(20..=60))
    };
    (0..requests).map(session).collect()
}
