//! Markdown tables.

use crate::live::{Column, Measures, Outcome, Traffic};
use crate::table::Table;
use crate::times::Times;

/// One line a kind of traffic: the share of requests that each picker had answered within the objective.
pub fn goodput(outcomes: &[Outcome]) -> String {
    overview("within the objective", outcomes, |measures| percent(measures.goodput_share))
}

/// One line a kind of traffic: the 90th percentile of the time to the first token.
pub fn first_tokens(outcomes: &[Outcome]) -> String {
    overview("first token, p90 ms", outcomes, |measures| format!("{:.0}", measures.first_token_ms.p90))
}

fn overview(title: &str, outcomes: &[Outcome], cell: fn(&Measures) -> String) -> String {
    let columns = columns(outcomes);
    let mut table = Table::new(title, &columns);
    for traffic in traffics(outcomes) {
        let of = |column: &&str| {
            let found =
                outcomes.iter().find(|outcome| outcome.traffic == traffic && outcome.column == **column);
            found.map_or_else(|| "-".to_owned(), |outcome| cell(&outcome.measures))
        };
        table.row(traffic.name(), columns.iter().map(of));
    }
    table.to_string()
}

/// Everything that was measured under one kind of traffic, one line a picker.
pub fn details<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> String {
    const HEAD: &str = "\
        | picker | first token: p50 ms | p90 | p99 | per token: p50 ms | p90 | p99 | end to end: p50 ms | p90 | p99 \
        | output tokens/s | within the objective | cache hits | KV-cache spread | failed |\n\
        |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n";
    let mut table = Table::with_head(HEAD);
    for outcome in outcomes {
        table.row(&outcome.column, cells(&outcome.measures));
    }
    table.to_string()
}

fn cells(measures: &Measures) -> Vec<String> {
    let times =
        |times: Times, digits: usize| [times.p50, times.p90, times.p99].map(|ms| format!("{ms:.digits$}"));
    let reported = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), percent);
    let mut cells = times(measures.first_token_ms, 0).to_vec();
    cells.extend(times(measures.per_token_ms, 1));
    cells.extend(times(measures.end_to_end_ms, 0));
    cells.extend([
        format!("{:.0}", measures.output_tokens_per_s),
        percent(measures.goodput_share),
        reported(measures.cache_hit_share),
        reported(measures.kv_cache_spread),
        measures.failed.to_string(),
    ]);
    cells
}

/// The cells that were played twice: both times of each figure, and how far apart they are.
pub fn repeated(outcomes: &[Outcome], again: &[Outcome]) -> String {
    let columns = ["first token: p50 ms", "p90 ms", "end to end: p50 ms", "p90 ms", "within the objective"];
    let mut table = Table::new("traffic, picker", columns);
    for second in again {
        let is_same = |first: &&Outcome| first.traffic == second.traffic && first.column == second.column;
        let Some(first) = outcomes.iter().find(is_same) else { continue };
        let both = |figure: fn(&Measures) -> f64| {
            let (first, second) = (figure(&first.measures), figure(&second.measures));
            let apart = (second / first.max(f64::MIN_POSITIVE) - 1.0) * 100.0;
            format!("{first:.0}, {second:.0} ({apart:+.0} %)")
        };
        let cells = [
            both(|measures| measures.first_token_ms.p50),
            both(|measures| measures.first_token_ms.p90),
            both(|measures| measures.end_to_end_ms.p50),
            both(|measures| measures.end_to_end_ms.p90),
            format!("{}, {}", percent(first.measures.goodput_share), percent(second.measures.goodput_share)),
        ];
        table.row(&format!("{}, {}", second.traffic.name(), second.column), cells);
    }
    table.to_string()
}

/// Whether the machine kept up, in a sentence.
pub fn machine(outcomes: &[Outcome]) -> String {
    let measures = || outcomes.iter().map(|outcome| &outcome.measures);
    let late_ms = measures().map(|measures| measures.late_ms.p99).fold(0.0, f64::max);
    let busy = measures().map(|measures| measures.machine_busy_share);
    let mean_busy = busy.clone().sum::<f64>() / outcomes.len().max(1) as f64;
    format!(
        "{} requests. Of those of any cell, 99 % were sent within {late_ms:.1} ms of the time when they were due. The \
         machine's processors were busy for {} of the time, and for {} in the busiest cell.\n",
        measures().map(|measures| measures.requests).sum::<usize>(),
        percent(mean_busy),
        percent(busy.fold(0.0, f64::max)),
    )
}

/// The kinds of traffic that were played, each once, in their order.
pub fn traffics(outcomes: &[Outcome]) -> Vec<Traffic> {
    let mut traffics: Vec<Traffic> = outcomes.iter().map(|outcome| outcome.traffic).collect();
    traffics.dedup();
    traffics
}

/// Those who picked, each once, in the order in which all are shown.
pub fn columns(outcomes: &[Outcome]) -> Vec<&str> {
    let mut columns: Vec<&str> = Vec::new();
    for outcome in outcomes {
        if !columns.contains(&outcome.column.as_str()) {
            columns.push(&outcome.column);
        }
    }
    // Of the first kind of traffic somebody may be missing. A variant stands beside what it varies.
    columns.sort_by_key(|column| Column::ALL.iter().position(|known| column.starts_with(known.name())));
    columns
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}
