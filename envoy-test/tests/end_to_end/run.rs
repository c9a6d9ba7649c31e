//! `make run`, as a user sees it.

use std::process::{Child, Command, Stdio};

use crate::gateway::{four_pods, texts, until};
use envoy_test::model_server::{MetricsPage, ModelServers, ServerSettings};
use rustix::process::{Pid, Signal, kill_process};

fn run(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_run"));
    command.arg("--free-ports").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn said(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// The lines that stand for requests.
fn requests(said: &str) -> Vec<Vec<&str>> {
    let lines = said.lines().filter(|line| line.starts_with("200 "));
    lines.map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn a_mixed_burst_is_shown_one_line_a_request() {
    let said = said(run(&["--once"]).spawn().unwrap());
    let requests = requests(&said);
    assert_eq!(requests.len(), 24, "{said}");
    let seen = |column: usize, word: &str| requests.iter().any(|words| words[column] == word);
    for (column, word) in [
        (1, "/v1/chat/completions"),
        (1, "/v1/completions"),
        (2, "stream"),
        (2, "whole"),
        (3, "tiny"),
        (3, "sql-lora"),
    ] {
        assert!(seen(column, word), "{word}: {said}");
    }
    assert!(requests.iter().all(|words| words[5] == "DEFAULT" && words[6].starts_with("cost=")), "{said}");
    let counted =
        said.lines().find_map(|line| line.strip_prefix("statistics     24 requests, ")).expect(&said);
    assert!(
        counted.contains(" prompt tokens (") && counted.contains(", 384 completion tokens, "),
        "{counted}"
    );
    assert!(counted.ends_with(" ms") && !counted.contains('-'), "{counted}");
    assert!(said.contains("curl http://127.0.0.1:") && said.contains("access log     /"), "{said}");
}

#[test]
fn it_runs_in_front_of_the_users_own_servers() {
    let pods = ModelServers::start(four_pods()).unwrap();
    let endpoints = texts(&pods.addresses()).join(",");
    let said = said(
        run(&["--once", "--endpoints", &endpoints, "--configuration", "worker-scraping"]).spawn().unwrap(),
    );
    assert_eq!(requests(&said).len(), 24, "{said}");
    assert_eq!(pods.servers().map(|pod| pod.counters().requests_for("tiny")).sum::<u64>(), 24);
}

/// Without their metrics it would pick by what is in flight alone, and say so.
#[test]
fn it_can_be_given_the_kind_of_the_users_servers() {
    let pods = four_pods().into_iter();
    let pods = pods.map(|pod| ServerSettings { metrics_page: MetricsPage::LlamaCpp, ..pod });
    let pods = ModelServers::start(pods.collect()).unwrap();
    let endpoints = texts(&pods.addresses()).join(",");
    let said = said(run(&["--once", "--endpoints", &endpoints, "--server", "llama.cpp"]).spawn().unwrap());
    assert!(said.starts_with("model servers  yours\n"), "{said}");
    assert!(
        requests(&said).iter().all(|words| words.iter().any(|word| word.starts_with("running="))),
        "{said}"
    );
}

#[test]
fn a_kind_of_server_that_it_cannot_start_needs_endpoints() {
    for (server, why) in [("sglang", "name servers of yours"), ("nobody", "unknown variant")] {
        let output = run(&["--once", "--server", server]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(why), "{server}: {said}");
    }
}

#[test]
fn it_runs_the_configuration_with_models() {
    let said = said(run(&["--once", "--configuration", "models"]).spawn().unwrap());
    let requests = requests(&said);
    assert_eq!(requests.len(), 24, "{said}");
    for model in ["lora-request", "qwen", "batch"] {
        assert_eq!(requests.iter().filter(|words| words[3] == model).count(), 8, "{model}: {said}");
    }
    let pods = |model: &str| -> std::collections::BTreeSet<&str> {
        requests.iter().filter(|words| words[3] == model).map(|words| words[4]).collect()
    };
    assert!(pods("lora-request").is_disjoint(&pods("qwen")), "each pool has its own servers: {said}");
}

#[test]
fn ctrl_c_ends_it_clean() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let child = run(&[]).stdout(log.reopen().unwrap()).spawn().unwrap();
    until("it waits", || std::fs::read_to_string(log.path()).unwrap().contains("Ctrl-C ends it"));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = std::fs::read_to_string(log.path()).unwrap();
    assert!(output.status.success() && said.ends_with("Ended.\n"), "{said}");
    let admin = said.split("Envoy's admin  http://").nth(1).unwrap().lines().next().unwrap();
    assert!(std::net::TcpStream::connect(admin).is_err(), "Envoy has ended too");
}
