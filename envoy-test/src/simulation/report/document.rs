//! Writes `docs/routing.md` between its markers, its plots, and `docs/routing.json`. What stands around the markers is
//! written by hand and kept.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::plots::{self, Timeline};
use super::tables;
use crate::document::{put, rounded, rounded_all, write_section};
use crate::simulation::comparison::Outcome;
use crate::simulation::picker::PickerKind;

const COMMAND: &str = "make simulate-routing";

/// The section whose cases are compared with one worker.
pub const SEVERAL_WORKERS: &str = "One gateway of several workers, at 70 %";

/// Cases that are shown together.
pub struct Section {
    pub title: String,
    pub outcomes: Vec<Outcome>,
}

/// Writes all files into `folder`. The plot of first tokens is of the first section.
///
/// # Errors
/// A file that cannot be read or written, or has no markers.
pub fn write(folder: &Path, sections: &[Section], timelines: &[Timeline]) -> Result<()> {
    let first = sections.first().context("there is nothing to write")?;
    let file = |name: &str| folder.join(name);
    put(&file("routing-first-token.svg"), &plots::first_tokens(&first.outcomes)?)?;
    put(&file("routing-hot-prompt.svg"), &plots::timelines(timelines)?)?;
    put(&file("routing.json"), &format!("{:#}\n", as_json(sections)))?;
    let results: Vec<String> = sections.iter().map(markdown).collect();
    write_section(&file("routing.md"), "results", COMMAND, &results.join("\n"))
}

fn markdown(section: &Section) -> String {
    let Section { title, outcomes } = section;
    let (summary, details) = (tables::first_tokens(outcomes), tables::details(outcomes));
    let with_oracle = outcomes.iter().any(|outcome| outcome.case.pickers.contains(&PickerKind::Oracle));
    let against = with_oracle.then(|| tables::against_others(outcomes, PickerKind::PrefixCache) + "\n");
    let with_one = (title == SEVERAL_WORKERS).then(|| tables::against_one_worker(outcomes) + "\n");
    let against = against.or(with_one).unwrap_or_default();
    format!(
        "### {title}\n\n{summary}\n{against}<details><summary>All figures</summary>\n\n{details}\n</details>\n"
    )
}

fn as_json(sections: &[Section]) -> Value {
    let outcomes = sections.iter().flat_map(|section| {
        section.outcomes.iter().flat_map(|outcome| {
            outcome.measures.iter().map(|(picker, measures)| {
                let case = &outcome.case;
                json!({
                    "section": section.title,
                    "workload": case.workload.name(),
                    "requests_per_s": rounded(case.rate_per_s),
                    "pods": case.pool.pods,
                    "slow_pod": case.pool.slow_pod,
                    "engine_speed": case.pool.engine_speed,
                    "kv_share": case.pool.kv_share,
                    "gateways": case.gateways.gateways,
                    "workers": case.gateways.workers,
                    "peers_ms": case.gateways.peers_ms,
                    "picker": picker.name(),
                    "measures": rounded_all(json!(measures)),
                })
            })
        })
    });
    outcomes.collect()
}
