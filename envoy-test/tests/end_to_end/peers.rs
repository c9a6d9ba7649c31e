//! Several gateways in front of the same pods: what one knows, the other knows soon after.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use envoy_test::envoy::{Client, NEWEST, OLDEST, Protocol, RawConnection, Request};
use envoy_test::model_server::{MetricsMode, ModelServers};
use inference_picker::ledger::Cursor;
use inference_picker::load::{EndpointKey, EndpointLoad, InFlight, Oldest};
use inference_picker::peers::{MAX_PAGE_BYTES, Page};
use serde_json::{Value, json};

use crate::gateway::{GATEWAYS, Gateway, Setup, chat, long_chat, until};

/// Longer than it takes one gateway to receive another's state on a busy machine; an interval and two ticks are 40 ms.
const EXCHANGED: Duration = Duration::from_millis(800);

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
        // Until its workers have published to each other, or the next may go to the same pod.
        std::thread::sleep(EXCHANGED);
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

/// What all pods but one have in flight through one gateway, the other knows, though no scrape shows it.
fn check_in_flight(by_worker: bool) {
    let gateways = two(by_worker);
    let pods = &gateways[0].pods;
    freeze_metrics(pods);
    hang(pods, true);
    let connections = send_without_answer(&gateways[0], 3);
    hang(pods, false);
    std::thread::sleep(EXCHANGED);
    let idle = the_idle(pods);
    for _ in 0..6 {
        let answer = gateways[1].send(chat("tiny"));
        assert_eq!(gateways[1].served_by(&answer), idle, "by worker: {by_worker}");
        // Until its workers have published that the request is over.
        std::thread::sleep(EXCHANGED);
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
            std::thread::sleep(EXCHANGED);
            gateway.served_by(&answer)
        };
        let decision = |gateway: &Gateway, line: usize| {
            let lines = gateway.envoy.access_log_until(line + 1).unwrap();
            lines[line]["decision"].as_str().unwrap().to_owned()
        };
        // A gateway publishes once it has sent something; what was published before that is not waited for.
        for gateway in &gateways {
            gateway.send(chat("tiny"));
        }
        std::thread::sleep(EXCHANGED);
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
    std::thread::sleep(EXCHANGED);
    let idle = the_idle(&second.pods);
    assert_eq!(second.served_by(&second.send(chat("tiny"))), idle);
    drop(first);
    drop(connections);
    until("what it had in flight counts no more", || {
        let answers = second.burst(vec![long_chat(); 16]);
        assert!(answers.iter().all(|answer| answer.status == 200));
        second.shares(&answers).iter().all(|share| (3..=5).contains(share))
    });
    let log = second.envoy.log_text();
    assert!(log.contains("exchange failed: "), "{log}");
}

/// A server that answers everything with status 200 and the same bytes.
struct Stranger {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Stranger {
    fn start(body: Vec<u8>) -> Stranger {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stranger = Stranger { address: listener.local_addr().unwrap(), asked: Arc::default() };
        let asked = Arc::clone(&stranger.asked);
        let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                // The question is read, or closing would reset the connection before the answer is read; that whoever
                // asks has gone is no matter.
                let _ = stream.read(&mut [0; 8192]);
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
                asked.fetch_add(1, Ordering::Relaxed);
            }
        });
        stranger
    }
}

/// A gateway that has asked all strangers, which stand in place of others, besides whoever is at `addresses`.
fn among(strangers: &[Stranger], addresses: &[SocketAddr]) -> Gateway {
    let gateways: Vec<SocketAddr> =
        strangers.iter().map(|stranger| stranger.address).chain(addresses.iter().copied()).collect();
    let gateway = Setup::new(GATEWAYS).envoy(|envoy| envoy.set_endpoints("gateways", &gateways)).start();
    until("all strangers have been asked again", || {
        strangers.iter().all(|stranger| stranger.asked.load(Ordering::Relaxed) > 2)
    });
    gateway
}

/// Every request of some bursts is answered, and nothing is logged as an error; how many answers each pod gave.
fn check_serves(gateway: &Gateway) -> Vec<usize> {
    let answers: Vec<_> = (0..4).flat_map(|_| gateway.burst(vec![long_chat(); 32])).collect();
    assert!(answers.iter().all(|answer| answer.status == 200));
    let log = gateway.envoy.log_text();
    assert!(!log.contains("[error]") && !log.contains("[critical]"), "{log}");
    gateway.shares(&answers)
}

/// Whatever stands in another gateway's place: what is no page, or a page cut short, larger than any, or gone.
#[test]
fn garbage_from_a_gateway_does_no_harm() {
    let page = a_page(7, |_| ());
    let mut count_of_billions = page[..2].to_vec();
    count_of_billions.extend([0xff; 9]);
    let bodies = [
        Vec::new(),
        b"upstream connect error".to_vec(),
        page[..page.len() - 1].to_vec(),
        count_of_billions,
        vec![page[0]; MAX_PAGE_BYTES + 1],
    ];
    let pods = ModelServers::start(crate::gateway::four_pods()).unwrap();
    pods.server(1).set(|knobs| knobs.hang = true);
    pods.server(2).set(|knobs| knobs.refuse = true);
    let strangers: Vec<Stranger> = bodies.into_iter().map(Stranger::start).collect();
    let gateway = among(&strangers, &pods.addresses());
    until("every exchange has failed", || {
        gateway.envoy.log_text().matches(" exchange failed: ").count() == 5 + 4
    });
    let shares = check_serves(&gateway);
    assert!(shares.iter().all(|share| (28..=36).contains(share)), "{shares:?}");
}

/// One that lies misleads picks at most.
#[test]
fn numbers_that_cannot_be_make_nothing_fail() {
    let pages = [
        a_page(1, |page| page.end = Cursor { chunk: u64::MAX, offset: u64::MAX }),
        a_page(2, |page| page.now_ms = u64::MAX),
        a_page(3, |page| page.entries = vec![0xff; 1 << 16]),
        a_page(4, |page| {
            let in_flight = InFlight {
                requests: u32::MAX,
                waiting: u32::MAX,
                waiting_tokens: u64::MAX,
                oldest: Some(Oldest { sent_ms: u64::MAX, tokens: u32::MAX }),
                last_output_ms: u64::MAX,
            };
            page.sums.iter_mut().for_each(|load| load.in_flight = in_flight);
        }),
    ];
    check_serves(&among(&pages.map(Stranger::start), &[]));
}

/// The bytes of a gateway's page, edited. It has nothing in flight at every port of 127.0.0.1, where the pods are.
fn a_page(gateway: u64, edit: impl Fn(&mut Page)) -> Vec<u8> {
    let key = |port| EndpointKey::of(SocketAddr::from(([127, 0, 0, 1], port)));
    let sums = (0..u16::MAX).map(|port| (key(port), EndpointLoad::default())).collect();
    let mut page = Page { gateway, now_ms: 1_000, sums, ..Page::default() };
    edit(&mut page);
    page.to_bytes()
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
        get(exchange, &format!("{path}?read=zz:1:%00:1")).0,
        200,
        "what is not understood was not heard"
    );
    assert_eq!(get(exchange, "/inference-picker/exchange?other").0, 404);
    assert_eq!(get(exchange, "/v1/models").0, 404);
    // To a client's listener it is a path like any other, and goes to pods: a 404 is tried at each of the pick's three.
    assert_eq!(get(gateways[0].envoy.address(), path).0, 404);
    let asked: u64 = gateways[0].pods.servers().map(|pod| pod.counters().requests_to(path)).sum();
    assert_eq!(asked, 3);
}
