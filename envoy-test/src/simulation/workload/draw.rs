//! What traffic is drawn from: arrivals, text, popularity.

use std::time::Duration;

use fastrand::Rng;

/// A time that is exponentially distributed.
pub fn exponential(mean_s: f64, rng: &mut Rng) -> Duration {
    Duration::from_secs_f64(-mean_s * (1.0 - rng.f64()).ln())
}

/// Arrivals that know nothing of each other.
pub fn poisson(rate_per_s: f64, rng: &mut Rng) -> impl Iterator<Item = Duration> {
    let mut now = Duration::ZERO;
    std::iter::repeat_with(move || {
        now += exponential(1.0 / rate_per_s, rng);
        now
    })
}

/// Text that nobody else has.
pub fn fresh_text(tokens: usize, rng: &mut Rng) -> Vec<u32> {
    std::iter::repeat_with(|| rng.u32(..)).take(tokens).collect()
}

/// A number of which each doubling is as likely as the next.
pub fn log_uniform(least: usize, most: usize, rng: &mut Rng) -> usize {
    let ratio = most as f64 / least as f64;
    (least as f64 * ratio.powf(rng.f64())) as usize
}

/// Which of several things is wanted, where the one of rank r is wanted 1/r as often as the first (Zipf's law).
pub struct Popularity {
    /// For each rank, how often it or a higher one is wanted.
    cumulated: Vec<f64>,
}

impl Popularity {
    pub fn of(things: usize) -> Popularity {
        let mut sum = 0.0;
        let cumulated = (1..=things).map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        });
        Popularity { cumulated: cumulated.collect() }
    }

    pub fn draw(&self, rng: &mut Rng) -> usize {
        let all = self.cumulated.last().copied().unwrap_or_default();
        let drawn = rng.f64() * all;
        self.cumulated.partition_point(|&below| below <= drawn)
    }
}
