//! A day in little: the conversations of Mooncake's trace, of which at noon nine times as many come as at midnight.
//!
//! ```text
//! rate at a share t of the day = mean rate × (1 − SWING × cos(2πt))
//! ```

use std::f64::consts::TAU;
use std::time::Duration;

use anyhow::Result;
use fastrand::Rng;

use super::{Session, conversation};

/// How much less than the mean comes at midnight, and more at noon.
const SWING: f64 = 0.8;
/// Of the search for a time: the last step is far below a millisecond.
const HALVINGS: usize = 40;

pub fn sessions(requests: usize, rate_per_s: f64, rng: &mut Rng) -> Result<Vec<Session>> {
    let mut sessions = conversation::sessions(requests, rate_per_s, rng)?;
    let day_s = requests as f64 / rate_per_s;
    for session in &mut sessions {
        let starts_s = time_of(session.starts.as_secs_f64() / day_s) * day_s;
        session.starts = Duration::from_secs_f64(starts_s);
    }
    Ok(sessions)
}

/// The share of the day after which this share of the requests has come.
fn time_of(share: f64) -> f64 {
    let come = |time: f64| time - SWING * (TAU * time).sin() / TAU;
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..HALVINGS {
        let middle = (low + high) / 2.0;
        if come(middle) < share { low = middle } else { high = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_noon_nine_times_as_many_come_as_at_midnight() {
        const REQUESTS: u32 = 100_000;
        let width = 0.02;
        let times: Vec<f64> =
            (0..REQUESTS).map(|request| time_of(f64::from(request) / f64::from(REQUESTS))).collect();
        let share_until = |time: f64| times.iter().filter(|&&other| other < time).count();
        let midnight = share_until(width);
        let noon = share_until(0.5 + width / 2.0) - share_until(0.5 - width / 2.0);
        assert!((8..=10).contains(&(noon / midnight.max(1))), "{noon} {midnight}");
    }
}
