//! What came of the cells, for people and for programs.

mod document;
mod plots;
mod tables;

pub use document::{markdown, write};
pub use tables::details;
