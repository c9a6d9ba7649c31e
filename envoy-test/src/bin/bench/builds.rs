//! Which build of the plugin is measured: this one, and beside it that of another checkout, where its folder is given.

use std::path::Path;

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Build {
    Own,
    Other,
}

impl Build {
    /// What is measured, each with the checkout that it is from where that is not this one.
    pub fn measured(other: Option<&Path>) -> impl Iterator<Item = (Build, Option<&Path>)> {
        std::iter::once((Build::Own, None)).chain(other.map(|other| (Build::Other, Some(other))))
    }

    /// What stands behind a name in a table.
    pub fn suffix(self) -> &'static str {
        match self {
            Build::Own => "",
            Build::Other => ", the other build",
        }
    }
}
