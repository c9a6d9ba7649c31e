//! What came of the runs, in numbers, for people and for programs.

mod measures;

pub use measures::{Measures, Times};
