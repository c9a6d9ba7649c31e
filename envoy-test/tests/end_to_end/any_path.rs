//! Whatever the path: a model that is named is resolved, and what cannot be read or names none is for the servers to decide.

use envoy_test::envoy::{Protocol, RawConnection, Request};
use serde_json::{Value, json};

use crate::gateway::{BODY_MODES, Gateway, STOP_ITERATION, Setup, chat, pod};
use crate::models::add_second_pool;
use envoy_test::model_server::ServerSettings;

/// The largest body that is read, where a test needs a small one.
const SMALL_BODY_LIMIT: usize = 2_000;

/// The model `asked` stands for the adapter `sent`, and an answer calls it as it was asked for.
fn gateway(configuration: &str, edit: impl Fn(&mut Value)) -> Gateway {
    let pods = vec![ServerSettings { lora_adapters: vec!["sent".into()], ..pod() }; 3];
    let edit = |plugin: &mut Value| {
        plugin["models"] = json!([{"modelName": "asked", "poolRef": {"name": "vllm-llama2-7b-pool"},
            "targetModels": [{"name": "sent"}]}]);
        plugin["responseModel"] = "requested".into();
        edit(plugin);
    };
    Setup::new(configuration).concurrency(2).pods(pods).plugin(edit).start()
}

fn named(model: &str) -> Value {
    let turns = json!([{"role": "user", "content": "Hi"}]);
    json!({"model": model, "messages": turns, "prompt": "Hi", "tokens": [1], "input": "Hi", "query": "Hi",
        "documents": ["Ho"], "queries": "Hi", "max_tokens": 2, "voice": "alloy"})
}

const PATHS: [&str; 20] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/tokenize",
    "/detokenize",
    "/v1/chat/completions/render",
    "/rerank",
    "/v1/rerank",
    "/score",
    "/pooling",
    "/classify",
    "/v1/moderations",
    "/v1/images/generations",
    "/v1/audio/speech",
    "/chat/completions",
    "/v1/chat/completions/",
    "/v1/chat/completion%73",
];

/// How many requests pods have had at this path for this model.
fn received(gateway: &Gateway, path: &str, model: &str) -> u64 {
    gateway.pods.servers().map(|pod| pod.counters().requests_to_for(path, model)).sum()
}

#[test]
fn a_model_is_resolved_at_every_path() {
    for configuration in BODY_MODES {
        let gateway = gateway(configuration, |_| ());
        for (index, path) in PATHS.iter().enumerate() {
            let answer = gateway.send(Request::post(path).json(&named("asked")));
            let what = format!("{configuration} {path}: {} {}", answer.status, answer.text());
            // A path that vLLM does not know is asked for at other pods, too.
            assert!(received(&gateway, path, "sent") > 0 && received(&gateway, path, "asked") == 0, "{what}");
            let model = answer.json().ok().and_then(|answer| answer["model"].as_str().map(str::to_owned));
            assert!(model.is_none_or(|model| model == "asked"), "{what}");
            let line = gateway.envoy.access_log_until(index + 1).unwrap().pop().unwrap();
            assert_eq!((&line["model"], &line["target_model"]), (&"asked".into(), &"sent".into()), "{line}");
            assert!(answer.status == 404 || line["upstream"] == crate::log::first_pick(&line), "{what}");
        }
        let unknown = gateway.send(Request::post("/rerank").json(&named("nobody's")));
        assert_eq!(unknown.json().unwrap()["error"]["code"], "model_not_found", "{configuration}");
    }
}

/// A form as clients send it: a file of any bytes, and the model before or behind it.
fn form(model: &str, is_behind: bool, file_bytes: usize) -> Vec<u8> {
    let file: Vec<u8> = (0..file_bytes).map(|index| (index * 37) as u8).collect();
    let head = "--x y\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\n";
    let file = [head.as_bytes(), &file, b"\r\n"].concat();
    let field =
        format!("--x y\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n").into_bytes();
    let parts = if is_behind { [file, field] } else { [field, file] };
    [&parts.concat()[..], b"--x y--\r\n"].concat()
}

fn post_form(path: &str, body: Vec<u8>) -> Request {
    Request::post(path).header("content-type", "multipart/form-data; boundary=\"x y\"").body(body)
}

#[test]
fn a_forms_model_is_resolved_wherever_it_stands() {
    for configuration in BODY_MODES {
        let gateway = gateway(configuration, |_| ());
        for path in ["/v1/audio/transcriptions", "/v1/audio/translations", "/v1/images/edits"] {
            for protocol in [Protocol::Http1, Protocol::Http2] {
                let before = received(&gateway, path, "sent");
                let behind = post_form(path, form("asked", true, 100_000));
                let forms = [
                    behind.clone(),
                    behind.clone().in_frames_of(7_000),
                    behind.trailer("x-checksum", "1"),
                    post_form(path, form("asked", false, 10)),
                    post_form(path, form("asked", true, 10)).in_frames_of(1),
                ];
                let count = forms.len() as u64;
                for request in forms {
                    let answer = gateway.client(protocol).send_blocking(request).unwrap();
                    assert_eq!(answer.status, 200, "{configuration} {path} {protocol:?}: {}", answer.text());
                }
                let seen = (received(&gateway, path, "sent") - before, received(&gateway, path, "asked"));
                assert_eq!(seen, (count, 0), "{configuration} {path} {protocol:?}");
            }
        }
    }
}

#[test]
fn every_path_and_every_form_reaches_the_pool_of_its_model() {
    for configuration in BODY_MODES {
        let gateway =
            Setup::new(configuration).start_with(|envoy, pods| add_second_pool(configuration, envoy, pods));
        for path in ["/rerank", "/v1/messages/count_tokens", "/tokenize"] {
            for (model, is_second) in [("tiny", false), ("other-model", true)] {
                let answer = gateway.send(Request::post(path).json(&named(model)));
                assert_eq!(gateway.served_by(&answer) >= 2, is_second, "{configuration} {path} {model}");
            }
        }
        let answer = gateway.send(post_form("/v1/audio/transcriptions", form("other-model", true, 5_000)));
        assert!(
            answer.status == 200 && gateway.served_by(&answer) >= 2,
            "{configuration}: {}",
            answer.text()
        );
    }
}

/// Uploads larger than the gateway reads passed it before it read any, so they still do.
#[test]
fn what_is_too_large_passes_unread_where_nothing_has_to_be_read() {
    for configuration in BODY_MODES {
        let gateway = gateway(configuration, |plugin| plugin["maxBodyBytes"] = SMALL_BODY_LIMIT.into());
        let speech = "/v1/audio/speech";
        let large = json!({"model": "asked", "input": "x".repeat(SMALL_BODY_LIMIT)});
        let transcripts = "/v1/audio/transcriptions";
        for (path, request) in [
            (transcripts, post_form(transcripts, form("asked", true, SMALL_BODY_LIMIT))),
            (speech, Request::post(speech).json(&large)),
        ] {
            for request in [request.clone(), request.in_frames_of(100)] {
                let answer = gateway.send(request);
                assert_eq!(answer.status, 404, "{configuration} {path}: {}", answer.text());
                assert!(answer.header("x-served-by").is_some(), "{configuration} {path}");
            }
            assert!(received(&gateway, path, "asked") >= 2, "{configuration} {path}");
        }
        let whole = post_form(transcripts, form("asked", true, SMALL_BODY_LIMIT / 2));
        assert_eq!(gateway.send(whole).status, 200, "{configuration}: announced, and just read");
    }
}

#[test]
fn what_names_no_model_or_cannot_be_read_passes_at_other_paths() {
    for configuration in BODY_MODES {
        let gateway = gateway(configuration, |_| ());
        let json = |body: &str| {
            Request::post("/v1/audio/speech").header("content-type", "application/json").body(body.to_owned())
        };
        let requests = [
            json(r#"{"input":"Hi"}"#),
            json(r#"{"model":null,"input":"Hi"}"#),
            json(r#"{"model":"","input":"Hi"}"#),
            json("{"),
            json(""),
            post_form("/v1/audio/transcriptions", b"--x y\r\n\r\nno end".to_vec()),
            post_form("/v1/audio/transcriptions", b"--x y--".to_vec()),
        ];
        let count = requests.len();
        for (index, request) in requests.into_iter().enumerate() {
            let answer = gateway.send(request);
            assert!(answer.header("x-served-by").is_some(), "{configuration} {index}: {}", answer.text());
        }
        for line in gateway.envoy.access_log_until(count).unwrap() {
            assert_eq!(line["model"], Value::Null, "{configuration}");
            assert!(line["decision"].as_str().unwrap().starts_with("DEFAULT"), "{configuration}: {line}");
        }
    }
}

/// What asks for no model, in every way, and the bytes that must reach the pod.
fn without_model() -> Vec<Request> {
    let bodies = [
        r#"{"prompt":"Hi","max_tokens":2}"#,
        r#"{"model":null,"prompt":"Hi","max_tokens":2}"#,
        r#"{"model":"","prompt":"Hi","max_tokens":2}"#,
    ];
    let post =
        |path: &str, body: String| Request::post(path).header("content-type", "application/json").body(body);
    let completions = bodies.map(|body| post("/v1/completions", body.to_owned()));
    let chats = bodies.map(|body| {
        let turns = r#""messages":[{"role":"user","content":"Hi"}]"#;
        post("/v1/chat/completions", body.replace(r#""prompt":"Hi""#, turns))
    });
    let responses = bodies.map(|body| post("/v1/responses", body.replace("prompt", "input")));
    [completions, chats, responses].concat()
}

#[test]
fn a_request_without_a_model_is_for_the_servers_to_decide() {
    for configuration in BODY_MODES {
        let published = gateway(configuration, |plugin| plugin["unknownModels"] = "passthrough".into());
        for gateway in [Setup::new(configuration).start(), published] {
            let requests = without_model();
            let count = requests.len();
            for request in requests {
                let answer = gateway.send(request);
                assert_eq!(answer.status, 200, "{configuration}: {}", answer.text());
                assert_eq!(answer.json().unwrap()["model"], "tiny", "{configuration}: the server's own");
            }
            for line in gateway.envoy.access_log_until(count).unwrap() {
                assert_eq!((&line["model"], &line["target_model"]), (&Value::Null, &Value::Null), "{line}");
                assert_eq!(line["upstream"], crate::log::first_pick(&line), "{configuration}: {line}");
            }
            let no_name = Request::post("/v1/completions").json(&json!({"model": 7, "prompt": "Hi"}));
            assert!(gateway.send(no_name).header("x-served-by").is_some(), "{configuration}: nor is that");
        }
        let refusing = gateway(configuration, |_| ());
        for request in without_model() {
            let answer = refusing.send(request);
            let code = answer.json().unwrap()["error"]["code"].clone();
            assert!(
                answer.status == 400 && ["missing_model", "invalid_model"].contains(&code.as_str().unwrap()),
                "{code}"
            );
        }
    }
}

#[test]
fn a_body_behind_a_byte_order_mark_is_read() {
    for configuration in BODY_MODES {
        let gateway = gateway(configuration, |_| ());
        for path in ["/v1/completions", "/rerank"] {
            let body = format!("\u{feff}{}", named("asked"));
            let request = Request::post(path).header("content-type", "application/json").body(body);
            let answer = gateway.send(request);
            assert_eq!(
                (answer.status, received(&gateway, path, "sent")),
                (200, 1),
                "{configuration}: {}",
                answer.text()
            );
        }
    }
}

/// Servers that do not look at these headers read the body all the same: llama.cpp any type, vLLM any encoding.
#[test]
fn a_body_that_is_called_something_else_is_read_where_a_prompt_is_expected() {
    for configuration in BODY_MODES {
        let gateway = gateway(configuration, |_| ());
        let disguises = [
            ("content-type", "text/plain"),
            ("content-type", "multipart/form-data; boundary=x"),
            ("content-type", "application/json,application/json"),
            ("content-encoding", "gzip"),
            ("content-encoding", "identity"),
            ("content-encoding", ""),
        ];
        for (index, (name, value)) in disguises.into_iter().enumerate() {
            let body = named("asked").to_string();
            let request = Request::post("/v1/completions").header(name, value).body(body);
            let request = if name == "content-type" {
                request
            } else {
                request.header("content-type", "application/json")
            };
            let answer = gateway.send(request);
            let what = format!("{configuration} {name}: {value}: {}", answer.text());
            assert_eq!(
                (answer.status, received(&gateway, "/v1/completions", "sent")),
                (200, index as u64 + 1),
                "{what}"
            );
        }
        assert_eq!(gateway.send(chat("nobody's").header("content-encoding", "gzip")).status, 404);
    }
}

#[test]
fn a_length_of_four_gibibytes_and_more_is_too_large() {
    for configuration in BODY_MODES {
        let gateway = Setup::new(configuration).start();
        for length in ["4294967296", "4294967300", "18446744073709551615"] {
            let mut connection = RawConnection::open(gateway.envoy.address()).unwrap();
            let head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
            connection.send(format!("{head}content-length: {length}\r\n\r\n")).unwrap();
            let answer = connection.read_until("}}").unwrap();
            assert!(
                answer.starts_with("HTTP/1.1 413") && answer.contains("request_too_large"),
                "{length}: {answer}"
            );
        }
    }
}

/// No other method has a prompt: what is sent with it is passed on.
#[test]
fn only_a_post_is_read() {
    let gateway = gateway(STOP_ITERATION, |_| ());
    for method in ["PUT", "DELETE", "HEAD", "post", "PATCH"] {
        let body = named("asked").to_string();
        let request = Request::new(method.parse().unwrap(), "/v1/completions")
            .header("content-type", "application/json");
        let answer = gateway.send(request.body(body));
        assert_ne!(answer.status, 200, "{method}");
    }
    assert_eq!(received(&gateway, "/v1/completions", "sent"), 0);
}
