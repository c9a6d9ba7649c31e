//! Each knob does what it says, and a server recovers when it is set back.

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;

#[tokio::test]
async fn a_failing_server_answers_its_status_until_it_is_set_back() {
    let servers = quick();
    let server = servers.server(0);
    for (status, expected) in [(Some(500), 500), (Some(429), 429), (None, 200)] {
        server.set(|knobs| knobs.fail_status = status);
        assert_eq!(post(&server, COMPLETIONS, &completion(0..4, 1)).await.status, expected);
        assert_eq!(get(&server, "/health").await.status, 200);
    }
}

#[tokio::test]
async fn a_hanging_server_takes_requests_and_never_answers() {
    let servers = quick();
    let server = servers.server(0);
    server.set(|knobs| knobs.hang = true);
    let answer = timeout(Duration::from_millis(300), post(&server, COMPLETIONS, &completion(0..4, 1))).await;
    assert!(answer.is_err());
    assert_eq!(server.counters().requests_for("tiny"), 1);
    assert_eq!(get(&server, "/metrics").await.status, 200);
    server.set(|knobs| knobs.hang = false);
    assert_eq!(post(&server, COMPLETIONS, &completion(0..4, 1)).await.status, 200);
}

#[tokio::test]
async fn a_refusing_server_closes_its_port_and_its_connections_and_comes_back() {
    let servers = quick();
    let server = servers.server(0);
    let request = Request::post(COMPLETIONS).json(&endless_completion());
    let mut stream = client_of(&server).open(request).await.unwrap();
    server.set(|knobs| knobs.refuse = true);
    assert!(TcpStream::connect(server.address()).await.is_err());
    let broken = async { while let Ok(Some(_)) = stream.next_chunk().await {} };
    timeout(PATIENCE, broken).await.expect("the open connection is closed");
    eventually("its request is cancelled", || server.counters().cancelled == 1).await;
    server.set(|knobs| knobs.refuse = false);
    assert_eq!(get(&server, "/health").await.status, 200);
}

#[tokio::test]
async fn a_stream_breaks_after_as_many_events_as_configured() {
    let servers = quick();
    let server = servers.server(0);
    server.set(|knobs| knobs.die_mid_stream = Some(3));
    let mut body = completion(0..4, 10);
    body["stream"] = json!(true);
    let mut stream = client_of(&server).open(Request::post(COMPLETIONS).json(&body)).await.unwrap();
    let mut text = String::new();
    let end = loop {
        match stream.next_chunk().await {
            Ok(Some(chunk)) => text.push_str(&String::from_utf8_lossy(&chunk.data)),
            end => break end.map(|_| ()),
        }
    };
    assert!(end.is_err(), "the stream ended well");
    assert_eq!(text.matches("data: ").count(), 3);
    eventually("its request is cancelled", || server.counters().cancelled == 1).await;
}

#[tokio::test]
async fn each_metrics_mode_answers_in_its_way() {
    let servers = quick();
    let server = servers.server(0);
    let live = get(&server, "/metrics").await.text();
    let waiting = "vllm:num_requests_waiting{";
    let is_garbage = |page: &str| !page.contains("# TYPE");
    let is_half = |page: &str| live.starts_with(page) && page.len().abs_diff(live.len() / 2) < 1000;
    let is_spoiled = |page: &str| value(page, "vllm:num_requests_waiting").is_nan() && page.contains(waiting);
    let is_gone = |page: &str| !page.contains("vllm:") && page.contains("python_info");
    type Looks<'a> = &'a dyn Fn(&str) -> bool;
    let cases: [(MetricsMode, u16, Looks); 7] = [
        (MetricsMode::Status(503), 503, &|page| page.is_empty()),
        (MetricsMode::Garbage, 200, &is_garbage),
        (MetricsMode::Half, 200, &is_half),
        (MetricsMode::Huge(1_000_000), 200, &|page| page.starts_with(&live) && page.len() >= 1_000_000),
        (MetricsMode::Nan, 200, &is_spoiled),
        (MetricsMode::Gone, 200, &is_gone),
        (MetricsMode::Live, 200, &|page| page == live),
    ];
    for (mode, status, looks) in cases {
        server.set(|knobs| knobs.metrics = mode.clone());
        let answer = get(&server, "/metrics").await;
        assert_eq!(answer.status, status, "{mode:?}");
        assert!(looks(&answer.text()), "{mode:?}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_hanging_metrics_page_leaves_the_rest_alone() {
    let servers = quick();
    let server = servers.server(0);
    server.set(|knobs| knobs.metrics = MetricsMode::Hang);
    assert!(timeout(Duration::from_millis(300), get(&server, "/metrics")).await.is_err());
    assert_eq!(post(&server, COMPLETIONS, &completion(0..4, 1)).await.status, 200);
}

#[tokio::test]
async fn a_frozen_page_stays_as_it_was() {
    let servers = quick();
    let server = servers.server(0);
    let before = get(&server, "/metrics").await.text();
    server.set(|knobs| knobs.metrics = MetricsMode::Frozen);
    post(&server, COMPLETIONS, &completion(0..4, 1)).await;
    assert_eq!(get(&server, "/metrics").await.text(), before);
    server.set(|knobs| knobs.metrics = MetricsMode::Live);
    assert_ne!(get(&server, "/metrics").await.text(), before);
}

#[tokio::test]
async fn knobs_over_http_reach_any_server_of_the_process() {
    let servers = ModelServers::start(vec![ServerSettings::default(), ServerSettings::default()]).unwrap();
    let (one, two) = (servers.server(0), servers.server(1));
    let path = format!("/sim/knobs?server={}", two.address());
    assert_eq!(post(&one, &path, &json!({"refuse": true, "speed": 3})).await.status, 200);
    assert_eq!(two.knobs(), envoy_test::model_server::Knobs { refuse: true, speed: 3.0, ..one.knobs() });
    assert_eq!(post(&one, &path, &json!({"refuse": false})).await.status, 200);
    eventually("the port is open", || std::net::TcpStream::connect(two.address()).is_ok()).await;
    assert_eq!(post(&one, "/sim/knobs", &json!({"speed": -1})).await.status, 400);
}

#[test]
fn servers_stop_when_they_are_dropped() {
    let servers = quick();
    let address = servers.server(0).address();
    servers.stop();
    assert!(std::net::TcpStream::connect(address).is_err());
}
