//! The best of all candidates: those of the lowest cost, and of equal ones those that draw the lowest tie-break.
//!
//! ```text
//! tie_break = mix(draw ^ place)
//! ```
//!
//! One draw serves all: a draw for each would take a third of a pick's time.

use wide::{f32x4, u32x4};

use super::MAX_RANKED;
use crate::hash::mix32;
use crate::pool::Lanes;

/// A candidate that may be among the best.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(super) struct Contender {
    /// The strategy's cost.
    pub cost: f32,
    /// Decides between equal costs.
    pub tie_break: u32,
    /// Its place in the pool's list.
    pub place: u32,
}

/// The first [`MAX_RANKED`] in order, by insertion, of those whose cost has an end. One comparison shows of each four whether any is
/// among them, and tie-breaks are drawn only for those that cost no more.
pub(super) fn best(lanes: &[Lanes], costs: &[f32x4], draw: u32) -> Vec<Contender> {
    let mut best = Vec::with_capacity(MAX_RANKED + 1);
    let mut bar = Contender { cost: f32::MAX, tie_break: u32::MAX, place: u32::MAX };
    for (lanes, costs) in lanes.iter().zip(costs) {
        let no_dearer = costs.simd_le(f32x4::splat(bar.cost)).to_bitmask();
        if no_dearer == 0 {
            continue;
        }
        let tie_breaks = mix32(lanes.places ^ u32x4::splat(draw));
        let cheaper = costs.simd_lt(f32x4::splat(bar.cost)).to_bitmask();
        let luckier = tie_breaks.simd_lt(u32x4::splat(bar.tie_break)).to_bitmask();
        if cheaper | (no_dearer & luckier) != 0 {
            bar = insert(&mut best, bar, lanes, *costs, tie_breaks);
        }
    }
    best
}

/// Inserts those of four that are before `bar`, and gives the last of the best as the next bar once there are enough.
fn insert(
    best: &mut Vec<Contender>,
    bar: Contender,
    lanes: &Lanes,
    costs: f32x4,
    tie_breaks: u32x4,
) -> Contender {
    for (place, (cost, tie_break)) in lanes.present(costs.to_array().into_iter().zip(tie_breaks.to_array())) {
        let next = Contender { cost, tie_break, place };
        if next < bar {
            let after = best.iter().position(|other| next < *other).unwrap_or(best.len());
            best.insert(after, next);
            best.truncate(MAX_RANKED);
        }
    }
    best.get(MAX_RANKED - 1).copied().unwrap_or(bar)
}
