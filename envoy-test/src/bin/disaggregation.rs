//! Plays disaggregated prefill in virtual time, prints what came of it, and with `--write` puts it into
//! `docs/disaggregation.md`.

use anyhow::Result;
use clap::Parser;
use envoy_test::document::write_section;
use envoy_test::envoy::binary::project_root;
use envoy_test::simulation::disaggregation::{Disaggregation, Division, Traffic, play};
use envoy_test::simulation::report::Measures;
use envoy_test::table::Table;
use rayon::prelude::*;

/// Plays disaggregated prefill in virtual time.
#[derive(Debug, Parser)]
struct Arguments {
    /// Puts the table into docs/disaggregation.md.
    #[arg(long)]
    write: bool,
    /// In which requests arrive.
    #[arg(long, default_value_t = 30)]
    seconds: usize,
    /// Runs of which the mean is taken, each with the next seed.
    #[arg(long, default_value_t = 2)]
    runs: u64,
    /// What arrives, as a share of what the pods could take if all did both.
    #[arg(long, default_values_t = [0.3, 0.6])]
    load: Vec<f64>,
    /// From so many uncached tokens on a prompt is computed elsewhere.
    #[arg(long, default_values_t = [1_024])]
    threshold: Vec<usize>,
    /// Pods that only compute prompts.
    #[arg(long, default_values_t = [2, 3, 4, 5, 6])]
    prefill_pods: Vec<usize>,
}

const PODS: usize = 8;
/// The split at which llm-d's rule is shown.
const SHOWN_PREFILL_PODS: usize = 3;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let jobs = arguments.jobs();
    let measures = jobs.par_iter().map(|job| arguments.measure(job)).collect::<Result<Vec<_>>>()?;
    let columns =
        ["first token: mean ms", "p90", "further tokens, each: p50 ms", "p99", "end to end: mean ms"];
    let mut table = Table::new("traffic, pods", columns);
    for (Disaggregation { traffic, load, division, .. }, measures) in jobs.iter().zip(&measures) {
        let Measures { first_token_ms: first, per_token_ms: each, end_to_end_ms, .. } = measures;
        let cells = [first.mean, first.p90, each.p50, each.p99, end_to_end_ms.mean];
        let cells = cells.map(|ms| if ms < 100.0 { format!("{ms:.1}") } else { format!("{ms:.0}") });
        let name = format!("{} at {:.0} %, {}", traffic.name(), load * 100.0, division.name(PODS));
        table.row(&name, cells);
    }
    println!("{table}");
    if arguments.write {
        let page = project_root().join("docs/disaggregation.md");
        write_section(&page, "disaggregation", "make simulate-disaggregation", &table.to_string())?;
    }
    Ok(())
}

impl Arguments {
    fn divisions(&self) -> Vec<Division> {
        let mut divisions = vec![Division::Together];
        for &threshold_tokens in &self.threshold {
            let core = |&prefill_pods| Division::Core { prefill_pods, threshold_tokens };
            divisions.extend(self.prefill_pods.iter().map(core));
            divisions.push(Division::DecodeFirst { prefill_pods: SHOWN_PREFILL_PODS, threshold_tokens });
        }
        divisions
    }

    fn jobs(&self) -> Vec<Disaggregation> {
        let mut jobs = Vec::new();
        for traffic in Traffic::ALL {
            for &load in &self.load {
                let job = |division| Disaggregation {
                    traffic,
                    load,
                    division,
                    pods: PODS,
                    seconds: self.seconds,
                    seed: 1,
                };
                jobs.extend(self.divisions().into_iter().map(job));
            }
        }
        jobs
    }

    fn measure(&self, job: &Disaggregation) -> Result<Measures> {
        let run = |seed| Ok(Measures::of(&play(&Disaggregation { seed, ..*job })?));
        Ok(Measures::mean(&(1..=self.runs).map(run).collect::<Result<Vec<_>>>()?))
    }
}
