//! Reads the traces of real traffic in `envoy-test/traces`, whose README says what they are.

use std::io::Read;
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context, Result};
use flate2::read::GzDecoder;

const MOONCAKE: &[u8] = include_bytes!("../../../traces/mooncake_conversation.csv.gz");
const AZURE: &[u8] = include_bytes!("../../../traces/azure_conversation_2023.csv.gz");

/// One request of a trace.
#[derive(Debug, Clone, PartialEq)]
pub struct TracedRequest {
    pub arrival: Duration,
    pub prompt_tokens: usize,
    pub output_tokens: usize,
    /// Numbers of the prompt's blocks; empty in a trace that does not have them.
    pub blocks: Vec<RangeInclusive<u32>>,
}

/// The first requests of Mooncake's conversation trace.
pub fn mooncake(requests: usize) -> Result<Vec<TracedRequest>> {
    read(MOONCAKE, requests).context("reading Mooncake's trace")
}

/// The first requests of Azure's conversation trace.
pub fn azure(requests: usize) -> Result<Vec<TracedRequest>> {
    read(AZURE, requests).context("reading Azure's trace")
}

/// Stretches or shrinks the time of arrivals so that `rate_per_s` come in the mean.
pub fn rescale(trace: &mut [TracedRequest], rate_per_s: f64) {
    let span = trace.last().map_or(Duration::ZERO, |last| last.arrival);
    let wanted_s = trace.len() as f64 / rate_per_s;
    let factor = wanted_s / span.as_secs_f64().max(f64::MIN_POSITIVE);
    for request in trace {
        request.arrival = request.arrival.mul_f64(factor);
    }
}

fn read(gzipped: &[u8], requests: usize) -> Result<Vec<TracedRequest>> {
    let mut text = String::new();
    GzDecoder::new(gzipped).read_to_string(&mut text)?;
    text.lines().skip(1).take(requests).map(|line| row(line).context(line.to_owned())).collect()
}

fn row(line: &str) -> Result<TracedRequest> {
    let mut fields = line.split(',');
    let mut field = || fields.next().context("a field is missing");
    Ok(TracedRequest {
        arrival: Duration::from_millis(field()?.parse()?),
        prompt_tokens: field()?.parse()?,
        output_tokens: field()?.parse()?,
        blocks: fields.next().unwrap_or_default().split_whitespace().map(run).collect::<Result<_>>()?,
    })
}

/// `7` or `7-9`.
fn run(text: &str) -> Result<RangeInclusive<u32>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Ok(first.parse()?..=last.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_traces_are_read_whole() {
        assert_eq!(mooncake(usize::MAX).unwrap().len(), 12_031);
        assert_eq!(azure(usize::MAX).unwrap().len(), 19_366);
    }

    #[test]
    fn a_row_has_its_blocks_as_runs() {
        let request = row("3000,1200,7,0 5-6").unwrap();
        assert_eq!(request.blocks, [0..=0, 5..=6]);
        assert_eq!((request.prompt_tokens, request.output_tokens), (1200, 7));
    }

    #[test]
    fn rescaled_arrivals_have_the_rate() {
        let mut trace = azure(1000).unwrap();
        rescale(&mut trace, 50.0);
        assert_eq!(trace.last().unwrap().arrival.as_millis(), 20_000);
    }
}
