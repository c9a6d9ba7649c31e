//! What `istio/telemetry` adds to Istio's metrics and access log.

use std::net::SocketAddr;

use envoy_test::envoy::{Envoy, EnvoySettings, free_address};
use serde_json::Value;

use crate::cluster::{self, Backend, Front, SERVICE_PORT};
use crate::control_plane::ControlPlane;
use crate::gateway::{chat, until};
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
    let label =
        serde_json::json!({"dimensions": {"model": expression()}, "name": "requests_total"}).to_string();
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

/// Those that the plugin publishes: the rest is `null` until it does.
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
