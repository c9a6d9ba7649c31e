//! `make bench-peers`: the plugin beside the gateways that people would take instead, in front of the same servers with the
//! same traffic.
//!
//! It prints the figures of what the arguments name; with `--write` they go into `docs/peers.md`. What each of them costs is
//! measured by `bench peers`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Parser;
use envoy_test::document::write_section;
use envoy_test::endpoint_picker::EndpointPicker;
use envoy_test::envoy::binary::project_root;
use envoy_test::live::{Column, Comparison, Front, Played, Traffic, report};
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
    /// The program of an endpoint picker, which is compared as well; docs/peers.md says how to build it.
    #[arg(long)]
    epp: Option<PathBuf>,
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

const COLUMNS: [Column; 4] = [Column::RoundRobin, Column::LeastRequest, Column::Default, Column::PrefixCache];
/// Played a second time with the same seed, to show the noise.
const AGAIN: Traffic = Traffic::Conversation;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let all: Vec<Traffic> = Traffic::ALL.into_iter().filter(|traffic| suits_everybody(*traffic)).collect();
    let traffics = if arguments.traffic.is_empty() { &all } else { &arguments.traffic };
    let comparison = Comparison {
        fronts: fronts(arguments.epp.as_deref(), &arguments.only)?,
        seconds: arguments.seconds,
        seed: arguments.seed,
        late_ms_max: arguments.late_ms,
    };
    let (mut played, mut again) = (Played::default(), Played::default());
    comparison.play(traffics, &mut played)?;
    if arguments.write {
        comparison.play(&[AGAIN], &mut again)?;
        let tables = report::markdown(&played.outcomes, &again.outcomes);
        write_section(&project_root().join("docs/peers.md"), "quality", "make bench-peers", &tables)?;
    } else {
        println!("{}", report::markdown(&played.outcomes, &[]));
    }
    played.check_all_measured(&again)
}

/// Not adapters, which the others do not know of, and not a pod that joins: they are given a list at their start, and one of
/// them does not begin before all servers answer. Agents would take as long as all the rest.
fn suits_everybody(traffic: Traffic) -> bool {
    !matches!(traffic, Traffic::Adapters | Traffic::PodJoins | Traffic::Agents)
}

fn fronts(epp: Option<&Path>, only: &[String]) -> Result<Vec<Front>> {
    let pickers = epp.map(EndpointPicker::all).transpose()?.into_iter().flatten();
    let envoys_and_peers = COLUMNS.map(Front::Envoy).into_iter().chain(Peer::ALL.map(Front::Peer));
    let all = envoys_and_peers.chain(pickers.map(Front::EndpointPicker));
    let is_wanted = |front: &Front| only.is_empty() || only.iter().any(|part| front.name().contains(part));
    Ok(all.filter(is_wanted).collect())
}
