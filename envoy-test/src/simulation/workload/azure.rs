//! Azure's conversation trace: its prompts' and answers' lengths, and its arrivals, scaled to the rate. The trace does
//! not report what prompts share, so they share nothing.

use anyhow::Result;
use fastrand::Rng;

use super::{Session, draw, trace};

pub fn sessions(requests: usize, rate_per_s: f64, rng: &mut Rng) -> Result<Vec<Session>> {
    let mut trace = trace::azure(requests)?;
    trace::rescale(&mut trace, rate_per_s);
    let sessions = trace.iter().map(|request| {
        let text = draw::fresh_text(request.prompt_tokens, rng);
        Session::single(request.arrival, text, request.output_tokens)
    });
    Ok(sessions.collect())
}
