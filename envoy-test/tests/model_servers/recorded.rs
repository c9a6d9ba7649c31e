//! Reads recorded exchanges: a request body and an answer with its head.

use std::collections::BTreeMap;
use std::path::Path;

/// A recorded answer.
pub struct Recorded {
    pub status: u16,
    /// By lower-case name.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

pub fn fixture(name: &str) -> String {
    fixture_of("vllm-0.32", name)
}

/// A recording of another server.
pub fn fixture_of(server: &str, name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(server);
    std::fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub fn recorded_answer(name: &str) -> Recorded {
    recorded_answer_of("vllm-0.32", name)
}

pub fn recorded_answer_of(server: &str, name: &str) -> Recorded {
    let text = fixture_of(server, &format!("{name}.http")).replace("\r\n", "\n");
    let (head, body) = text.split_once("\n\n").unwrap();
    let (status_line, headers) = head.split_once('\n').unwrap();
    let headers = headers.lines().filter_map(|line| line.split_once(": "));
    Recorded {
        status: status_line.split(' ').nth(1).unwrap().parse().unwrap(),
        headers: headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect(),
        body: body.to_owned(),
    }
}
