//! An access log as Envoy has written it so far: its last line may not be whole.

use anyhow::{Context, Result};
use serde_json::Value;
use std::str::Lines;

/// The finished lines.
pub(super) fn finished_lines(log: &str) -> Lines<'_> {
    log.rfind('\n').map_or("", |end| &log[..end]).lines()
}

/// The same, which must be JSON (`json_format`).
///
/// # Errors
/// Those of a line that is not; they hold it.
pub fn parse_access_log(log: &str) -> Result<Vec<Value>> {
    finished_lines(log).map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}
