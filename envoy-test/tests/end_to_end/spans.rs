//! What is on a request's span, as a collector gets it.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use crate::gateway::{OBSERVED, Setup, chat_with, until};
use serde_json::json;

/// A collector that keeps all it is sent and answers nothing.
fn collector() -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, received) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<u8>>>::default());
    let kept = Arc::clone(&received);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let kept = Arc::clone(&kept);
            std::thread::spawn(move || {
                let mut buffer = [0; 65_536];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    kept.lock().unwrap().extend(&buffer[..count]);
                }
            });
        }
    });
    (address, received)
}

/// The value of the first tag of this name: in protobuf, the name is followed by a message that holds one string.
fn tag(spans: &[u8], name: &str) -> Option<String> {
    let at = spans.windows(name.len()).position(|window| window == name.as_bytes())?;
    let [0x12, _, 0x0a, length, rest @ ..] = &spans[at + name.len()..] else { return None };
    Some(String::from_utf8(rest.get(..usize::from(*length))?.to_vec()).unwrap())
}

#[test]
fn a_span_has_the_fields_of_the_log() {
    let (address, received) = collector();
    // One worker, whose first span is that of the first line.
    let gateway = Setup::new(OBSERVED)
        .concurrency(1)
        .start_with(|envoy, _| envoy.set_endpoints("collector", &[address]));
    for _ in 0..5 {
        gateway.send(chat_with(json!({"model": "tiny", "max_tokens": 4, "stream": true})));
    }
    until("the spans are sent", || tag(&received.lock().unwrap(), "llm.ttft_ms").is_some());
    let spans = received.lock().unwrap();
    let line = &gateway.envoy.access_log_until(5).unwrap()[0];
    for (name, field) in [
        ("llm.model", "model"),
        ("llm.target_model", "target_model"),
        ("llm.dest", "picked"),
        ("llm.prompt_tokens", "prompt_tokens"),
        ("llm.completion_tokens", "completion_tokens"),
        ("llm.cached_tokens", "cached_tokens"),
        ("llm.ttft_ms", "ttft_ms"),
    ] {
        assert_eq!(tag(&spans, name).as_deref(), line[field].as_str(), "{name}");
    }
    assert!(spans.windows(12).any(|window| window == b"DEFAULT cost"), "the decision");
}
