//! Plots, as SVG.

use std::time::Duration;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::simulation::Record;
use crate::simulation::comparison::Outcome;

pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const SIZE: (u32, u32) = (960, 420);
/// Told apart by people who do not see all colours, too (Okabe and Ito's palette).
pub(crate) const COLORS: [RGBColor; 7] = [
    RGBColor(153, 153, 153),
    RGBColor(230, 159, 0),
    RGBColor(0, 114, 178),
    RGBColor(204, 121, 167),
    RGBColor(0, 158, 115),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
];
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
    drawn(|area| {
        let highest = bars(outcomes).map(|(_, _, ms)| ms).fold(10.0, f64::max);
        let mut chart = ChartBuilder::on(area)
            .caption("Time to first token, 90th percentile", ("sans-serif", 18))
            .margin(10)
            .x_label_area_size(30)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..outcomes.len() as f64, (10.0..highest * 4.0).log_scale())?;
        // There is a mark at every half; the whole ones stand between two groups.
        let name = |place: &f64| match outcomes.get(*place as usize) {
            Some(outcome) if place.fract() == 0.5 => outcome.case.workload.name().to_owned(),
            _ => String::new(),
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(2 * outcomes.len() + 1)
            .x_label_formatter(&name)
            .y_label_formatter(&|ms| format!("{ms:.0}"))
            .y_desc("ms, logarithmic")
            .draw()?;
        let pickers = outcomes.first().map_or(&[][..], |outcome| &outcome.case.pickers);
        for (place, picker) in pickers.iter().enumerate() {
            let color = COLORS[place % COLORS.len()];
            let width = 0.8 / pickers.len() as f64;
            let bar = |(group, _, ms): (usize, usize, f64)| {
                let left = group as f64 + 0.1 + place as f64 * width;
                Rectangle::new([(left, 10.0), (left + width, ms)], color.filled())
            };
            let of_picker = bars(outcomes).filter(|(_, bar, _)| *bar == place);
            chart
                .draw_series(of_picker.map(bar))?
                .label(picker.name())
                .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], color.filled()));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .draw()?;
        Ok(())
    })
}

/// Every bar: its group's place, its own place in the group, and its height.
fn bars(outcomes: &[Outcome]) -> impl Iterator<Item = (usize, usize, f64)> {
    outcomes.iter().enumerate().flat_map(|(group, outcome)| {
        let bars = outcome.measures.iter().enumerate();
        bars.map(move |(bar, (_, measures))| (group, bar, measures.first_token_ms.p90))
    })
}

/// Timelines side by side, on one scale.
pub fn timelines(timelines: &[Timeline]) -> Result<String> {
    let pods = || timelines.iter().flat_map(|timeline| &timeline.pods);
    let most = pods().flatten().max().copied().unwrap_or(1);
    let longest = pods().map(Vec::len).max().unwrap_or(1) as f64 * SAMPLE.as_secs_f64();
    drawn(|area| {
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

/// The SVG that `draw` leaves on a white area.
pub(crate) fn drawn(draw: impl Fn(&Area<'_>) -> Result<(), Box<dyn std::error::Error>>) -> Result<String> {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    let result = area.fill(&WHITE).map_err(Into::into).and_then(|()| draw(&area));
    result.and_then(|()| Ok(area.present()?)).map_err(|error| anyhow!("drawing a plot: {error}"))?;
    drop(area);
    Ok(svg)
}
