//! Files use each other one way: whoever reads one has an order in which to read the others.
//!
//! What counts is which file a path begins with that another file names (`crate::pool::Endpoint`, `super::row`). A module's own
//! file and the files below it belong together: between them nothing counts.
#![cfg(not(target_family = "wasm"))]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module's path, `["pool", "endpoint"]`.
type Module = Vec<String>;

/// The modules of a crate's folder, with what their files say.
fn modules(folder: &Path, place: &Module, found: &mut BTreeMap<Module, String>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let inner: Module = place.iter().cloned().chain([name.clone()]).collect();
        if path.is_dir() && name != "bin" {
            modules(&path, &inner, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && name != "tests" {
            let module = if ["mod", "lib", "main"].contains(&&*name) { place.clone() } else { inner };
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            found.entry(module).or_default().push_str(&code.collect::<Vec<_>>().join("\n"));
        }
    }
}

/// The paths behind one that ends with `::`, which may be several in braces.
fn expanded(text: &str) -> Vec<String> {
    if let Some(inner) = text.strip_prefix('{') {
        let (mut depth, mut parts, mut start) = (0, Vec::new(), 0);
        for (at, letter) in inner.char_indices() {
            match letter {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    parts.extend(expanded(inner[start..at].trim()));
                    start = at + 1;
                    if letter == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
        return parts;
    }
    let end = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    match rest.strip_prefix("::") {
        Some(rest) => expanded(rest).into_iter().map(|inner| format!("{name}::{inner}")).collect(),
        None => vec![name.to_owned()],
    }
}

/// The modules that a file names.
fn named(module: &Module, text: &str, all: &BTreeMap<Module, String>) -> BTreeSet<Module> {
    let mut found = BTreeSet::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in text.match_indices(start) {
            if text[..at].ends_with("::") || text[..at].ends_with(|letter: char| letter.is_alphanumeric()) {
                continue;
            }
            for path in expanded(&text[at..]) {
                let mut place = module.clone();
                for part in path.split("::") {
                    match part {
                        "crate" => place.clear(),
                        "super" => _ = place.pop(),
                        "self" => {}
                        name => place.push(name.to_owned()),
                    }
                }
                // What is behind the last module is a name in it.
                while !place.is_empty() && !all.contains_key(&place) {
                    place.pop();
                }
                found.insert(place);
            }
        }
    }
    found.retain(|other| !other.starts_with(module) && !module.starts_with(other));
    found
}

/// A way from one module back to it, if there is one.
fn circle(uses: &BTreeMap<Module, BTreeSet<Module>>) -> Option<Vec<String>> {
    fn follow<'a>(
        at: &'a Module,
        uses: &'a BTreeMap<Module, BTreeSet<Module>>,
        way: &mut Vec<&'a Module>,
        done: &mut BTreeSet<&'a Module>,
    ) -> Option<Vec<String>> {
        if let Some(start) = way.iter().position(|module| *module == at) {
            return Some(way[start..].iter().map(|module| module.join("::")).collect());
        }
        if !done.insert(at) {
            return None;
        }
        way.push(at);
        let found = uses[at].iter().find_map(|next| follow(next, uses, way, done));
        way.pop();
        found
    }
    let mut done = BTreeSet::new();
    uses.keys().find_map(|module| follow(module, uses, &mut Vec::new(), &mut done))
}

#[test]
fn a_way_back_is_found() {
    let module = |name: &str| vec![name.to_owned()];
    let texts = [("a", "use crate::{b::{X, y::Z}, other};"), ("b", "fn f() { super::c::g() }"), ("c", "")];
    let mut all: BTreeMap<Module, String> =
        texts.into_iter().map(|(name, text)| (module(name), text.to_owned())).collect();
    let uses = |all: &BTreeMap<Module, String>| -> BTreeMap<Module, BTreeSet<Module>> {
        all.iter().map(|(module, text)| (module.clone(), named(module, text, all))).collect()
    };
    assert_eq!(circle(&uses(&all)), None);
    all.insert(module("c"), "use crate::a::W;".to_owned());
    assert_eq!(circle(&uses(&all)), Some(["a", "b", "c"].map(str::to_owned).to_vec()));
}

#[test]
fn files_use_each_other_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["src", "config-command/src", "controller/src", "envoy-test/src"] {
        let mut all = BTreeMap::new();
        modules(&root.join(folder), &Vec::new(), &mut all);
        let uses = all.iter().map(|(module, text)| (module.clone(), named(module, text, &all)));
        let uses: BTreeMap<Module, BTreeSet<Module>> = uses.collect();
        assert!(uses.values().map(BTreeSet::len).sum::<usize>() > 0, "{folder}");
        assert_eq!(circle(&uses), None, "{folder}");
    }
}
