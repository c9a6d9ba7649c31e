//! Plots, as SVG: what all of them share, and the bar chart that several reports have.

mod bar_chart;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

pub use bar_chart::{Bar, bar_chart};

pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Of a plot that stands alone, in pixels.
pub const SIZE: (u32, u32) = (960, 420);
/// Distinct for people who do not see all colours, too (Okabe and Ito's palette).
pub const COLORS: [RGBColor; 7] = [
    RGBColor(153, 153, 153),
    RGBColor(230, 159, 0),
    RGBColor(0, 114, 178),
    RGBColor(204, 121, 167),
    RGBColor(0, 158, 115),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
];

/// The SVG that `draw` leaves on a white area of this size.
pub fn drawn(size: (u32, u32), draw: impl Fn(&Area<'_>) -> Drawn) -> Result<String> {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    let result = area.fill(&WHITE).map_err(Into::into).and_then(|()| draw(&area));
    result.and_then(|()| Ok(area.present()?)).map_err(|error| anyhow!("drawing a plot: {error}"))?;
    drop(area);
    Ok(svg)
}
