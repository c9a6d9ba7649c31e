//! Keeps Istio's resources in step with the inference resources of a cluster.
//!
//! [`store`] watches, the library works out what there should be and what status resources are to get
//! ([`plan`](inference_picker_config::plan), [`status`](inference_picker_config::status)), and [`apply`] writes both; [`lease`]
//! has one of several controllers work, and [`memory`] has what was last good for the next one; [`serve`] has health and
//! metrics.
//!
//! # Contract
//!
//! - What is applied is what the command prints for the same resources, with a label.
//! - Whatever is wrong, the last good configuration stays: a resource that is refused counts as it was, also for a controller
//!   that has just been started, and nothing is deleted unless it is known that it should be.
//! - One namespace's resources change nothing of another's but by the share that all have of one configuration.

#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod apply;
pub mod arguments;
pub mod kinds;
pub mod lease;
pub mod log;
pub mod memory;
pub mod serve;
pub mod store;
