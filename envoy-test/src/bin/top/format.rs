//! Numbers as people read them; a dash for those that are not known.

/// A bar of this many characters at most.
const BAR_LENGTH: f64 = 10.0;

pub fn count(value: Option<f64>) -> String {
    known(value, |value| format!("{value:.0}"))
}

pub fn rate(value: f64) -> String {
    if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

pub fn percent(share: Option<f64>) -> String {
    known(share, |share| format!("{:.0}%", share * 100.0))
}

/// Milliseconds below ten seconds, then seconds.
pub fn time(time_ms: Option<f64>) -> String {
    known(time_ms, |time_ms| match time_ms {
        ..10_000.0 => format!("{time_ms:.0} ms"),
        _ => format!("{:.0} s", time_ms / 1000.0),
    })
}

/// `▇▇▇▇······  43%`
pub fn bar(share: Option<f64>) -> String {
    known(share, |share| {
        let length = (share.clamp(0.0, 1.0) * BAR_LENGTH).round() as usize;
        let rest = BAR_LENGTH as usize - length;
        format!("{}{} {:>4}", "▇".repeat(length), "·".repeat(rest), percent(Some(share)))
    })
}

fn known(value: Option<f64>, write: impl FnOnce(f64) -> String) -> String {
    value.map_or("-".to_owned(), write)
}
