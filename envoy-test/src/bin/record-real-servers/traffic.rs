//! What is sent: single requests at random times, a third of which begin with one of a few shared prefixes.

use std::ops::RangeInclusive;

use envoy_test::simulation::replay::trace::SentRequest;
use envoy_test::simulation::workload::draw::{Popularity, log_uniform, poisson};
use fastrand::Rng;

/// Of all prefixes; which one a request begins with follows Zipf's law.
const PREFIXES: usize = 10;
const PREFIX_TOKENS: RangeInclusive<usize> = 200..=1_000;
/// One request of so many begins with a shared prefix.
const ONE_SHARES_OF: usize = 3;
/// What is a request's own behind a prefix, and without any.
const OWN_TOKENS: RangeInclusive<usize> = 20..=400;
const ALONE_TOKENS: RangeInclusive<usize> = 50..=1_500;
const OUTPUT_TOKENS: RangeInclusive<usize> = 5..=100;

/// So many requests, at this rate in the mean.
pub fn draw(requests: usize, rate_per_s: f64, seed: u64) -> Vec<SentRequest> {
    let mut rng = Rng::with_seed(seed);
    let arrivals: Vec<_> = poisson(rate_per_s, &mut rng).take(requests).collect();
    let prefixes: Vec<usize> = (0..PREFIXES).map(|_| drawn(PREFIX_TOKENS, &mut rng)).collect();
    let popularity = Popularity::of(PREFIXES);
    let request = |arrival| {
        let shares = rng.usize(..ONE_SHARES_OF) == 0;
        let rank = shares.then(|| popularity.draw(&mut rng));
        let prefix = rank.and_then(|rank| Some((rank as u32 + 1, *prefixes.get(rank)?)));
        let own = drawn(if shares { OWN_TOKENS } else { ALONE_TOKENS }, &mut rng);
        let prompt_tokens = own + prefix.map_or(0, |(_, tokens)| tokens);
        SentRequest { arrival, prefix, prompt_tokens, output_tokens: drawn(OUTPUT_TOKENS, &mut rng) }
    };
    arrivals.into_iter().map(request).collect()
}

fn drawn(range: RangeInclusive<usize>, rng: &mut Rng) -> usize {
    log_uniform(*range.start(), *range.end(), rng)
}
