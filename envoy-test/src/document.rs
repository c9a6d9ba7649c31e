//! Pages of `docs/` of which programs write the figures: what stands between two markers is a program's, the rest is
//! written by hand and kept.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Puts `text` between the markers of a section: `<!-- SECTION: written by `COMMAND` -->`, `<!-- end of SECTION -->`.
///
/// # Errors
/// A page that cannot be read or written, or has no such markers.
pub fn write_section(page: &Path, section: &str, command: &str, text: &str) -> Result<()> {
    let before = fs::read_to_string(page).with_context(|| format!("reading {}", page.display()))?;
    let after = with_section(&before, section, command, text)
        .with_context(|| format!("{} has no markers of `{section}`", page.display()))?;
    fs::write(page, after).with_context(|| format!("writing {}", page.display()))
}

/// A whole number as in a text: `1,000`.
pub fn grouped(number: u64) -> String {
    if number < 1_000 {
        number.to_string()
    } else {
        format!("{},{:03}", grouped(number / 1_000), number % 1_000)
    }
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
    fn a_page_without_the_markers_is_left_alone() {
        for (section, command) in [("figures", "make x"), ("results", "make y")] {
            assert_eq!(with_section(PAGE, section, command, "new"), None);
        }
    }
}
