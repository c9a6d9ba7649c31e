//! Every file and heading that a document links to is there.
#![cfg(not(target_family = "wasm"))]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders without documents of the project's own.
const PASSED_OVER: [&str; 3] = ["target", "node_modules", "fixtures"];

fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !path.is_symlink() && !name.starts_with('.') && !PASSED_OVER.contains(&&*name) {
            documents(&path, found);
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
}

/// The text without what stands in blocks of code.
fn prose(text: &str) -> String {
    let mut in_code = false;
    let lines = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn targets(text: &str) -> Vec<String> {
    let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    links.map(|(target, _)| target.to_owned()).filter(|target| !target.contains("://")).collect()
}

/// What a page of this text calls its headings: lower case, a dash for each space, and neither punctuation nor marks.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let letters = |heading: &str| -> String {
        let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
        kept.flat_map(char::to_lowercase).map(|letter| if letter == ' ' { '-' } else { letter }).collect()
    };
    headings.map(|line| letters(line.trim_start_matches('#').trim())).collect()
}

/// A heading of a document, or a function of a source file.
fn has(file: &Path, heading: &str) -> bool {
    let text = fs::read_to_string(file).unwrap();
    if file.extension().is_some_and(|extension| extension == "rs") {
        return text.contains(&format!("fn {heading}("));
    }
    anchors(&prose(&text)).contains(heading)
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_are_there() {
    let mut found = Vec::new();
    documents(Path::new(env!("CARGO_MANIFEST_DIR")), &mut found);
    let mut broken = Vec::new();
    let mut links = 0;
    for document in &found {
        let text = prose(&fs::read_to_string(document).unwrap());
        for target in targets(&text) {
            links += 1;
            let (file, heading) = target.split_once('#').unwrap_or((&target, ""));
            let file = if file.is_empty() { document.clone() } else { document.parent().unwrap().join(file) };
            let is_there = file.exists() && (heading.is_empty() || has(&file, heading));
            if !is_there {
                broken.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(links > 100, "{links} links in {} documents", found.len());
    assert!(broken.is_empty(), "{broken:#?}");
}
