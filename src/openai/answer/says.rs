//! What one token says, so far as it matters to whether the next event like this one need be read in full.

/// What a token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    /// Nothing is looked for where it stands: any other would say as little.
    Never,
    /// Nothing, but another might.
    Nothing,
    /// It is output, or would be if it were not empty.
    Output,
    /// Something that counts at most once, or in order.
    More,
}

impl Says {
    /// The same, and that it says more if this is so.
    pub(super) fn or_more(self, more: bool) -> Says {
        if more { Says::More } else { self }
    }

    /// What another found in the same token, where this is nothing.
    pub(super) fn or(self, other: Says) -> Says {
        if self == Says::Nothing { other } else { self }
    }
}
