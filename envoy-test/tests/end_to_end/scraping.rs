//! How metrics are read, as the pods see it.

use std::time::{Duration, Instant};

use crate::gateway::{ALL, Gateway, STOP_ITERATION, Setup, WORKER_SCRAPING, chat, long_chat, pod, until};
use crate::log::first_pick;
use envoy_test::envoy::Protocol;
use envoy_test::model_server::{MetricsMode, MetricsPage, ServerSettings, SglangRanks, Sleep};
use inference_picker::metrics::MAX_PAGE_BYTES;
use serde_json::json;

#[test]
fn every_pod_is_scraped_on_its_own_schedule_and_never_twice_at_once() {
    for configuration in ALL {
        let gateway = Setup::new(configuration).concurrency(4).pods(vec![pod(); 8]).start();
        std::thread::sleep(Duration::from_secs(1));
        for server in gateway.pods.servers() {
            let counters = server.counters();
            assert_eq!(counters.metrics_scrapes_in_flight_max, 1, "{configuration}");
            assert!(counters.metrics_scrapes >= 4, "{configuration}: {} scrapes", counters.metrics_scrapes);
        }
    }
}

#[test]
fn a_pod_whose_metrics_hang_holds_up_no_other_and_is_ranked_behind() {
    for configuration in ALL {
        let gateway = Setup::new(configuration).start();
        gateway.pods.server(0).set(|knobs| knobs.metrics = MetricsMode::Hang);
        until("its metrics are stale and nothing goes there", || {
            let answers = gateway.burst(vec![chat("tiny"); 9]);
            gateway.shares(&answers)[0] == 0
        });
        gateway.pods.server(0).set(|knobs| knobs.metrics = MetricsMode::Live);
        until("it is back", || gateway.shares(&gateway.burst(vec![chat("tiny"); 16]))[0] > 0);
    }
}

/// Whether the last pick of this pod, if the next request goes there, was made without metrics.
fn is_picked_without_metrics(gateway: &Gateway, pod: usize) -> bool {
    let address = gateway.pods.addresses()[pod].to_string();
    gateway.burst(vec![chat("tiny"); 16]);
    let lines = gateway.envoy.access_log().unwrap();
    let last = lines.iter().rev().find(|line| first_pick(line) == address);
    last.is_some_and(|line| line["decision"].as_str().is_some_and(|why| why.ends_with("metrics=none")))
}

#[test]
fn a_pod_that_answers_scrapes_with_anything_gets_its_share() {
    let useless = [
        MetricsMode::Garbage,
        MetricsMode::Half,
        MetricsMode::Nan,
        MetricsMode::Gone,
        MetricsMode::Status(401),
        MetricsMode::Status(404),
        MetricsMode::Status(500),
        // As Envoy's own when it cannot connect.
        MetricsMode::Status(503),
        MetricsMode::Status(504),
    ];
    for configuration in ALL {
        let gateway = Setup::new(configuration).start();
        for mode in &useless {
            // One has metrics, as ever.
            (0..3).for_each(|pod| gateway.pods.server(pod).set(|knobs| knobs.metrics = mode.clone()));
            until("three are without metrics", || (0..3).all(|pod| is_picked_without_metrics(&gateway, pod)));
            gateway.check_burst_is_spread(&format!("{configuration} {mode:?}"));
        }
        // One too large page is enough: each is read whole.
        (0..2).for_each(|pod| gateway.pods.server(pod).set(|knobs| knobs.metrics = MetricsMode::Live));
        gateway.pods.server(2).set(|knobs| knobs.metrics = MetricsMode::Huge(MAX_PAGE_BYTES + 1));
        until("one is without metrics", || is_picked_without_metrics(&gateway, 2));
        gateway.check_burst_is_spread(configuration);
        // And none has any.
        (0..4).for_each(|pod| gateway.pods.server(pod).set(|knobs| knobs.metrics = MetricsMode::Garbage));
        until("none has metrics", || (0..4).all(|pod| is_picked_without_metrics(&gateway, pod)));
        gateway.check_burst_is_spread("from what is in flight");
        (0..4).for_each(|pod| gateway.pods.server(pod).set(|knobs| knobs.metrics = MetricsMode::Live));
        until("all have metrics", || (0..4).all(|pod| !is_picked_without_metrics(&gateway, pod)));
    }
}

#[test]
fn a_pod_that_cannot_be_reached_leaves_and_comes_back_with_any_answer() {
    for configuration in ALL {
        let gateway = Setup::new(configuration).start();
        let pod = gateway.pods.server(0);
        pod.set(|knobs| (knobs.refuse, knobs.metrics) = (true, MetricsMode::Status(500)));
        let picked = |gateway: &Gateway| {
            let before = gateway.envoy.access_log().unwrap().len();
            gateway.burst(vec![chat("tiny"); 16]);
            let lines = gateway.envoy.access_log_until(before + 16).unwrap();
            let address = gateway.pods.addresses()[0].to_string();
            lines[before..].iter().any(|line| first_pick(line) == address)
        };
        until("it is not picked", || !picked(&gateway));
        assert!((0..5).all(|_| !picked(&gateway)), "{configuration}");
        pod.set(|knobs| knobs.refuse = false);
        until("it is back", || picked(&gateway));
    }
}

#[test]
fn a_pod_that_sleeps_gets_nothing_while_others_are_awake() {
    for configuration in ALL {
        let gateway = Setup::new(configuration).start();
        let sleep = |pods: std::ops::Range<usize>, sleep: Sleep| {
            pods.for_each(|pod| gateway.pods.server(pod).set(|knobs| knobs.gauges.sleep = sleep));
        };
        let share_of_first_two = || {
            let shares = gateway.shares(&gateway.burst(vec![chat("tiny"); 16]));
            shares[0] + shares[1]
        };
        sleep(0..1, Sleep::WeightsOffloaded);
        sleep(1..2, Sleep::DiscardAll);
        until("the others get all", || share_of_first_two() == 0);
        assert!((0..5).all(|_| share_of_first_two() == 0), "{configuration}");
        sleep(2..4, Sleep::WeightsOffloaded);
        until("all sleep, and all are picked", || share_of_first_two() > 0);
        sleep(0..4, Sleep::Awake);
        gateway.wait_until_scraped();
        gateway.check_burst_is_spread(configuration);
    }
}

/// Four pods that print SGLang's page with eight ranks of one engine, and a model whose requests give way in a full pool.
fn of_sglang(configuration: &str) -> Setup {
    let ranks = SglangRanks { data_parallel: 1, tensor_parallel: 8 };
    let pod = ServerSettings { metrics_page: MetricsPage::Sglang(ranks), ..pod() };
    Setup::new(configuration).pods(vec![pod; 4]).plugin(|plugin| {
        plugin["pools"][0]["modelServer"] = "sglang".into();
        let pool = plugin["pools"][0]["name"].clone();
        plugin["models"] =
            json!([{"modelName": "tiny", "criticality": "Sheddable", "poolRef": {"name": pool}}]);
    })
}

#[test]
fn requests_that_eight_ranks_print_are_counted_once() {
    for configuration in ALL {
        let gateway = of_sglang(configuration).start();
        let queue = |waiting: f64| {
            (0..4).for_each(|pod| gateway.pods.server(pod).set(|knobs| knobs.gauges.waiting = Some(waiting)));
        };
        // A pod is full with five.
        queue(1.0);
        gateway.wait_until_scraped();
        assert!((0..20).all(|_| gateway.send(chat("tiny")).status == 200), "{configuration}");
        queue(9.0);
        until("the pool is full", || gateway.send(chat("tiny")).status == 429);
        // Nothing on the page changes any more: what others left behind is not believed for long.
        until("the pool has room", || gateway.send(chat("tiny")).status == 200);
    }
}

#[test]
fn gauges_that_linger_when_the_last_request_has_ended_keep_nobody_away() {
    let gateway = of_sglang(STOP_ITERATION).start();
    (0..4).for_each(|pod| gateway.pods.server(pod).set(|knobs| knobs.gauges.linger_ms = Some(30_000)));
    // More than the pods take into their batches, so that there are queues, or some are refused.
    let mut seen_full = false;
    until("the pool was full", || {
        let answers = gateway.client(Protocol::Http1).burst_blocking(vec![long_chat(); 400]).unwrap();
        seen_full |= answers.iter().flatten().any(|answer| answer.status == 429);
        seen_full
    });
    until("what was sent has ended", || gateway.send(chat("tiny")).status == 200);
    assert!((0..40).all(|_| gateway.send(chat("tiny")).status == 200));
}

#[test]
fn exactly_one_worker_scrapes() {
    let gateway = Setup::new(WORKER_SCRAPING).concurrency(4).start();
    let scrapes = || gateway.pods.server(0).counters().metrics_scrapes;
    let (before, started_at) = (scrapes(), Instant::now());
    std::thread::sleep(Duration::from_secs(2));
    let during = scrapes() - before;
    // However slow the machine: one scraper makes one in 50 ms at most, two would make twice as many.
    let most = started_at.elapsed().as_millis() as u64 / 50 + 3;
    assert!(during <= most, "{during} scrapes where one worker makes {most} at most");
    assert_eq!(gateway.pods.server(0).counters().metrics_scrapes_in_flight_max, 1);
}
