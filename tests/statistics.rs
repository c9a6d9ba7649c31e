//! What docs/statistics.md says of statistics is so, and none is missing.
#![cfg(not(target_family = "wasm"))]

use std::collections::BTreeMap;

const SOURCE: &str = include_str!("../src/stats/statistic.rs");
const DOCUMENT: &str = include_str!("../docs/statistics.md");
const KINDS: [&str; 3] = ["Histogram", "Counter", "Gauge"];

/// Kind and labels.
type Statistic = (String, Vec<String>);

/// The text's parts in backquotes.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The rows below the header of this kind, by their cells.
fn rows(kind: &str) -> impl Iterator<Item = Vec<&'static str>> {
    let header = format!("## {kind}s");
    let lines = DOCUMENT.lines().skip_while(move |line| *line != header).skip(1);
    let lines = lines.take_while(|line| !line.starts_with("## ")).filter(|line| line.starts_with("| `"));
    lines.map(|line| line.split('|').map(str::trim).collect())
}

fn documented() -> BTreeMap<String, Statistic> {
    let all = KINDS.into_iter().flat_map(|kind| rows(kind).map(move |cells| (kind, cells)));
    all.map(|(kind, cells)| (quoted(cells[1]).remove(0), (kind.to_owned(), quoted(cells[2])))).collect()
}

/// The strings of the constant of this name.
fn labels(constant: &str) -> Vec<String> {
    let start = format!("const {constant}: &[&str] = &[");
    let list = SOURCE.split(&start).nth(1).unwrap_or_else(|| panic!("no {constant}"));
    let list = list.split(']').next().unwrap();
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Of lines that have `(Kind, "name", LABELS)`.
fn in_source() -> BTreeMap<String, Statistic> {
    let definitions = SOURCE.lines().filter_map(|line| {
        let (_, definition) = line.split_once('(')?;
        let (definition, _) = definition.split_once(')')?;
        let [kind, name, constant] = definition.split(", ").collect::<Vec<_>>().try_into().ok()?;
        KINDS
            .contains(&kind)
            .then(|| (name.trim_matches('"').to_owned(), (kind.to_owned(), labels(constant))))
    });
    definitions.collect()
}

#[test]
fn the_tables_have_every_statistic_with_its_kind_and_labels() {
    let in_source = in_source();
    let definitions = SOURCE.matches("\"inference_picker_").count() + SOURCE.matches("\"asm_llm_").count();
    assert_eq!(in_source.len(), definitions, "all of them are found");
    assert_eq!(documented(), in_source);
}

/// So that who knows a histogram's name and unit can derive its sum's; those of tokens were there before.
#[test]
fn every_histogram_has_a_counter_of_its_sum_with_as_many_labels() {
    let all = documented();
    for cells in rows("Histogram") {
        let (name, sum) = (quoted(cells[1]).remove(0), quoted(cells[3]).remove(0));
        let (kind, labels) = &all[&sum];
        assert_eq!((kind.as_str(), labels.len()), ("Counter", all[&name].1.len()), "{name}");
        let (measured, unit) = name.rsplit_once('_').unwrap();
        let by_rule =
            [format!("{measured}_sum_{unit}"), name.replace("inference_picker_request", "asm_llm_proxy")];
        assert!(by_rule.contains(&sum), "{name}: {sum}");
    }
}
