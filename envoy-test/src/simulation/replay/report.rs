//! The table of `docs/simulated-servers.md`.

use anyhow::Result;

use super::comparison::{Comparison, Figures};
use super::fit::fit;
use super::server::RecordedServer;
use super::{ReplaySettings, compared, replay};
use crate::table::Table;

/// What was fitted, and what came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    pub server: RecordedServer,
    pub fitted: ReplaySettings,
    pub comparison: Comparison,
}

impl Held {
    /// Fits the engine to every second request of a server's trace, and compares both on the others.
    ///
    /// # Errors
    /// A trace that is not one, or that the engine refuses.
    pub fn against(server: RecordedServer) -> Result<Held> {
        let trace = server.trace()?;
        let known = ReplaySettings { engine: server.settings(), front_ms: 0.0 };
        let fitted = fit(&trace, &known)?;
        let replayed = replay(&trace, &fitted)?;
        let [real, simulated] = [&trace, &replayed].map(|requests| compared(requests));
        Ok(Held { server, fitted, comparison: Comparison::of(&real, &simulated) })
    }

    /// The figures of the real server, and those of the simulated one.
    fn both(&self) -> [&Figures; 2] {
        [&self.comparison.real, &self.comparison.simulated]
    }
}

/// Figures of one kind in a table: what they are, and how each is read.
type Row = (&'static str, fn(&Figures) -> f64);

const TIMES: [Row; 12] = [
    ("time to first token, mean ms", |figures| figures.first_token_ms.mean),
    ("p50", |figures| figures.first_token_ms.p50),
    ("p90", |figures| figures.first_token_ms.p90),
    ("p99", |figures| figures.first_token_ms.p99),
    ("time per further token, mean ms", |figures| figures.per_token_ms.mean),
    ("p50", |figures| figures.per_token_ms.p50),
    ("p90", |figures| figures.per_token_ms.p90),
    ("p99", |figures| figures.per_token_ms.p99),
    ("end to end, mean ms", |figures| figures.end_to_end_ms.mean),
    ("p50", |figures| figures.end_to_end_ms.p50),
    ("p90", |figures| figures.end_to_end_ms.p90),
    ("p99", |figures| figures.end_to_end_ms.p99),
];

/// What both did with the requests that are compared, and what was fitted to the others.
pub fn tables(all: &[Held]) -> String {
    format!("{}\n{}\n{}", times(all), order(all), costs(all))
}

fn times(all: &[Held]) -> Table {
    let columns = all.iter().flat_map(|held| {
        [format!("{}: real", held.server.name()), "simulated".to_owned(), "error".to_owned()]
    });
    let mut table = Table::new("", columns);
    for (name, figure) in TIMES {
        let cells = all.iter().flat_map(|held| {
            let [real, simulated] = held.both().map(figure);
            [time(real), time(simulated), format!("{:+.1} %", (simulated / real - 1.0) * 100.0)]
        });
        table.row(name, cells);
    }
    let hits = all.iter().flat_map(|held| {
        let [real, simulated] = held.both().map(|figures| figures.cache_hit_share);
        [percent(real), percent(simulated), format!("{:+.1} points", (simulated - real) * 100.0)]
    });
    table.row("cache hits", hits);
    table
}

fn order(all: &[Held]) -> Table {
    let columns = [
        "requests compared",
        "pairs that both order alike by their first tokens",
        "the same, ordered by uncached tokens alone",
        "first token of one request, off by",
        "requests with the very same cache hits",
    ];
    let mut table = Table::new("", columns);
    for Held { server, comparison, .. } in all {
        let shares = [
            comparison.ordered_alike,
            comparison.ordered_alike_by_tokens,
            comparison.first_token_error,
            comparison.same_hits_share,
        ];
        let cells = [comparison.requests.to_string()].into_iter().chain(shares.map(percent));
        table.row(server.name(), cells);
    }
    table
}

fn costs(all: &[Held]) -> Table {
    let columns = [
        "a step, ms",
        "each prompt token",
        "each sequence that decodes",
        "each token before a computed one",
        "in front of the engine",
    ];
    let mut table = Table::new("fitted", columns);
    for Held { server, fitted: ReplaySettings { engine, front_ms }, .. } in all {
        let costs = [
            format!("{:.2}", engine.step_base_ms),
            format!("{:.3}", engine.prefill_token_ms),
            format!("{:.2}", engine.decode_sequence_ms),
            format!("{:.6}", engine.attended_token_ms),
            format!("{front_ms:.2}"),
        ];
        table.row(server.name(), costs);
    }
    table
}

fn time(ms: f64) -> String {
    if ms < 100.0 { format!("{ms:.1}") } else { format!("{ms:.0}") }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
