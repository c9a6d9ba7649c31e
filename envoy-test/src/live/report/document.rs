//! Writes the results into a folder: the page between its markers, the plots, and the figures for programs. What stands
//! around the markers is written by hand and kept.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::{plots, tables};
use crate::document::{put, rounded, rounded_all, write_section};
use crate::live::{Outcome, Traffic};

const SECTION: &str = "results";
const COMMAND: &str = "make bench-routing";
/// What the page is where there is none.
const EMPTY_PAGE: &str =
    "# Routing in real time\n\n<!-- results: written by `make bench-routing` -->\n<!-- end of results -->\n";

/// The name of everything that is written, before what distinguishes the files.
const NAME: &str = "routing-live";

/// Writes all files into `folder`; `again` are cells that were played a second time, to show the noise.
///
/// # Errors
/// A file that cannot be read or written, or has no markers.
pub fn write(folder: &Path, outcomes: &[Outcome], again: &[Outcome]) -> Result<()> {
    let file = |rest: &str| folder.join(format!("{NAME}{rest}"));
    put(&file("-first-token.svg"), &plots::first_tokens(outcomes)?)?;
    let pictured = tables::traffics(outcomes).into_iter().filter(|traffic| is_pictured(*traffic));
    for traffic in pictured {
        let own: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.traffic == traffic).collect();
        put(&file(&format!("-kv-{}.svg", traffic.name())), &plots::kv_caches(&own)?)?;
    }
    put(&file(".json"), &as_json(outcomes, again)?)?;
    let page = file(".md");
    if !page.exists() {
        put(&page, EMPTY_PAGE)?;
    }
    write_section(&page, SECTION, COMMAND, &markdown(outcomes, again))
}

/// Whether the pods' KV caches are drawn.
fn is_pictured(traffic: Traffic) -> bool {
    matches!(traffic, Traffic::Original | Traffic::SlowPod)
}

/// All tables.
pub fn markdown(outcomes: &[Outcome], again: &[Outcome]) -> String {
    let mut text = format!("{}\n{}\n", tables::goodput(outcomes), tables::first_tokens(outcomes));
    for traffic in tables::traffics(outcomes) {
        let own = outcomes.iter().filter(|outcome| outcome.traffic == traffic);
        text += &format!("### {}\n\n{}\n", traffic.name(), tables::details(own));
    }
    if !again.is_empty() {
        text += &format!("### The same seed again\n\n{}\n", tables::repeated(outcomes, again));
    }
    text + &tables::machine(outcomes)
}

/// One object a cell, each on a line of its own.
fn as_json(outcomes: &[Outcome], again: &[Outcome]) -> Result<String> {
    let first = outcomes.iter().map(|outcome| cell(outcome, 1));
    let cells = first.chain(again.iter().map(|outcome| cell(outcome, 2)));
    let lines = cells.map(|cell| serde_json::to_string(&cell)).collect::<Result<Vec<_>, _>>()?;
    Ok(format!("[\n{}\n]\n", lines.join(",\n")))
}

fn cell(outcome: &Outcome, run: usize) -> Value {
    let looks = |pod: &Vec<(Duration, f64)>| -> Value {
        let shown = pod.chunk_by(|(one, _), (other, _)| tenths(*one) == tenths(*other));
        let shown = shown.filter_map(|looks| looks.first());
        shown.map(|(at, share)| json!([rounded(at.as_secs_f64()), rounded(*share)])).collect()
    };
    json!({
        "traffic": outcome.traffic.name(),
        "picker": outcome.column,
        "run": run,
        "objective": outcome.objective,
        "measures": rounded_all(json!(outcome.measures)),
        "kv_cache_by_pod": outcome.kv_cache.iter().map(looks).collect::<Value>(),
    })
}

/// Of the looks within a tenth of a second one is written.
fn tenths(at: Duration) -> u128 {
    at.as_millis() / 100
}
