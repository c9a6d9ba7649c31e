//! `make soak`: high load for minutes on a real Envoy, while pods die and come back, their metrics lie, clients leave, and
//! configurations are pushed. Shows what clients saw and what memory Envoy held, and fails if something is left behind.

mod churn;
mod report;

use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use envoy_test::envoy::Request;
use envoy_test::faults::{STOP_ITERATION, Stage, WORKERS};
use envoy_test::load::Load;
use serde_json::json;

/// Clients that wait for their answers, and such as leave.
const CLIENTS: usize = 24;
const LEAVING_CLIENTS: usize = 8;
/// How long clients wait: longer than any answer takes, and shorter than most.
const PATIENCE: Duration = Duration::from_secs(20);
const SHORT_PATIENCE: Duration = Duration::from_millis(20);

#[derive(Debug, Parser)]
struct Arguments {
    /// How long it lasts, in seconds.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Workers of the gateway.
    #[arg(long, default_value_t = WORKERS)]
    workers: u32,
}

fn main() -> Result<()> {
    let Arguments { seconds, workers } = Arguments::parse();
    let lasts = Duration::from_secs(seconds);
    let mut stage = Stage::start(workers, STOP_ITERATION, false, |_| ())?;
    let client = stage.client();
    let load = Load { client, clients: CLIENTS, patience: PATIENCE, request: &request };
    let leaving = Load { client, clients: LEAVING_CLIENTS, patience: SHORT_PATIENCE, request: &long_answer };
    let mut churned = Ok(Vec::new());
    let mut left = None;
    let seen = load.during(|_| {
        left = Some(leaving.during(|_| churned = churn::run(&mut stage, lasts)));
    });
    report::print(&stage, &churned?, &seen, left.as_ref())
}

/// Most are short and some are long; half are streamed.
fn request() -> Request {
    let unique = fastrand::u64(..);
    let prompt = format!("{unique:016x} ").repeat(if unique.is_multiple_of(10) { 500 } else { 5 });
    let body = json!({"model": "tiny", "prompt": prompt, "max_tokens": 1 + unique % 16, "stream": unique.is_multiple_of(2)});
    Request::post("/v1/completions").json(&body)
}

/// An answer for which nobody in a hurry waits.
fn long_answer() -> Request {
    let prompt = format!("{:016x}", fastrand::u64(..));
    let stream = fastrand::bool();
    Request::post("/v1/completions")
        .json(&json!({"model": "tiny", "prompt": prompt, "max_tokens": 200, "stream": stream}))
}
