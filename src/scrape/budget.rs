//! How much of a core scraping may take, and by how much its intervals are stretched so that it takes no more.
//!
//! ```text
//! cost of a scrape = time spent ÷ scrapes, the lower one of the last two seconds
//! demand           = cost of a scrape × Σ 1 ÷ interval, over idle endpoints and over busy ones
//! idle stretch     = max(1, demand of idle ones ÷ (IDLE_SHARE × budget))
//! busy stretch     = max(1, demand of busy ones ÷ (budget − demand of idle ones ÷ idle stretch))
//! ```
//!
//! Of two seconds the lower cost counts, as one in which the thread was held up, or V8 was still compiling, says nothing.
//! The time spent is that of the plugin's own callbacks, by the host's clock; what of it is for one scrape counts [`HOST_FACTOR`]
//! times, for what the host does around it. It has what does not grow with the scrapes too, ticks and snapshots: where intervals are stretched, fewer scrapes bear
//! it, so each costs more, and the stretch grows until all of it fits.
//!
//! Snapshots have a share of their own: one that has taken long is followed by the next one that much later.

/// What a scrape costs for each microsecond of it in the plugin: connections, HTTP and copies from the kernel are the host's.
/// As measured on Envoy 1.40 with pages of 66 KB (`make bench PARTS=scraping`).
const HOST_FACTOR: f64 = 2.5;

/// What a scrape is taken to cost until that has been measured, in microseconds.
const GUESSED_COST_US: f64 = 100.0;

/// The share of the budget that endpoints without requests have: of them there is little to learn.
const IDLE_SHARE: f64 = 0.25;

/// The share of the budget that writing snapshots may take.
const SNAPSHOT_SHARE: f64 = 0.1;

/// How often the cost of a scrape is measured anew, in milliseconds.
const MEASURE_MS: u64 = 1_000;

/// Scrapes a second that would be made without a budget.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Demand {
    /// Of endpoints with requests.
    pub busy: f64,
    /// Of those without.
    pub idle: f64,
}

impl std::ops::AddAssign for Demand {
    fn add_assign(&mut self, other: Demand) {
        self.busy += other.busy;
        self.idle += other.idle;
    }
}

/// By how much intervals are longer than they would be without a budget; at least 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stretch {
    /// Those of endpoints with requests.
    pub busy: f64,
    /// Those of endpoints without.
    pub idle: f64,
}

impl Stretch {
    /// As they are configured.
    pub const NONE: Stretch = Stretch { busy: 1.0, idle: 1.0 };
}

/// What scraping has cost, and may.
#[derive(Debug)]
pub struct Budget {
    /// In microseconds of a second.
    us_per_s: f64,
    spent_us: f64,
    scrapes: u32,
    measured_ms: Option<u64>,
    /// What a scrape has cost, in microseconds: in the last second that was measured, and in the one before.
    costs_us: [f64; 2],
    next_snapshot_ms: u64,
}

impl Budget {
    /// One of this share of a core.
    pub fn new(share: f64) -> Budget {
        Budget {
            us_per_s: share * 1e6,
            spent_us: 0.0,
            scrapes: 0,
            measured_ms: None,
            costs_us: [GUESSED_COST_US; 2],
            next_snapshot_ms: 0,
        }
    }

    /// So long was spent at a tick.
    pub fn spend(&mut self, us: u64) {
        self.spent_us += us as f64;
    }

    /// So long of what is passed to [`Budget::spend`] went into asking for pages, to which the host's part is to be added.
    pub fn asked(&mut self, us: u64) {
        self.spent_us += us as f64 * (HOST_FACTOR - 1.0);
    }

    /// So long was spent on reading the answer to a scrape.
    pub fn answered(&mut self, us: u64) {
        self.spent_us += us as f64 * HOST_FACTOR;
        self.scrapes = self.scrapes.saturating_add(1);
    }

    /// By how much intervals are to be stretched now.
    pub fn stretch(&mut self, demand: Demand, now_ms: u64) -> Stretch {
        self.measure(now_ms);
        let [last_us, before_us] = self.costs_us;
        let cost_us = last_us.min(before_us);
        let idle_us = cost_us * demand.idle;
        let idle = (idle_us / (IDLE_SHARE * self.us_per_s)).max(1.0);
        let left_us = self.us_per_s - idle_us / idle;
        Stretch { busy: (cost_us * demand.busy / left_us).max(1.0), idle }
    }

    fn measure(&mut self, now_ms: u64) {
        let since_ms = *self.measured_ms.get_or_insert(now_ms);
        if self.scrapes == 0 || now_ms.abs_diff(since_ms) < MEASURE_MS {
            return;
        }
        let new_us = self.spent_us / f64::from(self.scrapes);
        let [last_us, _] = self.costs_us;
        self.costs_us = [new_us, last_us];
        (self.spent_us, self.scrapes, self.measured_ms) = (0.0, 0, Some(now_ms));
    }

    /// Whether a snapshot may be written.
    pub fn allows_snapshot(&self, now_ms: u64) -> bool {
        // What is due later than any is put off was put off by a clock that has gone back since.
        now_ms >= self.next_snapshot_ms || self.next_snapshot_ms - now_ms > MAX_SNAPSHOT_PAUSE_MS
    }

    /// Writing snapshots has taken the plugin so long, which is also to be passed to [`Budget::spend`].
    pub fn snapshot_written(&mut self, us: u64, now_ms: u64) {
        let pause_ms = us as f64 * 1e3 / (SNAPSHOT_SHARE * self.us_per_s);
        self.next_snapshot_ms = now_ms + (pause_ms as u64).min(MAX_SNAPSHOT_PAUSE_MS);
    }
}

/// The longest between two snapshots while there is something to publish, in milliseconds.
const MAX_SNAPSHOT_PAUSE_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// A scraper that spends so much on each scrape and so much on each second, for as long as it takes until nothing changes:
    /// the stretch, and the share of a core.
    fn settled(share: f64, demand: Demand, scrape_us: f64, second_us: f64) -> (Stretch, f64) {
        let (mut budget, mut stretch, mut used) = (Budget::new(share), Stretch::NONE, 0.0);
        budget.stretch(demand, 0);
        for second in 1..200 {
            let scrapes = demand.busy / stretch.busy + demand.idle / stretch.idle;
            used = (scrapes * scrape_us * HOST_FACTOR + second_us) / 1e6;
            budget.spend(second_us as u64);
            (0..scrapes.round() as u32).for_each(|_| budget.answered(scrape_us as u64));
            stretch = budget.stretch(demand, second * MEASURE_MS);
        }
        (stretch, used)
    }

    #[test]
    fn what_fits_the_budget_is_not_stretched() {
        let demand = Demand { busy: 80.0, idle: 32.0 };
        assert_eq!(settled(0.1, demand, 50.0, 2_000.0).0, Stretch::NONE);
    }

    #[test]
    fn before_anything_was_measured_many_endpoints_are_not_asked_at_once() {
        let stretch = Budget::new(0.1).stretch(Demand { busy: 20_000.0, idle: 0.0 }, 5_000);
        assert_eq!(stretch, Stretch { busy: 20.0, idle: 1.0 });
    }

    #[test]
    fn what_does_not_is_stretched_until_it_does_with_what_no_scrape_bears() {
        for (busy, idle) in [(20_000.0, 0.0), (20_000.0, 8_000.0), (2_000.0, 80_000.0)] {
            let (stretch, used) = settled(0.1, Demand { busy, idle }, 50.0, 10_000.0);
            assert!((0.09..0.105).contains(&used), "{busy} {idle}: {used} {stretch:?}");
        }
    }

    #[test]
    fn one_second_in_which_the_thread_was_held_up_stretches_nothing() {
        let (mut budget, demand) = (Budget::new(0.1), Demand { busy: 80.0, idle: 0.0 });
        for (second, us) in [(0, 0), (1, 900_000), (2, 4_000), (3, 900_000), (4, 4_000)] {
            budget.spend(us);
            (0..80).for_each(|_| budget.answered(0));
            assert_eq!(budget.stretch(demand, second * MEASURE_MS), Stretch::NONE, "{second}");
        }
    }

    #[test]
    fn idle_endpoints_leave_busy_ones_three_quarters() {
        let (alone, used) = settled(0.1, Demand { busy: 0.0, idle: 80_000.0 }, 50.0, 0.0);
        assert!((0.024..0.026).contains(&used) && alone.busy == 1.0, "{used} {alone:?}");
        let (beside, _) = settled(0.1, Demand { busy: 20_000.0, idle: 80_000.0 }, 50.0, 0.0);
        assert!((beside.busy - 20_000.0 * 50.0 * HOST_FACTOR / 75_000.0).abs() < 0.5, "{beside:?}");
    }

    #[test]
    fn a_snapshot_that_takes_long_is_followed_by_the_next_one_later() {
        let mut budget = Budget::new(0.1);
        for (us, pause_ms) in [(100, 10), (1_000, 100), (5_000, 500), (10_000_000, 1_000)] {
            budget.snapshot_written(us, 5_000);
            assert!(
                !budget.allows_snapshot(5_000 + pause_ms - 1) && budget.allows_snapshot(5_000 + pause_ms)
            );
            assert!(budget.allows_snapshot(0), "the clock has gone back");
        }
    }
}
