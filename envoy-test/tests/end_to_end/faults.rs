//! Things that go wrong under load: what clients see is what was promised. And clients that go wrong leave nothing behind.

use std::time::Duration;

use crate::gateway::{BODY_MODES, Gateway, STOP_ITERATION, Setup, WORKER_SCRAPING, chat, until};
use envoy_test::envoy::blocking::wait_for;
use envoy_test::envoy::{Protocol, RawConnection};
use envoy_test::faults::{BY_CLIENTS, Fault, GATEWAY, METRICS, PODS, Promise, WORKERS, WayToAdmin};
use envoy_test::load::Load;

fn check(faults: &[Fault]) {
    check_with(WORKERS, faults);
}

fn check_with<'a>(workers: u32, faults: impl IntoIterator<Item = &'a Fault>) {
    let problems: Vec<String> =
        faults.into_iter().filter_map(|fault| fault.run(workers).unwrap().problem).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn pods_that_die_fail_or_hang_under_load_cost_no_more_than_was_promised() {
    check(PODS);
}

/// Each of sixteen workers by itself would send such a pod as many requests as two do together, and more.
#[test]
fn many_workers_send_no_more_to_a_pod_that_fails() {
    let is_bounded = |fault: &&Fault| matches!(fault.promise, Promise::AtMostPerSecond(_));
    check_with(16, PODS.iter().filter(is_bounded));
}

#[test]
fn metrics_that_lie_hang_or_are_gone_cost_no_request() {
    check(METRICS);
}

#[test]
fn clients_that_leave_or_dawdle_under_load_cost_others_nothing_and_leave_nothing_behind() {
    check(BY_CLIENTS);
}

#[test]
fn pushes_restarts_and_the_end_of_a_plugin_cost_no_more_than_was_promised() {
    check(GATEWAY);
}

/// In the access log, what the next request found in flight where it was sent.
fn in_flight_seen_by_the_next(gateway: &Gateway, requests_before: usize) -> String {
    gateway.wait_until_scraped();
    gateway.send(chat("tiny"));
    let lines = gateway.envoy.access_log_until(requests_before + 1).unwrap();
    lines.last().unwrap()["decision"].as_str().unwrap().to_owned()
}

/// Twice as many as there are pods leave, so that something would be left at each of them.
#[test]
fn clients_that_leave_before_the_answer_leave_no_load_behind() {
    for configuration in BODY_MODES {
        let gateway = Setup::new(configuration).concurrency(1).start();
        gateway.pods.servers().for_each(|pod| pod.set(|knobs| knobs.hang = true));
        wait_for(async {
            let leave = |_| async {
                let client = gateway.client(Protocol::Http1);
                let left = tokio::time::timeout(Duration::from_millis(500), client.send(chat("tiny"))).await;
                assert!(left.is_err(), "it was not answered");
            };
            futures_util::future::join_all((0..8).map(leave)).await;
        });
        gateway.envoy.access_log_until(8).unwrap();
        gateway.pods.servers().for_each(|pod| pod.set(|knobs| knobs.hang = false));
        let decision = in_flight_seen_by_the_next(&gateway, 8);
        assert!(decision.contains("in_flight=0 waiting_tokens=0 "), "{configuration}: {decision}");
    }
}

#[test]
fn bodies_that_never_end_hold_up_nobody_and_leave_no_load_behind() {
    for configuration in BODY_MODES {
        let gateway = Setup::new(configuration).concurrency(1).start();
        let half = "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                    content-length: 1000\r\n\r\n{\"model\":\"tiny\",";
        let mut open: Vec<RawConnection> =
            (0..100).map(|_| RawConnection::open(gateway.envoy.address()).unwrap()).collect();
        open.iter_mut().for_each(|connection| connection.send(half).unwrap());
        let answers = gateway.burst(vec![chat("tiny"); 20]);
        assert!(answers.iter().all(|answer| answer.status == 200), "{configuration}");
        for connection in &mut open {
            connection.send(" ").unwrap();
        }
        drop(open);
        let lines = gateway.envoy.access_log_until(120).unwrap();
        assert_eq!(lines.iter().filter(|line| line["status"] == 200).count(), 20, "{configuration}");
        let decision = in_flight_seen_by_the_next(&gateway, 120);
        assert!(decision.contains("in_flight=0 waiting_tokens=0 "), "{configuration}: {decision}");
    }
}

#[test]
fn when_the_admin_is_gone_the_last_known_pods_stay_and_traffic_goes_on() {
    let way = WayToAdmin::new().unwrap();
    let gateway = Setup::new(WORKER_SCRAPING)
        .unscraped()
        .start_with(|envoy, _| envoy.set_endpoints("admin", &[way.address()]));
    way.lead_to(gateway.envoy.admin_address());
    gateway.wait_until_scraped();
    let client = gateway.client(Protocol::Http1);
    let load = Load { client, clients: 4, patience: Duration::from_secs(10), request: &|| chat("tiny") };
    let seen = load.during(|_| {
        way.cut();
        until("that is noticed", || gateway.envoy.log_text().contains("the last known endpoints stay"));
        gateway.wait_until_scraped();
    });
    assert_eq!(seen.complaints(), Vec::<String>::new());
    let counted =
        gateway.envoy.admin_get("/stats?usedonly&filter=inference_picker_discovery_failures").unwrap();
    assert!(!counted.is_empty(), "and it is counted");
    let lines = gateway.envoy.access_log_until(seen.good).unwrap();
    assert!(lines.iter().all(|line| line["decision"].as_str().unwrap().starts_with("DEFAULT")));
}

/// The whole gateway is closed to all but one of its pods, and that one dies, too; whatever comes back is found again.
#[test]
fn when_all_pods_are_gone_clients_get_an_error_in_the_apis_own_form() {
    let gateway = Setup::new(STOP_ITERATION).start();
    gateway.pods.servers().for_each(|pod| pod.set(|knobs| knobs.refuse = true));
    let answer = gateway.send(chat("tiny"));
    assert_eq!((answer.status, &answer.json().unwrap()["error"]["code"]), (503, &"no_endpoint".into()));
    gateway.pods.server(2).set(|knobs| knobs.refuse = false);
    until("it is found again", || gateway.send(chat("tiny")).status == 200);
}
