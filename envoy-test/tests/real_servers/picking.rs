//! Which server gets a request, by what real servers report about themselves.

use std::thread::sleep;
use std::time::Duration;

use envoy_test::envoy::RawConnection;
use serde_json::Value;

use crate::gateway::{ANSWER_TOKENS, Gateway, chat, completion, completion_body};
use crate::servers::{MODEL, Servers};
use crate::until;

/// Long enough for a page that the servers print now to be read and published.
pub const SCRAPE_TIME: Duration = Duration::from_secs(1);
/// An answer that lasts until the client leaves: ten seconds and more.
const LONG_ANSWER_TOKENS: usize = 7_000;
const BURST: usize = 40;
/// How far from the mean a server may be.
const BURST_SPREAD: usize = 5;

/// The first endpoint that was picked.
pub fn first_pick(line: &Value) -> &str {
    line["picked"].as_str().unwrap_or_default().split(',').next().unwrap_or_default()
}

/// Nobody gets much more or less than the others, and each has made just the answers that the log says it made.
pub fn a_burst_is_spread_over_all_servers_and_their_own_counters_agree(gateway: &Gateway) {
    let servers = gateway.servers;
    let before = servers.generated_tokens();
    let answers = gateway.burst(vec![chat(MODEL); BURST]);
    assert!(answers.iter().all(|answer| answer.status == 200));
    let mut logged = vec![0_usize; servers.count()];
    gateway.served_by(BURST).into_iter().for_each(|index| logged[index] += 1);
    let mean = BURST / servers.count();
    assert!(
        logged.iter().all(|count| count.abs_diff(mean) <= BURST_SPREAD),
        "{logged:?}\n{}",
        gateway.known()
    );
    until("the servers have counted them", || {
        let grown = servers.generated_tokens().into_iter().zip(&before).map(|(now, before)| now - before);
        grown.eq(logged.iter().map(|count| count * ANSWER_TOKENS))
    });
}

pub fn the_log_says_which_server_was_picked_and_by_which_metrics(gateway: &Gateway) {
    let kind = gateway.servers.kind;
    for model in kind.models {
        gateway.send(chat(model));
        let line = &gateway.log(1)[0];
        assert_eq!((&line["model"], &line["status"]), (&(*model).into(), &200.into()), "{line}");
        assert_eq!(line["upstream"], first_pick(line), "{line}");
        let decision = line["decision"].as_str().unwrap();
        assert!(decision.starts_with("DEFAULT "), "{line}");
        for name in kind.explained {
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
        "POST /v1/completions HTTP/1.1\r\nhost: server\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut connections = Vec::new();
    for _ in 0..count {
        let mut connection = RawConnection::open(servers.addresses()[index]).unwrap();
        connection.send(&request).unwrap();
        connections.push(connection);
    }
    until("the server has them all", || servers.busy_with(index) == count);
    sleep(SCRAPE_TIME);
    connections
}

/// Where each of several requests was served that are sent one after the other.
pub fn served_one_by_one(gateway: &Gateway, model: &str) -> Vec<usize> {
    let mut served_by = Vec::new();
    for _ in 0..10 {
        let answer = gateway.send(completion(model));
        assert_eq!(answer.json().unwrap()["model"], model, "{}", answer.text());
        served_by.extend(gateway.served_by(1));
    }
    served_by
}

pub fn wait_until_idle(servers: &Servers) {
    until("the servers are idle again", || (0..servers.count()).all(|index| servers.busy_with(index) == 0));
    sleep(SCRAPE_TIME);
}

/// More requests than it runs at once, so some of them wait. The plugin knows of both, and sends it nothing.
pub fn a_server_runs_what_it_has_room_for_and_one_with_a_queue_is_avoided(gateway: &Gateway) {
    let running_max = gateway.servers.kind.running_max;
    for busy in 0..gateway.servers.count() {
        let requests = occupy(gateway.servers, busy, MODEL, 2 * running_max);
        let in_progress = [running_max, running_max];
        assert_eq!(gateway.servers.in_progress(busy), in_progress);
        until("the plugin knows of them", || {
            ["running", "waiting"].map(|name| gateway.gauge(name, busy)) == in_progress.map(Some)
        });
        let served_by = served_one_by_one(gateway, MODEL);
        assert!(!served_by.contains(&busy), "{served_by:?}, busy is {busy}\n{}", gateway.known());
        drop(requests);
        wait_until_idle(gateway.servers);
    }
}
