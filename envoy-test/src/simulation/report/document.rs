//! Writes `docs/routing.md` between its markers, its plots, `docs/routing.json` and `docs/routing-capacity.json`, and the
//! first table of the README. What stands around the markers is
//! written by hand and kept.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::plots::{self, Timeline};
use super::tables;
use crate::document::{put, rounded, rounded_all, write_section};
use crate::simulation::comparison::Outcome;
use crate::simulation::objective::{CarriedOutcome, Objective};
use crate::simulation::picker::PickerKind;
use crate::simulation::workload::Workload;

const COMMAND: &str = "make simulate-routing";

/// The section whose cases are compared with one worker.
pub const SEVERAL_WORKERS: &str = "One gateway of several workers, at 70 %";

/// Cases that are shown together.
pub struct Section {
    pub title: String,
    pub outcomes: Vec<Outcome>,
}

/// What everybody carries while an objective is kept.
pub struct Capacity {
    pub objective: Objective,
    pub outcomes: Vec<CarriedOutcome>,
}

/// Writes what was compared into the project's `docs`. The plot of first tokens is of the first section.
///
/// # Errors
/// A file that cannot be read or written, or has no markers.
pub fn write(project: &Path, sections: &[Section], timelines: &[Timeline]) -> Result<()> {
    let first = sections.first().context("there is nothing to write")?;
    let file = |name: &str| project.join("docs").join(name);
    put(&file("routing-first-token.svg"), &plots::first_tokens(&first.outcomes)?)?;
    put(&file("routing-hot-prompt.svg"), &plots::timelines(timelines)?)?;
    put(&file("routing.json"), &format!("{:#}\n", as_json(sections)))?;
    let results: Vec<String> = sections.iter().map(markdown).collect();
    write_section(&file("routing.md"), "results", COMMAND, &results.join("\n"))
}

/// Writes what everybody carries into the project's README and `docs`.
///
/// # Errors
/// A file that cannot be read or written, or has no markers.
pub fn write_capacity(project: &Path, capacity: &Capacity) -> Result<()> {
    let docs = project.join("docs");
    write_section(&project.join("README.md"), "capacity", COMMAND, &in_short(capacity))?;
    write_section(&docs.join("routing.md"), "capacity", COMMAND, &in_full(capacity))?;
    put(&docs.join("routing-capacity.json"), &format!("{:#}\n", capacity_as_json(capacity)))
}

/// The pickers of README's table: who needs nothing else, both schedules of the endpoint picker, and the plugin's best.
const IN_SHORT: [PickerKind; 5] = [
    PickerKind::RoundRobin,
    PickerKind::LeastRequest,
    PickerKind::DefaultWeights,
    PickerKind::GuideSchedule,
    PickerKind::PrefixCache,
];

/// The traffic of README's table, from what shares most to what shares nothing.
const TRAFFIC_IN_SHORT: [Workload; 6] = [
    Workload::SharedPrefixes,
    Workload::MultiTurn,
    Workload::Adapters,
    Workload::Rag,
    Workload::Conversation,
    Workload::Random,
];

fn in_short(capacity: &Capacity) -> String {
    let of_picker = |outcome: &CarriedOutcome, picker| {
        outcome.carried.iter().copied().find(|(carrier, _)| *carrier == picker)
    };
    let named = TRAFFIC_IN_SHORT
        .iter()
        .flat_map(|&workload| capacity.outcomes.iter().filter(move |outcome| outcome.workload == workload));
    let shortened = named.map(|outcome| CarriedOutcome {
        carried: IN_SHORT.iter().filter_map(|&picker| of_picker(outcome, picker)).collect(),
        ..outcome.clone()
    });
    tables::highest_rates(&shortened.collect::<Vec<_>>())
}

fn in_full(capacity: &Capacity) -> String {
    let Capacity { objective: Objective { first_token_ms, per_token_ms }, outcomes } = capacity;
    format!(
        "The highest rate, in requests a second, at which the first token comes within {first_token_ms:.0} ms and each \
         further one within {per_token_ms:.0} ms, both for 90 % of the requests:\n\n{}\n\
         The fewest pods with which it is so for the same traffic:\n\n{}",
        tables::highest_rates(outcomes),
        tables::fewest_pods(outcomes),
    )
}

fn capacity_as_json(capacity: &Capacity) -> Value {
    let outcomes = capacity.outcomes.iter().flat_map(|outcome| {
        outcome.carried.iter().map(|(picker, carried)| {
            json!({
                "workload": outcome.workload.name(),
                "picker": picker.name(),
                "highest_per_s": carried.highest_per_s.map(rounded),
                "pods_for_per_s": rounded(outcome.rate_per_s),
                "fewest_pods": carried.fewest_pods,
            })
        })
    });
    json!({"objective": capacity.objective, "outcomes": outcomes.collect::<Value>()})
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
