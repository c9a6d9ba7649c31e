//! The core's own benchmarks, `cargo bench`: the medians that criterion has left in the target folder.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use envoy_test::envoy::binary::project_root;
use envoy_test::table::Table;
use serde_json::Value;

/// One benchmark's median.
struct Median {
    group: String,
    name: String,
    ns: f64,
}

/// # Errors
/// If `cargo bench` was not run before.
pub fn table() -> Result<Table> {
    let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let folder = project_root().join(target).join("criterion");
    let mut medians = Vec::new();
    for file in benchmarks(&folder)? {
        medians.push(Median::read(&file)?);
    }
    ensure!(!medians.is_empty(), "{} is empty: run `cargo bench` first", folder.display());
    medians.sort_by(|one, other| one.group.cmp(&other.group).then(one.ns.total_cmp(&other.ns)));
    let mut table = Table::new("", ["median"]);
    for Median { group, name, ns } in medians {
        let separator = if name.is_empty() { "" } else { ": " };
        let title = format!("{group}{separator}{name}").replace('_', " ");
        table.row(&title, [format!("{} µs", microseconds(ns))]);
    }
    Ok(table)
}

/// The descriptions of the newest run of each benchmark.
fn benchmarks(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder)
            .with_context(|| format!("reading {}: run `cargo bench` first", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.ends_with("new") {
                found.push(path.join("benchmark.json"));
            } else if path.is_dir() {
                folders.push(path);
            }
        }
    }
    Ok(found)
}

impl Median {
    fn read(description: &Path) -> Result<Median> {
        let described = json(description)?;
        let estimates = json(&description.with_file_name("estimates.json"))?;
        let text = |field: &str| described[field].as_str().unwrap_or_default().to_owned();
        let (function, value) = (text("function_id"), text("value_str"));
        let ns = estimates["median"]["point_estimate"].as_f64();
        Ok(Median {
            group: text("group_id"),
            name: if value.is_empty() { function } else { value },
            ns: ns.with_context(|| format!("{} has no median", description.display()))?,
        })
    }
}

fn json(file: &Path) -> Result<Value> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    Ok(serde_json::from_str(&text)?)
}

/// With two digits that count.
fn microseconds(ns: f64) -> String {
    let us = ns / 1_000.0;
    match us {
        10.0.. => format!("{us:.0}"),
        1.0.. => format!("{us:.1}"),
        _ => format!("{us:.2}"),
    }
}
