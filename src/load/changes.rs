//! Which rows have changed lately, for whoever keeps something that follows from them.

use super::LoadId;

/// Changes that are remembered. A request makes three; whoever has missed more than these looks at all rows.
const MAX_CHANGES: usize = 256;

/// The last changes, numbered from the first one ever.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// How many came before those that are remembered.
    forgotten: u64,
    ids: Vec<LoadId>,
}

impl Changes {
    pub fn note(&mut self, id: LoadId) {
        if self.ids.len() == MAX_CHANGES {
            self.forgotten += self.ids.len() as u64;
            self.ids.clear();
        }
        self.ids.push(id);
    }

    /// How many there have been, ever.
    pub fn count(&self) -> u64 {
        self.forgotten + self.ids.len() as u64
    }

    /// Those that came after the first `count`; `None` if some of them are forgotten.
    pub fn since(&self, count: u64) -> Option<&[LoadId]> {
        self.ids.get(usize::try_from(count.checked_sub(self.forgotten)?).ok()?..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn the_last_changes_are_listed_and_of_others_that_there_were_some() {
        let mut changes = Changes::default();
        for number in 0..3 * MAX_CHANGES {
            assert_eq!(changes.count(), number as u64);
            changes.note(LoadId(number));
            let last = changes.since(number as u64);
            assert_eq!(last, Some(&[LoadId(number)][..]));
            let ago = changes.since((number as u64).saturating_sub(MAX_CHANGES as u64));
            assert!(
                ago.is_none_or(|ids| ids
                    .iter()
                    .map(|id| id.0)
                    .eq(number.saturating_sub(MAX_CHANGES)..=number))
            );
        }
        assert_eq!(changes.since(0), None);
        assert_eq!(changes.since(changes.count()), Some(&[][..]));
        assert_eq!(changes.since(changes.count() + 1), None);
    }
}
