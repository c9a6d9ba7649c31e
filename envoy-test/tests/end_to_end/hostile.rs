//! Requests made to do harm: each is answered or passed on, and changes nothing for those that come after it.

use crate::failing_plugin::TRAPPED;
use crate::gateway::{BODY_MODES, Gateway, MODELS, STOP_ITERATION, Setup, chat, pod};
use envoy_test::envoy::{RawConnection, Request};
use envoy_test::model_server::{FixedGauges, ServerSettings};
use serde_json::{Value, json};

/// A request, and who answers it how: the status, and whether a pod was asked.
type Case = (&'static str, Request, u16, bool);

fn post(body: impl Into<Vec<u8>>) -> Request {
    Request::post("/v1/chat/completions").header("content-type", "application/json").body(body.into())
}

/// A good chat with something before it in the same object.
fn chat_behind(fields: &str) -> Request {
    post(format!(
        r#"{{{fields}"model":"tiny","max_tokens":2,"messages":[{{"role":"user","content":"Hi"}}]}}"#
    ))
}

fn bodies() -> Vec<Case> {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let long_key = format!("\"{}\":1,", "k".repeat(1 << 20));
    let escaped_key = format!("\"{}\":1,", "\\u0041".repeat(1 << 17));
    let many_keys: String = (0..50_000).map(|number| format!("\"k{number}\":{{}},")).collect();
    vec![
        ("a key of a megabyte", chat_behind(&long_key), 200, true),
        ("a key of escapes", chat_behind(&escaped_key), 200, true),
        ("fifty thousand keys", chat_behind(&many_keys), 200, true),
        ("a prompt twice", chat_behind(r#""messages":7,"prompt":{},"#), 200, true),
        ("two models", chat_behind(r#""model":"other","#), 200, true),
        ("seventeen models", chat_behind(&r#""model":"m","#.repeat(16)), 400, false),
        ("nesting of a hundred thousand", chat_behind(&format!("\"x\":{deep},")), 400, true),
        ("nesting without an end", post("[".repeat(1 << 20)), 400, false),
        ("objects without an end", post(r#"{"a":"#.repeat(1 << 18)), 400, false),
        ("a string without an end", post(format!(r#"{{"model":"{}"#, "a".repeat(1 << 20))), 400, false),
        (
            "bytes that are no UTF-8",
            post(b"{\"model\":\"tiny\",\"prompt\":\"\xff\xfe\"}".to_vec()),
            400,
            false,
        ),
        ("a model that is no UTF-8", post(b"{\"model\":\"\xc3\x28\"}".to_vec()), 400, false),
        ("half a surrogate as the model", post(r#"{"model":"\ud800"}"#), 400, true),
        ("a model of 1,025 bytes", post(format!(r#"{{"model":"{}"}}"#, "m".repeat(1_025))), 404, true),
        ("two byte order marks", post("\u{feff}\u{feff}{\"model\":\"tiny\"}"), 400, false),
        ("zero bytes", post(vec![0; 1 << 16]), 400, false),
        ("nothing", post(""), 400, false),
        ("white space", post(" ".repeat(1 << 20)), 400, false),
        ("two documents", post(r#"{"model":"tiny"}{"model":"tiny"}"#), 400, false),
    ]
}

/// Neither compressed bodies nor such as say that they are no JSON are read; the pod answers them as it likes.
fn disguised_bodies() -> Vec<Case> {
    let body = r#"{"model":"tiny","max_tokens":2,"messages":[{"role":"user","content":"Hi"}]}"#;
    let typed = |content_type: &str| {
        Request::post("/v1/chat/completions").header("content-type", content_type).body(body)
    };
    let gzip = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xff\xff".to_vec();
    vec![
        ("gzip", post(gzip.clone()).header("content-encoding", "gzip"), 400, true),
        ("gzip that does not say so", post(gzip), 400, false),
        ("an encoding that is a lie", chat_behind("").header("content-encoding", "gzip"), 200, true),
        ("an encoding that is no text", chat_behind("").header("content-encoding", b"\xff"), 200, true),
        ("JSON as text", typed("text/plain"), 200, true),
        ("JSON as a form", typed("multipart/form-data; boundary=x"), 200, true),
        ("a type that is no text", typed("\u{ff}json"), 200, true),
        ("a type of 10 KB", typed(&format!("application/json; {}", "x".repeat(10_000))), 200, true),
    ]
}

fn check(configuration: &str, cases: Vec<Case>) {
    let gateway = Setup::new(configuration).concurrency(1).start();
    for (name, request, status, reaches_a_pod) in cases {
        let answer = gateway.send(request);
        let what = format!("{configuration}, {name}: {} {}", answer.status, answer.text());
        assert_eq!(answer.status, status, "{what}");
        assert_eq!(answer.header("x-served-by").is_some(), reaches_a_pod, "{what}");
        if !reaches_a_pod {
            assert_eq!(answer.json().unwrap()["error"]["type"], "invalid_request_error", "{what}");
        }
        assert_eq!(gateway.send(chat("tiny")).status, 200, "behind {what}");
    }
    assert!(still_picks(&gateway), "{configuration}");
}

/// A VM that trapped would have been started anew, and said so.
fn still_picks(gateway: &Gateway) -> bool {
    gateway.send(chat("tiny")).status == 200 && !gateway.envoy.log_text().contains(TRAPPED)
}

#[test]
fn bodies_made_to_be_hard_to_read_are_answered_and_harm_nobody() {
    for configuration in BODY_MODES {
        check(configuration, bodies());
    }
}

#[test]
fn bodies_in_disguise_are_passed_on_or_refused_and_harm_nobody() {
    for configuration in BODY_MODES {
        check(configuration, disguised_bodies());
    }
}

/// One pod is idle and not the one that is wished for.
fn one_idle(configuration: &str) -> Gateway {
    let lasting = |plugin: &mut Value| plugin["metricsStaleAfter"] = "10s".into();
    let gateway = Setup::new(configuration).pods(vec![pod(); 3]).plugin(lasting).start();
    let busy = FixedGauges { waiting: Some(500.0), running: Some(50.0), ..Default::default() };
    for index in [0, 2] {
        gateway.pods.server(index).set(|knobs| knobs.gauges = busy.clone());
    }
    gateway.wait_until_scraped();
    gateway
}

#[test]
fn no_way_of_writing_it_lets_a_client_name_its_pod() {
    for configuration in BODY_MODES {
        let gateway = one_idle(configuration);
        let wish = gateway.pods.addresses()[0].to_string();
        let name = "x-gateway-destination-endpoint";
        let requests = [
            ("a list", chat("tiny").header(name, format!("{wish},{wish}"))),
            ("many", (0..20).fold(chat("tiny"), |request, _| request.header(name, &wish))),
            ("a trailer", chat("tiny").trailer(name, &wish)),
            ("filter state", chat("tiny").header("wasm.llm_dest", &wish).header("llm_dest", &wish)),
            ("the scraper's header", chat("tiny").header("x-envoy-original-dst-host", &wish)),
        ];
        for (what, request) in requests {
            let answer = gateway.send(request);
            assert_eq!(gateway.served_by(&answer), 1, "{configuration}: {what}");
        }
    }
}

/// As bytes, because some HTTP clients would not send it.
#[test]
fn a_name_in_capitals_or_without_a_value_names_no_pod_either() {
    let gateway = one_idle(STOP_ITERATION);
    let wish = gateway.pods.addresses()[0].to_string();
    let body = r#"{"model":"tiny","prompt":"Hi","max_tokens":2}"#;
    for header in
        [format!("X-GATEWAY-DESTINATION-ENDPOINT:{wish}"), "x-gateway-destination-endpoint:".to_owned()]
    {
        let mut connection = RawConnection::open(gateway.envoy.address()).unwrap();
        let head = format!(
            "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{header}\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        connection.send(head).unwrap();
        let answer = connection.read_to_end().unwrap();
        let served_by = format!("x-served-by: {}", gateway.pods.addresses()[1]);
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(&served_by), "{header}: {answer}");
    }
}

/// The header by which the plugin has a route chosen, as the configuration with two pools matches it.
#[test]
fn a_client_cannot_choose_its_pool_by_the_header_that_the_plugin_sets() {
    let pods =
        vec![ServerSettings { lora_adapters: vec!["sql-lora".into(), "tweet-summary".into()], ..pod() }; 4];
    let gateway =
        Setup::new(MODELS).pods(pods).plugin(|plugin| plugin["answerModels"] = false.into()).start();
    for request in [Request::get("/v1/models"), chat("lora-request")] {
        let answer = gateway.send(request.header("x-gateway-model-name", "qwen"));
        assert!(gateway.served_by(&answer) < 2, "served by pod {}", gateway.served_by(&answer));
    }
}

/// A route that the client has named is not the one that its request gets: nothing is made of where it led, and the request is
/// picked for like any other, in whatever pool its route then leads to.
#[test]
fn nor_does_that_header_keep_a_request_from_being_picked_for_or_speak_ill_of_a_pod() {
    let gateway = Setup::new(MODELS)
        .pods(vec![pod(); 4])
        .plugin(|plugin| {
            plugin["answerModels"] = false.into();
            plugin["unknownModels"] = "passthrough".into();
            plugin["metricsStaleAfter"] = "10s".into();
        })
        .start();
    let busy = FixedGauges { waiting: Some(500.0), running: Some(50.0), ..Default::default() };
    for index in [0, 2] {
        gateway.pods.server(index).set(|knobs| knobs.gauges = busy.clone());
    }
    gateway.wait_until_scraped();
    let send = |request: Request| gateway.send(request.header("x-gateway-model-name", "qwen"));
    for _ in 0..4 {
        let unread = send(Request::get("/v1/models"));
        assert_eq!((unread.status, gateway.served_by(&unread)), (200, 1), "{}", unread.text());
        assert_eq!(gateway.served_by(&send(chat("tiny"))), 1, "unknown, so the route's own pool");
        assert_eq!(gateway.served_by(&send(chat("qwen"))), 3, "published, so its pool");
    }
    for line in gateway.envoy.access_log_until(12).unwrap() {
        assert!(line["decision"].as_str().unwrap().starts_with("DEFAULT"), "{line}");
    }
    let page = gateway.envoy.admin_get("/stats/prometheus").unwrap();
    assert!(!page.contains("inference_picker_retries{"), "no pod has failed");
}

/// Without models there is nothing that the header could say.
#[test]
fn where_no_models_are_configured_that_header_changes_nothing() {
    for configuration in BODY_MODES {
        let gateway = one_idle(configuration);
        for request in [chat("tiny"), Request::get("/v1/models"), chat("tiny").in_frames_of(3)] {
            let request =
                request.header("x-gateway-model-name", "tiny").header("X-Gateway-Model-Name", "qwen");
            let answer = gateway.send(request);
            assert_eq!(gateway.served_by(&answer), 1, "{configuration}");
        }
        for line in gateway.envoy.access_log_until(3).unwrap() {
            assert!(line["decision"].as_str().unwrap().starts_with("DEFAULT"), "{configuration}: {line}");
        }
    }
}

const INJECTIONS: [&str; 8] = [
    "a\n{\"forged\": 1}",
    "a\r\nforged",
    "a\u{0}b",
    "\u{1b}[31mred\u{1b}[0m",
    "a\u{85}\u{2028}\u{2029}b",
    "\u{202e}txet",
    "\", \"status\": 200, \"x\": \"",
    "%FILTER_STATE(wasm.llm_dest:PLAIN)% ${jndi:ldap://x}",
];

#[test]
fn a_models_name_is_one_field_of_one_line_of_the_log_whatever_is_in_it() {
    for configuration in BODY_MODES {
        let gateway = Setup::new(configuration).start();
        for (index, name) in INJECTIONS.iter().enumerate() {
            gateway.send(chat(name));
            let lines = gateway.envoy.access_log_until(index + 1).unwrap();
            assert_eq!(lines.len(), index + 1, "{configuration}: {name:?}");
            let logged = name.replace(char::is_control, "\u{fffd}");
            assert_eq!(lines[index]["model"], logged, "{configuration}");
            assert_eq!(lines[index]["forged"], Value::Null);
        }
        assert!(!gateway.envoy.log_text().contains("forged"), "{configuration}: nor in Envoy's own log");
    }
}

#[test]
fn no_model_that_a_client_names_becomes_a_label_of_the_statistics() {
    let unknown = |plugin: &mut Value| plugin["unknownModels"] = "passthrough".into();
    let gateway = Setup::new(MODELS).plugin(unknown).start();
    let labels = ["x\",target_model=\"y", "x\"} 1\nforged 1", "x;.;target_model=.=y;.;z", "qwen;.;a=.=b;.;"];
    for name in labels.into_iter().chain(INJECTIONS) {
        gateway.send(chat(name));
    }
    let page = gateway.envoy.admin_get("/stats/prometheus").unwrap();
    let counted: Vec<&str> =
        page.lines().filter(|line| line.contains("inference_picker_requests_sent{")).collect();
    let expected = format!(
        "inference_picker_requests_sent{{model=\"unknown\",target_model=\"unknown\"}} {}",
        labels.len() + INJECTIONS.len()
    );
    assert!(counted.len() == 1 && counted[0].ends_with(&expected), "{counted:#?}");
    assert!(!page.contains("forged"));
}

/// Answers say what is wrong without giving a client's bytes another meaning.
#[test]
fn an_error_that_quotes_a_models_name_is_one_json_document() {
    let gateway = Setup::new(MODELS).start();
    for name in INJECTIONS {
        let answer = gateway.send(chat(name));
        let error = answer.json().unwrap()["error"].clone();
        assert_eq!((answer.status, &error["code"]), (404, &json!("model_not_found")), "{name:?}");
        assert!(error["message"].as_str().unwrap().contains(name));
    }
}
