//! Which requests are read, in whatever form they come, and which pass.

use std::time::Duration;

use crate::gateway::{BODY_MODES, DEFERRED, Gateway, STOP_ITERATION, Setup, chat, chat_with, pod, until};
use envoy_test::envoy::{Configuration, Protocol, RawConnection, Request, Response};
use envoy_test::model_server::{FixedGauges, MetricsPage, ServerSettings, SglangRanks};
use serde_json::{Value, json};

/// A gateway whose pod at 1 is idle and whose others are busy.
fn one_idle(configuration: &str) -> Gateway {
    let lasting = |plugin: &mut Value| plugin["metricsStaleAfter"] = "10s".into();
    let gateway = Setup::new(configuration).pods(vec![pod(); 3]).plugin(lasting).start();
    for busy in [0, 2] {
        let gauges = FixedGauges { waiting: Some(500.0), running: Some(50.0), ..Default::default() };
        gateway.pods.server(busy).set(|knobs| knobs.gauges = gauges);
    }
    gateway.wait_until_scraped();
    gateway
}

/// The access log's line for the last request.
fn logged(gateway: &Gateway, count: usize) -> Value {
    gateway.envoy.access_log_until(count).unwrap().pop().unwrap()
}

#[test]
fn every_inference_path_is_read_under_any_prefix() {
    let bodies = [
        ("/v1/chat/completions", json!({"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]})),
        ("/v1/completions", json!({"model": "tiny", "prompt": "Once upon a time"})),
        ("/v1/embeddings", json!({"model": "tiny", "input": "Once upon a time"})),
        ("/v1/responses", json!({"model": "tiny", "input": "Once upon a time"})),
        (
            "/v1/messages",
            json!({"model": "tiny", "max_tokens": 4, "messages": [{"role": "user", "content": "Hi"}]}),
        ),
    ];
    for configuration in BODY_MODES {
        let gateway = one_idle(configuration);
        for (index, (path, body)) in bodies.iter().enumerate() {
            let answer = gateway.send(Request::post(path).json(body));
            assert_eq!((answer.status, gateway.served_by(&answer)), (200, 1), "{configuration} {path}");
            assert_eq!(logged(&gateway, index + 1)["model"], "tiny", "{configuration} {path}");
        }
        let prefixed = Request::post("/team/a/v1/completions?x=1").json(&bodies[1].1);
        gateway.send(prefixed);
        assert_eq!(logged(&gateway, bodies.len() + 1)["model"], "tiny", "{configuration}: a prefix");
    }
}

#[test]
fn other_requests_to_a_pool_are_not_read_and_go_to_the_least_loaded_pod() {
    let multipart =
        "--x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n{\r\n--x--\r\n";
    for configuration in BODY_MODES {
        let gateway = one_idle(configuration);
        let audio = Request::post("/v1/audio/transcriptions")
            .header("content-type", "multipart/form-data; boundary=x")
            .body(multipart);
        for request in [Request::get("/v1/models"), Request::get("/health"), audio] {
            let answer = gateway.send(request);
            assert_eq!((answer.status, gateway.served_by(&answer)), (200, 1), "{configuration}");
        }
        for line in gateway.envoy.access_log_until(3).unwrap() {
            assert_eq!(line["model"], Value::Null, "{line}");
            assert!(line["decision"].as_str().unwrap().starts_with("DEFAULT"), "{line}");
        }
    }
}

/// A body large enough to come in many frames.
fn long_chat() -> Request {
    let text = "Many frames make light work. ".repeat(4_000);
    Request::post("/v1/chat/completions")
        .json(&json!({"model": "tiny", "max_tokens": 2, "messages": [{"role": "user", "content": text}]}))
}

fn check_body(configuration: &str, protocol: Protocol, form: &str, gateway: &Gateway, request: Request) {
    let answer = gateway.client(protocol).send_blocking(request).unwrap();
    let what = format!("{configuration}, {protocol:?}, {form}: {}", answer.text());
    assert_eq!(answer.status, 200, "{what}");
    assert_eq!(gateway.served_by(&answer), 1, "{what}");
    assert_eq!(answer.json().unwrap()["model"], "tiny", "{what}");
}

#[test]
fn bodies_are_read_in_every_form_they_come_in() {
    for configuration in BODY_MODES {
        let gateway = one_idle(configuration);
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let check = |form, request| check_body(configuration, protocol, form, &gateway, request);
            check("content-length", chat("tiny"));
            check("116 KB", long_chat());
            check("frames of a byte", chat("tiny").in_frames_of(1));
            check("frames with pauses", chat("tiny").in_frames_of(40).pausing(Duration::from_millis(20)));
            check("116 KB in frames", long_chat().in_frames_of(1_000));
            check("trailers", chat("tiny").trailer("x-checksum", "1"));
            check("frames and trailers", long_chat().in_frames_of(9_000).trailer("x-checksum", "1"));
        }
    }
}

#[test]
fn a_client_that_expects_100_continue_is_told_to_go_on() {
    for configuration in BODY_MODES {
        let gateway = one_idle(configuration);
        let body = r#"{"model":"tiny","prompt":"Hi","max_tokens":2}"#;
        let mut connection = RawConnection::open(gateway.envoy.address()).unwrap();
        let head = format!(
            "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n",
            body.len()
        );
        connection.send(head).unwrap();
        connection.read_until("HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        connection.send(body).unwrap();
        let answer = connection.read_to_end().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{configuration}: {answer}");
    }
}

#[test]
fn streamed_answers_pass_as_they_come() {
    for configuration in BODY_MODES {
        let gateway = Setup::new(configuration).start();
        // Slow enough for each event to be a chunk of its own, however busy the machine is.
        gateway.pods.servers().for_each(|pod| pod.set(|knobs| knobs.speed = 0.1));
        let answer = gateway.send(chat_with(json!({"model": "tiny", "max_tokens": 8, "stream": true})));
        assert!(answer.text().ends_with("data: [DONE]\n\n"), "{configuration}: {}", answer.text());
        assert!(answer.chunks.len() >= 8, "{configuration}: {} chunks", answer.chunks.len());
    }
}

#[test]
fn a_client_cannot_choose_its_pod() {
    for configuration in BODY_MODES {
        let gateway = one_idle(configuration);
        let wish = gateway.pods.addresses()[0].to_string();
        let wishful = |request: Request| {
            request
                .header("x-gateway-destination-endpoint", &wish)
                .header("X-Gateway-Destination-Endpoint", &wish)
        };
        for request in [chat("tiny"), Request::get("/v1/models")] {
            let answer = gateway.send(wishful(request));
            assert_eq!(gateway.served_by(&answer), 1, "{configuration}");
        }
    }
}

#[test]
fn a_header_that_is_no_text_does_no_harm() {
    for configuration in BODY_MODES {
        let gateway = one_idle(configuration);
        let odd = chat("tiny").header("x-odd", b"\xff\xfe").header("x-gateway-destination-endpoint", b"\xff");
        assert_eq!(gateway.served_by(&gateway.send(odd)), 1, "{configuration}");
    }
}

/// Adds a route `/other` to a cluster of its own that is no pool's, with one pod behind it.
fn add_other_route(configuration: &mut Configuration, pod: std::net::SocketAddr) {
    let cluster = json!({
        "name": "other", "type": "STATIC", "connect_timeout": "0.25s",
        "load_assignment": {"cluster_name": "other", "endpoints": [{"lb_endpoints": [{"endpoint": {"address":
            {"socket_address": {"address": pod.ip().to_string(), "port_value": pod.port()}}}}]}]}
    });
    configuration.at("/static_resources/clusters").as_array_mut().unwrap().push(cluster);
    let routes = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes";
    let route = json!({"match": {"prefix": "/other"}, "route": {"cluster": "other", "prefix_rewrite": "/"}});
    configuration.at(routes).as_array_mut().unwrap().insert(0, route);
}

/// Sends raw bytes to a route that is no pool's; the server behind it sees them as they were, but for the pick header.
#[test]
fn a_request_to_another_cluster_passes_untouched_and_unbuffered() {
    for configuration in BODY_MODES {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let gateway = Setup::new(configuration).start_with(|envoy, _| add_other_route(envoy, address));
        let mut client = RawConnection::open(gateway.envoy.address()).unwrap();
        client
            .send("POST /other/v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                   x-gateway-destination-endpoint: 127.0.0.1:1\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{no j\r\n")
            .unwrap();
        // The request's beginning arrives while its end has not been sent.
        let (stream, _) = server.accept().unwrap();
        let seen = read_until(&stream, "{no j");
        assert!(!seen.contains("x-gateway-destination-endpoint: 127"), "{configuration}: {seen}");
        assert!(seen.contains("transfer-encoding: chunked"), "{configuration}: {seen}");
        client.send("4\r\nson}\r\n0\r\n\r\n").unwrap();
        assert!(read_until(&stream, "0\r\n\r\n").contains("son}"));
        std::io::Write::write_all(&mut &stream, b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        assert!(client.read_until("\r\n\r\n").unwrap().starts_with("HTTP/1.1 204"), "{configuration}");
    }
}

fn read_until(mut stream: &std::net::TcpStream, end: &str) -> String {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&seen).contains(end) {
        let count = std::io::Read::read(&mut stream, &mut buffer).unwrap();
        assert!(count > 0, "closed after {}", String::from_utf8_lossy(&seen));
        seen.extend(&buffer[..count]);
    }
    String::from_utf8_lossy(&seen).into_owned()
}

/// In deferred mode the filter behind the plugin sets the header; where nothing was picked it must name no pod.
#[test]
fn a_route_without_a_pick_names_no_pod_in_deferred_mode() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let gateway = Setup::new(DEFERRED).start_with(|envoy, _| add_other_route(envoy, address));
    let mut client = RawConnection::open(gateway.envoy.address()).unwrap();
    client
        .send("GET /other/x HTTP/1.1\r\nhost: x\r\nx-gateway-destination-endpoint: 127.0.0.1:1\r\n\r\n")
        .unwrap();
    let (stream, _) = server.accept().unwrap();
    let seen = read_until(&stream, "\r\n\r\n");
    assert!(!seen.contains("127.0.0.1:1\r\n"), "{seen}");
}

fn completed(gateway: &Gateway) -> u64 {
    gateway.pods.servers().map(|pod| pod.counters().completed).sum()
}

#[test]
fn many_requests_on_one_connection_are_each_picked() {
    let gateway = Setup::new(STOP_ITERATION).start();
    let answers: Vec<Response> = envoy_test::envoy::blocking::wait_for(async {
        let mut connection = gateway.client(Protocol::Http1).connect().await.unwrap();
        let mut answers = Vec::new();
        for _ in 0..20 {
            answers.push(connection.send(chat("tiny")).await.unwrap());
        }
        answers
    });
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(completed(&gateway), 20);
}

/// Two pods with a short context and two with a longer one, which SGLang reports with its metrics and vLLM with its models.
fn of_two_contexts(configuration: &str, model_server: &str) -> Gateway {
    let metrics_page = match model_server {
        "sglang" => MetricsPage::Sglang(SglangRanks { data_parallel: 1, tensor_parallel: 1 }),
        _ => MetricsPage::Vllm { engines: 1 },
    };
    let contexts = [1_000, 4_000, 1_000, 4_000];
    let pods = contexts.map(|context_tokens| ServerSettings { metrics_page, context_tokens, ..pod() });
    let setup = Setup::new(configuration).pods(pods.to_vec());
    setup.plugin(|plugin| plugin["pools"][0]["modelServer"] = model_server.into()).start()
}

#[test]
fn a_prompt_goes_to_pods_that_take_it_and_is_refused_where_it_surely_fits_nowhere() {
    for (configuration, model_server) in BODY_MODES.into_iter().zip(["sglang", "vllm"]) {
        let gateway = of_two_contexts(configuration, model_server);
        let completion = |prompt: Value| {
            Request::post("/v1/completions")
                .json(&json!({"model": "tiny", "max_tokens": 2, "prompt": prompt}))
        };
        let ids = |count: usize| json!((0..count).collect::<Vec<_>>());
        let shares = |prompt: Value| gateway.shares(&gateway.burst(vec![completion(prompt); 16]));
        until("contexts are known", || gateway.send(completion(ids(4_001))).status == 400);
        assert!(shares("word".into()).iter().all(|share| *share > 0), "{configuration}");
        for prompt in [ids(2_000), "word".repeat(2_000).into()] {
            let shares = shares(prompt);
            assert_eq!([shares[0], shares[2]], [0, 0], "{configuration}: {shares:?}");
        }
        let refused = gateway.send(completion(ids(4_001)));
        let error = refused.json().unwrap()["error"].clone();
        assert_eq!((refused.status, &error["code"]), (400, &json!("context_length_exceeded")), "{error}");
        assert!(error["message"].as_str().unwrap().contains("4000 tokens"), "{error}");
        // What only the tokenizer knows is left to the servers, and so are several prompts.
        for prompt in ["word ".repeat(8_000).into(), json!([ids(2_500), ids(2_500)])] {
            assert_eq!(gateway.send(completion(prompt)).status, 200, "{configuration}");
        }
    }
}
