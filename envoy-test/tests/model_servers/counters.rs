//! Counters are exact.

use super::*;

#[tokio::test]
async fn every_request_is_counted_once_by_path_and_by_model() {
    let servers = quick();
    let server = servers.server(0);
    for _ in 0..3 {
        post(&server, COMPLETIONS, &completion(0..40, 5)).await;
    }
    post(&server, CHAT, &json!({"model": "nope", "messages": []})).await;
    let counters = server.counters();
    assert_eq!((counters.requests_to(COMPLETIONS), counters.requests_to(CHAT)), (3, 1));
    assert_eq!((counters.requests_for("tiny"), counters.requests_for("nope")), (3, 1));
    assert_eq!((counters.completed, counters.failed, counters.cancelled), (3, 1, 0));
    assert_eq!((counters.in_flight, counters.in_flight_max), (0, 1));
    assert_eq!((counters.prompt_tokens, counters.cached_tokens, counters.completion_tokens), (120, 64, 15));
    assert!(counters.last_request_ms.is_some());
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_request() {
    let servers = one_at_a_time(None);
    let server = servers.server(0);
    let request = Request::post(COMPLETIONS).json(&endless_completion());
    let mut stream = client_of(&server).open(request).await.unwrap();
    stream.next_chunk().await.unwrap().expect("a first token");
    assert_eq!(server.counters().in_flight, 1);
    drop(stream);
    eventually("the request is cancelled", || server.counters().cancelled == 1).await;
    let running = || value(&server.metrics_page(), "vllm:num_requests_running");
    eventually("nothing runs", || running() == 0.0).await;
    assert_eq!((server.counters().in_flight, server.counters().completed), (0, 0));
}

#[tokio::test]
async fn a_client_that_leaves_before_a_whole_answer_cancels_its_request_too() {
    let servers = one_at_a_time(None);
    let server = servers.server(0);
    let body = completion(0..10, 50_000);
    let answer = tokio::spawn({
        let client = client_of(&server);
        async move { client.send(Request::post(COMPLETIONS).json(&body)).await }
    });
    eventually("the request has come", || server.counters().in_flight == 1).await;
    answer.abort();
    eventually("the request is cancelled", || server.counters().cancelled == 1).await;
}

#[tokio::test]
async fn scrapes_at_the_same_time_are_noticed() {
    let servers = quick();
    let server = servers.server(0);
    get(&server, "/metrics").await;
    get(&server, "/metrics").await;
    assert_eq!(server.counters().metrics_scrapes_in_flight_max, 1);
    server.set(|knobs| knobs.metrics = MetricsMode::Hang);
    let scrapes: Vec<_> = (0..2)
        .map(|_| {
            let client = client_of(&server);
            tokio::spawn(async move { client.send(Request::get("/metrics")).await })
        })
        .collect();
    eventually("both hang", || server.counters().metrics_scrapes_in_flight_max == 2).await;
    assert_eq!(server.counters().metrics_scrapes, 4);
    scrapes.iter().for_each(|scrape| scrape.abort());
    eventually("both have left", || server.counters().metrics_scrapes_in_flight == 0).await;
}

#[tokio::test]
async fn counters_over_http_are_the_same() {
    let servers = quick();
    let server = servers.server(0);
    post(&server, COMPLETIONS, &completion(0..40, 5)).await;
    let answer = get(&server, "/sim/counters").await;
    assert_eq!(serde_json::from_slice::<Counters>(&answer.body()).unwrap(), server.counters());
}
