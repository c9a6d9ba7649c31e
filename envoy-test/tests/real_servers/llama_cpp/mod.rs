//! llama.cpp's claims: three servers with a tiny model, each with two slots.

mod answers;

use std::process::Command;

use envoy_test::real_server::llama_cpp::{SLOTS, start};
use serde_json::json;

use crate::gateway::Gateway;
use crate::servers::{Kind, MODEL, Servers};
use crate::{
    CONFIGURATIONS, answers as any_answers, apis, check_all, claims, failing_server, picking, prefixes,
    verbatim,
};

/// It tells nothing of its KV cache.
const LLAMA_CPP: Kind = Kind {
    name: "llama.cpp",
    models: &[MODEL],
    running_max: SLOTS,
    long_prompt_words: 300,
    anew: || json!({"cache_prompt": false}),
    explained: &["queue", "running", "metrics_age_ms"],
    running: "llamacpp:requests_processing",
    waiting: "llamacpp:requests_deferred",
    generated_tokens: "llamacpp:tokens_predicted_total",
    prompt_tokens: &["llamacpp:prompt_tokens_total", "llamacpp:prompt_tokens_cached_total"],
    cached_tokens: "llamacpp:prompt_tokens_cached_total",
};

#[test]
#[ignore = "needs three real llama.cpp servers: make test-llama-cpp"]
fn the_plugin_serves_in_front_of_three_real_llama_cpp_servers() {
    let servers = Servers::new(&LLAMA_CPP, start().unwrap());
    let mut failed = Vec::new();
    for configuration in CONFIGURATIONS {
        let gateway = Gateway::start(configuration, &servers);
        failed.extend(check_all(
            &gateway,
            claims![
                any_answers::a_chat_is_answered,
                any_answers::a_completion_is_answered,
                any_answers::the_models_are_the_servers_own,
                any_answers::a_body_that_is_not_json_is_refused_by_the_gateway,
                answers::what_llama_cpp_refuses_is_told_in_its_own_words,
                picking::a_burst_is_spread_over_all_servers_and_their_own_counters_agree,
                apis::a_request_without_a_model_is_the_servers_to_judge,
                apis::tokens_are_counted_as_the_server_counts_them,
                apis::the_first_output_of_responses_and_messages_is_logged,
                verbatim::a_whole_answer_is_the_servers_own_byte_by_byte,
                verbatim::a_stream_is_the_servers_own_byte_by_byte,
                verbatim::the_log_has_the_usage_that_the_server_tells,
                picking::the_log_says_which_server_was_picked_and_by_which_metrics,
                picking::a_server_runs_what_it_has_room_for_and_one_with_a_queue_is_avoided,
            ],
        ));
        let gateway = Gateway::with_strategy("PREFIX_CACHE", configuration, &servers);
        failed.extend(check_all(
            &gateway,
            claims![
                prefixes::a_document_stays_with_the_server_that_has_it_cached,
                prefixes::a_coding_session_stays_with_its_server_whatever_its_billing_header,
                prefixes::a_server_that_was_started_again_is_known_to_have_nothing_cached,
            ],
        ));
    }
    failed.extend(failing_server::check_all(&servers));
    assert_eq!(failed, Vec::<String>::new());
}

#[test]
#[ignore = "starts three real llama.cpp servers: make test-llama-cpp"]
fn make_run_starts_its_own() {
    let run = Command::new(env!("CARGO_BIN_EXE_run"))
        .args(["--server", "llama.cpp", "--free-ports", "--once"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
    assert!(said.starts_with("model servers  llama.cpp\n"), "{said}");
    let answered = said.lines().filter(|line| line.starts_with("200 ") && line.contains(" running="));
    assert_eq!(answered.count(), 24, "{said}");
}
