//! Servers with several engines behind one port, each with a cache of its own: the gateway says which of them runs a request.

use std::collections::BTreeSet;

use envoy_test::envoy::{NEWEST, OLDEST, Request};
use envoy_test::model_server::{MetricsPage, ServerSettings};
use serde_json::{Value, json};

use crate::gateway::{BODY_MODES, DEFERRED, Gateway, STOP_ITERATION, Setup, chat, pod};

const HEADER: &str = "x-data-parallel-rank";
const ENGINES: usize = 4;
const PODS: usize = 2;
/// So many that each engine gets some, whatever their hashes are.
const DIFFERENT: usize = 48;
const TURNS: usize = 6;

fn setup(mode: &'static str, engines: usize) -> Setup {
    let server = ServerSettings { metrics_page: MetricsPage::Vllm { engines }, ..pod() };
    Setup::new(mode).pods(vec![server; PODS])
}

fn naming_ranks(mode: &'static str, engines: usize) -> Setup {
    let setup = setup(mode, engines).plugin(|plugin| {
        plugin["pools"][0]["dataParallel"] = "ranks".into();
        plugin["pools"][0]["routingStrategy"] = "PREFIX_CACHE".into();
    });
    if mode != DEFERRED {
        return setup;
    }
    setup.envoy(|envoy| envoy.copy_to_header("llm_data_parallel_rank", HEADER))
}

/// A prompt of so many KB that begins like no other.
fn prompt(name: &str, kilobytes: usize) -> Request {
    let prompt = format!("{name} {}", "and so on. ".repeat(kilobytes * 93));
    Request::post("/v1/completions").json(&json!({"model": "tiny", "max_tokens": 2, "prompt": prompt}))
}

/// How many requests each engine of each pod was named for.
fn named(gateway: &Gateway) -> Vec<Vec<u64>> {
    let of_pod = |place: usize| {
        let ranks = gateway.pods.server(place).counters().requests_by_rank;
        (0..ENGINES).map(|rank| ranks.get(&rank).copied().unwrap_or(0)).collect()
    };
    (0..PODS).map(of_pod).collect()
}

/// Where the last requests went: the endpoint, and what the log says of the rank.
fn places(gateway: &Gateway, count: usize) -> BTreeSet<(String, String)> {
    let lines = gateway.envoy.access_log_until(count).unwrap();
    let place = |line: &Value| {
        let decision = line["decision"].as_str().unwrap();
        let rank = decision.split_once(" rank=").map_or("none", |(_, rank)| rank);
        (line["upstream"].as_str().unwrap_or_default().to_owned(), rank.to_owned())
    };
    lines[count - TURNS..].iter().map(place).collect()
}

#[test]
fn each_engine_gets_its_part_and_a_conversation_stays_at_one() {
    for (mode, version, workers) in [
        (STOP_ITERATION, OLDEST, 4),
        (DEFERRED, OLDEST, 1),
        (STOP_ITERATION, NEWEST, 1),
        (DEFERRED, NEWEST, 4),
    ] {
        let gateway = naming_ranks(mode, ENGINES).version(version).concurrency(workers).start();
        let what = format!("{mode} {version} {workers}");
        let requests = (0..DIFFERENT).map(|number| prompt(&format!("{number} {mode}"), 1)).collect();
        assert!(gateway.burst(requests).iter().all(|answer| answer.status == 200), "{what}");
        let of_each = named(&gateway);
        assert_eq!(of_each.iter().flatten().sum::<u64>(), DIFFERENT as u64, "{what}: {of_each:?}");
        assert!(of_each.iter().flatten().all(|count| *count > 0), "{what}: {of_each:?}");
        // So that what was in flight is on no page any more.
        gateway.wait_until_scraped();
        for turn in 0..TURNS {
            assert_eq!(gateway.send(prompt("a conversation", 5 + turn)).status, 200, "{what}");
        }
        let places = places(&gateway, DIFFERENT + TURNS);
        assert_eq!(places.len(), 1, "{what}: {places:?}");
        assert!(places.iter().all(|(_, rank)| rank.parse::<usize>().is_ok()), "{what}: {places:?}");
    }
}

#[test]
fn no_client_names_an_engine_and_none_is_named_that_is_not_there() {
    let several = |mode| [setup(mode, ENGINES), naming_ranks(mode, 1)];
    for (mode, setup) in BODY_MODES.into_iter().flat_map(|mode| several(mode).map(|setup| (mode, setup))) {
        let gateway = setup.start();
        for rank in ["0", "1", "99", "-1"] {
            let answer = gateway.send(chat("tiny").header(HEADER, rank).header(HEADER, "3"));
            assert_eq!(answer.status, 200, "{mode} {rank}");
        }
        assert_eq!(named(&gateway).iter().flatten().sum::<u64>(), 0, "{mode}");
    }
}
