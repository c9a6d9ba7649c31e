//! The files of `filter-config/observed/`, and a real Prometheus to try them with.
//!
//! Nothing is downloaded here: `make setup` installs Prometheus where Debian's package can be had. Where it cannot,
//! [`Prometheus::is_installed`] says so, and the tests that need it skip.

mod alerts;
mod dashboard;
mod picture;
mod prometheus;

use std::path::PathBuf;

use crate::envoy::binary::project_root;

pub use alerts::{Rule, rules};
pub use dashboard::{Panel, Target, panels, without_variables};
pub use picture::{Chart, Line, picture};
pub use prometheus::{Prometheus, Series, promtool};

/// A file that the project ships for observability.
pub fn file(name: &str) -> PathBuf {
    project_root().join("filter-config/observed").join(name)
}
