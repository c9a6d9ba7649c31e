//! What the plugin that is shipped is linked with: which of the host's functions it can call, and which panics its own
//! functions can reach without a detour.
//!
//! The lints of the crate see the source; this sees what the compiler made of it, with what was inlined from libraries.
//! It sees direct calls alone: not those through tables (which the SDK makes of traits), and not what a library's own
//! function does that was not inlined.

use std::collections::{BTreeMap, BTreeSet};

use envoy_test::envoy::binary::plugin_file;
use rustc_demangle::demangle;
use wasmparser::{KnownCustom, Name, Operator, Parser, Payload, TypeRef};

/// Functions by what they are called, without hashes.
struct Module {
    imports: BTreeSet<String>,
    /// Callers and callees.
    calls: BTreeSet<(String, String)>,
}

impl Module {
    fn shipped() -> Module {
        let bytes = std::fs::read(plugin_file()).unwrap();
        let (mut imports, mut calls, mut names) = (Vec::new(), Vec::new(), BTreeMap::new());
        let mut function = 0;
        for payload in Parser::new(0).parse_all(&bytes) {
            match payload.unwrap() {
                Payload::ImportSection(section) => {
                    imports = section.into_imports().map(|import| imported(import.unwrap())).collect();
                    function = imports.len() as u32;
                }
                Payload::CodeSectionEntry(body) => {
                    calls.extend(called(&body).into_iter().map(|callee| (function, callee)));
                    function += 1;
                }
                Payload::CustomSection(section) => {
                    if let KnownCustom::Name(section) = section.as_known() {
                        names.extend(section.into_iter().flat_map(|name| function_names(name.unwrap())));
                    }
                }
                _ => {}
            }
        }
        let name = |function: u32| names.get(&function).cloned().unwrap_or_default();
        let calls = calls.into_iter().map(|(caller, callee)| (name(caller), name(callee))).collect();
        Module { imports: imports.into_iter().collect(), calls }
    }

    /// What functions of ours call that begins so.
    fn own_calls<'a>(
        &'a self,
        is_wanted: impl Fn(&str) -> bool + 'a,
    ) -> impl Iterator<Item = &'a (String, String)> {
        self.calls.iter().filter(move |(caller, callee)| is_own(caller) && is_wanted(callee))
    }
}

fn imported(import: wasmparser::Import<'_>) -> String {
    assert!(matches!(import.ty, TypeRef::Func(_)), "nothing but functions is imported");
    format!("{}.{}", import.module, import.name)
}

fn called(body: &wasmparser::FunctionBody<'_>) -> Vec<u32> {
    let operators = body.get_operators_reader().unwrap();
    let called = operators.into_iter().filter_map(|operator| match operator.unwrap() {
        Operator::Call { function_index } => Some(function_index),
        _ => None,
    });
    called.collect()
}

fn function_names(name: Name<'_>) -> Vec<(u32, String)> {
    let Name::Function(names) = name else { return Vec::new() };
    let names = names.into_iter().map(|naming| {
        let naming = naming.unwrap();
        (naming.index, format!("{:#}", demangle(naming.name)))
    });
    names.collect()
}

fn is_own(function: &str) -> bool {
    function.trim_start_matches('<').starts_with("inference_picker::")
}

/// By the words in which the standard library names what it calls to panic.
fn is_panic(function: &str) -> bool {
    let words = ["panic", "_fail", "handle_error", "capacity_overflow", "handle_alloc_error"];
    !is_own(function) && words.iter().any(|word| function.contains(word))
}

/// Panics that functions of ours call, whose they may be, and why.
const ACCEPTED: &[(&str, &str, &str)] = &[
    ("alloc::raw_vec::handle_error", "", "memory is at an end"),
    ("alloc::raw_vec::capacity_overflow", "", "memory is at an end"),
    ("alloc::alloc::handle_alloc_error", "", "memory is at an end"),
    (
        "core::cell::panic_already_borrowed",
        "plugin::",
        "cells of the shell, which the host never calls within itself",
    ),
    ("core::cell::panic_already_mutably_borrowed", "plugin::", "the same"),
    ("core::result::unwrap_failed", "", "of std: `to_string`, and the keys of hash tables"),
    ("core::option::unwrap_failed", "load::tracked_endpoint::", "of std: `BTreeMap`"),
    ("core::panicking::panic", "load::tracked_endpoint::", "of std: `BTreeMap`"),
    ("core::slice::index::slice_index_fail", "load::tracked_endpoint::", "of std: `BTreeMap`"),
    ("core::option::unwrap_failed", "load::LoadTracker::", "the same, inlined from `load::tracked_endpoint`"),
    ("core::panicking::panic", "load::LoadTracker::", "the same"),
    ("core::slice::index::slice_index_fail", "load::LoadTracker::", "the same"),
    ("core::option::unwrap_failed", "load::missing_models::", "of std: `BTreeMap`"),
    ("core::panicking::panic", "load::missing_models::", "the same"),
    ("core::option::unwrap_failed", "ledger::member::Member::write", "the same, inlined"),
    ("core::option::unwrap_failed", "metrics::reader::Tally::", "of std: `BTreeMap`"),
    ("core::panicking::panic", "metrics::reader::Tally::", "the same"),
    ("core::slice::index::slice_index_fail", "metrics::reader::Tally::", "the same"),
    ("core::option::unwrap_failed", "metrics::reader::read_plain", "the same, inlined from `Tally`"),
    ("core::panicking::panic", "queue::", "of std: `BTreeMap`"),
    ("core::option::unwrap_failed", "queue::", "the same"),
    ("core::slice::index::slice_index_fail", "queue::", "the same"),
    (
        "core::option::unwrap_failed",
        "plugin::Root as proxy_wasm::traits::RootContext>::on_tick",
        "the same, inlined",
    ),
    ("core::option::unwrap_failed", "picker::PickerPool<W>::has_room", "the same, inlined"),
    ("core::option::unwrap_failed", "plugin::stream::request::", "the same, inlined from `queue`"),
    ("core::panicking::panic", "plugin::stream::request::", "the same"),
    ("core::slice::index::slice_index_fail", "plugin::stream::request::", "the same"),
    (
        "core::panicking::panic_fmt",
        "pool::Pool::update_candidates",
        "of std: `sort_unstable`, by an order that is none",
    ),
    ("<std::panic::PanicHookInfo as core::fmt::Display>::fmt", "plugin::", "none: it says what has panicked"),
];

#[test]
fn the_plugin_can_reach_neither_files_nor_sockets() {
    let wasi = ["clock_time_get", "random_get", "environ_get", "environ_sizes_get", "fd_write", "proc_exit"];
    let wasi = wasi.map(|name| format!("wasi_snapshot_preview1.{name}"));
    let other: Vec<String> = Module::shipped()
        .imports
        .into_iter()
        .filter(|import| !import.starts_with("env.proxy_") && !wasi.contains(import))
        .collect();
    assert_eq!(other, Vec::<String>::new());
}

/// They panic on a status they do not expect, and on headers that are not UTF-8; the one that is left fails only so.
#[test]
fn of_the_sdks_wrappers_of_the_host_only_the_one_of_http_calls_is_used() {
    let module = Module::shipped();
    let used: BTreeSet<&String> = module
        .own_calls(|callee| callee.contains("proxy_wasm::hostcalls"))
        .map(|(_, callee)| callee)
        .collect();
    assert_eq!(used.into_iter().collect::<Vec<_>>(), ["proxy_wasm::hostcalls::dispatch_http_call"]);
}

#[test]
fn no_function_of_ours_panics_but_for_want_of_memory_or_as_is_accepted() {
    let module = Module::shipped();
    let accepted = |caller: &str, callee: &str| {
        let caller = caller.trim_start_matches('<').trim_start_matches("inference_picker::");
        ACCEPTED.iter().any(|(panic, whose, _)| callee == *panic && caller.starts_with(whose))
    };
    let own: Vec<&(String, String)> = module.own_calls(is_panic).collect();
    assert!(own.len() > 10, "names are found: {own:?}");
    let other: Vec<_> = own.into_iter().filter(|(caller, callee)| !accepted(caller, callee)).collect();
    assert!(other.is_empty(), "{other:#?}");
}
