//! What the plugin counts, read from Envoy's `/stats/prometheus`, for people to look at.
//!
//! A [`Page`] is what the admin printed; an [`Overview`] is what happened between two pages: pods and models as rows.
//! Statistics are whole numbers since Envoy's start, so rates and quantiles need two pages; gauges are of the later one.

mod histogram;
mod overview;
mod page;

pub use histogram::Histogram;
pub use overview::{Model, Overview, Pod, Totals};
pub use page::{ADMIN_PATH, Page};
