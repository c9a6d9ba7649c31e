//! The plugin in a real Envoy, in front of real model servers: what the simulated ones stand for elsewhere.
//! `make test-vllm` and `make test-llama-cpp` install the servers and run this; `cargo test` alone skips it and says so.
//!
//! A folder lists the claims of one kind of server and has those of its own; what all have in common is beside it. Nearly all
//! claims about one kind are one test, as they need its servers, which take long to start. Tests run one after the other:
//! servers of a kind use the same addresses.

mod answers;
mod apis;
mod failing_server;
mod gateway;
mod llama_cpp;
mod picking;
mod prefixes;
mod servers;
mod verbatim;
mod vllm;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::sleep;
use std::time::{Duration, Instant};

use gateway::Gateway;

/// The configurations of `filter-config/`.
const CONFIGURATIONS: [&str; 3] = ["stop-iteration", "deferred", "worker-scraping"];

/// How long anything that must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

type Claim = fn(&Gateway);

/// The functions with their names, to be printed while they run.
macro_rules! claims {
    ($($claim:path),* $(,)?) => { &[$((stringify!($claim), $claim as crate::Claim)),*] };
}
pub(crate) use claims;

/// What every kind of server is tried with in each configuration; the sentences of claims that do not hold. The burst comes
/// before long prompts.
fn check_shared(gateway: &Gateway) -> Vec<String> {
    check_all(
        gateway,
        claims![
            answers::a_chat_is_answered,
            answers::a_completion_is_answered,
            answers::the_models_are_the_servers_own,
            answers::a_body_that_is_not_json_is_refused_by_the_gateway,
            answers::a_prompt_that_no_server_has_room_for_is_refused_with_the_length_that_would_fit,
            picking::a_burst_is_spread_over_all_servers_and_their_own_counters_agree,
            apis::a_request_without_a_model_is_for_the_servers_to_decide,
            apis::tokens_are_counted_as_the_server_counts_them,
            apis::the_first_output_of_responses_and_messages_is_logged,
            verbatim::a_whole_answer_is_the_servers_own_byte_by_byte,
            verbatim::a_stream_is_the_servers_own_byte_by_byte,
            verbatim::the_log_has_the_usage_that_the_server_reports,
            picking::the_log_says_which_server_was_picked_and_by_which_metrics,
            picking::a_server_runs_what_it_has_room_for_and_one_with_a_queue_is_avoided,
        ],
    )
}

/// The same, with a gateway that goes by prefixes.
fn check_shared_prefixes(gateway: &Gateway) -> Vec<String> {
    check_all(
        gateway,
        claims![
            prefixes::a_document_stays_with_the_server_that_has_it_cached,
            prefixes::a_coding_session_stays_with_its_server_whatever_its_billing_header,
        ],
    )
}

/// Tries all of them, and returns the sentences of those that do not hold.
fn check_all(gateway: &Gateway, claims: &[(&str, Claim)]) -> Vec<String> {
    let check = |(name, claim): &(&str, Claim)| {
        check(&format!("{}: {name}", gateway.configuration), || claim(gateway))
    };
    claims.iter().filter_map(check).collect()
}

/// Prints whether a claim holds, and how long it took. Returns the sentence of one that does not.
fn check(name: &str, claim: impl FnOnce()) -> Option<String> {
    let (started_at, sentence) = (Instant::now(), name.replace("::", ": ").replace('_', " "));
    eprintln!("  {sentence} ...");
    // What a claim leaves behind is a gateway whose count of requests may be wrong, which the next claims show.
    let holds = catch_unwind(AssertUnwindSafe(claim)).is_ok();
    let verdict = if holds { "holds" } else { "DOES NOT HOLD" };
    eprintln!("    {verdict} ({:.1} s)", started_at.elapsed().as_secs_f64());
    (!holds).then_some(sentence)
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
