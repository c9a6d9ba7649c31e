//! llama.cpp's claims: three servers with a tiny model, each with two slots.

mod answers;

use std::process::Command;

use envoy_test::real_server::llama_cpp::{SLOTS, start};
use serde_json::json;

use crate::gateway::Gateway;
use crate::servers::{Kind, MODEL, Servers};
use crate::{
    CONFIGURATIONS, check_all, check_shared, check_shared_prefixes, claims, failing_server, prefixes,
};

/// It reports nothing of its KV cache.
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
        failed.extend(check_shared(&gateway));
        let own = claims![answers::what_llama_cpp_refuses_is_said_in_its_own_words];
        failed.extend(check_all(&gateway, own));
        let gateway = Gateway::with_strategy("PREFIX_CACHE", configuration, &servers);
        failed.extend(check_shared_prefixes(&gateway));
        let own = claims![prefixes::a_server_that_was_started_again_is_known_to_have_nothing_cached];
        failed.extend(check_all(&gateway, own));
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
