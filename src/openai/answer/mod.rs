//! Answers, as they stream by: what they have cost, how far they are, whether they failed, and what of them is changed
//! on their way to the client. [`reader`] walks through them once, for all who watch.

mod counts;
mod event_lines;
mod event_pattern;
mod failure;
mod format;
mod hidden_usage;
mod id;
mod model;
mod passage;
mod place;
mod progress;
mod reader;
mod says;
mod usage;

pub use counts::Usage;
pub use failure::AnswerFailure;
pub use format::AnswerFormat;
pub use id::MAX_ID_BYTES;
pub use reader::AnswerReader;
