//! Two models in one pool, both in every server: a base model that chats, and a fine-tuned one of it that sums up long texts
//! in a few words. What one has computed is of no use to the other.

use fastrand::Rng;

use super::{Session, adapters, draw};

/// Of all requests, those for the fine-tuned model.
const SUMMARIES_SHARE: f64 = 0.25;
const TEXTS: usize = 60;
const TEXT_TOKENS: std::ops::RangeInclusive<usize> = 1_500..=4_000;

pub fn sessions(requests: usize, rate_per_s: f64, rng: &mut Rng) -> Vec<Session> {
    let tuned = adapters::names().into_iter().next();
    let popularity = draw::Popularity::of(TEXTS);
    let texts: Vec<_> = (0..TEXTS).map(|_| draw::fresh_text(rng.usize(TEXT_TOKENS), rng)).collect();
    let arrivals: Vec<_> = draw::poisson(rate_per_s, rng).take(requests).collect();
    let session = |starts| {
        // A text is read by both models.
        let text = texts[popularity.draw(rng)].clone();
        if rng.f64() < SUMMARIES_SHARE {
            let summary = Session::single(starts, text, rng.usize(20..=60));
            return Session { adapter: tuned.clone(), ..summary };
        }
        let question = draw::fresh_text(rng.usize(50..=300), rng);
        Session::single(starts, [&text[..text.len() / 4], &question].concat(), rng.usize(50..=200))
    };
    arrivals.into_iter().map(session).collect()
}
