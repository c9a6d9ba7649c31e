//! What is done once in a while.

/// The time of something that is done at intervals.
#[derive(Debug)]
pub struct Interval {
    length_ms: u64,
    last_ms: Option<u64>,
}

impl Interval {
    /// It is done every `length_ms` milliseconds, for the first time when it is first asked for.
    pub const fn new(length_ms: u64) -> Interval {
        Interval { length_ms, last_ms: None }
    }

    /// Whether it is to be done now; if so, it counts as done. A clock that goes back puts it off by no more than an
    /// interval.
    pub fn is_due(&mut self, now_ms: u64) -> bool {
        let is_due = self.last_ms.is_none_or(|last_ms| now_ms.abs_diff(last_ms) >= self.length_ms);
        if is_due {
            self.last_ms = Some(now_ms);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn it_is_due_at_once_then_after_each_interval_and_when_the_clock_has_gone_far_back() {
        let mut interval = Interval::new(100);
        let times = [5, 6, 104, 105, 204, 305, 3_000, 2_950, 2_901, 2_900, 0, 1, u64::MAX];
        let due: Vec<u64> = times.into_iter().filter(|now_ms| interval.is_due(*now_ms)).collect();
        assert_eq!(due, [5, 105, 305, 3_000, 2_900, 0, u64::MAX]);
    }
}
