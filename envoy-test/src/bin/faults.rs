//! `make bench-faults`: lets one thing after the other go wrong in front of a real Envoy under load, prints what clients
//! saw of it, and with `--write` writes it into `docs/reliability.md`. Fails if a promise was broken.

use anyhow::{Context, Result, bail};
use clap::Parser;
use envoy_test::document::write_section;
use envoy_test::envoy::binary::project_root;
use envoy_test::faults::{BY_CLIENTS, CLIENTS, Fault, GATEWAY, METRICS, Outcome, PATIENCE, PODS, WORKERS};

const DOCUMENT: &str = "docs/reliability.md";
const HEAD: &str = "| fault | lasted | requests | failed before the answer | broke off | sent to the pod meanwhile | last failure |\n\
                    |---|---|---|---|---|---|---|\n";

#[derive(Debug, Parser)]
struct Arguments {
    /// Writes the table into docs/reliability.md.
    #[arg(long)]
    write: bool,
    /// Only faults whose name has this in it.
    #[arg(long, default_value = "")]
    only: String,
    /// Workers of the gateway.
    #[arg(long, default_value_t = WORKERS)]
    workers: u32,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    println!("{CLIENTS} clients, which leave after {PATIENCE:?} without an answer\n\n{HEAD}");
    let (mut table, mut problems) = (HEAD.to_owned(), Vec::new());
    for fault in [PODS, METRICS, BY_CLIENTS, GATEWAY]
        .into_iter()
        .flatten()
        .filter(|fault| fault.name.contains(&arguments.only))
    {
        let outcome = fault.run(arguments.workers).with_context(|| fault.name)?;
        let row = row(fault, &outcome);
        print!("{row}");
        table.push_str(&row);
        problems.extend(outcome.problem);
    }
    if arguments.write {
        write_section(&project_root().join(DOCUMENT), "faults", "make bench-faults", &table)?;
    }
    if !problems.is_empty() {
        bail!("promises were broken:\n{}", problems.join("\n"));
    }
    Ok(())
}

fn row(fault: &Fault, outcome: &Outcome) -> String {
    let seen = &outcome.seen;
    let last = outcome
        .time_to_recover()
        .map_or("none".to_owned(), |(time, from)| format!("{:.1} s {from}", time.as_secs_f64()));
    format!(
        "| {} | {:.1} s | {} | {} | {} | {} | {last} |\n",
        fault.name,
        (outcome.ended - outcome.began).as_secs_f64(),
        seen.requests(),
        seen.failed_before_answer(),
        seen.broke_off(),
        outcome.sent_to_first_pod,
    )
}
