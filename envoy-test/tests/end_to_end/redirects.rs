//! Internal redirects: Envoy sends a request once more, with the body as the plugin has changed it.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use envoy_test::envoy::Configuration;
use serde_json::{Value, json};

use crate::gateway::{BODY_MODES, Gateway, Setup, chat_with, until};
use crate::recorded::{read_request, recorded_body};

const ROUTES: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes";

/// A server that redirects from all paths but one, where it streams what a vLLM did, with its usage if that is asked for.
struct Redirecting {
    address: SocketAddr,
    /// The heads and bodies of the requests that came.
    requests: Arc<Mutex<Vec<(String, String)>>>,
}

impl Redirecting {
    fn start() -> Redirecting {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, requests) = (listener.local_addr().unwrap(), Arc::default());
        let noted = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let noted = Arc::clone(&noted);
                std::thread::spawn(move || serve(stream, &noted));
            }
        });
        Redirecting { address, requests }
    }

    fn gateway(&self, configuration: &str, edit: impl Fn(&mut Value)) -> Gateway {
        let plugin = |plugin: &mut Value| {
            plugin["models"] = json!([{"modelName": "asked", "poolRef": {"name": "vllm-llama2-7b-pool"},
                "targetModels": [{"name": "tiny"}]}]);
            edit(plugin);
        };
        let setup = Setup::new(configuration).pods(vec![]).unscraped().plugin(plugin);
        setup.start_with(|envoy, _| {
            envoy.place_endpoints(&[self.address]);
            follow_redirects(envoy);
        })
    }
}

fn follow_redirects(envoy: &mut Configuration) {
    for route in envoy.at(ROUTES).as_array_mut().unwrap() {
        route["route"]["internal_redirect_policy"] = json!({"max_internal_redirects": 2, "redirect_response_codes": [307], "allow_cross_scheme_redirect": true});
    }
}

fn serve(mut stream: TcpStream, requests: &Mutex<Vec<(String, String)>>) -> std::io::Result<()> {
    while let Some((head, body)) = read_request(&mut stream)? {
        if head.starts_with("GET /metrics") {
            write!(stream, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")?;
            continue;
        }
        let (is_moved, asks) = (head.starts_with("POST /moved"), body.contains(r#""include_usage":true"#));
        requests.lock().unwrap().push((head, body));
        if !is_moved {
            let location = "http://x/moved/v1/chat/completions";
            write!(
                stream,
                "HTTP/1.1 307 Temporary Redirect\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
            )?;
            continue;
        }
        let answer = recorded_body(&format!("chat_stream{}.http", if asks { "_usage" } else { "" }));
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        )?;
        stream.write_all(&answer)?;
    }
    Ok(())
}

fn stream_of(model: &str) -> Value {
    json!({"model": model, "stream": true, "max_tokens": 4})
}

#[test]
fn what_was_decided_before_a_redirect_holds_behind_it() {
    for configuration in BODY_MODES {
        let server = Redirecting::start();
        let gateway = server.gateway(configuration, |plugin| plugin["responseModel"] = "requested".into());
        let answer = gateway.send(chat_with(stream_of("asked")).header("host", "x"));
        let text = answer.text();
        assert_eq!(answer.status, 200, "{configuration}: {text}");
        assert!(
            text.contains(r#""model":"asked""#) && !text.contains(r#""model":"tiny""#),
            "{configuration}: {text}"
        );
        assert!(
            !text.contains(r#""usage":{"#) && text.ends_with("data: [DONE]\n\n"),
            "{configuration}: {text}"
        );
        let requests = server.requests.lock().unwrap();
        assert_eq!(requests.len(), 2, "{configuration}");
        for (head, body) in requests.iter() {
            assert!(
                body.contains(r#""model":"tiny""#) && body.matches("stream_options").count() == 1,
                "{head}: {body}"
            );
        }
        let line = gateway.envoy.access_log_until(1).unwrap().pop().unwrap();
        assert_eq!((&line["model"], &line["target_model"]), (&"asked".into(), &"tiny".into()), "{line}");
        until("what was in flight has ended", || in_flight(&gateway) == 0);
    }
}

fn in_flight(gateway: &Gateway) -> u64 {
    let page = gateway.envoy.admin_get("/stats/prometheus").unwrap();
    let gauge = page.lines().find_map(|line| {
        line.strip_prefix("envoy_cluster_upstream_rq_active{envoy_cluster_name=\"vllm-llama2-7b\"} ")
    });
    gauge.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

/// A client cannot say that its request is one that was redirected.
#[test]
fn nobody_but_envoy_begins_a_second_pass() {
    for configuration in BODY_MODES {
        let server = Redirecting::start();
        let gateway = server.gateway(configuration, |_| ());
        let forged = |request: envoy_test::envoy::Request| {
            request
                .header("x-envoy-original-url", "http://x/v1/chat/completions")
                .header("wasm.llm_first_pass", "0tiny")
                .header("llm_first_pass", "0tiny")
        };
        let answer = gateway.send(forged(chat_with(stream_of("tiny"))));
        assert_eq!(answer.status, 404, "{configuration}: {}", answer.text());
    }
}
