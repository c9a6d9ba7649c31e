//! Plots, as SVG.

use std::time::Duration;

use anyhow::Result;
use plotters::prelude::*;

use super::tables::{columns, traffics};
use crate::live::Outcome;
use crate::plots::{Area, Bar, COLORS, Drawn, SIZE, bar_chart, drawn};

/// Panels side by side in the picture of the KV caches.
const PANELS_IN_A_ROW: usize = 3;
/// The lowest time that the plot of first tokens shows, in milliseconds.
const LOWEST_MS: f64 = 5.0;

/// The 90th percentile of the time to first token: a group of bars a kind of traffic, a bar a picker.
pub fn first_tokens(outcomes: &[Outcome]) -> Result<String> {
    let (traffics, columns) = (traffics(outcomes), columns(outcomes));
    let bar = |outcome: &Outcome| {
        let group = traffics.iter().position(|traffic| *traffic == outcome.traffic)?;
        let place = columns.iter().position(|column| *column == outcome.column)?;
        Some(Bar { group, place, ms: outcome.measures.first_token_ms.p90 })
    };
    let bars: Vec<Bar> = outcomes.iter().filter_map(bar).collect();
    let names: Vec<&str> = traffics.iter().map(|traffic| traffic.name()).collect();
    bar_chart("Time to first token, 90th percentile", &names, &columns, LOWEST_MS, &bars)
}

/// The share of each pod's KV cache that is in use, over time: a panel a picker.
pub fn kv_caches(outcomes: &[&Outcome]) -> Result<String> {
    let looks = || outcomes.iter().flat_map(|outcome| &outcome.kv_cache).flatten();
    let longest = looks().map(|(at, _)| *at).max().unwrap_or(Duration::from_secs(1)).as_secs_f64();
    drawn(SIZE, |area| {
        let rows = outcomes.len().div_ceil(PANELS_IN_A_ROW);
        let panels = area.split_evenly((rows, PANELS_IN_A_ROW.min(outcomes.len())));
        panels.iter().zip(outcomes).try_for_each(|(panel, outcome)| kv_cache_panel(panel, outcome, longest))
    })
}

fn kv_cache_panel(panel: &Area<'_>, outcome: &Outcome, longest_s: f64) -> Drawn {
    let mut chart = ChartBuilder::on(panel)
        .caption(&outcome.column, ("sans-serif", 14))
        .margin(8)
        .x_label_area_size(20)
        .y_label_area_size(40)
        .build_cartesian_2d(0.0..longest_s, 0.0..100.0)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .y_labels(5)
        .y_label_formatter(&|percent| format!("{percent:.0} %"))
        .x_label_formatter(&|seconds| format!("{seconds:.0} s"))
        .draw()?;
    // The first colour is a grey, which a thin line does not show well.
    for (looks, color) in outcome.kv_cache.iter().zip(COLORS.iter().skip(1)) {
        let points = looks.iter().map(|(at, share)| (at.as_secs_f64(), share * 100.0));
        chart.draw_series(LineSeries::new(points, color))?;
    }
    Ok(())
}
