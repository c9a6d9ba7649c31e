//! When something was last used.

use std::num::NonZeroU32;

/// When something was last used, counted in requests; wraps around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Use(NonZeroU32);

impl Use {
    /// The first of all.
    pub const FIRST: Use = Use(NonZeroU32::MIN);

    /// The one after this.
    pub fn next(self) -> Use {
        Use(self.0.checked_add(1).unwrap_or(NonZeroU32::MIN))
    }

    /// Whether it was after that one.
    pub fn is_after(self, other: Use) -> bool {
        (self.0.get().wrapping_sub(other.0.get()) as i32) > 0
    }
}
