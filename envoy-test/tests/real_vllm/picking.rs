//! Which server gets a request, by what real servers tell of themselves.

use std::thread::sleep;
use std::time::Duration;

use envoy_test::envoy::RawConnection;
use serde_json::Value;

use crate::gateway::{Gateway, chat, completion, completion_body};
use crate::servers::{ADAPTERS, MODEL, RUNNING_MAX, Servers};
use crate::until;

/// Long enough for a page that the servers print now to be read and published.
pub const SCRAPE_TIME: Duration = Duration::from_secs(1);
/// An answer that lasts until the client leaves: ten seconds and more.
const LONG_ANSWER_TOKENS: usize = 7_000;

/// The first endpoint that was picked.
pub fn first_pick(line: &Value) -> &str {
    line["picked"].as_str().unwrap_or_default().split(',').next().unwrap_or_default()
}

pub fn a_burst_is_spread_over_both_servers_and_their_own_counters_agree(gateway: &Gateway) {
    let before = gateway.servers.completed();
    let answers = gateway.burst(vec![chat(MODEL); 40]);
    assert!(answers.iter().all(|answer| answer.status == 200));
    let served_by = gateway.served_by(40);
    let logged = [0, 1].map(|server| served_by.iter().filter(|index| **index == server).count());
    assert!(logged.iter().all(|count| (15..=25).contains(count)), "{logged:?}");
    until("the servers have counted them", || {
        let now = gateway.servers.completed();
        now.iter().zip(&before).map(|(now, before)| now - before).eq(logged)
    });
}

pub fn the_log_says_which_server_was_picked_and_by_which_metrics(gateway: &Gateway) {
    for model in [MODEL, ADAPTERS[0]] {
        gateway.send(chat(model));
        let line = &gateway.log(1)[0];
        assert_eq!((&line["model"], &line["status"]), (&model.into(), &200.into()), "{line}");
        assert_eq!(line["upstream"], first_pick(line), "{line}");
        let decision = line["decision"].as_str().unwrap();
        assert!(decision.starts_with("DEFAULT "), "{line}");
        for name in ["queue", "running", "kv", "metrics_age_ms"] {
            assert!(number(decision, name).is_some(), "{name}: {line}");
        }
    }
}

pub fn number(decision: &str, name: &str) -> Option<f64> {
    let fields = decision.split(' ').filter_map(|field| field.split_once('='));
    fields.into_iter().find(|(field, _)| *field == name)?.1.parse().ok()
}

/// Others' requests that one server is at work on, directly, until they are dropped.
pub fn occupy(servers: &Servers, index: usize, model: &str, count: usize) -> Vec<RawConnection> {
    let mut body = completion_body(model);
    body["max_tokens"] = LONG_ANSWER_TOKENS.into();
    body["stream"] = true.into();
    let body = body.to_string();
    let request = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: vllm\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut connections = Vec::new();
    for _ in 0..count {
        let mut connection = RawConnection::open(servers.addresses()[index]).unwrap();
        connection.send(&request).unwrap();
        connections.push(connection);
    }
    until("the server has them all", || servers.in_progress(index) == count);
    sleep(SCRAPE_TIME);
    connections
}

/// Each of several requests, one after the other, is served by the server at `expected`.
fn check_served_by(gateway: &Gateway, model: &str, expected: usize) {
    for _ in 0..10 {
        let answer = gateway.send(completion(model));
        assert_eq!(answer.json().unwrap()["model"], model, "{}", answer.text());
        assert_eq!(gateway.served_by(1), [expected], "{:?}\n{}", gateway.log(1), gateway.known());
    }
}

fn wait_until_idle(servers: &Servers) {
    until("the servers are idle again", || servers.in_progress(0) + servers.in_progress(1) == 0);
    sleep(SCRAPE_TIME);
}

/// More requests than it runs at once, so some of them wait.
pub fn a_server_with_a_queue_is_avoided(gateway: &Gateway) {
    for (busy, other) in [(0, 1), (1, 0)] {
        let requests = occupy(gateway.servers, busy, MODEL, 2 * RUNNING_MAX);
        check_served_by(gateway, MODEL, other);
        drop(requests);
        wait_until_idle(gateway.servers);
    }
}

/// Has each server run an adapter of its own for a while; each has room for one.
fn load_adapters(servers: &Servers, adapters: [&str; 2]) {
    let requests = [0, 1].map(|index| occupy(servers, index, adapters[index], 1));
    drop(requests);
    wait_until_idle(servers);
}

/// Though it is the busier one: the other would have to load the adapter in place of its own.
pub fn an_adapters_request_goes_to_the_server_that_runs_it(gateway: &Gateway) {
    let [first, second] = ADAPTERS;
    for (adapters, busy) in [([first, second], 0), ([second, first], 1), ([second, first], 0)] {
        load_adapters(gateway.servers, adapters);
        let requests = occupy(gateway.servers, busy, adapters[busy], 1);
        check_served_by(gateway, adapters[busy], busy);
        drop(requests);
        wait_until_idle(gateway.servers);
    }
}

/// Servers tell of adapters only while they run them, and keep them loaded.
pub fn an_adapter_that_nobody_asked_for_in_between_is_still_where_it_ran(gateway: &Gateway) {
    let [first, second] = ADAPTERS;
    for adapters in [[first, second], [second, first]] {
        load_adapters(gateway.servers, adapters);
        for index in [0, 1, 0] {
            check_served_by(gateway, adapters[index], index);
        }
    }
}
