//! The plugin in a real Envoy, in front of two real vLLM servers: what the simulated ones stand for elsewhere.
//! `make test-vllm` installs vLLM and runs this; `cargo test` alone skips it and says so.
//!
//! Nearly all is one test, as the servers take long to start and all claims need them. Tests run one after the other: both
//! use the same address.

mod answers;
mod apis;
mod bench_serve;
mod engines;
mod failing_server;
mod gateway;
mod picking;
mod prefixes;
mod servers;

use std::panic::{AssertUnwindSafe, catch_unwind};
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
    let failed = &mut Vec::new();
    let claims = claims![
        answers::a_chat_is_answered,
        answers::a_completion_is_answered,
        answers::a_stream_ends_with_its_mark_and_tells_usage_only_if_asked,
        answers::the_models_are_listed_with_their_adapters,
        answers::what_vllm_refuses_is_told_in_its_own_words,
        answers::a_body_that_is_not_json_is_refused_by_the_gateway,
        apis::a_stream_is_the_servers_own_byte_by_byte,
        apis::a_request_without_a_model_is_the_servers_to_judge,
        apis::the_first_output_of_responses_and_messages_is_logged,
        picking::the_log_says_which_server_was_picked_and_by_which_metrics,
        picking::a_burst_is_spread_over_both_servers_and_their_own_counters_agree,
        picking::a_server_with_a_queue_is_avoided,
        picking::an_adapters_request_goes_to_the_server_that_runs_it,
        picking::an_adapter_that_nobody_asked_for_in_between_is_still_where_it_ran,
    ];
    for configuration in CONFIGURATIONS {
        let gateway = Gateway::start(configuration, &servers);
        for (name, claim) in claims {
            check(failed, &format!("{configuration}: {name}"), || claim(&gateway));
        }
    }
    for configuration in CONFIGURATIONS {
        let gateway = Gateway::with_strategy("PREFIX_CACHE", configuration, &servers);
        let claims = claims![
            prefixes::a_document_stays_with_the_server_that_has_it_cached,
            prefixes::a_coding_session_stays_with_its_server_whatever_its_billing_header,
        ];
        for (name, claim) in claims {
            check(failed, &format!("{configuration}: {name}"), || claim(&gateway));
        }
        let gateway = Gateway::with_alias(configuration, &servers);
        check(
            failed,
            &format!("{configuration}: apis::an_alias_is_resolved_where_tokens_are_counted"),
            || {
                apis::an_alias_is_resolved_where_tokens_are_counted(&gateway);
            },
        );
    }
    let gateway = Gateway::start("stop-iteration", &servers);
    check(failed, "bench_serve::vllms_own_benchmark_counts_the_same_with_and_without_the_gateway", || {
        bench_serve::vllms_own_benchmark_counts_the_same_with_and_without_the_gateway(&gateway);
    });
    let gateways = CONFIGURATIONS.map(|configuration| Gateway::start(configuration, &servers));
    check(failed, "failing_server::only_streams_that_had_begun_end_with_their_server", || {
        failing_server::only_streams_that_had_begun_end_with_their_server(&gateways, &servers);
    });
    check(failed, "failing_server::every_later_request_is_sent_to_the_other_server", || {
        failing_server::every_later_request_is_sent_to_the_other_server(&gateways);
    });
    assert_eq!(*failed, Vec::<String>::new());
}

#[test]
#[ignore = "needs a real vLLM server: make test-vllm"]
fn two_engines_behind_one_port_are_one_server() {
    let servers = Servers::start_engines(2);
    let failed = &mut Vec::new();
    for configuration in CONFIGURATIONS {
        let gateway = Gateway::start(configuration, &servers);
        check(
            failed,
            &format!("{configuration}: engines::what_both_engines_run_and_queue_is_added_up"),
            || {
                engines::what_both_engines_run_and_queue_is_added_up(&gateway);
            },
        );
    }
    assert_eq!(*failed, Vec::<String>::new());
}

/// Tells which claim holds, and how long it took. One that does not hold is noted, and the rest is tried.
fn check(failed: &mut Vec<String>, name: &str, claim: impl FnOnce()) {
    let (started_at, sentence) = (Instant::now(), name.replace("::", ": ").replace('_', " "));
    eprintln!("  {sentence} ...");
    // What a claim leaves behind is a gateway whose count of requests may be wrong, which the next claims show.
    let holds = catch_unwind(AssertUnwindSafe(claim)).is_ok();
    let verdict = if holds { "holds" } else { "DOES NOT HOLD" };
    eprintln!("    {verdict} ({:.1} s)", started_at.elapsed().as_secs_f64());
    if !holds {
        failed.push(sentence);
    }
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
