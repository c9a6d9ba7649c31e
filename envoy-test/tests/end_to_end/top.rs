//! `make top`, where its output is no terminal.

use std::process::Command;
use std::time::Duration;

use crate::gateway::{MODELS, Setup, chat, texts};
use envoy_test::envoy::{Load, Protocol};

const REST_MAX: Duration = Duration::from_millis(100);

fn said(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_top")).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// The lines below a header that begins with this word, up to an empty one.
fn rows<'a>(frame: &'a str, header: &str) -> Vec<Vec<&'a str>> {
    let lines = frame.lines().skip_while(|line| !line.starts_with(header)).skip(1);
    lines.take_while(|line| !line.is_empty()).map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn an_envoy_that_runs_is_shown_pods_and_models_as_rows() {
    let gateway = Setup::new(MODELS).start();
    let models = ["lora-request", "qwen", "batch"];
    let client = gateway.client(Protocol::Http1);
    let _load = Load::start(client, 4, REST_MAX, move |index| chat(models[index % models.len()])).unwrap();
    let admin = format!("http://{}/", gateway.envoy.admin_address());
    let frame = said(&["--admin", &admin, "--seconds", "3"]).unwrap();
    let pods: Vec<&str> = rows(&frame, "POD").into_iter().map(|row| row[0]).collect();
    let mut addresses = texts(&gateway.pods.addresses());
    addresses.sort();
    assert_eq!(pods.len(), 4, "{frame}");
    assert!(addresses.iter().all(|address| pods.contains(&address.as_str())), "{frame}");
    for model in models {
        let rows = rows(&frame, "MODEL");
        let row = rows.iter().find(|row| row[0] == model).unwrap_or_else(|| panic!("no {model}: {frame}"));
        assert!(row[1].parse::<f64>().unwrap() > 0.0, "{model}: {frame}");
    }
}

#[test]
fn without_an_envoy_to_look_at_a_busy_one_is_started() {
    let frame = said(&["--once", "--seconds", "4"]).unwrap();
    let pods = rows(&frame, "POD");
    assert_eq!(pods.len(), 4, "{frame}");
    assert!(pods.iter().all(|row| row[1..].iter().all(|cell| *cell != "-")), "{frame}");
    assert!(!rows(&frame, "MODEL").is_empty(), "{frame}");
}

#[test]
fn what_is_no_envoy_with_the_plugin_is_said() {
    let error = said(&["--admin", "http://127.0.0.1:1", "--once"]).unwrap_err();
    assert!(error.contains("reading the statistics of http://127.0.0.1:1"), "{error}");
    let error = said(&["--admin", "nowhere"]).unwrap_err();
    assert!(error.contains("nowhere is not http://HOST:PORT"), "{error}");
}
