//! Draws who sends what to whom, in which order, as SVG: a column for each box, an arrow for each message, from top to bottom.

use std::fmt::Write;

use anyhow::{Context, Result, bail};

const COLUMN: usize = 210;
const MARGIN: usize = 90;
const HEAD: usize = 44;
const LINE: usize = 30;
/// A line of a note stands close to the one before.
const NOTE_LINE: usize = 18;

/// One line of the text.
#[derive(Debug, PartialEq, Eq)]
enum Step<'a> {
    Box(&'a str),
    Arrow { from: &'a str, to: &'a str, text: &'a str, is_constant: bool },
    Note { at: &'a str, text: &'a str },
}

/// The picture of a text: `box NAME[: more]`, `FROM -> TO: TEXT`, `always FROM -> TO: TEXT`, `note AT: TEXT`, `# comment`.
///
/// # Errors
/// A line of another form, or one that names no box.
pub fn drawn(text: &str) -> Result<String> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let steps = lines.map(parsed).collect::<Result<Vec<Step<'_>>>>()?;
    let boxes: Vec<&str> = steps.iter().filter_map(Step::as_box).collect();
    let x = |name: &str| {
        let place = boxes.iter().position(|text| text.split(':').next() == Some(name));
        place.map(|place| MARGIN + place * COLUMN).with_context(|| format!("no box is called {name}"))
    };
    let (mut body, mut y, mut follows_note) = (String::new(), HEAD, false);
    for step in &steps {
        let is_note = matches!(step, Step::Note { .. });
        y += match step {
            Step::Box(_) => 0,
            _ if is_note && follows_note => NOTE_LINE,
            _ => LINE,
        };
        follows_note = is_note;
        match step {
            Step::Box(_) => {}
            Step::Note { at, text } => write_text(&mut body, x(at)?, y, "note", text)?,
            Step::Arrow { from, to, text, is_constant } => {
                let class = if *is_constant { "always" } else { "arrow" };
                let (from, to) = (x(from)?, x(to)?);
                let tip = if from < to { to - 4 } else { to + 4 };
                writeln!(body, r#"<path class="{class}" d="M{from} {y}H{tip}" marker-end="url(#tip)"/>"#)?;
                write_text(&mut body, (from + to) / 2, y - 6, "label", text)?;
            }
        }
    }
    let (width, height) = (2 * MARGIN + boxes.len().saturating_sub(1) * COLUMN, y + LINE / 2);
    let mut picture = head(width, height);
    for (place, text) in boxes.iter().enumerate() {
        write_box(&mut picture, MARGIN + place * COLUMN, height, text)?;
    }
    Ok(picture + &body + "</svg>\n")
}

impl<'a> Step<'a> {
    fn as_box(&self) -> Option<&'a str> {
        match self {
            Step::Box(text) => Some(text),
            _ => None,
        }
    }
}

fn parsed(line: &str) -> Result<Step<'_>> {
    if let Some(text) = line.strip_prefix("box ") {
        return Ok(Step::Box(text));
    }
    let (rest, text) = line.split_once(": ").with_context(|| format!("{line}: no text"))?;
    if let Some(at) = rest.strip_prefix("note ") {
        return Ok(Step::Note { at, text });
    }
    let (rest, is_constant) = rest.strip_prefix("always ").map_or((rest, false), |rest| (rest, true));
    match rest.split_once(" -> ") {
        Some((from, to)) => Ok(Step::Arrow { from, to, text, is_constant }),
        None => bail!("{line}: neither a box, an arrow nor a note"),
    }
}

fn head(width: usize, height: usize) -> String {
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">
<style>.line,.arrow,.always{{stroke:#57606a}}.always{{stroke-dasharray:5 4}}.box{{fill:#ddf4ff;stroke:#0969da}}.label,.note,.halo{{text-anchor:middle}}.note{{fill:#0550ae}}.halo{{stroke:#fff;stroke-width:4px}}</style>
<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="6" refY="4" orient="auto"><path d="M0 0L8 4L0 8z" fill="#57606a"/></marker></defs>
<rect width="{width}" height="{height}" fill="#fff"/>
"##
    )
}

fn write_box(picture: &mut String, x: usize, height: usize, text: &str) -> Result<()> {
    const WIDTH: usize = 164;
    writeln!(picture, r#"<path class="line" d="M{x} {HEAD}V{height}"/>"#)?;
    writeln!(
        picture,
        r#"<rect class="box" x="{}" y="8" width="{WIDTH}" height="30" rx="5"/>"#,
        x - WIDTH / 2
    )?;
    writeln!(picture, r#"<text x="{x}" y="28" text-anchor="middle">{}</text>"#, escaped(text))?;
    Ok(())
}

fn write_text(body: &mut String, x: usize, y: usize, class: &str, text: &str) -> Result<()> {
    let text = escaped(text);
    // A white copy behind it, so that lines do not run through the letters.
    for class in ["halo", class] {
        writeln!(body, r#"<text class="{class}" x="{x}" y="{y}">{text}</text>"#)?;
    }
    Ok(())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::binary::project_root;

    #[test]
    fn lines_are_boxes_arrows_and_notes_and_others_are_refused() {
        let picture =
            drawn("# why\nbox a: first\nbox b\na -> b: x < y\nnote b: thinks\nalways b -> a: says").unwrap();
        for part in ["a: first", "x &lt; y", "thinks", r#"class="always""#] {
            assert!(picture.contains(part), "{part}: {picture}");
        }
        for wrong in ["a -> b", "box a\na -> c: text", "a = b: text"] {
            assert!(drawn(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_picture_of_a_requests_path_is_drawn_from_its_text() {
        let file = |name: &str| std::fs::read_to_string(project_root().join("docs").join(name)).unwrap();
        let picture = drawn(&file("request-path.txt")).unwrap();
        assert!(picture == file("request-path.svg"), "`make request-path-picture` draws it anew");
    }
}
