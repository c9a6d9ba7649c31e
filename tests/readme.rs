//! What README.md and docs/configuration.md say of the configuration is so.
#![cfg(not(target_family = "wasm"))]

use std::collections::BTreeSet;

use inference_picker::config::Config;
use serde_json::{Value, json};

const README: &str = include_str!("../README.md");
const CONFIGURATION: &str = include_str!("../docs/configuration.md");

/// A document in which every field that has no default is there.
fn complete() -> Value {
    json!({
        "pools": [{"name": "p", "cluster": "c", "endpoints": ["10.0.0.1:8000"], "metrics": {}, "saturation": {}, "prefixCache": {}, "defaultTargets": [{"name": "t"}], "fallback": [], "prefill": {"pool": "q"}}, {"name": "q", "cluster": "d", "endpoints": ["10.0.0.2:8000"]}, {"name": "r", "cluster": "e", "endpoints": ["10.0.0.3:8000"]}],
        "sessions": {},
        "storedResponses": {},
        "queue": {},
        "objectives": [{"name": "o", "poolRef": {"name": "p"}}],
        "fairness": {},
        "peers": {"cluster": "g"},
        "scrapeCluster": "s",
        "adminCluster": "a",
        "models": [{"modelName": "m", "poolRef": {"name": "r"}, "targetModels": [{"name": "t"}], "promise": {"firstToken": "1s", "perToken": "50ms"}}],
    })
}

fn parse(document: &Value) -> Config {
    Config::parse(document.to_string().as_bytes()).unwrap_or_else(|error| panic!("{error} in {document}"))
}

/// The table's rows: field and default.
fn rows() -> Vec<(String, String)> {
    let table = CONFIGURATION.lines().skip_while(|line| !line.starts_with("| field | default |")).skip(2);
    let rows = table.take_while(|line| line.starts_with('|')).map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        (cells[1].trim_matches('`').to_owned(), cells[2].trim_matches('`').to_owned())
    });
    rows.collect()
}

/// The object that holds the field, and the field's name: `pools[].name` is `name` of the first pool.
fn place<'a>(document: &'a mut Value, path: &str) -> (&'a mut Value, String) {
    let mut parts: Vec<&str> = path.split('.').collect();
    let field = parts.pop().unwrap().to_owned();
    (parts.into_iter().fold(document, inner), field)
}

/// `pools[]` is the first pool, `queue` the queue.
fn inner<'a>(object: &'a mut Value, part: &str) -> &'a mut Value {
    match part.strip_suffix("[]") {
        Some(list) => &mut object[list][0],
        None => &mut object[part],
    }
}

#[test]
fn every_default_in_the_table_is_the_one_that_is_taken() {
    for (path, default) in rows() {
        if default == "required" || default == "none" {
            continue;
        }
        let (mut without, mut with) = (complete(), complete());
        let (object, field) = place(&mut without, &path);
        object.as_object_mut().unwrap().remove(&field);
        let (object, field) = place(&mut with, &path);
        object[&field] = serde_json::from_str(&default).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(parse(&without), parse(&with), "{path}");
    }
}

#[test]
fn what_the_table_calls_required_is() {
    for (path, default) in rows() {
        let mut document = complete();
        let (object, field) = place(&mut document, &path);
        object.as_object_mut().unwrap().remove(&field);
        let refused = Config::parse(document.to_string().as_bytes()).is_err();
        // Without peers they may be left out.
        let needed_by_peers = ["scrapeCluster", "adminCluster"].contains(&path.as_str());
        let expected = default == "required" || needed_by_peers;
        assert_eq!(refused, expected, "{path}");
    }
}

/// The fields that the object at `path` may have, as the parser lists them when it meets one it does not know.
fn known_fields(path: &str) -> Vec<String> {
    let mut document = complete();
    let (object, field) = place(&mut document, &format!("{path}nope"));
    object[field] = json!(1);
    let error = Config::parse(document.to_string().as_bytes()).unwrap_err();
    let names = error.problem.split('`').skip(3).step_by(2);
    names.map(|name| format!("{path}{name}")).collect()
}

#[test]
fn the_table_has_every_field_and_no_other() {
    let objects = [
        "",
        "pools[].",
        "pools[].metrics.",
        "pools[].saturation.",
        "pools[].prefixCache.",
        "pools[].prefill.",
        "models[].",
        "models[].targetModels[].",
        "models[].promise.",
        "sessions.",
        "storedResponses.",
        "queue.",
        "objectives[].",
        "fairness.",
        "peers.",
    ];
    let known: BTreeSet<String> = objects.into_iter().flat_map(known_fields).collect();
    let documented: BTreeSet<String> = rows().into_iter().map(|(field, _)| field).collect();
    assert_eq!(documented, known);
}

#[test]
fn the_example_is_a_valid_configuration() {
    for page in [README, CONFIGURATION] {
        let examples: Vec<&str> =
            page.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
        assert_eq!(examples.len(), 1);
        parse(&serde_json::from_str(examples[0]).unwrap());
    }
}

#[test]
fn every_make_command_is_one_of_the_makefiles() {
    let makefile = include_str!("../Makefile");
    let targets: BTreeSet<&str> =
        makefile.lines().filter_map(|line| line.split_once(": ")).map(|(name, _)| name).collect();
    let words: Vec<&str> = README.split(|letter: char| letter.is_whitespace() || letter == '`').collect();
    let named: BTreeSet<&str> = words
        .windows(2)
        .filter(|pair| pair[0] == "make")
        .map(|pair| pair[1].trim_matches(','))
        .filter(|name| !name.is_empty())
        .collect();
    assert!(named.contains("run") && named.contains("test"), "{named:?}");
    assert_eq!(named.difference(&targets).collect::<Vec<_>>(), Vec::<&&str>::new());
}
