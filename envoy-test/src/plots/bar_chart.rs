//! Times as bars in groups, on a logarithmic scale. The groups are named below them, the bars by their colours.

use anyhow::Result;
use plotters::prelude::*;

use super::{COLORS, SIZE, drawn};

/// One bar: its group's place, its own place in the group, and its height.
#[derive(Debug, Clone, Copy)]
pub struct Bar {
    pub group: usize,
    pub place: usize,
    pub ms: f64,
}

/// `names` are those of the bars in each group. Every bar begins at `lowest_ms`.
pub fn bar_chart(
    title: &str,
    groups: &[&str],
    names: &[&str],
    lowest_ms: f64,
    bars: &[Bar],
) -> Result<String> {
    let highest_ms = bars.iter().map(|bar| bar.ms).fold(lowest_ms, f64::max);
    drawn(SIZE, |area| {
        let mut chart = ChartBuilder::on(area)
            .caption(title, ("sans-serif", 18))
            .margin(10)
            .x_label_area_size(30)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..groups.len() as f64, (lowest_ms..highest_ms * 4.0).log_scale())?;
        // There is a mark at every half; the whole ones stand between two groups.
        let name = |place: &f64| match groups.get(*place as usize) {
            Some(group) if place.fract() == 0.5 => (*group).to_owned(),
            _ => String::new(),
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(2 * groups.len() + 1)
            .x_label_formatter(&name)
            .y_label_formatter(&|ms| format!("{ms:.0}"))
            .y_desc("ms, logarithmic")
            .draw()?;
        for (place, name) in names.iter().enumerate() {
            let color = COLORS[place % COLORS.len()];
            let width = 0.8 / names.len() as f64;
            let rectangle = |bar: &Bar| {
                let left = bar.group as f64 + 0.1 + place as f64 * width;
                Rectangle::new([(left, lowest_ms), (left + width, bar.ms)], color.filled())
            };
            let own = bars.iter().filter(|bar| bar.place == place);
            chart
                .draw_series(own.map(rectangle))?
                .label(*name)
                .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], color.filled()));
        }
        let labels = SeriesLabelPosition::UpperLeft;
        chart.configure_series_labels().position(labels).background_style(WHITE.mix(0.8)).draw()?;
        Ok(())
    })
}
