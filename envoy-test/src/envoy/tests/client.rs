use super::echo::EchoServer;
use super::plain_envoy;
use crate::envoy::{Client, Protocol, RawConnection, Request};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;

/// Sends the request in both versions of HTTP and lets `claim` check what the echo server saw each time.
#[track_caller]
fn check(address: SocketAddr, request: &Request, claim: impl Fn(Protocol, &Value)) {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let response = Client::new(address, protocol).send_blocking(request.clone()).unwrap();
        assert_eq!(response.status, 200, "{protocol:?}: {}", response.text());
        claim(protocol, &response.json().unwrap());
    }
}

#[test]
fn method_path_headers_and_body_arrive_through_envoy() {
    let envoy = plain_envoy();
    let request =
        Request::post("/v1/completions").header("x-name", "value").json(&json!({"prompt": "hello"}));
    check(envoy.address(), &request, |protocol, seen| {
        assert_eq!(seen["method"], "POST", "{protocol:?}");
        assert_eq!(seen["path"], "/v1/completions", "{protocol:?}");
        assert_eq!(seen["headers"]["x-name"], "value", "{protocol:?}");
        assert_eq!(seen["headers"]["content-type"], "application/json", "{protocol:?}");
        assert_eq!(seen["body"], r#"{"prompt":"hello"}"#, "{protocol:?}");
    });
}

#[test]
fn the_protocol_is_the_one_asked_for() {
    check(EchoServer::start().address, &Request::get("/"), |protocol, seen| {
        let version = if protocol == Protocol::Http1 { "HTTP/1.1" } else { "HTTP/2.0" };
        assert_eq!(seen["version"], version);
    });
}

#[test]
fn a_whole_body_announces_its_length() {
    check(EchoServer::start().address, &Request::post("/").body("12345"), |protocol, seen| {
        assert_eq!(seen["headers"]["content-length"], "5", "{protocol:?}");
    });
}

#[test]
fn a_body_in_frames_arrives_complete_without_a_length() {
    let request = Request::post("/").body("abcdefghij").in_frames_of(3).pausing(Duration::from_millis(1));
    check(EchoServer::start().address, &request, |protocol, seen| {
        assert_eq!(seen["body"], "abcdefghij", "{protocol:?}");
        assert_eq!(seen["headers"]["content-length"], Value::Null, "{protocol:?}");
        let chunked = &seen["headers"]["transfer-encoding"];
        assert_eq!(chunked == "chunked", protocol == Protocol::Http1, "{protocol:?}");
    });
}

#[test]
fn trailers_arrive_behind_the_body() {
    let request = Request::post("/").body("body").trailer("x-sum", "42");
    check(EchoServer::start().address, &request, |protocol, seen| {
        assert_eq!(seen["trailers"]["x-sum"], "42", "{protocol:?}");
        assert_eq!(seen["body"], "body", "{protocol:?}");
    });
}

#[test]
fn the_host_is_the_servers_address_unless_the_test_names_another() {
    let echo = EchoServer::start().address;
    let seen = Client::new(echo, Protocol::Http1).send_blocking(Request::get("/")).unwrap().json().unwrap();
    assert_eq!(seen["headers"]["host"], echo.to_string());
    let request = Request::get("/").header("host", "models.example");
    let seen = Client::new(echo, Protocol::Http1).send_blocking(request).unwrap().json().unwrap();
    assert_eq!(seen["headers"]["host"], "models.example");
}

#[test]
fn chunks_come_in_order_with_the_times_of_their_arrival() {
    let client = Client::new(EchoServer::start().address, Protocol::Http2);
    let response = client.send_blocking(Request::get("/")).unwrap();
    assert!(response.chunks.len() > 1, "{response:?}");
    assert!(response.chunks.is_sorted_by_key(|chunk| chunk.arrived_after), "{response:?}");
}

#[test]
fn a_burst_answers_every_request_in_its_place() {
    let envoy = plain_envoy();
    let paths: Vec<String> = (0..20).map(|index| format!("/{index}")).collect();
    let requests = paths.iter().map(|path| Request::get(path)).collect();
    let answers = Client::new(envoy.address(), Protocol::Http1).burst_blocking(requests).unwrap();
    let answered: Vec<Value> =
        answers.into_iter().map(|answer| answer.unwrap().json().unwrap()["path"].clone()).collect();
    assert_eq!(answered, paths);
    assert_eq!(
        envoy.stats("http.gateway.downstream_cx_total").unwrap()["http.gateway.downstream_cx_total"],
        20
    );
}

#[tokio::test]
async fn a_kept_connection_serves_several_requests() {
    let envoy = plain_envoy();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut connection = Client::new(envoy.address(), protocol).connect().await.unwrap();
        for _ in 0..3 {
            assert_eq!(connection.send(Request::get("/fixed")).await.unwrap().status, 203);
        }
    }
    assert_eq!(
        envoy.stats("http.gateway.downstream_cx_total").unwrap()["http.gateway.downstream_cx_total"],
        2
    );
}

#[tokio::test]
async fn an_open_answer_can_be_read_part_by_part() {
    let client = Client::new(EchoServer::start().address, Protocol::Http1);
    let mut answer = client.open(Request::get("/part")).await.unwrap();
    let mut body = Vec::new();
    while let Some(chunk) = answer.next_chunk().await.unwrap() {
        body.extend_from_slice(&chunk.data);
    }
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["path"], "/part");
}

#[test]
fn a_raw_connection_can_wait_for_the_permission_to_send_its_body() {
    let envoy = plain_envoy();
    let mut connection = RawConnection::open(envoy.address()).unwrap();
    connection
        .send("POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n")
        .unwrap();
    assert!(connection.read_until("\r\n\r\n").unwrap().starts_with("HTTP/1.1 100 Continue"));
    connection.send("body").unwrap();
    assert!(connection.read_to_end().unwrap().contains(r#""body":"body""#));
}

#[test]
fn a_raw_connection_can_send_what_is_not_http() {
    let envoy = plain_envoy();
    let mut connection = RawConnection::open(envoy.address()).unwrap();
    connection.send("nonsense\r\n\r\n").unwrap();
    assert!(connection.read_to_end().unwrap().starts_with("HTTP/1.1 400 "));
}
