//! How the traffic of a cluster is shared out over its priorities, and over their healthy and degraded hosts: as Envoy's
//! load balancer does it, which a pick goes past.
//!
//! ```text
//! availability(priority, kind) = min(100, OVERPROVISIONING × hosts of the kind ÷ all hosts of the priority)
//! total                        = min(100, sum of all availabilities)
//! share(priority, kind)        = min(what is left of 100, availability × 100 ÷ total)
//! ```
//!
//! All are whole percents. The healthy hosts of all priorities come first, the first priority before the others, and then
//! the degraded ones likewise; what rounding leaves over goes to the first of those that have a share. So a priority that
//! has lost less than 29 % of its hosts has all the traffic, and degraded hosts have some only where there are too few
//! healthy ones.
//!
//! Two things are not as in Envoy. There is no panic: as long as one host is healthy, none is picked that is not.
//! And a cluster's own `overprovisioning_factor` is not known, because Envoy's admin does not report it.

/// What a priority is worth beyond its hosts, in percent: Envoy's default.
const OVERPROVISIONING_PERCENT: u32 = 140;

/// The hosts of one priority.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct HostCounts {
    /// All that count.
    pub all: u32,
    /// Those that may be picked.
    pub healthy: u32,
    /// Those that may be picked where there are not enough of the others.
    pub degraded: u32,
}

/// How many of a hundred requests the hosts of one priority get.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// Its healthy hosts together.
    pub healthy: u32,
    /// Its degraded hosts together.
    pub degraded: u32,
}

/// The shares of these priorities, given first to last. They add up to 100 if any host may be picked, and are 0 else.
pub fn shares(priorities: &[HostCounts]) -> Vec<Shares> {
    let healthy: Vec<u32> = priorities.iter().map(|hosts| availability(hosts.healthy, hosts.all)).collect();
    let degraded: Vec<u32> = priorities.iter().map(|hosts| availability(hosts.degraded, hosts.all)).collect();
    let total = healthy.iter().chain(&degraded).sum::<u32>().min(100);
    let mut left = 100;
    let healthy = share_out(&healthy, total, &mut left);
    let degraded = share_out(&degraded, total, &mut left);
    let both = healthy.into_iter().zip(degraded);
    let mut shares: Vec<Shares> = both.map(|(healthy, degraded)| Shares { healthy, degraded }).collect();
    if let Some(first) = first_served(&mut shares, priorities) {
        *first += left;
    }
    shares
}

/// In percent; the sum over 128 priorities, of which Envoy has no more, is far from overflowing.
fn availability(hosts: u32, all: u32) -> u32 {
    let percent = u64::from(OVERPROVISIONING_PERCENT) * u64::from(hosts);
    percent.checked_div(u64::from(all)).unwrap_or(0).min(100) as u32
}

fn share_out(availabilities: &[u32], total: u32, left: &mut u32) -> Vec<u32> {
    let share = |availability: &u32| {
        let share = (availability * 100).checked_div(total).unwrap_or(0).min(*left);
        *left -= share;
        share
    };
    availabilities.iter().map(share).collect()
}

/// The first share that is not nothing; where all are, because the few hosts there are round down to none, that of the
/// first hosts.
fn first_served<'a>(shares: &'a mut [Shares], priorities: &[HostCounts]) -> Option<&'a mut u32> {
    let healthy = shares.iter().position(|share| share.healthy > 0);
    let degraded = shares.iter().position(|share| share.degraded > 0);
    let any_healthy = priorities.iter().position(|hosts| hosts.healthy > 0);
    let any_degraded = priorities.iter().position(|hosts| hosts.degraded > 0);
    match (healthy, degraded) {
        (Some(place), _) => Some(&mut shares.get_mut(place)?.healthy),
        (None, Some(place)) => Some(&mut shares.get_mut(place)?.degraded),
        (None, None) => match any_healthy {
            Some(place) => Some(&mut shares.get_mut(place)?.healthy),
            None => Some(&mut shares.get_mut(any_degraded?)?.degraded),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// Priorities as (all, healthy, degraded), and their shares as (healthy, degraded).
    #[track_caller]
    fn check(priorities: &[(u32, u32, u32)], expected: &[(u32, u32)]) {
        let counts = priorities.iter().map(|&(all, healthy, degraded)| HostCounts { all, healthy, degraded });
        let shares = shares(&counts.collect::<Vec<_>>());
        let shares: Vec<_> = shares.iter().map(|share| (share.healthy, share.degraded)).collect();
        assert_eq!(shares, expected, "{priorities:?}");
    }

    #[test]
    fn one_priority_has_all_there_is() {
        check(&[(4, 4, 0)], &[(100, 0)]);
        check(&[(4, 1, 0)], &[(100, 0)]);
        check(&[(4, 0, 1)], &[(0, 100)]);
        check(&[(1_000, 1, 0)], &[(100, 0)]);
        check(&[(1_000, 0, 1)], &[(0, 100)]);
        check(&[(4, 0, 0)], &[(0, 0)]);
        check(&[], &[]);
    }

    /// The table of Envoy's documentation on priority levels.
    #[test]
    fn traffic_spills_over_as_envoy_says() {
        let of_hundred = |healthy: u32| (100, healthy, 0);
        for (first, second, expected) in [
            (100, 100, (100, 0)),
            (72, 100, (100, 0)),
            (71, 100, (99, 1)),
            (50, 100, (70, 30)),
            (25, 100, (35, 65)),
            (0, 100, (0, 100)),
            (25, 25, (50, 50)),
            (5, 20, (20, 80)),
        ] {
            let (one, other) = expected;
            check(&[of_hundred(first), of_hundred(second)], &[(one, 0), (other, 0)]);
        }
        check(&[(100, 100, 0), (100, 100, 0), (100, 100, 0)], &[(100, 0), (0, 0), (0, 0)]);
        check(&[(100, 25, 0), (100, 25, 0), (100, 50, 0)], &[(35, 0), (35, 0), (30, 0)]);
        check(&[(100, 20, 0), (100, 5, 0), (100, 5, 0)], &[(68, 0), (16, 0), (16, 0)]);
    }

    /// The tables of Envoy's documentation on degraded hosts.
    #[test]
    fn degraded_hosts_get_what_healthy_ones_cannot_take() {
        check(&[(4, 3, 1)], &[(100, 0)]);
        check(&[(4, 2, 2)], &[(70, 30)]);
        check(&[(4, 1, 0), (4, 0, 4)], &[(35, 0), (0, 65)]);
        check(&[(4, 1, 3), (4, 4, 0)], &[(35, 0), (65, 0)]);
        check(&[(100, 5, 95)], &[(7, 93)]);
    }

    #[test]
    fn shares_add_up_to_a_hundred_wherever_a_host_may_be_picked() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..5_000 {
            let priorities: Vec<HostCounts> = (0..rng.usize(0..5))
                .map(|_| {
                    let all = rng.u32(0..400);
                    let healthy = rng.u32(0..=all);
                    HostCounts { all, healthy, degraded: rng.u32(0..=all - healthy) }
                })
                .collect();
            let shares = shares(&priorities);
            let sum: u32 = shares.iter().map(|share| share.healthy + share.degraded).sum();
            let any = priorities.iter().any(|hosts| hosts.healthy + hosts.degraded > 0);
            assert_eq!(sum, if any { 100 } else { 0 }, "{priorities:?}");
            let only_where_hosts_are = shares.iter().zip(&priorities).all(|(share, hosts)| {
                (share.healthy == 0 || hosts.healthy > 0) && (share.degraded == 0 || hosts.degraded > 0)
            });
            assert!(only_where_hosts_are, "{priorities:?} {shares:?}");
        }
    }
}
