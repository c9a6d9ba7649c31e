//! What came of it, and whether anything is left.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use envoy_test::envoy::{Envoy, Request};
use envoy_test::faults::Stage;
use envoy_test::load::Seen;
use serde_json::{Value, json};

use crate::churn::{Sample, mebibytes};

/// The part of the time in which memory may grow: buffers, connections and compiled code come with load.
const WARM_UP_SHARE: f64 = 0.25;
/// The factor by which memory may have grown since.
const MEMORY_GROWTH_MAX: f64 = 1.2;
/// How long streams may take to end once nobody sends, and the pods' metrics to be read again.
const SETTLE: Duration = Duration::from_secs(3);

pub fn print(stage: &Stage, samples: &[Sample], seen: &Seen, left: Option<&Seen>) -> Result<()> {
    println!(
        "requests: {}; failed before the answer: {}; broke off: {}",
        seen.requests(),
        seen.failed_before_answer(),
        seen.broke_off()
    );
    failures_by_kind(seen).iter().for_each(|(what, count)| println!("  {count:>6} {what}"));
    if let Some(left) = left {
        println!(
            "requests of clients in a hurry: {}, of which {} were not waited for",
            left.requests(),
            left.failures.len()
        );
    }
    let growth = memory_growth(samples)?;
    std::thread::sleep(SETTLE);
    let envoy = stage.envoy()?;
    check_streams(stage, envoy)?;
    check_in_flight(stage)?;
    let log = envoy.log_text();
    ensure!(!log.contains(" failed: Uncaught "), "a VM trapped");
    ensure!(growth <= MEMORY_GROWTH_MAX, "memory has grown by a factor of {growth:.2}");
    Ok(())
}

/// The failures without what differs from one to the next.
fn failures_by_kind(seen: &Seen) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for failure in &seen.failures {
        let when = if failure.had_begun { "in mid-answer" } else { "before the answer" };
        *kinds.entry(format!("{when}: {}", failure.what)).or_default() += 1;
    }
    kinds
}

/// From the most that was held while warming up to what was held at the end.
fn memory_growth(samples: &[Sample]) -> Result<f64> {
    let last = samples.last().context("no memory was sampled")?;
    let warm_up = last.after.mul_f64(WARM_UP_SHARE);
    let warm = samples.iter().take_while(|sample| sample.after <= warm_up);
    let warm =
        warm.map(|sample| sample.memory_bytes).max().context("no memory was sampled while warming up")?;
    println!(
        "memory: {:.1} MiB after warm-up, {:.1} MiB at the end",
        mebibytes(warm),
        mebibytes(last.memory_bytes)
    );
    Ok(last.memory_bytes as f64 / warm as f64)
}

/// Every request that Envoy took is over, and in the access log.
fn check_streams(stage: &Stage, envoy: &Envoy) -> Result<()> {
    let stats = envoy.stats("http.gateway.downstream_rq_")?;
    let stat =
        |name: &str| stats.get(&format!("http.gateway.downstream_rq_{name}")).copied().unwrap_or_default();
    let lines = stage.listener.access_log()?.len();
    println!(
        "Envoy took {} requests; {} are not over; {lines} are in the access log",
        stat("total"),
        stat("active")
    );
    ensure!(stat("active") == 0 && stat("total") == lines as u64, "requests are not accounted for");
    Ok(())
}

/// The next pick finds nothing in flight, at the pods and in the plugin's own account.
fn check_in_flight(stage: &Stage) -> Result<()> {
    let at_pods: u64 = stage.pods.servers().map(|pod| pod.counters().in_flight).sum();
    let request =
        Request::post("/v1/completions").json(&json!({"model": "tiny", "prompt": "Hi", "max_tokens": 1}));
    let answer = stage.client().send_blocking(request)?;
    std::thread::sleep(SETTLE);
    let lines = stage.listener.access_log()?;
    let line: Value = serde_json::from_str(lines.last().context("the access log is empty")?)?;
    let decision = line["decision"].as_str().unwrap_or_default();
    println!("in flight at the pods: {at_pods}; the next pick: {} {decision}", answer.status);
    ensure!(
        at_pods == 0 && decision.contains("in_flight=0 waiting_tokens=0 "),
        "something is left in flight"
    );
    Ok(())
}
