//! Plots, as SVG.

use std::time::Duration;

use anyhow::Result;
use plotters::prelude::*;

use super::tables::{columns, traffics};
use crate::live::Outcome;
use crate::simulation::report::{Area, COLORS, drawn};

/// Panels side by side in the picture of the KV caches.
const PANELS_IN_A_ROW: usize = 3;
/// The lowest time that the plot of first tokens shows, in milliseconds.
const LOWEST_MS: f64 = 5.0;

type Drawn = Result<(), Box<dyn std::error::Error>>;

/// The 90th percentile of the time to first token: a group of bars a kind of traffic, a bar a picker.
pub fn first_tokens(outcomes: &[Outcome]) -> Result<String> {
    let (traffics, columns) = (traffics(outcomes), columns(outcomes));
    let highest =
        outcomes.iter().map(|outcome| outcome.measures.first_token_ms.p90).fold(LOWEST_MS, f64::max);
    drawn(|area| {
        let mut chart = ChartBuilder::on(area)
            .caption("Time to first token, 90th percentile", ("sans-serif", 18))
            .margin(10)
            .x_label_area_size(30)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..traffics.len() as f64, (LOWEST_MS..highest * 4.0).log_scale())?;
        // There is a mark at every half; the whole ones stand between two groups.
        let name = |place: &f64| match traffics.get(*place as usize) {
            Some(traffic) if place.fract() == 0.5 => traffic.name().to_owned(),
            _ => String::new(),
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(2 * traffics.len() + 1)
            .x_label_formatter(&name)
            .y_label_formatter(&|ms| format!("{ms:.0}"))
            .y_desc("ms, logarithmic")
            .draw()?;
        for (place, column) in columns.iter().enumerate() {
            let color = COLORS[place % COLORS.len()];
            let width = 0.8 / columns.len() as f64;
            let bar = |outcome: &Outcome| {
                let group = traffics.iter().position(|traffic| *traffic == outcome.traffic)?;
                let left = group as f64 + 0.1 + place as f64 * width;
                let corners = [(left, LOWEST_MS), (left + width, outcome.measures.first_token_ms.p90)];
                Some(Rectangle::new(corners, color.filled()))
            };
            let own = outcomes.iter().filter(|outcome| outcome.column == *column);
            chart
                .draw_series(own.filter_map(bar))?
                .label(*column)
                .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], color.filled()));
        }
        let labels = SeriesLabelPosition::UpperLeft;
        chart.configure_series_labels().position(labels).background_style(WHITE.mix(0.8)).draw()?;
        Ok(())
    })
}

/// The share of each pod's KV cache that is in use, over time: a panel a picker.
pub fn kv_caches(outcomes: &[&Outcome]) -> Result<String> {
    let looks = || outcomes.iter().flat_map(|outcome| &outcome.kv_cache).flatten();
    let longest = looks().map(|(at, _)| *at).max().unwrap_or(Duration::from_secs(1)).as_secs_f64();
    drawn(|area| {
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
