//! WebSockets, which the realtime API is: they pass in every configuration, are picked for, and count for as long as they
//! are open.

use crate::gateway::{ALL, BODY_MODES, CLUSTER, GATEWAYS, Gateway, MODELS, OBSERVED, Setup, chat, until};
use envoy_test::envoy::blocking::wait_for;
use envoy_test::envoy::{Configuration, NEWEST, OLDEST, Protocol, RawConnection, WebSocket};
use serde_json::{Value, json};
use std::time::Duration;

const PATH: &str = "/v1/realtime?model=tiny";
const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";

/// HTTP/2 carries a WebSocket only where the listener allows it.
fn allow_connect(envoy: &mut Configuration) {
    envoy.at(MANAGER)["http2_protocol_options"] = json!({"allow_connect": true});
}

async fn open(gateway: &Gateway, protocol: Protocol) -> WebSocket {
    let mut socket = WebSocket::open(gateway.envoy.address(), protocol, PATH).await.unwrap();
    assert_eq!(socket.receive().await.unwrap()["type"], "session.created");
    socket
}

/// Events go both ways, one after the other.
async fn check_speaks(mut socket: WebSocket) {
    for model in ["nope", "neither"] {
        socket.send(&json!({"type": "session.update", "model": model})).await.unwrap();
        assert_eq!(socket.receive().await.unwrap()["code"], "model_not_found");
    }
    socket.close().await.unwrap();
}

fn check(configuration: &str, version: &'static str) {
    let gateway = Setup::new(configuration).version(version).envoy(allow_connect).start();
    wait_for(async {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            check_speaks(open(&gateway, protocol).await).await;
        }
    });
    let lines = gateway.envoy.access_log_until(2).unwrap();
    for line in lines.iter().filter(|line| line["path"] == PATH) {
        assert_eq!(line["status"], 101, "{configuration} {version}: {line}");
        let picked = line["picked"].as_str().unwrap();
        assert!(picked.starts_with(line["upstream"].as_str().unwrap()), "{configuration} {version}: {line}");
    }
    assert_eq!(gateway.send(chat("tiny")).status, if configuration == MODELS { 404 } else { 200 });
}

#[test]
fn a_web_socket_opens_and_speaks_in_every_configuration() {
    for configuration in [ALL.as_slice(), &[MODELS, GATEWAYS, OBSERVED]].concat() {
        check(configuration, NEWEST);
    }
}

#[test]
fn a_web_socket_opens_and_speaks_in_the_oldest_envoy() {
    for configuration in BODY_MODES {
        check(configuration, OLDEST);
    }
}

/// Four are open, so each has a pod of its own: an open one counts. What was closed counts no more.
#[test]
fn a_web_socket_is_in_flight_until_it_is_closed() {
    for configuration in BODY_MODES {
        let gateway = Setup::new(configuration).concurrency(1).start();
        let index = |socket: &WebSocket| gateway.index(socket.header("x-served-by").unwrap());
        wait_for(async {
            let mut open_ones = Vec::new();
            for count in 1..=8 {
                open_ones.push(open(&gateway, Protocol::Http1).await);
                let mut shares = [0; 4];
                open_ones.iter().for_each(|socket| shares[index(socket)] += 1);
                let fair = count / 4..=(count + 3) / 4;
                assert!(shares.iter().all(|share| fair.contains(share)), "{configuration}: {shares:?}");
            }
            let closed = open_ones.swap_remove(3);
            let pod = index(&closed);
            closed.close().await.unwrap();
            until("the gateway knows that it is closed", || !gateway.envoy.access_log().unwrap().is_empty());
            assert_eq!(index(&open(&gateway, Protocol::Http1).await), pod, "{configuration}");
        });
    }
}

/// Silence on an open one says nothing of its pod, nor does a client that leaves; before it is open, both do.
#[test]
fn an_open_web_socket_is_not_taken_for_one_that_hangs() {
    for configuration in BODY_MODES {
        let gateway = Setup::new(configuration).concurrency(1).start();
        wait_for(async {
            for _ in 0..2 {
                let mut open_ones = Vec::new();
                for _ in 0..8 {
                    open_ones.push(open(&gateway, Protocol::Http1).await);
                }
                tokio::time::sleep(Duration::from_millis(1_500)).await;
            }
        });
        let lines = gateway.envoy.access_log_until(16).unwrap();
        assert!(lines.iter().all(|line| line["status"] == 101), "{configuration}: {lines:?}");
        assert!(!gateway.envoy.log_text().contains("it is ejected"), "{configuration}");
        gateway.check_burst_is_spread(configuration);
    }
}

/// A listener that speaks WebSocket takes what follows such headers for the WebSocket's, so no body would ever end.
#[test]
fn a_post_with_a_prompt_that_asks_for_an_upgrade_is_refused_at_once() {
    for configuration in BODY_MODES {
        let gateway = Setup::new(configuration).start();
        let mut client = RawConnection::open(gateway.envoy.address()).unwrap();
        let body = r#"{"model":"tiny","prompt":"Hi"}"#;
        let head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: keep-alive, upgrade\r\nupgrade: websocket\r\n\
                    content-type: application/json\r\ncontent-length: 30\r\n\r\n";
        client.send(format!("{head}{body}")).unwrap();
        let answer = client.read_until("}}").unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{configuration}: {answer}");
        assert!(answer.contains("\"code\":\"upgrade_not_served\""), "{configuration}: {answer}");
    }
}

/// As Java's own client asks for HTTP/2 with every request: Envoy removes that before filters see it.
#[test]
fn an_offer_of_http2_is_no_upgrade() {
    for configuration in BODY_MODES {
        let gateway = Setup::new(configuration).start();
        let request = chat("tiny")
            .header("connection", "Upgrade, HTTP2-Settings")
            .header("upgrade", "h2c")
            .header("http2-settings", "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA");
        assert_eq!(gateway.send(request).status, 200, "{configuration}");
    }
}

/// A body that the plugin does not read reaches the pod while it is still being sent, in deferred mode, too.
#[test]
fn a_body_that_is_not_read_is_not_waited_for() {
    for configuration in BODY_MODES {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let alone = |envoy: &mut Configuration, _: &[_]| {
            envoy.set_endpoints(CLUSTER, &[address]);
            envoy.edit_plugin(|plugin| plugin["pools"][0]["endpoints"] = json!([address.to_string()]));
        };
        let unread = |plugin: &mut Value| plugin["scrapeCluster"] = Value::Null;
        let gateway = Setup::new(configuration).plugin(unread).unscraped().start_with(alone);
        let mut client = RawConnection::open(gateway.envoy.address()).unwrap();
        client
            .send(
                "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\ncontent-type: audio/wav\r\n\
                   transfer-encoding: chunked\r\n\r\n4\r\nRIFF\r\n",
            )
            .unwrap();
        let (mut stream, _) = server.accept().unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"RIFF\r\n") {
            let mut buffer = [0; 1 << 12];
            let count = std::io::Read::read(&mut stream, &mut buffer).unwrap();
            assert!(count > 0, "{configuration}: {}", String::from_utf8_lossy(&seen));
            seen.extend(&buffer[..count]);
        }
    }
}
