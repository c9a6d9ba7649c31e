//! Answers, as they stream by: what they have cost, and what of them is changed on their way to the client.

mod counts;
mod event_lines;
mod event_pattern;
mod format;
mod hidden_usage;
mod model;
mod usage;

pub use counts::Usage;
pub use format::AnswerFormat;
pub use hidden_usage::HiddenUsage;
pub use model::AnswerModel;
pub use usage::AnswerUsage;
