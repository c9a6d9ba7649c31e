//! The `/metrics` page of a simulated server, in the shape and size of a real one.
//!
//! `page.template` is derived from pages of a real vLLM (`tests/fixtures/vllm-0.32/`): every family with its help,
//! type and labels. Lines are printed as they are, with each `$name` replaced by a value, except for directives:
//!
//! - `@histogram NAME BOUND…` prints the series of a histogram;
//! - `@adapters` prints the series of `vllm:lora_requests_info`;
//! - `@after_traffic`, `@with_adapters` and `@always` say when the lines after them are printed.
//!
//! Values that routing does not use are constants.

mod engines;
mod histogram;
mod llama_cpp;
mod number;
mod page;
mod sglang;
mod source;
mod statistics;
mod template;

pub use page::{MetricsPage, render};
pub use sglang::SglangRanks;
pub use source::PageSource;
pub use statistics::{Statistics, unix_seconds};
