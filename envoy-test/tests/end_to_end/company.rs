//! The plugin in the company of other filters and of settings that it has no part in: what operators wrote reaches clients
//! in the form that they read, and what is known not to go together is as docs/limits.md and SECURITY.md say.

use crate::gateway::{BODY_MODES, CLUSTER, Gateway, Setup, chat};
use envoy_test::envoy::configuration::FilterPosition;
use envoy_test::envoy::{Configuration, OLDEST, Protocol, RawConnection, Request};
use hyper::Method;
use serde_json::{Value, json};

const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
const ROUTES: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes";
const PICK_HEADER: &str = "x-gateway-destination-endpoint";

/// As a firewall behind the plugin does: the header `x-firewall` says with which content type.
const FIREWALL: &str = r#"
    local pages = {
        text = {"text/plain", "You are not in the group llm-users.\n"},
        silent = {"text/plain", " "},
        odd = {"text/plain; charset=utf-8", "\255\0\27[1m \"no\""},
        long = {"text/plain", string.rep("x", 200000)},
        object = {"text/plain", '{"error": {"message": "mine"}}'},
        json = {"application/json", '["mine"]'},
        html = {"text/html", "<p>no"},
        grpc = {"application/grpc", "no"},
    }
    function envoy_on_request(request)
        local page = pages[request:headers():get("x-firewall")]
        if page ~= nil then
            request:respond({[":status"] = "403", ["content-type"] = page[1]}, page[2])
        end
    end
"#;

fn add_firewall(envoy: &mut Configuration) {
    let filter = json!({"name": "firewall", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
        "default_source_code": {"inline_string": FIREWALL},
    }});
    envoy.insert_filter(FilterPosition::Before("envoy.filters.http.router"), filter);
}

fn message(body: &Value) -> &str {
    body["error"]["message"].as_str().unwrap()
}

fn check_firewall(gateway: &Gateway, protocol: Protocol, what: &str) {
    let answer = |page: &str| {
        let answer = gateway.client(protocol).send_blocking(chat("tiny").header("x-firewall", page)).unwrap();
        assert_eq!(answer.status, 403, "{what}: {page}");
        (answer.header("content-type").unwrap().to_owned(), answer)
    };
    let translated = |page: &str| {
        let (content_type, answer) = answer(page);
        assert_eq!(content_type, "application/json", "{what}: {page}");
        answer.json().unwrap()
    };
    let text = translated("text");
    assert_eq!(text["error"]["message"], "You are not in the group llm-users.", "{what}");
    assert_eq!(text["error"]["type"], "invalid_request_error", "{what}");
    assert_eq!(text["error"]["code"], "gateway_error", "{what}");
    assert_eq!(
        message(&translated("silent")),
        "The gateway could not serve the request. (lua_response)",
        "{what}"
    );
    assert_eq!(message(&translated("odd")), "\u{fffd}  [1m \"no\"", "{what}");
    let long = translated("long");
    assert_eq!(message(&long).chars().count(), (16 << 10) + 1, "{what}");
    assert_eq!(translated("object"), json!({"error": {"message": "mine"}}), "{what}");
    for (page, content_type, body) in [
        ("json", "application/json", r#"["mine"]"#),
        ("html", "text/html", "<p>no"),
        ("grpc", "application/grpc", "no"),
    ] {
        let (found, answer) = answer(page);
        assert_eq!((found.as_str(), answer.text().as_str()), (content_type, body), "{what}: {page}");
    }
    let head = Request::new(Method::HEAD, "/v1/models").header("x-firewall", "text");
    let head = gateway.client(protocol).send_blocking(head).unwrap();
    assert_eq!((head.status, head.text().as_str()), (403, ""), "{what}");
    assert_eq!(head.header("content-type"), Some("application/json"), "{what}");
}

#[test]
fn what_a_firewall_behind_the_plugin_says_is_the_errors_message() {
    for configuration in BODY_MODES {
        let gateway = Setup::new(configuration).envoy(add_firewall).start();
        for protocol in [Protocol::Http1, Protocol::Http2] {
            check_firewall(&gateway, protocol, &format!("{configuration}, {protocol:?}"));
        }
        assert_eq!(gateway.send(chat("tiny")).status, 200, "{configuration}");
    }
    let gateway = Setup::new(BODY_MODES[0]).version(OLDEST).envoy(add_firewall).start();
    check_firewall(&gateway, Protocol::Http1, OLDEST);
}

/// `local_reply_config` replaces Envoy's own words; where it only adds to them, they stay readable.
#[test]
fn what_an_operator_has_envoy_say_is_the_errors_message() {
    let reply = |format: &str| {
        let format = json!({"text_format_source": {"inline_string": format}});
        move |envoy: &mut Configuration| {
            envoy.at(MANAGER)["local_reply_config"] = json!({"body_format": format})
        }
    };
    for configuration in BODY_MODES {
        for (format, expected) in [
            ("We are moving until six.", "We are moving until six."),
            (
                "%LOCAL_REPLY_BODY%",
                "No model server could be reached; try again later. (upstream connect error",
            ),
        ] {
            let gateway = Setup::new(configuration).envoy(reply(format)).start();
            (0..4).for_each(|index| gateway.pods.server(index).set(|knobs| knobs.refuse = true));
            let answer = gateway.send(chat("tiny"));
            assert_eq!(answer.status, 503, "{configuration}");
            assert!(
                message(&answer.json().unwrap()).starts_with(expected),
                "{configuration}: {}",
                answer.text()
            );
        }
    }
}

/// Two routes without the plugin; on the second, Envoy removes what the plugin would have.
fn add_routes_without_the_plugin(envoy: &mut Configuration) {
    let route = |prefix: &str, removed: &[&str]| {
        json!({
            "match": {"prefix": prefix},
            "typed_per_filter_config": {"inference-picker": {
                "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true}},
            "request_headers_to_remove": removed,
            "route": {"cluster": CLUSTER, "prefix_rewrite": "/"},
        })
    };
    let routes = envoy.at(ROUTES).as_array_mut().unwrap();
    routes.insert(0, route("/open/", &[]));
    routes.insert(0, route("/removed/", &[PICK_HEADER]));
}

/// A limit: see SECURITY.md.
#[test]
fn on_a_route_without_the_plugin_a_client_names_its_pod_unless_the_route_removes_the_header() {
    for configuration in BODY_MODES {
        let gateway = Setup::new(configuration).envoy(add_routes_without_the_plugin).start();
        let wish = gateway.pods.addresses()[2].to_string();
        let shares = |path: &str| {
            let request = Request::get(path).header(PICK_HEADER, &wish);
            gateway.shares(&gateway.burst(vec![request; 24]))
        };
        assert_eq!(shares("/open/v1/models"), [0, 0, 24, 0], "{configuration}");
        assert!(shares("/removed/v1/models")[2] < 24, "{configuration}");
        assert!(shares("/v1/models")[2] < 24, "{configuration}");
    }
}

/// A limit: a copy goes where the original went, by the same header, and the plugin does not know of it.
#[test]
fn a_mirrored_request_goes_to_the_same_pod_and_is_not_counted() {
    let mirror = |envoy: &mut Configuration| {
        for route in envoy.at(ROUTES).as_array_mut().unwrap() {
            route["route"]["request_mirror_policies"] = json!([{"cluster": CLUSTER}]);
        }
    };
    for configuration in BODY_MODES {
        let gateway = Setup::new(configuration).envoy(mirror).start();
        let answers: Vec<_> = (0..8).map(|_| gateway.send(chat("tiny"))).collect();
        let served = gateway.shares(&answers);
        let seen =
            || gateway.pods.servers().map(|pod| pod.counters().requests_for("tiny")).collect::<Vec<_>>();
        crate::gateway::until("the copies have come, too", || seen().iter().sum::<u64>() == 16);
        let doubled: Vec<u64> = served.iter().map(|share| 2 * *share as u64).collect();
        assert_eq!(seen(), doubled, "{configuration}");
    }
}

/// A limit: a pod sees the request only when its body is here, and nobody else may say that it is to come.
#[test]
fn with_proxy_100_continue_nobody_says_so_until_the_body_is_here() {
    let head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-type: application/json\r\n\
                content-length: 45\r\nconnection: close\r\n\r\n";
    let body = r#"{"model":"tiny","prompt":"Hi","max_tokens":2}"#;
    let proxied = |envoy: &mut Configuration| envoy.at(MANAGER)["proxy_100_continue"] = true.into();
    for configuration in BODY_MODES {
        let gateway = Setup::new(configuration).concurrency(1).envoy(proxied).start();
        let mut client = RawConnection::open(gateway.envoy.address()).unwrap();
        client.send(head).unwrap();
        assert_eq!(gateway.send(chat("tiny")).status, 200, "{configuration}");
        let asked = gateway.pods.servers().map(|pod| pod.counters().requests_to("/v1/completions"));
        assert_eq!(asked.sum::<u64>(), 0, "{configuration}");
        client.send(body).unwrap();
        let answer = client.read_to_end().unwrap();
        assert!(answer.contains("HTTP/1.1 200 OK"), "{configuration}: {answer}");

        let gateway = Setup::new(configuration).start();
        let mut client = RawConnection::open(gateway.envoy.address()).unwrap();
        client.send(head).unwrap();
        let answer = client.read_until("\r\n\r\n").unwrap();
        assert!(answer.starts_with("HTTP/1.1 100 Continue"), "{configuration}: {answer}");
    }
}
