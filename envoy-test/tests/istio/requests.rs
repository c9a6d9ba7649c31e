//! What becomes of requests besides their way: models, bodies of every form, errors.

use envoy_test::envoy::{Protocol, Request, Response};
use serde_json::{Value, json};

use crate::gateway::{chat, get, post};
use crate::setup::{Deployment, Setup};

/// More than Envoy takes at once, and less than the 1 MiB that it buffers if nobody says otherwise.
const LARGE_BYTES: usize = 500_000;
/// More than that 1 MiB.
const HUGE_BYTES: usize = 3_000_000;

/// Publishes sql-lora as lora-request.
fn publish(plugin: &mut Value) {
    plugin["models"] = json!([{"modelName": "lora-request", "poolRef": {"name": "vllm-llama2-7b-pool"},
        "targetModels": [{"name": "sql-lora"}]}, {"modelName": "tiny", "poolRef": {"name": "vllm-llama2-7b-pool"}}]);
}

/// A completion whose body has so many bytes besides its prompt, in a field that no pod reads.
fn completion(bytes: usize) -> Request {
    let padding = "-".repeat(bytes);
    let body =
        json!({"model": "lora-request", "max_tokens": 1, "prompt": "Once upon a time", "padding": padding});
    post("/v1/completions").json(&body)
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn the_models_name_is_replaced_in_bodies_of_every_form() {
    for deployment in Deployment::ALL {
        let gateway = Setup::new(deployment).plugin(publish).start();
        let mut sent = 0;
        for request in [completion(0), completion(LARGE_BYTES)] {
            let forms =
                [request.clone(), request.clone().in_frames_of(10_000), request.trailer("x-checksum", "1")];
            for protocol in [Protocol::Http1, Protocol::Http2] {
                for form in forms.clone() {
                    let answer = gateway.client(protocol).send_blocking(form).unwrap();
                    assert_eq!(answer.status, 200, "{deployment:?}, {protocol:?}: {}", answer.text());
                    assert_eq!(answer.json().unwrap()["model"], "sql-lora", "{deployment:?}, {protocol:?}");
                    sent += 1;
                }
            }
        }
        let received: u64 = gateway.pods.servers().map(|pod| pod.counters().requests_for("sql-lora")).sum();
        assert_eq!(received, sent, "{deployment:?}");
        for line in gateway.log(sent as usize) {
            assert_eq!((&line["model"], &line["target_model"]), (&"lora-request".into(), &"sql-lora".into()));
        }
    }
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn a_body_of_three_megabytes_is_served_where_the_limit_is_raised_and_refused_where_it_is_not() {
    for deployment in Deployment::ALL {
        let gateway = Setup::new(deployment).plugin(publish).start();
        let answer = gateway.send(completion(HUGE_BYTES));
        if deployment == Deployment::WasmPlugin {
            check_error(&answer, 413, "nothing raises the limit");
        } else {
            assert_eq!(answer.status, 200, "{deployment:?}: {}", answer.text());
        }
    }
    let raise = |mesh: &mut Value| {
        mesh["defaultConfig"]["connectionSettings"] =
            json!({"listenerPerConnectionBufferLimitBytes": 16_777_216});
    };
    let gateway = Setup::new(Deployment::WasmPlugin).plugin(publish).mesh(raise).start();
    let answer = gateway.send(completion(HUGE_BYTES));
    assert_eq!(answer.status, 200, "raised by the mesh's configuration: {}", answer.text());
}

#[track_caller]
fn check_error(answer: &Response, status: u16, what: &str) {
    assert_eq!(answer.status, status, "{what}: {}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"), "{what}");
    let error = answer.json().unwrap()["error"].clone();
    for field in ["message", "type"] {
        assert!(error[field].as_str().is_some_and(|text| !text.is_empty()), "{what}: {error}");
    }
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn errors_are_openai_error_objects() {
    for deployment in Deployment::ALL {
        let small = |plugin: &mut Value| {
            publish(plugin);
            plugin["maxBodyBytes"] = 1_000.into();
        };
        let gateway = Setup::new(deployment).plugin(small).start();
        let malformed = |body: &str| post("/v1/chat/completions").body(body.to_owned());
        let check = |request, status, what: &str| {
            check_error(&gateway.send(request), status, &format!("{deployment:?}: {what}"));
        };
        check(malformed("{\"model\": \"ti"), 400, "not JSON");
        check(malformed("{}"), 400, "no model");
        check(chat("unknown"), 404, "a model that is not published");
        check(completion(2_000), 413, "a body that is too large");
        check(completion(2_000).in_frames_of(1_000), 413, "one that does not say so");
        for pod in gateway.pods.servers() {
            pod.set(|knobs| knobs.refuse = true);
        }
        check(chat("tiny"), 503, "no pod can be reached");
    }
}

/// Only POSTs are held until they are whole.
#[test]
#[ignore = "needs Istio: make test-istio"]
fn requests_that_are_not_read_go_to_a_pick_too() {
    for deployment in Deployment::ALL {
        let gateway = Setup::new(deployment).start();
        let answers = gateway.burst(vec![get("/v1/models"); 16]);
        assert!(answers.iter().all(|answer| answer.status == 200), "{deployment:?}");
        let other = post("/v1/unknown").header("content-type", "text/plain").body("any");
        assert_eq!(gateway.send(other).status, 404, "{deployment:?}: the pod's own answer");
        let line = gateway.log(1).remove(0);
        assert!(line["picked"].as_str().unwrap().starts_with(line["upstream"].as_str().unwrap()), "{line}");
    }
}
