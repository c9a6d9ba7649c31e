//! Panels of the dashboard as one SVG: columns that are compared, on one scale in each row.

use anyhow::{Context, Result};
use plotters::prelude::*;

use crate::plots::{Area, COLORS, Drawn, drawn};

const CHART_SIZE: (u32, u32) = (560, 200);
/// Where the names of lines stand, right of them.
const NAMES_WIDTH: u32 = 130;
const NAME_HEIGHT: i32 = 15;
/// Some room above the highest point.
const HEADROOM: f64 = 1.1;

/// What one panel showed.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    pub title: String,
    pub lines: Vec<Line>,
}

/// A line of it: seconds since the beginning, and values.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// Rows of charts; all rows are equally long.
pub fn picture(rows: &[Vec<Chart>]) -> Result<String> {
    let columns = rows.first().map_or(0, Vec::len);
    let size = (CHART_SIZE.0 * columns as u32, CHART_SIZE.1 * rows.len() as u32);
    drawn(size, |area| draw_rows(area, rows, columns)).context("drawing the dashboard")
}

fn draw_rows(area: &Area<'_>, rows: &[Vec<Chart>], columns: usize) -> Drawn {
    for (row, parts) in rows.iter().zip(area.split_evenly((rows.len(), columns)).chunks(columns)) {
        let (seconds, highest) = scale(row);
        for (chart, part) in row.iter().zip(parts) {
            draw_chart(part, chart, seconds, highest)?;
        }
    }
    Ok(())
}

/// The last second and the highest value of all charts.
fn scale(charts: &[Chart]) -> (f64, f64) {
    let points = charts.iter().flat_map(|chart| &chart.lines).flat_map(|line| &line.points);
    let most = points.fold((1.0, 0.0), |most: (f64, f64), point| (most.0.max(point.0), most.1.max(point.1)));
    (most.0, if most.1 > 0.0 { most.1 * HEADROOM } else { 1.0 })
}

fn draw_chart(area: &Area<'_>, chart: &Chart, seconds: f64, highest: f64) -> Drawn {
    let mut context = ChartBuilder::on(area)
        .caption(&chart.title, ("sans-serif", 15))
        .margin(8)
        .margin_right(NAMES_WIDTH)
        .x_label_area_size(22)
        .y_label_area_size(45)
        .build_cartesian_2d(0.0..seconds, 0.0..highest)?;
    context
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|second| format!("{second:.0} s"))
        .draw()?;
    // The first colour is a grey that stands for what others are compared with.
    let colors = COLORS.iter().skip(1).cycle();
    for ((place, line), color) in (0..).zip(&chart.lines).zip(colors) {
        let style = color.stroke_width(2);
        context.draw_series(LineSeries::new(line.points.iter().copied(), style))?;
        let (x, y) = ((CHART_SIZE.0 - NAMES_WIDTH) as i32 + 8, 40 + NAME_HEIGHT * place);
        area.draw(&PathElement::new([(x, y), (x + 14, y)], style))?;
        area.draw(&Text::new(line.name.as_str(), (x + 20, y - 5), ("sans-serif", 11)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(title: &str, highest: f64) -> Chart {
        let line = Line { name: format!("line on the {title}"), points: vec![(0.0, 0.0), (10.0, highest)] };
        Chart { title: title.to_owned(), lines: vec![line] }
    }

    #[test]
    fn every_chart_and_line_is_named() {
        let svg = picture(&[vec![chart("left", 1.0), chart("right", 2.0)]]).unwrap();
        for name in ["left", "right", "line on the left", "line on the right"] {
            assert!(svg.contains(&format!("\n{name}\n")), "{name}: {svg}");
        }
    }

    #[test]
    fn the_charts_of_a_row_have_one_scale() {
        assert_eq!(scale(&[chart("left", 1.0), chart("right", 20.0)]), (10.0, 22.0));
        assert_eq!(scale(&[chart("empty", 0.0)]), (10.0, 1.0));
    }
}
