//! What came of the runs, in numbers, for people and for programs.

mod document;
mod measures;
mod plots;
mod tables;

pub use document::{SEVERAL_WORKERS, Section, write};
pub use measures::Measures;
pub use plots::Timeline;
pub use tables::{details, first_tokens};
