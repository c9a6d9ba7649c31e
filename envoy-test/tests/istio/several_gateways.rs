//! Two gateways that exchange their state, as `istio/envoy-filter-several-gateways` deploys them.
//!
//! Here they are on one machine, so each has a control plane of its own, whose EnvoyFilter has that gateway's address.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use envoy_test::envoy::{NEWEST, OLDEST, Request, free_address};
use envoy_test::model_server::ModelServers;
use serde_json::{Value, json};

use crate::cluster::{self, Backend, Front};
use crate::gateway::{Gateway, get, post};
use crate::resources::{Resources, replace};
use crate::setup::{Deployment, Setup};

const FOLDER: &str = "envoy-filter-several-gateways";
const SERVICE: &str = "inference-picker-gateways";
/// Where gateways answer each other.
const PORT: u16 = 15100;
/// Longer than it takes one gateway to receive another's state on a busy machine.
const EXCHANGED: Duration = Duration::from_millis(800);

/// Two gateways in front of the same pods, in this version of Envoy.
fn two(version: &'static str) -> [Gateway; 2] {
    let port = free_address().unwrap().port();
    let exchanges = [1, 2].map(|last| SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port)));
    let first = gateway(version, exchanges[0], &exchanges, None);
    let second = gateway(version, exchanges[1], &exchanges, Some(&first.pods));
    [first, second]
}

/// One of them, that answers the others at `exchange`.
fn gateway(
    version: &'static str,
    exchange: SocketAddr,
    exchanges: &[SocketAddr],
    pods: Option<&Arc<ModelServers>>,
) -> Gateway {
    let mut resources = Resources::of(FOLDER);
    resources.load_plugin_from_file();
    let mut service = resources.take("Service").remove(0);
    service["metadata"]["namespace"] = "default".into();
    // 15100 may be in use on this machine.
    service["spec"]["ports"][0]["targetPort"] = exchange.port().into();
    resources.take("NetworkPolicy");
    let filter = resources.the("EnvoyFilter");
    replace(filter, "inference-picker-gateways.istio-ingress.svc", "inference-picker-gateways.default.svc");
    let address = json!({"address": exchange.ip().to_string(), "port_value": exchange.port()}).to_string();
    replace(filter, r#"{"address":"0.0.0.0","port_value":15100}"#, &address);
    let mut kubernetes =
        vec![service, cluster::endpoint_slice(SERVICE, "http-exchange", exchange.port(), exchanges)];
    let labels = Front::IngressGateway.labels();
    kubernetes
        .extend(exchanges.iter().map(|exchange| cluster::pod(exchange.ip().to_string(), labels.clone())));
    let setup = Setup::of(Deployment::EnvoyFilter, resources, Front::IngressGateway, Backend::Service)
        .version(version)
        .kubernetes(kubernetes)
        .plugin(|plugin| plugin["pools"][0]["routingStrategy"] = "PREFIX_CACHE".into());
    pods.into_iter().fold(setup, Setup::pods).start()
}

fn long_prompt() -> Request {
    let text = "a long document, of which everybody asks something. ".repeat(60);
    post("/v1/completions").json(&json!({"model": "tiny", "max_tokens": 2, "prompt": text}))
}

/// Where a prompt is answered, and why it went there.
fn ask(gateway: &Gateway) -> (String, String) {
    let answer = gateway.send(long_prompt());
    assert_eq!(answer.status, 200, "{}", answer.text());
    std::thread::sleep(EXCHANGED);
    let lines = gateway.log(1);
    let decision = lines.last().unwrap()["decision"].as_str().unwrap();
    (answer.header("x-served-by").unwrap().to_owned(), decision.to_owned())
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn a_prompt_answered_through_one_gateway_is_matched_at_the_other() {
    for version in [OLDEST, NEWEST] {
        let [first, second] = two(version);
        std::thread::sleep(EXCHANGED);
        let (served_by, decision) = ask(&first);
        assert!(decision.contains("matched_blocks=0/"), "{version}: {decision}");
        for _ in 0..3 {
            let (again, decision) = ask(&second);
            assert_eq!(again, served_by, "{version}");
            assert!(!decision.contains("matched_blocks=0/"), "{version}: {decision}");
        }
    }
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn clients_learn_nothing() {
    let [first, _second] = two(NEWEST);
    let answer = first.send(get("/inference-picker/exchange"));
    assert!(answer.header("x-served-by").is_some(), "{answer:?}");
}

#[test]
#[ignore = "needs Istio: make test-istio"]
fn only_gateways_may_reach_the_port_of_the_exchange_and_everybody_all_others() {
    let mut resources = Resources::of(FOLDER);
    let listener = resources.the("EnvoyFilter").to_string();
    assert!(listener.contains(&json!({"address": "0.0.0.0", "port_value": PORT}).to_string()));
    assert_eq!(resources.the("Service")["spec"]["ports"][0]["port"], PORT);
    let policy = resources.the("NetworkPolicy")["spec"].clone();
    let gateways = json!([{"podSelector": {"matchLabels": Front::IngressGateway.labels()}}]);
    for port in 1..=u16::MAX {
        let allowed = policy["ingress"].as_array().unwrap().iter().filter(|rule| has_port(rule, port));
        let from: Vec<&Value> = allowed.map(|rule| &rule["from"]).collect();
        let expected = if port == PORT { &gateways } else { &Value::Null };
        assert_eq!(from, [expected], "{port}");
    }
}

/// Whether a rule of a NetworkPolicy is for this port of TCP.
fn has_port(rule: &Value, port: u16) -> bool {
    rule["ports"].as_array().unwrap().iter().filter(|ports| ports["protocol"] == "TCP").any(|ports| {
        let first = ports["port"].as_u64().unwrap();
        (first..=ports["endPort"].as_u64().unwrap_or(first)).contains(&port.into())
    })
}
