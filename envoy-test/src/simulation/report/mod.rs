//! What came of the runs, in numbers, for people and for programs.

mod document;
mod measures;
mod plots;
mod tables;

pub use document::{Capacity, SEVERAL_WORKERS, Section, write, write_capacity};
pub use measures::Measures;
pub use plots::Timeline;
pub use tables::{details, fewest_pods, first_tokens, highest_rates};
