//! How busy the machine is, with whatever: Linux only.

use std::fs;

/// Processor time since the machine started, all processors together, in the kernel's ticks.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessorTime {
    busy: u64,
    all: u64,
}

impl ProcessorTime {
    /// Up to now; zero on a system that does not report it.
    pub fn now() -> ProcessorTime {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        text.lines().next().and_then(ProcessorTime::parse).unwrap_or_default()
    }

    /// The line `cpu user nice system idle iowait irq softirq steal …`.
    fn parse(line: &str) -> Option<ProcessorTime> {
        let numbers = line.strip_prefix("cpu ")?.split_ascii_whitespace().take(8);
        let numbers: Vec<u64> = numbers.map(str::parse).collect::<Result<_, _>>().ok()?;
        let all = numbers.iter().sum::<u64>();
        let idle = numbers.iter().skip(3).take(2).sum::<u64>();
        Some(ProcessorTime { busy: all - idle, all })
    }

    /// The share of the processors that was busy since then.
    pub fn busy_share_since(self, then: ProcessorTime) -> f64 {
        let (busy, all) = (self.busy.saturating_sub(then.busy), self.all.saturating_sub(then.all));
        busy as f64 / all.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_neither_idles_nor_waits_is_busy() {
        let [then, now] = ["cpu 10 0 10 70 10 0 0 0 0 0", "cpu 20 0 10 80 20 5 5 0 0 0"]
            .map(|line| ProcessorTime::parse(line).unwrap());
        assert_eq!(now.busy_share_since(then), 0.5);
        assert!(ProcessorTime::parse("intr 1 2").is_none());
    }
}
