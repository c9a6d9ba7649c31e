//! What docs/limits.md says of limits is so, and none is missing.
#![cfg(not(target_family = "wasm"))]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use inference_picker::limits;

const STATISTICS: &str = include_str!("../src/stats/statistic.rs");
const TABLE: &str = include_str!("../docs/limits.md");
/// Parts of the names that limits have.
const WORDS: [&str; 5] = ["MAX_", "_MAX", "MIN_", "_KEPT", "EXPIRES_"];

/// A limit, by its file and its name.
type Limit = (String, String);

/// The limits of the tables, with their values.
fn documented() -> BTreeMap<Limit, String> {
    let rows = TABLE.lines().filter(|line| line.contains("| `src/"));
    let limits = rows.map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let (file, name) = cells[3].split_once(' ').unwrap();
        ((file.trim_matches('`').to_owned(), name.trim_matches('`').to_owned()), cells[2].to_owned())
    });
    limits.collect()
}

/// The limits in the source, with the expressions that say their values.
fn in_source() -> BTreeMap<Limit, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let limits = files(&root.join("src")).into_iter().flat_map(|path| {
        let file = path.strip_prefix(root).unwrap().display().to_string();
        let text = std::fs::read_to_string(&path).unwrap();
        constants(&text).map(move |(name, value)| ((file.clone(), name), value)).collect::<Vec<_>>()
    });
    limits.collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] });
    files.collect()
}

fn constants(text: &str) -> impl Iterator<Item = (String, String)> {
    text.lines().filter_map(|line| {
        let (name, rest) = line.split_once("const ")?.1.split_once(": ")?;
        let (_, value) = rest.split_once(" = ")?;
        let is_limit = WORDS.iter().any(|word| name.contains(word)) && !name.starts_with("DEFAULT_");
        is_limit.then(|| (name.to_owned(), value.trim_end_matches(';').to_owned()))
    })
}

/// `2 * 1024`, `16 << 20`, `4_096`, `Duration::from_secs(3600)`; times in milliseconds.
fn value_in_source(name: &str, expression: &str) -> f64 {
    let number =
        |text: &str| text.replace('_', "").parse::<f64>().unwrap_or_else(|_| panic!("{name} = {expression}"));
    let inner = |prefix: &str| expression.strip_prefix(prefix)?.strip_suffix(')');
    if let Some(milliseconds) = inner("Duration::from_millis(") {
        return number(milliseconds);
    }
    if let Some(seconds) = inner("Duration::from_secs(") {
        return number(seconds) * 1_000.0;
    }
    let unit = if name.ends_with("_S") { 1_000.0 } else { 1.0 };
    match expression.split_once(" << ") {
        Some((value, shift)) => number(value) * number(shift).exp2(),
        None => expression.split(" * ").map(number).product::<f64>() * unit,
    }
}

/// `16 MiB`, `2 s`, `4,096 blocks`; times in milliseconds.
fn value_in_table(text: &str) -> f64 {
    let (number, unit) = text.split_once(' ').unwrap_or((text, ""));
    let number: f64 = number.replace(',', "").parse().unwrap_or_else(|_| panic!("{text}"));
    number
        * match unit {
            "KiB" => 1_024.0,
            "MiB" => 1_048_576.0,
            "s" => 1_000.0,
            _ => 1.0,
        }
}

#[test]
fn every_limit_is_in_the_table_and_nothing_else() {
    let names = |limits: BTreeMap<Limit, String>| limits.into_keys().collect::<Vec<_>>();
    assert_eq!(names(documented()), names(in_source()));
}

#[test]
fn every_value_in_the_table_is_the_one_that_counts() {
    let source = in_source();
    for (limit, value) in documented() {
        assert_eq!(value_in_table(&value), value_in_source(&limit.1, &source[&limit]), "{limit:?}");
    }
}

/// What the table's last cells name: a statistic, and the value of its label if one is named.
fn counters() -> BTreeSet<(String, Option<String>)> {
    let cells = TABLE.lines().filter(|line| line.contains("| `src/")).map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 7, "five cells: {line}");
        cells[5].trim_matches('`')
    });
    let counters = cells.filter(|cell| !cell.is_empty()).map(|cell| match cell.split_once('{') {
        None => (cell.to_owned(), None),
        Some((name, label)) => (name.to_owned(), label.split('"').nth(1).map(str::to_owned)),
    });
    counters.collect()
}

#[test]
fn every_counter_in_the_table_is_one_and_every_limit_that_is_counted_is_in_the_table() {
    let counters = counters();
    for (name, _) in &counters {
        assert!(STATISTICS.contains(&format!("\"inference_picker_{name}\"")), "{name}");
    }
    let of = |statistic: &str| {
        let values =
            counters.iter().filter(|(name, _)| name == statistic).filter_map(|(_, value)| value.clone());
        values.collect::<BTreeSet<String>>()
    };
    let limits: BTreeSet<String> = limits::Limit::ALL.iter().map(|limit| limit.name().to_owned()).collect();
    assert_eq!(of("limits_reached"), limits);
    assert_eq!(
        of("refusals"),
        ["invalid_json", "invalid_model", "request_too_large"].map(str::to_owned).into()
    );
}
