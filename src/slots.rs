//! Places in shared data that are used again: the host forgets no key, and each configuration must have its own.

use serde::{Deserialize, Serialize};

/// Configurations of one pool that have a place at a time. One that is replaced goes on for as long as it has requests;
/// only the one begun longest ago loses its place, to the eighth after it.
pub const MAX_SLOTS: usize = 8;

/// Who has which place.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    /// By place: who, and when it was last begun, in milliseconds.
    taken: Vec<(u64, u64)>,
}

impl Slots {
    /// The place of `who`, which begins at `now_ms`: the one it has, else a free one, else that of who began longest ago.
    pub fn claim(&mut self, who: u64, now_ms: u64) -> usize {
        self.taken.truncate(MAX_SLOTS);
        let own = self.taken.iter().position(|(taken, _)| *taken == who);
        let slot = own.unwrap_or_else(|| {
            if self.taken.len() < MAX_SLOTS {
                self.taken.push((who, now_ms));
                return self.taken.len() - 1;
            }
            let oldest = self.taken.iter().enumerate().min_by_key(|(_, (_, began_ms))| *began_ms);
            oldest.map_or(0, |(slot, _)| slot)
        });
        if let Some(taken) = self.taken.get_mut(slot) {
            *taken = (who, now_ms);
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn each_has_a_place_of_its_own_until_seven_others_have_begun_after_it() {
        let mut slots = Slots::default();
        for round in 0..100 {
            let slot = slots.claim(round, round);
            let others = round.saturating_sub(MAX_SLOTS as u64 - 1)..round;
            for earlier in others {
                let mut look = slots.clone();
                assert_ne!(look.claim(earlier, earlier), slot);
            }
            assert_eq!(slots.claim(round, round), slot, "it keeps its place");
            assert!(slot < MAX_SLOTS && slots.taken.len() <= MAX_SLOTS);
        }
    }
}
