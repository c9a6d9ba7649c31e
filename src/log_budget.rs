//! How many lines go to the log, so that neither clients nor pods can fill an operator's disk.

/// Lines of one VM in one second. A pool of fifty endpoints that all go at once is logged in full.
const MAX_LINES_A_SECOND: u32 = 50;

/// What is left of a second's lines.
#[derive(Debug, Default)]
pub struct LogBudget {
    second: u64,
    lines: u32,
    left_out: u32,
}

impl LogBudget {
    /// Whether a line may be written now, and if so, how many were left out since the last that was.
    pub fn take(&mut self, now_ms: u64) -> Option<u32> {
        let second = now_ms / 1_000;
        if self.second != second {
            (self.second, self.lines) = (second, 0);
        }
        if self.lines >= MAX_LINES_A_SECOND {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_second_has_its_lines_and_the_next_one_says_how_many_were_left_out() {
        let mut budget = LogBudget::default();
        let written = |budget: &mut LogBudget, now_ms: u64| {
            (0..80).filter_map(|_| budget.take(now_ms)).collect::<Vec<u32>>()
        };
        assert_eq!(written(&mut budget, 5_000), [0; 50]);
        assert_eq!(budget.take(5_999), None);
        let next = written(&mut budget, 6_000);
        assert_eq!((next.len(), next[0], next[1]), (50, 31, 0));
    }
}
