//! Keeps Istio's resources in step with the inference resources of a cluster.
//!
//! [`store`] watches, [`plan`] works out what there should be (without the API server), [`apply`] writes it and [`status`]
//! tells resources what became of them; [`lease`] has one of several controllers work, [`serve`] has health and metrics.
//!
//! # Contract
//!
//! - What is applied is what the command prints for the same resources, with a label.
//! - Whatever is wrong, the last good configuration stays: a resource that is refused counts as it was, and nothing is deleted
//!   unless it is known that it should be.
//! - One namespace's resources change nothing of another's but by the share that all have of one configuration.

#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod apply;
pub mod arguments;
pub mod kinds;
pub mod lease;
pub mod log;
pub mod plan;
pub mod serve;
pub mod status;
pub mod store;
