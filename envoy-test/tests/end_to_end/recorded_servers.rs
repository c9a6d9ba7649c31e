//! Exchanges of real servers of every kind, replayed: each recorded answer passes byte for byte, and what it has cost is
//! read right.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use envoy_test::envoy::binary::project_root;
use envoy_test::envoy::{Client, Protocol, Request};
use serde_json::Value;

use crate::gateway::{BODY_MODES, Setup};
use crate::recorded::read_request;

/// Names the recorded answer that a request is to get.
const EXCHANGE: &str = "x-exchange";
/// Bytes of an answer that are written at once, so that names and numbers are cut.
const PIECE_BYTES: usize = 7;
const LOG_FORMAT: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/access_log/0/typed_config/log_format/json_format";

/// An answer as it was recorded.
struct Answer {
    status: u16,
    content_type: String,
    body: Vec<u8>,
}

/// What an answer says it has cost: tokens of the prompt, of the output, and cached ones.
type Cost = (u64, u64, Option<u64>);

struct Recordings {
    folder: PathBuf,
    answers: BTreeMap<String, Answer>,
}

impl Recordings {
    /// Every exchange in a folder of fixtures that has a request, which is one that names a model or is not.
    fn load(server: &str, names_model: bool) -> Recordings {
        let folder = project_root().join("tests/fixtures").join(server);
        let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
        let names =
            files.filter_map(|name| Some(name.to_str().unwrap().strip_suffix(".req.json")?.to_owned()));
        // What is no JSON never leaves the gateway.
        let names = names.filter(|name| name != "err_bad_json");
        let names = names.filter(|name| names_one(&request_body(&folder, name)) == names_model);
        let answers = names.map(|name| {
            let answer = Answer::parse(&std::fs::read(folder.join(format!("{name}.http"))).unwrap());
            (name, answer)
        });
        Recordings { answers: answers.collect(), folder }
    }

    fn request(&self, name: &str) -> Request {
        let body = request_body(&self.folder, name);
        let path = path_of(name);
        Request::post(path).header("content-type", "application/json").header(EXCHANGE, name).body(body)
    }
}

fn request_body(folder: &Path, exchange: &str) -> Vec<u8> {
    std::fs::read(folder.join(format!("{exchange}.req.json"))).unwrap()
}

/// Whether a request names a model.
fn names_one(body: &[u8]) -> bool {
    let body: Value = serde_json::from_slice(body).unwrap();
    body["model"].as_str().is_some_and(|model| !model.is_empty())
}

impl Answer {
    fn parse(recorded: &[u8]) -> Answer {
        let end = recorded.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = std::str::from_utf8(&recorded[..end]).unwrap();
        let content_type = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-type").then(|| value.to_owned())
        });
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            content_type: content_type.unwrap_or_default(),
            body: recorded[end + 4..].to_vec(),
        }
    }
}

/// Where a request of this name was sent.
fn path_of(exchange: &str) -> &'static str {
    let api = exchange.split('_').next().unwrap();
    match (api, exchange) {
        (_, "count_tokens") => "/v1/messages/count_tokens",
        (_, "tokenize") => "/tokenize",
        (_, "path_unknown") => "/v1/nothing",
        (_, "path_without_version") => "/chat/completions",
        (_, "path_slash") => "/v1/chat/completions/",
        ("own", _) => "/completion",
        ("infill", _) => "/infill",
        ("comp", _) => "/v1/completions",
        ("responses", _) => "/v1/responses",
        ("messages", _) => "/v1/messages",
        _ => "/v1/chat/completions",
    }
}

/// A server that gives each request the recorded answer it names, in pieces.
fn replay(recordings: &Arc<Recordings>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let recordings = Arc::clone(recordings);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let recordings = Arc::clone(&recordings);
            std::thread::spawn(move || serve(stream, &recordings));
        }
    });
    address
}

fn serve(mut stream: TcpStream, recordings: &Recordings) -> std::io::Result<()> {
    while let Some((head, _)) = read_request(&mut stream)? {
        let name = head.lines().find_map(|line| line.strip_prefix(EXCHANGE)?.strip_prefix(": "));
        let Some(answer) = name.and_then(|name| recordings.answers.get(name)) else {
            write!(stream, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")?;
            continue;
        };
        let Answer { status, content_type, body } = answer;
        write!(
            stream,
            "HTTP/1.1 {status} Recorded\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n"
        )?;
        for piece in body.chunks(PIECE_BYTES) {
            stream.write_all(&[format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat())?;
        }
        stream.write_all(b"0\r\n\r\n")?;
    }
    Ok(())
}

fn logged(line: &Value, field: &str) -> Option<u64> {
    line[field].as_str().and_then(|text| text.parse().ok())
}

/// Every exchange of the folder passes as it was recorded, and those with a known cost are logged with it.
fn check(server: &str, names_model: bool, costs: &[(&str, Cost)]) {
    let recordings = Arc::new(Recordings::load(server, names_model));
    for (name, _) in costs {
        assert!(recordings.answers.contains_key(*name), "{server} has no {name}");
    }
    for configuration in BODY_MODES {
        let pod = replay(&recordings);
        let gateway = Setup::new(configuration).pods(vec![]).unscraped().start_with(|envoy, _| {
            envoy.place_endpoints(&[pod]);
            envoy.publish_all();
            for field in ["prompt_tokens", "completion_tokens", "cached_tokens"] {
                envoy.at(LOG_FORMAT)[field] = format!("%FILTER_STATE(wasm.llm_{field}:PLAIN)%").into();
            }
        });
        let client = Client::new(gateway.envoy.address(), Protocol::Http1);
        for (sent, (name, recorded)) in recordings.answers.iter().enumerate() {
            let answer = client.send_blocking(recordings.request(name)).unwrap();
            assert_eq!(answer.status, recorded.status, "{configuration}: {server}, {name}");
            let [came, was] =
                [&answer.body(), &recorded.body].map(|body| String::from_utf8_lossy(body).into_owned());
            assert_eq!(came, was, "{configuration}: {server}, {name}");
            let line = gateway.envoy.access_log_until(sent + 1).unwrap().pop().unwrap();
            if let Some((_, (prompt, completion, cached))) = costs.iter().find(|(one, _)| one == name) {
                let reported = ["prompt_tokens", "completion_tokens"].map(|field| logged(&line, field));
                assert_eq!(
                    reported,
                    [Some(*prompt), Some(*completion)],
                    "{configuration}: {server}, {name}: {line}"
                );
                let reported = logged(&line, "cached_tokens");
                assert_eq!(reported, *cached, "{configuration}: {server}, {name}: {line}");
            }
        }
    }
}

#[test]
fn answers_of_vllm_pass_and_are_counted() {
    let costs = [
        ("chat", (55, 12, Some(0))),
        ("chat_stream_usage", (55, 12, Some(32))),
        ("comp_stream_usage", (8, 8, Some(0))),
        ("responses", (30, 6, Some(0))),
        ("responses_stream", (6019, 6, Some(5984))),
        ("messages", (50, 6, Some(32))),
        ("messages_stream", (50, 6, Some(32))),
    ];
    check("vllm-0.32", true, &costs);
}

#[test]
fn answers_of_llama_cpp_pass_and_are_counted() {
    let costs = [
        ("chat_cached", (57, 6, Some(56))),
        ("chat_stream_usage", (57, 6, Some(56))),
        ("comp_stream", (18, 6, Some(17))),
        ("comp_stream_usage", (18, 6, Some(17))),
        ("responses_stream", (6026, 6, Some(6011))),
        ("messages", (57, 6, Some(22))),
        ("messages_stream", (57, 6, Some(56))),
    ];
    check("llama.cpp-0.3.36", true, &costs);
}

/// Whether they are served or refused is theirs to say: vLLM refuses some, llama.cpp none.
#[test]
fn answers_to_requests_without_a_model_pass_too() {
    check("vllm-0.32", false, &[("model_missing", (50, 6, Some(32))), ("model_null", (50, 6, Some(32)))]);
    check("llama.cpp-0.3.36", false, &[("model_null", (57, 6, Some(56)))]);
}
