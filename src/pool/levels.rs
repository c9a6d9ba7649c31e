//! Who of a pool's endpoints may be picked: those that stand best, in the levels into which Envoy sorts them. A level is
//! the healthy or the degraded hosts of one priority, and gets its share of the picks ([`shares`]).

use super::priority::{HostCounts, Shares, shares};
use super::{Endpoint, HostHealth};

/// How an endpoint stands; the order is that of preference, and only the best that there are may be picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Nothing speaks against it.
    Ready,
    /// It says itself that it takes no requests: its server sleeps.
    Resting,
    /// It cannot be reached, or its requests fail.
    Failing,
    /// Envoy would send nothing there.
    Unhealthy,
}

/// The hosts of one priority that are equally good, and how many of a hundred picks they get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Level {
    priority: u32,
    is_degraded: bool,
    share_percent: u32,
}

/// Who may be picked now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels {
    standing: Standing,
    /// Those that get a share; `None`: there is but one, of all that stand so.
    levels: Option<Vec<Level>>,
}

impl Default for Levels {
    fn default() -> Levels {
        Levels { standing: Standing::Ready, levels: None }
    }
}

impl Levels {
    /// Those of these endpoints. `is_flat`: Envoy makes no difference between them but by their health.
    pub(super) fn of(endpoints: &[Endpoint], is_flat: bool, now_ms: u64, max_failures: u32) -> Levels {
        let standing = |endpoint: &Endpoint| endpoint.standing(now_ms, max_failures);
        if is_flat && endpoints.iter().any(|endpoint| standing(endpoint) == Standing::Ready) {
            return Levels::default();
        }
        let best = endpoints.iter().map(standing).min().unwrap_or(Standing::Ready);
        // Where all are unhealthy Envoy makes no difference either.
        if is_flat || best == Standing::Unhealthy {
            return Levels { standing: best, levels: None };
        }
        let usable = |endpoint: &Endpoint| standing(endpoint) == best;
        Levels { standing: best, levels: Some(levels(endpoints, usable)) }
    }

    /// The place of an endpoint's level; `None`: it may not be picked.
    pub(super) fn level(&self, endpoint: &Endpoint, now_ms: u64, max_failures: u32) -> Option<usize> {
        if endpoint.standing(now_ms, max_failures) != self.standing {
            return None;
        }
        let Some(levels) = &self.levels else { return Some(0) };
        let (priority, is_degraded) = level_of(endpoint);
        levels.iter().position(|level| level.priority == priority && level.is_degraded == is_degraded)
    }

    /// The place of the level whose turn it is by this number, which is drawn at random from all there are.
    pub fn drawn(&self, draw: u32) -> usize {
        let percent = ((u64::from(draw) * 100) >> 32) as u32;
        let mut below = 0;
        let levels = self.levels.as_deref().unwrap_or_default();
        let ends = levels.iter().map(|level| {
            below += level.share_percent;
            below
        });
        ends.take_while(|end| *end <= percent).count()
    }
}

fn level_of(endpoint: &Endpoint) -> (u32, bool) {
    (endpoint.host().priority, endpoint.host().health == HostHealth::Degraded)
}

/// The levels that get a share, by priority, the healthy hosts of each first.
fn levels(endpoints: &[Endpoint], usable: impl Fn(&Endpoint) -> bool) -> Vec<Level> {
    let mut priorities: Vec<u32> = endpoints.iter().map(|endpoint| endpoint.host().priority).collect();
    priorities.sort_unstable();
    priorities.dedup();
    let mut counts = vec![HostCounts::default(); priorities.len()];
    for endpoint in endpoints.iter().filter(|endpoint| endpoint.host().health != HostHealth::Excluded) {
        let (priority, is_degraded) = level_of(endpoint);
        let place = priorities.binary_search(&priority).ok();
        let Some(counts) = place.and_then(|place| counts.get_mut(place)) else { continue };
        counts.all += 1;
        match usable(endpoint) {
            true if is_degraded => counts.degraded += 1,
            true => counts.healthy += 1,
            false => {}
        }
    }
    let of_priority = |(priority, Shares { healthy, degraded }): (u32, Shares)| {
        [(false, healthy), (true, degraded)].map(|(is_degraded, share_percent)| Level {
            priority,
            is_degraded,
            share_percent,
        })
    };
    let levels = priorities.into_iter().zip(shares(&counts)).flat_map(of_priority);
    levels.filter(|level| level.share_percent > 0).collect()
}
