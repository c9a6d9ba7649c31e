//! The plugin in a real Envoy, in front of two real vLLM servers: what the simulated ones stand for elsewhere.
//! `make test-vllm` installs vLLM and runs this; `cargo test` alone skips it and says so.
//!
//! It is one test, as the servers take long to start and all claims need them.

mod answers;
mod bench_serve;
mod failing_server;
mod gateway;
mod picking;
mod prefixes;
mod servers;

use std::thread::sleep;
use std::time::{Duration, Instant};

use gateway::Gateway;
use servers::Servers;

/// The configurations of `filter-config/`.
const CONFIGURATIONS: [&str; 3] = ["stop-iteration", "deferred", "worker-scraping"];

/// How long anything that must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The functions with their names, to be told while they run.
macro_rules! claims {
    ($($claim:path),* $(,)?) => { [$((stringify!($claim), $claim as fn(&Gateway))),*] };
}

#[test]
#[ignore = "needs two real vLLM servers: make test-vllm"]
fn the_plugin_serves_in_front_of_two_real_vllm_servers() {
    let servers = Servers::start();
    let claims = claims![
        answers::a_chat_is_answered,
        answers::a_completion_is_answered,
        answers::a_stream_ends_with_its_mark_and_tells_usage_only_if_asked,
        answers::the_models_are_listed_with_their_adapters,
        answers::what_vllm_refuses_is_told_in_its_own_words,
        answers::a_body_that_is_not_json_is_refused_by_the_gateway,
        picking::the_log_says_which_server_was_picked_and_by_which_metrics,
        picking::a_burst_is_spread_over_both_servers_and_their_own_counters_agree,
        picking::a_server_with_a_queue_is_avoided,
        picking::an_adapters_request_goes_to_the_server_that_runs_it,
        picking::an_adapter_that_nobody_asked_for_in_between_is_still_where_it_ran,
    ];
    for configuration in CONFIGURATIONS {
        let gateway = Gateway::start(configuration, &servers);
        for (name, claim) in claims {
            check(&format!("{configuration}: {name}"), || claim(&gateway));
        }
    }
    for configuration in CONFIGURATIONS {
        let gateway = Gateway::with_strategy("PREFIX_CACHE", configuration, &servers);
        check(
            &format!("{configuration}: prefixes::a_document_stays_with_the_server_that_has_it_cached"),
            || {
                prefixes::a_document_stays_with_the_server_that_has_it_cached(&gateway);
            },
        );
    }
    let gateway = Gateway::start("stop-iteration", &servers);
    check("bench_serve::vllms_own_benchmark_counts_the_same_with_and_without_the_gateway", || {
        bench_serve::vllms_own_benchmark_counts_the_same_with_and_without_the_gateway(&gateway);
    });
    let gateways = CONFIGURATIONS.map(|configuration| Gateway::start(configuration, &servers));
    check("failing_server::only_streams_that_had_begun_end_with_their_server", || {
        failing_server::only_streams_that_had_begun_end_with_their_server(&gateways, &servers);
    });
    check("failing_server::every_later_request_is_sent_to_the_other_server", || {
        failing_server::every_later_request_is_sent_to_the_other_server(&gateways);
    });
}

/// Tells which claim holds, and how long it took; one that does not hold ends the test.
fn check(name: &str, claim: impl FnOnce()) {
    let (started_at, sentence) = (Instant::now(), name.replace("::", ": ").replace('_', " "));
    eprintln!("  {sentence} ...");
    claim();
    eprintln!("    holds ({:.1} s)", started_at.elapsed().as_secs_f64());
}

/// Waits for something that must come true.
#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started_at = Instant::now();
    while !holds() {
        assert!(started_at.elapsed() < PATIENCE, "still not so after {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(50));
    }
}
