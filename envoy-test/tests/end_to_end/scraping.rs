//! How metrics are read, as the pods see it.

use std::time::{Duration, Instant};

use crate::gateway::{ALL, STOP_ITERATION, Setup, WORKER_SCRAPING, chat, pod, until};
use envoy_test::model_server::MetricsMode;

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

#[test]
fn pages_of_no_use_make_a_pod_stale_and_nothing_worse() {
    let useless = [
        MetricsMode::Garbage,
        MetricsMode::Half,
        MetricsMode::Nan,
        MetricsMode::Gone,
        MetricsMode::Status(500),
    ];
    let gateway = Setup::new(STOP_ITERATION).start();
    for mode in useless {
        gateway.pods.server(0).set(|knobs| knobs.metrics = mode.clone());
        until("nothing goes there", || gateway.shares(&gateway.burst(vec![chat("tiny"); 9]))[0] == 0);
        gateway.pods.server(0).set(|knobs| knobs.metrics = MetricsMode::Live);
        until("it is back", || gateway.shares(&gateway.burst(vec![chat("tiny"); 16]))[0] > 0);
    }
    for index in 0..4 {
        gateway.pods.server(index).set(|knobs| knobs.metrics = MetricsMode::Garbage);
    }
    until("no pod's metrics are fresh", || {
        gateway.send(chat("tiny"));
        let lines = gateway.envoy.access_log().unwrap();
        lines
            .last()
            .is_some_and(|line| line["decision"].as_str().is_some_and(|why| why.ends_with("metrics=none")))
    });
    gateway.check_burst_is_spread("from what is in flight");
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
