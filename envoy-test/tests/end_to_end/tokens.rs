//! The usage of streams: asked for where the client does not ask, and taken out again.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::Duration;

use crate::gateway::{BODY_MODES, Gateway, Setup, chat_with};
use crate::recorded::{fixture, read_request, recorded_body, recorded_body_of};
use envoy_test::envoy::{Client, Protocol, Request};
use serde_json::{Value, json};

/// The sample that a server answers a streaming chat or completions request with, by what it asks for.
fn sample(api: &str, asks: bool) -> String {
    format!("{api}_stream{}.http", if asks { "_usage" } else { "" })
}

/// Between the two writes of an answer, for Envoy to read them apart.
const PAUSE: Duration = Duration::from_millis(1);

/// A server that streams what a real one did, in two writes, cut where the request's `x-cut` says.
struct TwoWrites {
    address: SocketAddr,
    /// The bodies of the requests that came.
    bodies: Arc<Mutex<Vec<String>>>,
}

/// How it answers.
#[derive(Clone, Copy, Default)]
struct Style {
    /// Whose stream it is; vLLM's if none is named.
    server: Option<&'static str>,
    /// Lines ahead of the data of each event.
    lines: &'static str,
    /// One more header, with its line end.
    header: &'static str,
    /// A trailer, with its line end.
    trailer: &'static str,
}

impl TwoWrites {
    fn start(style: Style) -> TwoWrites {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, bodies) = (listener.local_addr().unwrap(), Arc::default());
        let noted = Arc::clone(&bodies);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let noted = Arc::clone(&noted);
                std::thread::spawn(move || serve(stream, style, &noted));
            }
        });
        TwoWrites { address, bodies }
    }

    fn gateway(&self, configuration: &str, edit: impl FnMut(&mut Value)) -> Gateway {
        let setup = Setup::new(configuration).pods(vec![]).unscraped().plugin(edit);
        setup.start_with(|envoy, _| envoy.place_endpoints(&[self.address]))
    }

    /// The JSON text that came last, without what is around it if it came in chunks.
    fn last_body(&self) -> String {
        let body = self.bodies.lock().unwrap().last().unwrap().clone();
        body[body.find('{').unwrap()..=body.rfind('}').unwrap()].to_owned()
    }
}

/// An answer with these lines ahead of the data of each event.
fn with_lines(lines: &str, answer: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(answer).replace("data: ", &format!("{lines}data: ")).into_bytes()
}

fn serve(mut stream: TcpStream, style: Style, bodies: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let Style { lines, header, trailer, .. } = style;
    stream.set_nodelay(true)?;
    while let Some((head, body)) = read_request(&mut stream)? {
        if head.starts_with("GET /metrics") {
            write!(stream, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")?;
            continue;
        }
        let api = if head.contains("/chat/") { "chat" } else { "comp" };
        let answer = style.recorded(&sample(api, body.contains(r#""include_usage":true"#)));
        let answer = with_lines(lines, &answer);
        bodies.lock().unwrap().push(body);
        let cut =
            head.lines().find_map(|line| line.strip_prefix("x-cut: ")).map_or(0, |cut| cut.parse().unwrap());
        let (first, second) = answer.split_at(cut);
        let kind = "text/event-stream; charset=utf-8";
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{header}transfer-encoding: chunked\r\n\r\n"
        )?;
        for part in [first, second].into_iter().filter(|part| !part.is_empty()) {
            stream.write_all(&[format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat())?;
            sleep(PAUSE);
        }
        write!(stream, "0\r\n{trailer}\r\n")?;
    }
    Ok(())
}

impl Style {
    /// The body of an answer as it was recorded.
    fn recorded(self, name: &str) -> Vec<u8> {
        self.server.map_or_else(|| recorded_body(name), |server| recorded_body_of(server, name))
    }
}

/// The recorded streaming request of an API; with or without asking for its usage.
fn request(api: &str, asks: bool) -> Request {
    let path = if api == "chat" { "/v1/chat/completions" } else { "/v1/completions" };
    let body = fixture(&sample(api, asks).replace(".http", ".req.json"));
    Request::post(path).header("content-type", "application/json").body(body)
}

/// A recorded stream with usage as it is recorded without: the last event but one is only for those who asked for it, and its
/// `system_fingerprint` stands at the end of the one before.
fn without_usage(stream: &str) -> String {
    let (events, done) = stream.split_once("data: [DONE]").unwrap();
    let (outputs, usage) = events.trim_end().rsplit_once("}\n\ndata: ").unwrap();
    let (usage, fingerprint) = usage.rsplit_once("}}").unwrap();
    assert!(
        usage.contains(r#""choices":[],"usage":{"#) && fingerprint.starts_with(r#","system_fingerprint":"#)
    );
    format!("{outputs}{fingerprint}\n\ndata: [DONE]{done}")
}

/// What a client sees, at every `step`-th place at which the server's answer may be cut in two.
fn check_cuts(configuration: &str, api: &str, asks: bool, step: usize) {
    const CLIENTS: usize = 8;
    let server = TwoWrites::start(Style::default());
    let gateway = server.gateway(configuration, |_| ());
    let sent = String::from_utf8(recorded_body(&sample(api, true))).unwrap();
    let expected = if asks { sent.clone() } else { without_usage(&sent) };
    let client = Client::new(gateway.envoy.address(), Protocol::Http1);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cuts: Vec<usize> = (0..sent.len()).step_by(step).collect();
    let tasks: Vec<_> = (0..CLIENTS)
        .map(|place| {
            let own: Vec<usize> = cuts.iter().copied().skip(place).step_by(CLIENTS).collect();
            let (expected, api, configuration) = (expected.clone(), api.to_owned(), configuration.to_owned());
            runtime.spawn(async move {
                let mut connection = client.connect().await.unwrap();
                for cut in own {
                    let request = request(&api, asks).header("x-cut", cut.to_string());
                    let answer = connection.send(request).await.unwrap();
                    assert_eq!(answer.text(), expected, "{configuration}, {api}, asks {asks}, cut at {cut}");
                }
            })
        })
        .collect();
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
    assert!(server.bodies.lock().unwrap().len() == cuts.len());
    assert!(server.last_body().contains(r#""include_usage":true"#), "{}", server.last_body());
}

#[test]
fn a_stream_is_what_it_would_be_without_the_plugin_wherever_it_is_cut() {
    for api in ["chat", "comp"] {
        check_cuts(BODY_MODES[0], api, false, 1);
        check_cuts(BODY_MODES[0], api, true, 11);
        for asks in [false, true] {
            check_cuts(BODY_MODES[1], api, asks, 11);
        }
    }
}

#[test]
fn streams_are_asked_for_their_usage_in_bodies_of_every_form() {
    for configuration in BODY_MODES {
        let server = TwoWrites::start(Style::default());
        let gateway = server.gateway(configuration, |_| ());
        let expected = without_usage(&String::from_utf8(recorded_body(&sample("chat", true))).unwrap());
        for form in [
            request("chat", false),
            request("chat", false).in_frames_of(50),
            request("chat", false).trailer("x-checksum", "1"),
        ] {
            for protocol in [Protocol::Http1, Protocol::Http2] {
                let answer = gateway.client(protocol).send_blocking(form.clone()).unwrap();
                assert_eq!(answer.text(), expected, "{configuration}, {protocol:?}");
                let asked: Value = serde_json::from_str(&server.last_body()).unwrap();
                assert_eq!(asked["stream_options"], json!({"include_usage": true}), "{configuration}");
            }
        }
    }
}

#[test]
fn a_configuration_may_leave_streams_as_they_are() {
    for configuration in BODY_MODES {
        let server = TwoWrites::start(Style::default());
        let gateway = server.gateway(configuration, |plugin| plugin["includeUsage"] = false.into());
        for asks in [false, true] {
            let answer = gateway.send(request("chat", asks));
            assert_eq!(answer.body(), recorded_body(&sample("chat", asks)), "{configuration}");
            let sent =
                String::from_utf8(fixture(&sample("chat", asks).replace(".http", ".req.json"))).unwrap();
            assert_eq!(server.last_body(), sent, "{configuration}");
        }
    }
}

/// The event that is taken out leaves none of its lines, at which some clients raise.
#[test]
fn an_event_is_taken_out_with_all_its_lines_wherever_it_is_cut() {
    const LINES: &str = "id: 7\nevent: chunk\n";
    for configuration in BODY_MODES {
        let server = TwoWrites::start(Style { lines: LINES, ..Style::default() });
        let gateway = server.gateway(configuration, |_| ());
        let sent = String::from_utf8(recorded_body(&sample("comp", true))).unwrap();
        let expected = with_lines(LINES, without_usage(&sent).as_bytes());
        let whole = with_lines(LINES, sent.as_bytes()).len();
        for cut in (whole - 600..whole).step_by(7) {
            let answer = gateway.send(request("comp", false).header("x-cut", cut.to_string()));
            assert_eq!(answer.body(), expected, "{configuration}, cut at {cut}");
        }
    }
}

/// In chats llama.cpp moves its `timings` to the event that is taken out: they are back where they stand without usage.
#[test]
fn llama_cpps_timings_are_put_back_where_the_usage_was_asked_for_by_the_gateway() {
    const LLAMA_CPP: &str = "llama.cpp-0.3.36";
    for configuration in BODY_MODES {
        let server = TwoWrites::start(Style { server: Some(LLAMA_CPP), ..Style::default() });
        let gateway = server.gateway(configuration, |_| ());
        let sent = String::from_utf8(recorded_body_of(LLAMA_CPP, &sample("chat", true))).unwrap();
        let expected = without_moved_timings(&sent);
        // Where the server itself puts them if nobody asks for the usage.
        let unasked = String::from_utf8(recorded_body_of(LLAMA_CPP, &sample("chat", false))).unwrap();
        assert_eq!(members_of_last_event(&expected), members_of_last_event(&unasked));
        for cut in (0..sent.len()).rev().take(900).step_by(11) {
            let answer = gateway.send(request("chat", false).header("x-cut", cut.to_string()));
            assert_eq!(answer.text(), expected, "{configuration}, cut at {cut}");
        }
        assert_eq!(gateway.send(request("chat", true)).text(), sent, "{configuration}: asked for");
    }
}

/// A stream with usage as it is without: its last event is gone, and the event before has the timings.
fn without_moved_timings(stream: &str) -> String {
    let (events, done) = stream.split_once("data: [DONE]").unwrap();
    let (outputs, usage) = events.trim_end().rsplit_once("}\n\ndata: ").unwrap();
    assert!(usage.contains(r#""choices":[]"#) && usage.contains(r#""usage":{"#), "{usage}");
    let (_, timings) = usage.rsplit_once(r#","timings":"#).unwrap();
    format!(r#"{outputs},"timings":{timings}"#) + &format!("\n\ndata: [DONE]{done}")
}

/// The names in the last event with output, in their order.
fn members_of_last_event(stream: &str) -> Vec<String> {
    let event = stream.lines().rfind(|line| line.starts_with("data: {")).unwrap();
    let event: Value = serde_json::from_str(&event["data: ".len()..]).unwrap();
    event.as_object().unwrap().keys().cloned().collect()
}

/// Servers that send trailers: with them the end of a body is never announced, and nothing can be written any more.
#[test]
fn a_stream_that_ends_with_trailers_is_whole() {
    const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    for configuration in BODY_MODES {
        for trailer in ["", "x-checksum: 7\r\n"] {
            let server = TwoWrites::start(Style { trailer, ..Style::default() });
            let gateway = Setup::new(configuration).pods(vec![]).unscraped().start_with(|envoy, _| {
                envoy.place_endpoints(&[server.address]);
                let options = json!({
                    "@type": format!("type.googleapis.com/{HTTP_OPTIONS}"),
                    "explicit_http_config": {"http_protocol_options": {"enable_trailers": true}},
                });
                envoy.at("/static_resources/clusters/0")["typed_extension_protocol_options"] =
                    json!({ HTTP_OPTIONS: options });
            });
            let sent = String::from_utf8(recorded_body(&sample("chat", true))).unwrap();
            for (asks, expected) in [(false, without_usage(&sent)), (true, sent.clone())] {
                for cut in [0, sent.len() / 2, sent.len() - 1] {
                    let answer = gateway.send(request("chat", asks).header("x-cut", cut.to_string()));
                    let what = format!("{configuration}, asks {asks}, cut at {cut}, {trailer:?}");
                    assert_eq!(answer.text(), expected, "{what}");
                    let came = answer.trailers.as_ref().and_then(|trailers| trailers.get("x-checksum"));
                    assert_eq!(came.is_some(), !trailer.is_empty(), "{what}");
                }
            }
        }
    }
}

/// Some servers and filters name an encoding that is none.
#[test]
fn a_stream_that_is_encoded_in_name_only_is_read() {
    for (configuration, header) in BODY_MODES.iter().flat_map(|configuration| {
        ["content-encoding: identity\r\n", "content-encoding: none\r\n"].map(|header| (configuration, header))
    }) {
        let server = TwoWrites::start(Style { header, ..Style::default() });
        let gateway = server.gateway(configuration, |_| ());
        let expected = without_usage(&String::from_utf8(recorded_body(&sample("chat", true))).unwrap());
        assert_eq!(gateway.send(request("chat", false)).text(), expected, "{configuration} {header}");
    }
}

/// A server that reports its usage to everybody is not robbed of it.
#[test]
fn clients_of_a_server_that_reports_usage_to_everybody_keep_it() {
    for configuration in BODY_MODES {
        let gateway = Setup::new(configuration).start();
        gateway.pods.servers().for_each(|pod| pod.set(|knobs| knobs.force_include_usage = true));
        let answer =
            gateway.send(chat_with(json!({"model": "tiny", "max_tokens": 3, "stream": true}))).text();
        assert!(answer.contains(r#""choices":[],"usage":{"#), "{configuration}: {answer}");
    }
}

/// What is compressed cannot be read, and passes; and is counted as such.
#[test]
fn a_compressed_stream_passes_as_it_is() {
    for configuration in BODY_MODES {
        let server = TwoWrites::start(Style { header: "content-encoding: br\r\n", ..Style::default() });
        let gateway = server.gateway(configuration, |_| ());
        let answer = gateway.send(request("chat", false));
        assert_eq!(answer.body(), recorded_body(&sample("chat", true)), "{configuration}");
        let page = gateway.envoy.admin_get("/stats/prometheus").unwrap();
        assert!(page.contains("inference_picker_answers_encoded{model=\"unknown\"} 1\n"), "{configuration}");
    }
}

/// An answer with a length keeps it where nothing is to be changed in it.
#[test]
fn a_whole_answer_keeps_its_length() {
    for configuration in BODY_MODES {
        let gateway = Setup::new(configuration).start();
        for streamed in [false, true] {
            let fields =
                json!({"model": if streamed { "nope" } else { "tiny" }, "max_tokens": 2, "stream": streamed});
            let answer = gateway.send(chat_with(fields));
            let length = answer.header("content-length").map(|length| length.parse::<usize>().unwrap());
            assert_eq!(length, Some(answer.body().len()), "{configuration}, streamed {streamed}");
        }
    }
}
