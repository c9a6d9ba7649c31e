//! `make request-path-picture`: draws docs/request-path.txt to docs/request-path.svg.

use std::fs;

use anyhow::{Context, Result};
use envoy_test::document::put;
use envoy_test::envoy::binary::project_root;
use envoy_test::sequence::drawn;

fn main() -> Result<()> {
    let text = project_root().join("docs/request-path.txt");
    let lines = fs::read_to_string(&text).with_context(|| format!("reading {}", text.display()))?;
    put(&text.with_extension("svg"), &drawn(&lines)?)
}
