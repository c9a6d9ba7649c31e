//! Plots, as SVG.

use std::time::Duration;

use anyhow::Result;
use plotters::prelude::*;

use crate::plots::{Bar, COLORS, SIZE, bar_chart, drawn};
use crate::simulation::Record;
use crate::simulation::comparison::Outcome;

/// The lowest time that the plot of first tokens shows, in milliseconds.
const LOWEST_MS: f64 = 10.0;
/// How often the load of a pod is looked at.
const SAMPLE: Duration = Duration::from_millis(250);

/// Requests in flight on each pod, over time.
pub struct Timeline {
    title: String,
    /// Of each pod, one count every [`SAMPLE`].
    pods: Vec<Vec<usize>>,
}

impl Timeline {
    pub fn new(title: &str, record: &Record) -> Timeline {
        let last = record.answers.iter().map(|answer| answer.ended).max().unwrap_or_default();
        let mut pods = vec![vec![0; samples(last) + 1]; record.caches.len()];
        for answer in &record.answers {
            for count in &mut pods[answer.pod][samples(answer.arrived)..=samples(answer.ended)] {
                *count += 1;
            }
        }
        Timeline { title: title.to_owned(), pods }
    }
}

fn samples(time: Duration) -> usize {
    (time.as_secs_f64() / SAMPLE.as_secs_f64()) as usize
}

/// The 90th percentile of the time to first token: a group of bars a case, a bar a picker.
pub fn first_tokens(outcomes: &[Outcome]) -> Result<String> {
    let cases: Vec<&str> = outcomes.iter().map(|outcome| outcome.case.workload.name()).collect();
    let pickers = outcomes.first().map_or(&[][..], |outcome| &outcome.case.pickers);
    let pickers: Vec<&str> = pickers.iter().map(|picker| picker.name()).collect();
    let bars = outcomes.iter().enumerate().flat_map(|(group, outcome)| {
        let bars = outcome.measures.iter().enumerate();
        bars.map(move |(place, (_, measures))| Bar { group, place, ms: measures.first_token_ms.p90 })
    });
    let bars: Vec<Bar> = bars.collect();
    bar_chart("Time to first token, 90th percentile", &cases, &pickers, LOWEST_MS, &bars)
}

/// Timelines side by side, on one scale.
pub fn timelines(timelines: &[Timeline]) -> Result<String> {
    let pods = || timelines.iter().flat_map(|timeline| &timeline.pods);
    let most = pods().flatten().max().copied().unwrap_or(1);
    let longest = pods().map(Vec::len).max().unwrap_or(1) as f64 * SAMPLE.as_secs_f64();
    drawn(SIZE, |area| {
        for (part, timeline) in area.split_evenly((1, timelines.len())).iter().zip(timelines) {
            let mut chart = ChartBuilder::on(part)
                .caption(&timeline.title, ("sans-serif", 18))
                .margin(10)
                .x_label_area_size(35)
                .y_label_area_size(50)
                .build_cartesian_2d(0.0..longest, 0..most)?;
            chart
                .configure_mesh()
                .light_line_style(TRANSPARENT)
                .x_desc("seconds")
                .y_desc("requests in flight on each pod")
                .draw()?;
            for (counts, color) in timeline.pods.iter().zip(COLORS.iter().cycle()) {
                let points = counts.iter().enumerate();
                let points = points.map(|(index, &count)| (index as f64 * SAMPLE.as_secs_f64(), count));
                chart.draw_series(LineSeries::new(points, color))?;
            }
        }
        Ok(())
    })
}
