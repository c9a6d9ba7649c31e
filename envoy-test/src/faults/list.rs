//! The faults, and what was promised for each.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::stage::{STOP_ITERATION, WORKER_SCRAPING};
use super::{Fault, Happening, Promise, Stage};
use crate::envoy::little_memory::TOO_LARGE_BYTES;
use crate::envoy::{Configuration, Request};
use crate::model_server::{FixedGauges, Knobs, MetricsMode};

pub(super) const NORMAL: Duration = Duration::from_secs(3);
/// Longer than clients wait for an answer, several times.
const LONG: Duration = Duration::from_secs(10);
/// Less than clients wait for an answer, and more than metrics, leases and tables of loads hold.
const STANDSTILL: Duration = Duration::from_millis(2_200);
/// Configurations pushed one after the other.
const PUSHES: usize = 100;
/// More than the plugin reads of a page.
const HUGE_PAGE_BYTES: usize = 3 << 20;
/// What a pod that fails its requests may get each second, over all clients and workers: those on their way when it began
/// to, and a request now and then that tries it again.
const TRIES_PER_S: usize = 8;

/// What can go wrong with one of four pods, or with all.
pub const PODS: &[Fault] = &[
    of_first(
        "one of four pods dies: it closes all connections and accepts no more",
        |pod| pod.refuse = true,
        Promise::NoFailureBeforeTheAnswer,
    ),
    of_first(
        "one of four pods closes the connection in each streamed answer",
        |pod| pod.die_mid_stream = Some(2),
        Promise::NoFailureBeforeTheAnswer,
    ),
    of_first("one of four pods answers 503 at once", |pod| pod.fail_status = Some(503), Promise::NoFailure),
    of_first(
        "one of four pods answers 500 at once, which the route does not retry",
        |pod| pod.fail_status = Some(500),
        Promise::AtMostPerSecond(TRIES_PER_S),
    ),
    Fault {
        prepare: |envoy| retry_policy(envoy)["retriable_status_codes"] = json!([500, 503]),
        ..of_first(
            "one of four pods answers 500 at once, and the route retries it",
            |pod| pod.fail_status = Some(500),
            Promise::NoFailure,
        )
    },
    Fault {
        lasts: LONG,
        ..of_first(
            "one of four pods accepts requests and never answers",
            |pod| pod.hang = true,
            Promise::AtMostPerSecond(TRIES_PER_S),
        )
    },
    Fault {
        lasts: LONG,
        prepare: |envoy| retry_policy(envoy)["per_try_timeout"] = "1s".into(),
        ..of_first(
            "one of four pods answers none, and the route gives each try 1 s",
            |pod| pod.hang = true,
            Promise::NoFailure,
        )
    },
    of(
        "all pods die, and come back",
        Happening::ToAll(|pod| pod.refuse = true),
        Promise::NoFailureLaterThan(Duration::from_secs(2)),
    ),
];

/// What can go wrong with what pods say of themselves.
pub const METRICS: &[Fault] = &[
    of_metrics("one pod's metrics hang", |pod| pod.metrics = MetricsMode::Hang),
    of_metrics("one pod's metrics are 3 MiB", |pod| pod.metrics = MetricsMode::Huge(HUGE_PAGE_BYTES)),
    of_metrics("one pod's metrics are garbage", |pod| pod.metrics = MetricsMode::Garbage),
    of_metrics("one pod's metrics are half a page", |pod| pod.metrics = MetricsMode::Half),
    of_metrics("one pod's metrics are NaN", |pod| pod.metrics = MetricsMode::Nan),
    of_metrics("one pod's metrics are infinite", |pod| pod.gauges = infinite()),
    of_metrics("one pod's metrics have no series", |pod| pod.metrics = MetricsMode::Gone),
    of_metrics("one pod's metrics are answered with 500", |pod| pod.metrics = MetricsMode::Status(500)),
    of_metrics("one pod's metrics are frozen", |pod| pod.metrics = MetricsMode::Frozen),
    of(
        "all pods' metrics are gone",
        Happening::ToAll(|pod| pod.metrics = MetricsMode::Status(404)),
        Promise::NoFailure,
    ),
];

/// What can go wrong with the gateway.
pub const GATEWAY: &[Fault] = &[
    Fault {
        lasts: Duration::ZERO,
        ..of("100 configurations are pushed", Happening::ToGateway(push_many, |_| Ok(())), Promise::NoFailure)
    },
    of(
        "an invalid configuration is pushed",
        Happening::ToGateway(push_wrong, |_| Ok(())),
        Promise::NoFailure,
    ),
    Fault {
        little_memory: true,
        ..of(
            "the plugin crashes in one worker",
            Happening::ToGateway(end_a_worker, |_| Ok(())),
            Promise::NoFailureLaterThan(Duration::ZERO),
        )
    },
    Fault {
        little_memory: true,
        ..of(
            "the companion service crashes",
            Happening::ToFirst(|pod| pod.metrics = too_large()),
            Promise::NoFailure,
        )
    },
    Fault {
        configuration: WORKER_SCRAPING,
        little_memory: true,
        ..of(
            "the plugin crashes in the worker that scrapes for all",
            Happening::ToGateway(end_the_scraping_worker, |_| Ok(())),
            Promise::NoFailureLaterThan(Duration::ZERO),
        )
    },
    Fault {
        configuration: WORKER_SCRAPING,
        ..of(
            "Envoy's admin, which lists the pods, is gone",
            Happening::ToGateway(Stage::cut_the_way_to_admin, Stage::restore_the_way_to_admin),
            Promise::NoFailure,
        )
    },
    Fault {
        lasts: STANDSTILL,
        ..of(
            "the gateway is suspended, and its clock jumps",
            Happening::ToGateway(Stage::pause_envoy, Stage::resume_envoy),
            Promise::NoFailureLaterThan(Duration::from_secs(1)),
        )
    },
    Fault {
        lasts: Duration::from_millis(500),
        ..of(
            "the gateway is stopped, and started anew",
            Happening::ToGateway(Stage::stop_envoy, Stage::start_envoy),
            Promise::NoFailureLaterThan(Duration::from_secs(1)),
        )
    },
];

pub(super) const fn of(name: &'static str, happening: Happening, promise: Promise) -> Fault {
    Fault {
        name,
        configuration: STOP_ITERATION,
        little_memory: false,
        prepare: |_| (),
        happening,
        lasts: NORMAL,
        promise,
    }
}

const fn of_first(name: &'static str, change: fn(&mut Knobs), promise: Promise) -> Fault {
    of(name, Happening::ToFirst(change), promise)
}

const fn of_metrics(name: &'static str, change: fn(&mut Knobs)) -> Fault {
    of_first(name, change, Promise::NoFailure)
}

fn retry_policy(envoy: &mut Configuration) -> &mut Value {
    envoy.at(
        "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes/0\
         /route/retry_policy",
    )
}

fn infinite() -> FixedGauges {
    let infinite = Some(f64::INFINITY);
    FixedGauges { waiting: infinite, running: infinite, kv_cache_usage: infinite, ..FixedGauges::default() }
}

fn too_large() -> MetricsMode {
    MetricsMode::Huge(TOO_LARGE_BYTES)
}

/// With a body that its memory does not hold.
fn end_a_worker(stage: &mut Stage) -> Result<()> {
    let prompt = "x".repeat(TOO_LARGE_BYTES);
    let request = Request::post("/v1/completions").json(&json!({"model": "tiny", "prompt": prompt}));
    let answer = stage.client().send_blocking(request);
    ensure!(answer.is_err() || answer.is_ok_and(|answer| answer.status >= 500), "it did not crash");
    Ok(())
}

/// With a page that its memory does not hold.
fn end_the_scraping_worker(stage: &mut Stage) -> Result<()> {
    stage.pods.server(0).set(|pod| pod.metrics = too_large());
    let ended = stage.until(|stage| Ok(stage.envoy()?.log_text().contains("memory allocation")));
    stage.pods.server(0).set(|pod| pod.metrics = MetricsMode::Live);
    ensure!(ended?, "it did not crash");
    Ok(())
}

/// Every one differs from the one before it, so that Envoy takes it.
fn push_many(stage: &mut Stage) -> Result<()> {
    for number in 0..PUSHES {
        stage.listener.edit_plugin(|plugin| plugin["maxConsecutiveFailures"] = (3 + number % 2).into())?;
        ensure!(stage.push()?, "push {number} was refused");
    }
    Ok(())
}

fn push_wrong(stage: &mut Stage) -> Result<()> {
    stage.listener.edit_plugin(|plugin| plugin["pools"][0]["endpoints"] = json!(["not an address"]))?;
    ensure!(!stage.push()?, "it was accepted");
    Ok(())
}
