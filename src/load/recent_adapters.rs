//! The adapters that were last used at an endpoint.
//!
//! A model server reports only adapters whose requests have not ended. One that nobody asks for any more stays loaded
//! until its slot is needed by another, and the one used longest ago goes first: so of the adapters that were used last,
//! as many as there are slots are there.

use super::AdapterId;

/// Adapters that are distinguished on one endpoint; an endpoint holds fewer at a time.
pub(super) const MAX_ADAPTERS: usize = 64;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct RecentAdapters {
    /// The one used last comes last.
    by_use: Vec<AdapterId>,
}

impl RecentAdapters {
    /// Of all adapters this is the one used last.
    pub fn used(&mut self, adapter: AdapterId) {
        self.by_use.retain(|known| *known != adapter);
        if self.by_use.len() == MAX_ADAPTERS {
            self.by_use.remove(0);
        }
        self.by_use.push(adapter);
    }

    /// It is not there.
    pub fn forget(&mut self, adapter: AdapterId) {
        self.by_use.retain(|known| *known != adapter);
    }

    /// The one used last first.
    pub fn iter(&self) -> impl Iterator<Item = AdapterId> {
        self.by_use.iter().rev().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn the_one_used_last_comes_first_and_the_one_used_longest_ago_is_forgotten() {
        let mut recent = RecentAdapters::default();
        for number in [1, 2, 3, 2] {
            recent.used(AdapterId(number));
        }
        assert_eq!(recent.iter().collect::<Vec<_>>(), [2, 3, 1].map(AdapterId));
        (10..10 + MAX_ADAPTERS as u64).for_each(|number| recent.used(AdapterId(number)));
        assert_eq!(recent.iter().count(), MAX_ADAPTERS);
        assert_eq!(recent.iter().last(), Some(AdapterId(10)));
    }
}
