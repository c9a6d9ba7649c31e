//! Prompts of somewhat unequal length for twelve LoRA adapters, some of which are popular: three times as many as a server
//! has slots for.

use fastrand::Rng;

use super::{Session, draw, random};

/// What the adapters are called.
pub fn names() -> Vec<String> {
    (1..=ADAPTERS).map(|number| format!("adapter-{number}")).collect()
}

const ADAPTERS: usize = 12;

/// `names` are those of the adapters, the most popular one first.
pub fn sessions(requests: usize, rate_per_s: f64, names: &[String], rng: &mut Rng) -> Vec<Session> {
    let popularity = draw::Popularity::of(names.len());
    let sessions = random::sessions(requests, rate_per_s, rng);
    let for_adapter = |session: Session| {
        let adapter = names.get(popularity.draw(rng)).cloned();
        Session { adapter, ..session }
    };
    sessions.into_iter().map(for_adapter).collect()
}
