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

/// The functions with their names, to be told while they run.
macro_rules! claims {
    ($($claim:path),* $(,)?) => { &[$((stringify!($claim), $claim as crate::Claim)),*] };
}
pub(crate) use claims;

/// Tries all of them, and returns the sentences of those that do not hold.
fn check_all(gateway: &Gateway, claims: &[(&str, Claim)]) -> Vec<String> {
    let check = |(name, claim): &(&str, Claim)| {
        check(&format!("{}: {name}", gateway.configuration), || claim(gateway))
    };
    claims.iter().filter_map(check).collect()
}

/// Tells whether a claim holds, and how long it took. Returns the sentence of one that does not.
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
