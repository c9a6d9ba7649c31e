//! The answers that the gateway makes itself: OpenAI error objects, also for OpenAI's own client.

use std::process::Command;

use crate::gateway::{BODY_MODES, CLUSTER, Gateway, Setup, WORKER_SCRAPING, chat};
use envoy_test::envoy::binary::project_root;
use envoy_test::envoy::{Configuration, Protocol, Request};
use serde_json::{Value, json};

const HTTP_FILTERS: &str =
    "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters";

const SMALL_BODY_LIMIT: usize = 2_000;

fn gateway(configuration: &str) -> Gateway {
    let edit = |plugin: &mut Value| {
        plugin["maxBodyBytes"] = SMALL_BODY_LIMIT.into();
        plugin["models"] = json!([{"modelName": "tiny", "poolRef": {"name": "vllm-llama2-7b-pool"}}]);
    };
    Setup::new(configuration).plugin(edit).start()
}

/// Answered by the gateway with this status and code, and with these words in the message.
fn check(gateway: &Gateway, request: Request, status: u16, code: &str, words: &str) {
    check_over(&[Protocol::Http1, Protocol::Http2], gateway, request, status, code, words);
}

fn check_over(
    protocols: &[Protocol],
    gateway: &Gateway,
    request: Request,
    status: u16,
    code: &str,
    words: &str,
) {
    for &protocol in protocols {
        let answer = gateway.client(protocol).send_blocking(request.clone()).unwrap();
        let what = format!("{protocol:?}: {}", answer.text());
        assert_eq!(answer.status, status, "{what}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{what}");
        let body = answer.json().unwrap();
        let keys: Vec<&String> = body["error"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["code", "message", "param", "type"], "{what}");
        assert_eq!(body["error"]["code"], code, "{what}");
        assert!(body["error"]["message"].as_str().unwrap().contains(words), "{what}");
    }
}

fn post(body: impl Into<String>) -> Request {
    Request::post("/v1/completions").header("content-type", "application/json").body(body.into())
}

#[test]
fn a_bad_request_is_answered_with_what_to_change() {
    for configuration in BODY_MODES {
        let gateway = gateway(configuration);
        check(&gateway, post(r#"{"model":"tiny","messages":["#), 400, "invalid_json", "line 1 column 28");
        check(&gateway, post(r#"{"messages":[]}"#), 400, "missing_model", "no `model`");
        check(&gateway, post(r#"{"model":7}"#), 400, "invalid_model", "must be a string");
        check(&gateway, post(""), 400, "invalid_json", "line 1 column 0");
        check(&gateway, chat("nope"), 404, "model_not_found", "`nope` does not exist");
        let lines = gateway.envoy.access_log_until(10).unwrap();
        assert_eq!(lines[0]["details"], "invalid_json");
        assert_eq!(lines[0]["decision"], "refused: invalid_json");
        assert_eq!(lines[8]["model"], "nope");
        assert!(gateway.pods.servers().all(|pod| pod.counters().requests_by_model.is_empty()));
    }
}

#[test]
fn a_body_over_the_limit_is_refused_however_it_comes() {
    for configuration in BODY_MODES {
        let gateway = gateway(configuration);
        let large = post(format!(r#"{{"model":"tiny","prompt":"{}"}}"#, "x".repeat(SMALL_BODY_LIMIT)));
        check(&gateway, large.clone(), 413, "request_too_large", "2000 bytes");
        check(&gateway, large.in_frames_of(100), 413, "request_too_large", "2000 bytes");
        let filled = format!(r#"{{"model":"tiny","prompt":"{}"}}"#, "x".repeat(SMALL_BODY_LIMIT - 28));
        assert_eq!(filled.len(), SMALL_BODY_LIMIT);
        assert_eq!(gateway.send(post(filled)).status, 200, "a body of just the limit is read");
    }
}

/// Envoy itself refuses what is more than it buffers; in words of its own, if the plugin did not translate them.
#[test]
fn a_body_over_envoys_own_limit_is_refused_in_the_same_form() {
    let by_default = |envoy: &mut Configuration| {
        envoy
            .at("/static_resources/listeners/0")
            .as_object_mut()
            .unwrap()
            .remove("per_connection_buffer_limit_bytes");
        for filter in envoy.at(HTTP_FILTERS).as_array_mut().unwrap() {
            if filter["name"] == "envoy.filters.http.buffer" {
                filter["typed_config"]["extension_config"]["typed_config"]["max_request_bytes"] =
                    (1 << 20).into();
            }
        }
    };
    let body =
        |bytes: usize| post(format!(r#"{{"model":"tiny","prompt":"Hi","x":"{}"}}"#, "x".repeat(bytes - 37)));
    for configuration in BODY_MODES {
        let gateway = Setup::new(configuration).envoy(by_default).start();
        let large = body((1 << 20) + 100_000);
        // HTTP/2 has its own limit, the stream's window, which is larger.
        for form in [large.clone(), large.in_frames_of(10_000)] {
            let words = "larger than this gateway buffers";
            check_over(&[Protocol::Http1], &gateway, form, 413, "request_too_large", words);
        }
        assert_eq!(gateway.send(body(1_000_000)).status, 200, "{configuration}");
        assert_eq!(gateway.send(body(1_000_000).in_frames_of(10_000)).status, 200, "{configuration}");
    }
}

#[test]
fn where_no_pod_can_be_reached_the_answer_has_the_same_form() {
    for configuration in BODY_MODES {
        let gateway = Setup::new(configuration).start();
        for index in 0..4 {
            gateway.pods.server(index).set(|knobs| knobs.refuse = true);
        }
        check(&gateway, chat("tiny"), 503, "no_endpoint", "No model server could be reached");
        check(&gateway, Request::get("/v1/models"), 503, "no_endpoint", "No model server could be reached");
    }
}

#[test]
fn a_pool_without_endpoints_answers_503() {
    let setup = Setup::new(WORKER_SCRAPING).pods(vec![]).unscraped();
    let gateway = setup.start_with(|envoy, _| envoy.set_endpoints(CLUSTER, &[]));
    // Before a worker knows that the list is empty, the answer is Envoy's, translated.
    for request in [chat("tiny"), Request::get("/v1/models")] {
        check(&gateway, request, 503, "no_endpoint", "No model server");
    }
    crate::gateway::until("the empty list is known", || {
        gateway.send(chat("tiny")).text().contains("No model server is available")
    });
}

/// OpenAI's own Python client raises its own exceptions for our answers.
#[test]
fn openais_client_raises_its_own_exceptions() {
    for configuration in BODY_MODES {
        let gateway = gateway(configuration);
        let script = project_root().join("envoy-test/tests/end_to_end/openai_client.py");
        let output = Command::new(project_root().join(".build/openai-client/bin/python"))
            .arg(script)
            .arg(format!("http://{}/v1", gateway.envoy.address()))
            .output()
            .expect("`make setup` and `make test` install OpenAI's client");
        let said = String::from_utf8_lossy(&output.stdout);
        let expected = "200 chat.completion\n\
                        NotFoundError 404 model_not_found model\n\
                        BadRequestError 400 invalid_model model\n\
                        APIStatusError 413 request_too_large None\n";
        assert_eq!(said, expected, "{configuration}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
