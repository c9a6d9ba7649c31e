//! vLLM's claims: two servers on the processor, with a tiny model and two LoRA adapters.

mod adapters;
pub mod alias;
mod answers;
mod bench_serve;
mod engines;

use envoy_test::real_server::{RealServer, vllm};
use serde_json::json;

use crate::gateway::Gateway;
use crate::servers::{Kind, MODEL, Servers};
use crate::{CONFIGURATIONS, check_all, check_shared, check_shared_prefixes, claims, failing_server};

/// Where they listen. Other addresses than the simulated servers of `make run` have, so both can run.
const ADDRESSES: [&str; 2] = ["127.0.0.21:8000", "127.0.0.22:8000"];
pub const ADAPTERS: [&str; 2] = ["lora-a", "lora-b"];

const VLLM: Kind = Kind {
    name: "vllm",
    models: &[MODEL, ADAPTERS[0], ADAPTERS[1]],
    running_max: 4,
    long_prompt_words: 1_200,
    anew: || json!({}),
    explained: &["queue", "running", "kv", "metrics_age_ms"],
    running: "vllm:num_requests_running",
    waiting: "vllm:num_requests_waiting",
    generated_tokens: "vllm:generation_tokens_total",
    prompt_tokens: &["vllm:prefix_cache_queries_total"],
    cached_tokens: "vllm:prefix_cache_hits_total",
};

#[test]
#[ignore = "needs two real vLLM servers: make test-vllm"]
fn the_plugin_serves_in_front_of_two_real_vllm_servers() {
    let servers = Servers::new(&VLLM, ADDRESSES.map(|address| start(address, 1)).into());
    let mut failed = Vec::new();
    for configuration in CONFIGURATIONS {
        let gateway = Gateway::start(configuration, &servers);
        failed.extend(check_shared(&gateway));
        failed.extend(check_all(
            &gateway,
            claims![
                answers::a_stream_ends_with_its_mark_and_reports_usage_only_if_asked,
                answers::what_vllm_refuses_is_said_in_its_own_words,
                adapters::an_adapters_request_goes_to_the_server_that_runs_it,
                adapters::an_adapter_that_nobody_asked_for_in_between_is_still_where_it_ran,
            ],
        ));
        let gateway = Gateway::with_strategy("PREFIX_CACHE", configuration, &servers);
        failed.extend(check_shared_prefixes(&gateway));
        let gateway = Gateway::with_alias(configuration, &servers);
        failed.extend(check_all(&gateway, claims![alias::an_alias_is_resolved_where_tokens_are_counted]));
    }
    let gateway = Gateway::start("stop-iteration", &servers);
    failed.extend(check_all(
        &gateway,
        claims![bench_serve::vllms_own_benchmark_counts_the_same_with_and_without_the_gateway,],
    ));
    failed.extend(failing_server::check_all(&servers));
    assert_eq!(failed, Vec::<String>::new());
}

#[test]
#[ignore = "needs a real vLLM server: make test-vllm"]
fn two_engines_behind_one_port_are_one_server() {
    let servers = Servers::new(&VLLM, vec![start(ADDRESSES[0], 2)]);
    let mut failed = Vec::new();
    for configuration in CONFIGURATIONS {
        let gateway = Gateway::start(configuration, &servers);
        failed.extend(check_all(&gateway, claims![engines::what_both_engines_run_and_queue_is_added_up]));
        let gateway = Gateway::naming_ranks(configuration, &servers);
        failed.extend(check_all(&gateway, claims![engines::an_engine_runs_what_names_it]));
    }
    assert_eq!(failed, Vec::<String>::new());
}

/// Starts one with so many engines behind its port, each with a cache and a queue of its own. Few requests at a time and few
/// KV-cache blocks, so that a handful of requests makes a queue and fills the cache.
fn start(address: &str, engines: usize) -> RealServer {
    let models = vllm::installed().join("models");
    let adapters = ADAPTERS.map(|name| format!("{name}={}", models.join(name).display()));
    let (running_max, engines) = (VLLM.running_max.to_string(), engines.to_string());
    let arguments = [
        "--max-num-seqs",
        &running_max,
        "--block-size",
        "32",
        "--num-gpu-blocks-override",
        "300",
        "--enable-lora",
        "--max-loras",
        "1",
        "--lora-modules",
        &adapters[0],
        &adapters[1],
        "--data-parallel-size",
        &engines,
    ];
    vllm::start(address.parse().unwrap(), MODEL, &arguments)
        .expect("vLLM is started; `make test-vllm` installs it first")
}
