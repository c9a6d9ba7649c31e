//! Mooncake's conversation trace, on engines that are sixteen times smaller than its own: all lengths are divided by
//! that, so that a block of 512 tokens becomes one of 32.
//!
//! The trace has arrivals on a grid of three seconds. They are spread evenly within it, as nobody knows where in those
//! three seconds they came; then time is scaled to the rate asked for.

use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::Result;
use fastrand::Rng;

use super::Session;
use super::trace::{self, TracedRequest};

const SCALE: usize = 16;
/// Of the answers: with it they take about a second, as long as several prompts.
const OUTPUT_SCALE: usize = 6;
const BLOCK_TOKENS: u32 = 512 / SCALE as u32;
const GRID: Duration = Duration::from_secs(3);

pub fn sessions(requests: usize, rate_per_s: f64, rng: &mut Rng) -> Result<Vec<Session>> {
    let mut trace = trace::mooncake(requests)?;
    for request in &mut trace {
        request.arrival += GRID.mul_f64(rng.f64());
    }
    trace.sort_by_key(|request| request.arrival);
    trace::rescale(&mut trace, rate_per_s);
    Ok(trace.iter().map(session).collect())
}

fn session(request: &TracedRequest) -> Session {
    let tokens = (request.prompt_tokens / SCALE).max(1);
    let text = request.blocks.iter().cloned().flatten().flat_map(block).take(tokens);
    let output_tokens = (request.output_tokens / OUTPUT_SCALE).max(1);
    Session::single(request.arrival, text.collect(), output_tokens)
}

/// The tokens of a block: its own, and always the same.
fn block(number: u32) -> RangeInclusive<u32> {
    let first = number * BLOCK_TOKENS;
    first..=first + BLOCK_TOKENS - 1
}
