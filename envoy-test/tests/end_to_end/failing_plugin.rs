//! When the plugin itself fails, traffic goes on.
//!
//! A real way to end it is used: the plugin as it ships, allowed so little memory that a large body, or a large
//! metrics page, is more than it can hold. Its allocation fails and the VM traps.

use std::path::PathBuf;
use std::time::Duration;

use crate::gateway::{ALL, Gateway, STOP_ITERATION, Setup, WORKER_SCRAPING, chat, until};
use envoy_test::envoy::binary::plugin_file;
use envoy_test::envoy::{Configuration, Request};
use envoy_test::model_server::MetricsMode;
use serde_json::{Value, json};

/// WebAssembly pages of 64 KiB that the plugin is allowed: 3 MiB, of which it needs about half.
const MEMORY_PAGES: u32 = 48;
/// More than that memory holds, and less than the plugin's limits.
const TOO_LARGE_BYTES: usize = 6 << 20;

/// The plugin that was built, with a limit on its memory; and the folder it is in.
fn plugin_with_little_memory() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("little_memory.wasm");
    std::fs::write(&file, limit_memory(&std::fs::read(plugin_file()).unwrap(), MEMORY_PAGES)).unwrap();
    (folder, file)
}

/// The module with a largest size in its memory section, which has none as the compiler writes it.
fn limit_memory(module: &[u8], pages: u32) -> Vec<u8> {
    const MEMORY_SECTION: u8 = 5;
    let (mut out, mut rest) = (module[..8].to_vec(), &module[8..]);
    while let Some((&section, after)) = rest.split_first() {
        let (length, used) = read_number(after);
        let content = &after[used..used + length as usize];
        out.push(section);
        if section == MEMORY_SECTION {
            assert_eq!(content[..2], [1, 0], "one memory without a limit");
            let mut limited = vec![1, 1];
            limited.extend(&content[2..]);
            write_number(&mut limited, pages);
            write_number(&mut out, limited.len() as u32);
            out.extend(limited);
        } else {
            out.extend(&after[..used]);
            out.extend(content);
        }
        rest = &after[used + length as usize..];
    }
    out
}

/// An unsigned LEB128 number, and how many bytes it took.
fn read_number(bytes: &[u8]) -> (u32, usize) {
    let mut number = 0;
    for (index, byte) in bytes.iter().enumerate() {
        number |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return (number, index + 1);
        }
    }
    panic!("a number without an end")
}

fn write_number(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn start(configuration: &str, failure_policy: &str) -> (Gateway, tempfile::TempDir) {
    let (folder, file) = plugin_with_little_memory();
    let edit = |envoy: &mut Configuration| {
        envoy.set_plugin_file(&file);
        let filter = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters/0";
        envoy.at(&format!("{filter}/typed_config/config"))["failure_policy"] = failure_policy.into();
    };
    (Setup::new(configuration).concurrency(1).envoy(edit).start(), folder)
}

fn large_chat() -> Request {
    Request::post("/v1/completions").json(&json!({"model": "tiny", "prompt": "x".repeat(TOO_LARGE_BYTES)}))
}

fn picked(gateway: &Gateway) -> bool {
    let count = gateway.envoy.access_log().unwrap().len();
    let answer = gateway.send(chat("tiny"));
    answer.status == 200 && gateway.envoy.access_log_until(count + 1).unwrap()[count]["picked"] != Value::Null
}

#[test]
fn with_fail_reload_the_plugin_is_started_anew_and_picks_again() {
    for configuration in ALL {
        let (gateway, _folder) = start(configuration, "FAIL_RELOAD");
        assert!(picked(&gateway), "{configuration}");
        assert!(gateway.send(large_chat()).status >= 500, "{configuration}: the request that ended it");
        until("the plugin picks again", || picked(&gateway));
        assert!(
            gateway.envoy.log_text().contains("memory allocation"),
            "{configuration}: it ended for want of memory"
        );
    }
}

#[test]
fn with_fail_open_traffic_passes_without_the_plugin() {
    let (gateway, _folder) = start(STOP_ITERATION, "FAIL_OPEN");
    gateway.send(large_chat());
    for _ in 0..20 {
        assert_eq!(gateway.send(chat("tiny")).status, 200, "Envoy's own balancing serves it");
    }
}

#[test]
fn when_the_companion_service_stops_traffic_goes_on() {
    let (gateway, _folder) = start(STOP_ITERATION, "FAIL_RELOAD");
    gateway.pods.server(0).set(|knobs| knobs.metrics = MetricsMode::Huge(TOO_LARGE_BYTES));
    until("the service has ended", || gateway.envoy.log_text().contains("memory allocation"));
    let before = gateway.pods.server(1).counters().metrics_scrapes;
    std::thread::sleep(Duration::from_secs(1));
    let after = gateway.pods.server(1).counters().metrics_scrapes;
    assert!(after <= before + 1, "it scrapes no more: {before}, {after}");
    let shares = gateway.shares(&gateway.burst(vec![chat("tiny"); 32]));
    assert!(shares.iter().all(|share| (6..=10).contains(share)), "{shares:?}");
}

#[test]
fn when_the_worker_that_scrapes_is_gone_another_takes_over() {
    let (folder, file) = plugin_with_little_memory();
    let edit = |envoy: &mut Configuration| {
        envoy.set_plugin_file(&file);
    };
    let gateway = Setup::new(WORKER_SCRAPING).concurrency(2).envoy(edit).start();
    gateway.pods.server(0).set(|knobs| knobs.metrics = MetricsMode::Huge(TOO_LARGE_BYTES));
    until("the worker has ended", || gateway.envoy.log_text().contains("memory allocation"));
    gateway.pods.server(0).set(|knobs| knobs.metrics = MetricsMode::Live);
    gateway.wait_until_scraped();
    until("both workers pick", || (0..8).all(|_| picked(&gateway)));
    drop(folder);
}
