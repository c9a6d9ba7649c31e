//! What docs/compatibility.md says was run has a recording or a test that exists.
#![cfg(not(target_family = "wasm"))]

use std::path::{Path, PathBuf};

const PAGE: &str = include_str!("../docs/compatibility.md");
/// The tests that need real servers; the files that list those of a kind, by the column that it has; and the file that lists
/// what all kinds have in common, of which each calls both lists.
const REAL_TESTS: &str = "envoy-test/tests/real_servers";
const REAL_TESTS_LISTS: [(&str, &str); 2] = [
    ("vLLM", include_str!("../envoy-test/tests/real_servers/vllm/mod.rs")),
    ("llama.cpp", include_str!("../envoy-test/tests/real_servers/llama_cpp/mod.rs")),
];
const SHARED_REAL_TESTS: &str = include_str!("../envoy-test/tests/real_servers/main.rs");
const SHARED_LISTS: [&str; 2] = ["check_shared(&gateway)", "check_shared_prefixes(&gateway)"];
const REPLAYED: &str = include_str!("../envoy-test/tests/end_to_end/recorded_servers.rs");

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The cells of the first table, without its first column, each with the names of its row and column.
fn cells() -> Vec<(String, String)> {
    let is_row = |line: &&str| line.starts_with('|');
    let table = PAGE.lines().skip_while(|line| !is_row(line)).take_while(is_row);
    let mut rows = table.map(|line| {
        let cells = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned());
        cells.collect::<Vec<_>>()
    });
    let servers = rows.next().unwrap();
    let rows: Vec<Vec<String>> = rows.skip(1).collect();
    let named = rows.iter().flat_map(|row| {
        assert_eq!(row.len(), servers.len(), "{row:?}");
        let servers = servers.iter().skip(1);
        row.iter().skip(1).zip(servers).map(|(cell, server)| (format!("{}, {server}", row[0]), cell.clone()))
    });
    named.collect()
}

/// The targets of a cell's links.
fn links(cell: &str) -> impl Iterator<Item = &str> {
    cell.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// A recording is replayed if its folder is, and it has a request or is a page of metrics; a claim is run if it is in the
/// list of the column's servers, or in one that they share.
fn check_target(place: &str, target: &str) {
    let (file, claim) = target.split_once('#').unwrap_or((target, ""));
    let path = root().join("docs").join(file);
    assert!(path.exists(), "{place}: {target} is not there");
    if file.contains(REAL_TESTS) {
        let module = path.file_stem().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(&format!("pub fn {claim}(")), "{place}: {target} is no test");
        let column = place.rsplit(", ").next().unwrap();
        let (_, list) = REAL_TESTS_LISTS.iter().find(|(server, _)| column.starts_with(server)).unwrap();
        let is_listed = |list: &str| list.contains(&format!("{module}::{claim}"));
        let runs_shared = SHARED_LISTS.iter().all(|call| list.contains(call));
        let is_run = is_listed(list) || runs_shared && is_listed(SHARED_REAL_TESTS);
        assert!(is_run, "{place}: {target} is not run");
    } else {
        check_recording(place, &path);
    }
}

fn check_recording(place: &str, path: &Path) {
    let folder = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
    let is_page = path.extension().is_some_and(|extension| extension == "txt");
    let is_replayed = path.with_extension("req.json").exists() && REPLAYED.contains(&format!("\"{folder}\""));
    assert!(is_page || is_replayed, "{place}: {} is not replayed", path.display());
}

#[test]
fn what_was_run_names_a_recording_or_a_test_and_nothing_else_does() {
    let cells = cells();
    let run = cells.iter().filter(|(_, cell)| cell.contains("run"));
    assert!(run.count() > 20, "{cells:?}");
    for (place, cell) in &cells {
        let known =
            ["run", "read", "none", "?"].iter().any(|word| cell.trim_start_matches('[').starts_with(word));
        assert!(known, "{place}: {cell}");
        assert_eq!(cell.contains("run"), links(cell).count() > 0, "{place}: {cell}");
        links(cell).for_each(|target| check_target(place, target));
    }
}
