//! A page in Prometheus's text format. Reads what Envoy prints, not all that the format allows: no timestamps.
//!
//! The crates that read the format split labels at every comma and equals sign, also within a model's name.

use std::collections::BTreeSet;

use anyhow::Result;

use super::Histogram;
use crate::envoy::Envoy;

/// Where Envoy's admin prints the plugin's statistics, and no others.
pub const ADMIN_PATH: &str = "/stats/prometheus?filter=%5Ewasmcustom%5C.";

#[derive(Debug, Clone, Default)]
pub struct Page {
    samples: Vec<Sample>,
}

#[derive(Debug, Clone)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Page {
    /// What the plugin has counted so far.
    ///
    /// # Errors
    /// An admin interface that does not answer.
    pub fn of(envoy: &Envoy) -> Result<Page> {
        Ok(Page::parse(&envoy.admin_get(ADMIN_PATH)?))
    }

    /// Lines that are no samples are left out.
    pub fn parse(text: &str) -> Page {
        Page { samples: text.lines().filter_map(Sample::parse).collect() }
    }

    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The sum of all samples of this name that have these labels; none where there is no such sample.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut values = self.named(name).filter(|sample| sample.has(labels)).map(|sample| sample.value);
        let first = values.next()?;
        Some(first + values.sum::<f64>())
    }

    /// The histogram of this name, all that have these labels together.
    pub fn histogram(&self, name: &str, labels: &[(&str, &str)]) -> Histogram {
        let mut histogram = Histogram::default();
        for sample in self.named(&format!("{name}_bucket")).filter(|sample| sample.has(labels)) {
            if let Some(bound) = sample.label("le").and_then(|text| text.parse().ok()) {
                histogram.add(bound, sample.value);
            }
        }
        histogram
    }

    /// The values that a label has in samples of this name that have these labels.
    pub fn values(&self, name: &str, label: &str, labels: &[(&str, &str)]) -> BTreeSet<&str> {
        self.named(name)
            .filter(|sample| sample.has(labels))
            .filter_map(|sample| sample.label(label))
            .collect()
    }

    fn named(&self, name: &str) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| sample.name == name)
    }
}

impl Sample {
    /// `name{label="value",other="value"} 12`
    fn parse(line: &str) -> Option<Sample> {
        if line.starts_with('#') {
            return None;
        }
        let name_end = line.find(['{', ' '])?;
        let (name, mut rest) = line.split_at(name_end);
        let mut labels = Vec::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            while !rest.starts_with('}') {
                let (label, after) = rest.split_once("=\"")?;
                let (value, after) = quoted(after)?;
                labels.push((label.to_owned(), value));
                rest = after.strip_prefix(',').unwrap_or(after);
            }
            rest = &rest[1..];
        }
        Some(Sample { name: name.to_owned(), labels, value: rest.trim().parse().ok()? })
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| label == name).map(|(_, value)| value.as_str())
    }

    fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(name, value)| self.label(name) == Some(value))
    }
}

/// The text up to the closing quote, with its escapes undone, and what is behind the quote.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[place + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"# TYPE inference_picker_picks counter
inference_picker_picks{pool="p",endpoint="127.0.0.1:8000"} 3
inference_picker_picks{pool="p",endpoint="127.0.0.2:8000"} 4
inference_picker_requests_sent{model="a, \"b\"=}"} 5
inference_picker_bare 6
inference_picker_broken{pool="p 7
"#;

    #[test]
    fn samples_are_summed_by_the_labels_that_are_asked_for() {
        let page = Page::parse(PAGE);
        let check = |name: &str, labels: &[(&str, &str)], expected: Option<f64>| {
            assert_eq!(page.sum(name, labels), expected, "{name} {labels:?}");
        };
        check("inference_picker_picks", &[("pool", "p")], Some(7.0));
        check("inference_picker_picks", &[("pool", "p"), ("endpoint", "127.0.0.2:8000")], Some(4.0));
        check("inference_picker_picks", &[("pool", "q")], None);
        check("inference_picker_requests_sent", &[("model", "a, \"b\"=}")], Some(5.0));
        check("inference_picker_bare", &[], Some(6.0));
        check("inference_picker_broken", &[], None);
    }

    #[test]
    fn the_values_of_a_label_are_listed_once_each() {
        let page = Page::parse(PAGE);
        let endpoints: Vec<&str> =
            page.values("inference_picker_picks", "endpoint", &[("pool", "p")]).into_iter().collect();
        assert_eq!(endpoints, ["127.0.0.1:8000", "127.0.0.2:8000"]);
        assert_eq!(page.values("inference_picker_picks", "pool", &[]).len(), 1);
    }
}
