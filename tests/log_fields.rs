//! What shipped configurations publish for the access log is what their log formats read.
#![cfg(not(target_family = "wasm"))]

use std::collections::BTreeSet;
use std::fs;

use inference_picker::log_fields::LogField;

/// What stands between `start` and `end`, wherever that is.
fn between<'a>(text: &'a str, start: &'a str, end: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(start).skip(1).filter_map(move |rest| rest.split(end).next())
}

#[test]
fn every_shipped_configuration_publishes_what_its_log_format_reads() {
    for folder in fs::read_dir("filter-config").unwrap() {
        let path = folder.unwrap().path().join("envoy.yaml");
        let text = fs::read_to_string(&path).unwrap();
        let read: BTreeSet<&str> = between(&text, "%FILTER_STATE(wasm.", ":PLAIN)%").collect();
        let listed: BTreeSet<&str> = between(&text, "\"publish\": [", "]")
            .flat_map(|list| list.split(',').map(|name| name.trim().trim_matches('"')))
            .collect();
        let all = || LogField::ALL.into_iter().map(LogField::name).collect();
        let published: BTreeSet<&str> = if listed.is_empty() { all() } else { listed };
        assert_eq!(read, published, "{}", path.display());
    }
}

#[test]
fn every_field_is_known_by_its_name_alone() {
    for field in LogField::ALL {
        assert_eq!(LogField::of_name(field.name()), Some(field));
    }
    assert_eq!(LogField::of_name("llm_first_pass"), None);
}
