//! Several gateways in front of the same pods: what one knows, the other knows soon after.

use std::net::SocketAddr;
use std::time::Duration;

use envoy_test::envoy::{Client, NEWEST, OLDEST, Protocol, RawConnection, Request};
use envoy_test::model_server::{MetricsMode, ModelServers};
use serde_json::{Value, json};

use crate::gateway::{GATEWAYS, Gateway, Setup, chat, until};

/// Longer than it takes one gateway to hear of another on a busy machine; an interval and two ticks are 40 ms.
const HEARD: Duration = Duration::from_millis(400);

/// Two gateways with the companion service, or without.
fn two(by_worker: bool) -> Vec<Gateway> {
    let setup = if by_worker { by_workers() } else { Setup::new(GATEWAYS) };
    setup.start_gateways(2)
}

/// The same configuration, in which a worker asks the other gateways.
fn by_workers() -> Setup {
    let edit = |plugin: &mut Value| plugin["scrapeBy"] = "worker".into();
    Setup::new(GATEWAYS).envoy(|envoy| *envoy.at("/bootstrap_extensions") = json!([])).plugin(edit)
}

/// From now on the pods' metrics say nothing of what comes.
fn freeze_metrics(pods: &ModelServers) {
    pods.servers().for_each(|pod| pod.set(|knobs| knobs.metrics = MetricsMode::Frozen));
}

fn hang(pods: &ModelServers, hang: bool) {
    pods.servers().for_each(|pod| pod.set(|knobs| knobs.hang = hang));
}

/// Sends requests whose answers do not come; they are in flight as long as the connections are held.
fn send_without_answer(gateway: &Gateway, count: usize) -> Vec<RawConnection> {
    let body =
        json!({"model": "tiny", "messages": [{"role": "user", "content": "long ".repeat(800)}]}).to_string();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let in_flight = || gateway.pods.servers().map(|pod| pod.counters().in_flight).sum::<u64>();
    let open = |_| {
        let before = in_flight();
        let mut connection = RawConnection::open(gateway.envoy.address()).unwrap();
        connection.send(&request).unwrap();
        until("it is at a pod", || in_flight() > before);
        connection
    };
    (0..count).map(open).collect()
}

/// The place of the only pod that has nothing in flight.
fn the_idle(pods: &ModelServers) -> usize {
    let busy: Vec<bool> = pods.servers().map(|pod| pod.counters().in_flight > 0).collect();
    assert_eq!(busy.iter().filter(|busy| !**busy).count(), 1, "{busy:?}");
    busy.iter().position(|busy| !busy).unwrap()
}

/// What all pods but one have in flight through one gateway, the other knows, though no scrape tells.
fn check_in_flight(by_worker: bool) {
    let gateways = two(by_worker);
    let pods = &gateways[0].pods;
    freeze_metrics(pods);
    hang(pods, true);
    let connections = send_without_answer(&gateways[0], 3);
    hang(pods, false);
    std::thread::sleep(HEARD);
    let idle = the_idle(pods);
    for _ in 0..6 {
        let answer = gateways[1].send(chat("tiny"));
        assert_eq!(gateways[1].served_by(&answer), idle, "by worker: {by_worker}");
        // Until its workers have told each other that the request is over.
        std::thread::sleep(HEARD);
    }
    drop(connections);
    until("what was given up counts no more", || {
        let answers: Vec<_> = (0..12).map(|_| gateways[1].send(chat("tiny"))).collect();
        gateways[1].shares(&answers).iter().filter(|share| **share > 0).count() > 2
    });
}

#[test]
fn what_one_gateway_has_in_flight_counts_at_the_other() {
    check_in_flight(false);
}

#[test]
fn without_a_companion_service_a_worker_asks() {
    check_in_flight(true);
}

#[test]
fn a_prompt_answered_through_one_gateway_is_matched_at_the_other() {
    let by_prefix = |plugin: &mut Value| plugin["pools"][0]["routingStrategy"] = "PREFIX_CACHE".into();
    for version in [OLDEST, NEWEST] {
        let gateways = Setup::new(GATEWAYS).version(version).plugin(by_prefix).start_gateways(2);
        let text = "a long document, of which everybody asks something. ".repeat(60);
        let body = json!({"model": "tiny", "max_tokens": 2, "prompt": text});
        let ask = |gateway: &Gateway| {
            let answer = gateway.send(Request::post("/v1/completions").json(&body));
            assert_eq!(answer.status, 200, "{}", answer.text());
            std::thread::sleep(HEARD);
            gateway.served_by(&answer)
        };
        let decision = |gateway: &Gateway, line: usize| {
            let lines = gateway.envoy.access_log_until(line + 1).unwrap();
            lines[line]["decision"].as_str().unwrap().to_owned()
        };
        // A gateway tells of itself once it has sent something; what was told before that is not waited for.
        for gateway in &gateways {
            gateway.send(chat("tiny"));
        }
        std::thread::sleep(HEARD);
        let pod = ask(&gateways[0]);
        assert_eq!(ask(&gateways[1]), pod);
        let (first, second) = (decision(&gateways[0], 1), decision(&gateways[1], 1));
        assert!(first.contains(" matched_blocks=0/12 "), "{version}: {first}");
        assert!(second.contains(" matched_blocks=12/12 "), "{version}: {second}");
    }
}

#[test]
fn a_gateway_that_dies_is_forgotten_and_nothing_fails() {
    let mut gateways = two(false);
    let first = gateways.remove(0);
    let second = gateways.remove(0);
    freeze_metrics(&second.pods);
    hang(&second.pods, true);
    let connections = send_without_answer(&first, 3);
    hang(&second.pods, false);
    std::thread::sleep(HEARD);
    let idle = the_idle(&second.pods);
    assert_eq!(second.served_by(&second.send(chat("tiny"))), idle);
    drop(first);
    drop(connections);
    until("what it had in flight counts no more", || {
        let answers = second.burst(vec![chat("tiny"); 16]);
        assert!(answers.iter().all(|answer| answer.status == 200));
        second.shares(&answers).iter().all(|share| (3..=5).contains(share))
    });
    let log = second.envoy.log_text();
    assert!(log.contains("tells nothing: "), "{log}");
}

/// Whatever stands in another gateway's place: pods here, whose answers are no pages, hang, fail or are refused.
#[test]
fn garbage_from_a_gateway_does_no_harm() {
    let strangers = ModelServers::start(crate::gateway::four_pods()).unwrap();
    let at: Vec<SocketAddr> = strangers.addresses();
    strangers.server(1).set(|knobs| knobs.hang = true);
    strangers.server(2).set(|knobs| knobs.refuse = true);
    let setup = Setup::new(GATEWAYS).envoy(|envoy| envoy.set_endpoints("gateways", &at));
    let gateway = setup.start();
    until("all have been asked", || gateway.envoy.log_text().matches(" tells nothing: ").count() == 4);
    let shares = gateway.shares(&gateway.burst(vec![chat("tiny"); 32]));
    assert!(shares.iter().all(|share| (6..=10).contains(share)), "{shares:?}");
    let log = gateway.envoy.log_text();
    assert!(!log.contains("[error]") && !log.contains("[critical]"), "{log}");
}

/// The status and the length of the answer.
fn get(address: SocketAddr, path: &str) -> (u16, usize) {
    let answer = Client::new(address, Protocol::Http1).send_blocking(Request::get(path)).unwrap();
    (answer.status, answer.body().len())
}

#[test]
fn gateways_are_answered_on_their_listener_and_clients_are_not() {
    let gateways = two(false);
    gateways[0].send(chat("tiny"));
    let exchange = gateways[0].envoy.addresses()[1];
    let path = "/inference-picker/exchange";
    let (status, bytes) = get(exchange, path);
    assert!(status == 200 && bytes > 10, "{status}, {bytes} bytes");
    assert_eq!(
        get(exchange, &format!("{path}?since=zz:1,,%00,1:")).0,
        200,
        "what is not understood was not heard"
    );
    assert_eq!(get(exchange, "/inference-picker/exchange?other").0, 404);
    assert_eq!(get(exchange, "/v1/models").0, 404);
    // To a client's listener it is a path like any other, and goes to a pod.
    assert_eq!(get(gateways[0].envoy.address(), path).0, 404);
    let asked: u64 = gateways[0].pods.servers().map(|pod| pod.counters().requests_to(path)).sum();
    assert_eq!(asked, 1);
}
