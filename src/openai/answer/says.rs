//! What one token says, so far as it matters to whether the next event like this one need be read in full.

use super::counts::Count;
use super::event_pattern::ValueKind;

/// What a token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    /// Nothing is looked for where it stands: any other of this kind would say as little.
    Never(ValueKind),
    /// Nothing, but another might.
    Nothing,
    /// It is output, or would be if it were not empty.
    Output,
    /// A number of the usage, of which the last one counts.
    Count(Count),
    /// Something that counts at most once, or in order.
    More,
}

impl Says {
    /// The same, and that it says more if this is so.
    pub(super) fn or_more(self, more: bool) -> Says {
        if more { Says::More } else { self }
    }

    /// Whether it matters, and not only what comes last.
    pub(super) fn is_reporting(self) -> bool {
        matches!(self, Says::Output | Says::More)
    }

    /// What may stand in place of a value that says this, and the event be like this one.
    pub(super) fn value_kind(self) -> Option<ValueKind> {
        match self {
            Says::Never(kind) => Some(kind),
            Says::Output => Some(ValueKind::Text),
            Says::Count(count) => Some(ValueKind::Count(count)),
            Says::Nothing | Says::More => None,
        }
    }

    /// What another found in the same token, where this is nothing.
    pub(super) fn or(self, other: Says) -> Says {
        if self == Says::Nothing { other } else { self }
    }
}
