//! What `istio/telemetry` adds to Istio's metrics and access log.

use std::net::SocketAddr;

use envoy_test::envoy::{Envoy, EnvoySettings, free_address};
use serde_json::{Value, json};

use crate::cluster::{self, Backend, Front, SERVICE_PORT};
use crate::control_plane::ControlPlane;
use crate::gateway::{chat, post, until};
use crate::resources::{Resources, mesh};
use crate::setup::{Deployment, PROXY, Setup, bootstrap};

/// The expression that gives the metric's label its value.
fn expression() -> String {
    let mut telemetry = Resources::of("telemetry");
    let label = "/spec/metrics/0/overrides/0/tagOverrides/model/value";
    telemetry.the("Telemetry").pointer(label).unwrap().as_str().unwrap().to_owned()
}

/// Istio counts requests in a filter that only its own build of Envoy has, so this one refuses the listener; what counts
/// is how istiod configures that filter.
#[test]
#[ignore = "needs Istio: make test-istio"]
fn the_model_is_a_label_of_istio_requests_total() {
    let pods: [SocketAddr; 1] = [([127, 0, 1, 1], 8000).into()];
    let kubernetes = cluster::model_servers(Backend::Service, SERVICE_PORT, &pods);
    let mut istio = Resources::of("telemetry").0;
    istio.extend(cluster::ingress_gateway(free_address().unwrap().port()));
    let control_plane = ControlPlane::start(&mesh(), &kubernetes, &istio);
    let settings = EnvoySettings::new(bootstrap(control_plane.xds, Front::IngressGateway));
    let _envoy = Envoy::start(settings).unwrap();
    let generated = || control_plane.generated(PROXY).to_string();
    until("the listener is generated", || generated().contains("istio.stats"));
    let label = json!({"dimensions": {"model": expression()}, "name": "requests_total"}).to_string();
    assert!(generated().contains(label.trim_matches(['{', '}'])), "{label} is not in {}", generated());
}

/// The same expression, in the access log of an Envoy that can take it.
#[test]
#[ignore = "needs Istio: make test-istio"]
fn the_expression_of_that_label_gives_the_model() {
    let labels = "/extensionProviders/0/envoyFileAccessLog/logFormat/labels";
    for deployment in Deployment::ALL {
        let gateway = Setup::new(deployment)
            .mesh(|mesh| {
                mesh.pointer_mut(labels).unwrap()["label"] = format!("%CEL({})%", expression()).into()
            })
            .start();
        gateway.send(chat("tiny"));
        assert_eq!(gateway.log(1)[0]["label"], "tiny", "{deployment:?}");
    }
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn the_access_log_says_what_was_asked_for_what_was_sent_where_and_why() {
    for deployment in Deployment::ALL {
        let gateway = Setup::new(deployment).start();
        gateway.send(chat("sql-lora"));
        let line: Value = gateway.log(1).remove(0);
        assert_eq!(
            (&line["model"], &line["target_model"]),
            (&"sql-lora".into(), &"sql-lora".into()),
            "{line}"
        );
        assert_eq!(line["picked"].as_str().unwrap().split(',').count(), 3, "{line}");
        assert!(line["decision"].as_str().unwrap().contains("prompt_tokens="), "{line}");
    }
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn the_access_log_says_what_the_answer_took_under_both_names() {
    for deployment in Deployment::ALL {
        let gateway = Setup::new(deployment).start();
        let usage = gateway.send(chat("tiny")).json().unwrap()["usage"].clone();
        let line: Value = gateway.log(1).remove(0);
        let tokens = |field: &str| json!(usage[field].as_u64().unwrap().to_string());
        for (field, value) in [
            ("prompt_tokens", tokens("prompt_tokens")),
            ("completion_tokens", tokens("completion_tokens")),
            ("request_model", "tiny".into()),
            ("request_prompt_tokens", tokens("prompt_tokens")),
            ("request_completion_tokens", tokens("completion_tokens")),
        ] {
            assert_eq!(line[field], value, "{deployment:?}: {field}: {line}");
        }
    }
}

/// The answer to a stream has no usage that the client sees; the plugin has asked for it.
#[test]
#[ignore = "needs Istio: make test-istio"]
fn the_access_log_says_it_of_a_stream_too_and_when_its_first_token_came() {
    let messages = json!([{"role": "user", "content": "Which pod will this be?"}]);
    let body = json!({"model": "tiny", "max_tokens": 4, "messages": messages, "stream": true});
    for deployment in Deployment::ALL {
        let gateway = Setup::new(deployment).start();
        let answer = gateway.send(post("/v1/chat/completions").json(&body));
        assert!(!answer.text().contains("usage"), "{deployment:?}: {}", answer.text());
        let line: Value = gateway.log(1).remove(0);
        assert_eq!(line["completion_tokens"], "4", "{deployment:?}: {line}");
        for field in ["prompt_tokens", "cached_tokens", "time_to_first_token_ms"] {
            let text = line[field].as_str().unwrap_or_default();
            assert!(text.parse::<u64>().is_ok(), "{deployment:?}: {field}: {line}");
        }
    }
}
