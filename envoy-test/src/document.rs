//! Pages of `docs/` of which programs write the figures: what stands between two markers is a program's, the rest is
//! written by hand and kept. And how figures are written, for people and for programs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

/// Puts `text` between the markers of a section: `<!-- SECTION: written by `COMMAND` -->`, `<!-- end of SECTION -->`.
///
/// # Errors
/// A page that cannot be read or written, or has no such markers.
pub fn write_section(page: &Path, section: &str, command: &str, text: &str) -> Result<()> {
    let before = fs::read_to_string(page).with_context(|| format!("reading {}", page.display()))?;
    let after = with_section(&before, section, command, text)
        .with_context(|| format!("{} has no markers of `{section}`", page.display()))?;
    put(page, &after)
}

/// Writes a file anew.
///
/// # Errors
/// A file that cannot be written.
pub fn put(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}

/// A whole number as in a text: `1,000`.
pub fn grouped(number: u64) -> String {
    if number < 1_000 {
        number.to_string()
    } else {
        format!("{},{:03}", grouped(number / 1_000), number % 1_000)
    }
}

/// All numbers of a tree with three digits behind the point; whole ones stay whole.
pub fn rounded_all(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (name, rounded_all(value))).collect::<Map<_, _>>().into()
        }
        Value::Number(number) if number.is_f64() => json!(rounded(number.as_f64().unwrap_or_default())),
        other => other,
    }
}

/// With three digits behind the point.
pub fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

fn with_section(page: &str, section: &str, command: &str, text: &str) -> Option<String> {
    let begin = format!("<!-- {section}: written by `{command}` -->\n");
    let end = format!("<!-- end of {section} -->\n");
    let (before, rest) = page.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{}\n\n{end}{after}", text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "before\n<!-- results: written by `make x` -->\nold\n<!-- end of results -->\nafter\n";

    #[test]
    fn what_stands_around_the_markers_is_kept() {
        let expected =
            "before\n<!-- results: written by `make x` -->\n\nnew\n\n<!-- end of results -->\nafter\n";
        let written = with_section(PAGE, "results", "make x", "new\n").unwrap();
        assert_eq!(written, expected);
        assert_eq!(with_section(&written, "results", "make x", "new").unwrap(), expected, "written twice");
    }

    #[test]
    fn digits_stand_in_groups_of_three() {
        assert_eq!([0, 999, 1_000, 12_034_005].map(grouped), ["0", "999", "1,000", "12,034,005"]);
    }

    #[test]
    fn numbers_have_three_digits_behind_the_point_and_whole_ones_none() {
        let figures = json!({"requests": 7, "share": 0.12345, "times": {"mean": 2.0004, "none": null}});
        let expected = json!({"requests": 7, "share": 0.123, "times": {"mean": 2.0, "none": null}});
        assert_eq!(rounded_all(figures), expected);
    }

    #[test]
    fn a_page_without_the_markers_is_left_alone() {
        for (section, command) in [("figures", "make x"), ("results", "make y")] {
            assert_eq!(with_section(PAGE, section, command, "new"), None);
        }
    }
}
