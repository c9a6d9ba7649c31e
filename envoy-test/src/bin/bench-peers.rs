//! `make bench-peers`: the plugin beside the gateways that people would take instead, in front of the same servers with the
//! same traffic.
//!
//! It prints the figures of what the arguments name; with `--write` they go into `docs/peers.md`. What each of them costs is
//! measured by `bench peers`.

use anyhow::{Context, Result, bail};
use clap::Parser;
use envoy_test::document::write_section;
use envoy_test::envoy::binary::project_root;
use envoy_test::live::{Cell, Column, Front, Outcome, Traffic, report};
use envoy_test::peer::Peer;

/// Compares the plugin with other gateways.
#[derive(Debug, Parser)]
struct Arguments {
    /// Traffic, several times for several kinds; all that everybody takes if none is named.
    #[arg(long)]
    traffic: Vec<Traffic>,
    /// A part of the name of who is compared, several times for several; everybody if nobody is named.
    #[arg(long)]
    only: Vec<String>,
    /// How long requests arrive, for each of them and each kind of traffic.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Of the traffic: the same for everybody.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// By how many milliseconds one of a hundred requests may be sent late; a cell where it is more is played again.
    #[arg(long, default_value_t = 20.0)]
    late_ms: f64,
    /// Puts the tables into docs/peers.md.
    #[arg(long)]
    write: bool,
}

/// Not adapters, which the others do not know of, and not a pod that joins: they are given a list at their start, and one of
/// them does not begin before all servers answer.
const TRAFFIC: [Traffic; 9] = [
    Traffic::Original,
    Traffic::Conversation,
    Traffic::Azure,
    Traffic::MultiTurn,
    Traffic::HotPrompt,
    Traffic::Bursts,
    Traffic::SlowPod,
    Traffic::PodDies,
    Traffic::MetricsStop,
];
const COLUMNS: [Column; 4] = [Column::RoundRobin, Column::LeastRequest, Column::Default, Column::PrefixCache];
/// Played a second time with the same seed, to tell the noise.
const AGAIN: Traffic = Traffic::Conversation;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let traffic = if arguments.traffic.is_empty() { &TRAFFIC[..] } else { &arguments.traffic };
    let (outcomes, mut refused) = play(&arguments, traffic)?;
    if arguments.write {
        let (again, refused_again) = play(&arguments, &[AGAIN])?;
        refused.extend(refused_again);
        let page = project_root().join("docs/peers.md");
        write_section(&page, "quality", "make bench-peers", &report::markdown(&outcomes, &again))?;
    } else {
        println!("{}", report::markdown(&outcomes, &[]));
    }
    if !refused.is_empty() {
        bail!("the machine was too busy to measure: {}", refused.join("; "));
    }
    Ok(())
}

/// What was measured, and what could not be.
fn play(arguments: &Arguments, traffic: &[Traffic]) -> Result<(Vec<Outcome>, Vec<String>)> {
    let (mut outcomes, mut refused) = (Vec::new(), Vec::new());
    for &traffic in traffic {
        for front in fronts(&arguments.only) {
            let name = format!("{}, {}", traffic.name(), front.name());
            let Arguments { seconds, seed, late_ms, .. } = *arguments;
            let cell = Cell { traffic, front, seconds, seed, late_ms_max: late_ms };
            match cell.run().with_context(|| name.clone())? {
                Some(outcome) => {
                    let measures = &outcome.measures;
                    eprintln!(
                        "{name}: {} requests, {} failed, first token {:.0} ms (mean {:.0})",
                        measures.requests,
                        measures.failed,
                        measures.first_token_ms.p90,
                        measures.first_token_ms.mean,
                    );
                    outcomes.push(outcome);
                }
                None => refused.push(name),
            }
        }
    }
    Ok((outcomes, refused))
}

fn fronts(only: &[String]) -> Vec<Front> {
    let all = COLUMNS.map(Front::Envoy).into_iter().chain(Peer::ALL.map(Front::Peer));
    let is_wanted = |front: &Front| only.is_empty() || only.iter().any(|part| front.name().contains(part));
    all.filter(is_wanted).collect()
}
