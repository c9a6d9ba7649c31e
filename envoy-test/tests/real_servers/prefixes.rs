//! PREFIX_CACHE, by what the servers' own prefix caches found.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

use envoy_test::envoy::Request;
use serde_json::json;

use crate::gateway::Gateway;
use crate::picking::SCRAPE_TIME;
use crate::servers::MODEL;

/// Longer than workers take to receive each other's state.
const EXCHANGED: Duration = Duration::from_millis(60);
const DOCUMENTS: usize = 6;
const QUESTIONS: usize = 4;

/// A question about a document of some 1,500 characters.
fn question(gateway: &Gateway, document: usize, question: usize) -> Request {
    let name = format!("{} {document}", gateway.configuration);
    let text = format!("{name} {}", "says much, of which something is asked. ".repeat(36));
    let messages = json!([
        {"role": "system", "content": text},
        {"role": "user", "content": format!("Question number {question}?")},
    ]);
    Request::post("/v1/chat/completions")
        .json(&json!({"model": MODEL, "messages": messages, "max_tokens": 4}))
}

/// Every question about a document goes to one server, all documents do not, and the servers' caches find nearly all of
/// every document from its second question on.
pub fn a_document_stays_with_the_server_that_has_it_cached(gateway: &Gateway) {
    let before = gateway.servers.cached_tokens();
    let mut servers = BTreeSet::new();
    let mut prompt_tokens = 0;
    for document in 0..DOCUMENTS {
        let mut served_by = BTreeSet::new();
        for number in 0..QUESTIONS {
            let answer = gateway.send(question(gateway, document, number));
            assert_eq!(answer.status, 200, "{}", answer.text());
            if number > 0 {
                prompt_tokens += answer.json().unwrap()["usage"]["prompt_tokens"].as_u64().unwrap();
            }
            served_by.extend(gateway.served_by(1));
            sleep(EXCHANGED);
        }
        assert_eq!(served_by.len(), 1, "document {document}: {:?}", gateway.log(QUESTIONS));
        servers.extend(served_by);
    }
    assert!(servers.len() > 1, "one server has all documents");
    let cached_tokens = (gateway.servers.cached_tokens() - before) as u64;
    assert!(cached_tokens * 10 >= prompt_tokens * 8, "{cached_tokens} of {prompt_tokens} tokens were cached");
}

/// As Claude Code sends it: a system prompt that begins with a block which is another one with every request.
fn coding_turn(gateway: &Gateway, session: usize, turn: usize) -> Request {
    let header =
        format!("x-anthropic-billing-header: cc_version=2.1.0; cch={:05x};", fastrand::u32(..1 << 20));
    let name = format!("{} session {session}", gateway.configuration);
    let instructions = format!("{name} {}", "You write programs, and this is how. ".repeat(40));
    let system = json!([{"type": "text", "text": header}, {"type": "text", "text": instructions}]);
    let mut messages = vec![json!({"role": "user", "content": "Write a program."})];
    for earlier in 0..turn {
        messages
            .push(json!({"role": "assistant", "content": format!("Here is part {earlier} of the program.")}));
        messages.push(json!({"role": "user", "content": format!("Go on with part {earlier}.")}));
    }
    let body = json!({"model": MODEL, "system": system, "messages": messages, "max_tokens": 4});
    Request::post("/v1/messages").json(&body)
}

/// vLLM drops the block and llama.cpp writes over what changes in it, so their caches have all of a turn but its end. The
/// plugin leaves it out as well, so every turn of a session goes where the last one went.
pub fn a_coding_session_stays_with_its_server_whatever_its_billing_header(gateway: &Gateway) {
    let (hits, queries) = (gateway.servers.cached_tokens(), gateway.servers.prompt_tokens());
    let (mut first_hits, mut first_queries) = (0, 0);
    for session in 0..DOCUMENTS {
        let mut served_by = BTreeSet::new();
        for turn in 0..QUESTIONS {
            let before = (gateway.servers.cached_tokens(), gateway.servers.prompt_tokens());
            let answer = gateway.send(coding_turn(gateway, session, turn));
            assert_eq!(answer.status, 200, "{}", answer.text());
            served_by.extend(gateway.served_by(1));
            if turn == 0 {
                first_hits += gateway.servers.cached_tokens() - before.0;
                first_queries += gateway.servers.prompt_tokens() - before.1;
            }
            sleep(EXCHANGED);
        }
        assert_eq!(served_by.len(), 1, "session {session}: {:?}", gateway.log(QUESTIONS));
    }
    let hits = gateway.servers.cached_tokens() - hits - first_hits;
    let queries = gateway.servers.prompt_tokens() - queries - first_queries;
    eprintln!("    of later turns' {queries} prompt tokens the servers found {hits} in their caches");
    assert!(hits * 10 >= queries * 9, "{hits} of {queries} tokens were cached");
}

/// How many blocks of a prompt the plugin took to be cached where it sent it.
fn matched_blocks(gateway: &Gateway) -> usize {
    let line = &gateway.log(1)[0];
    let decision = line["decision"].as_str().unwrap_or_default();
    let matched = decision.split(' ').find_map(|field| field.strip_prefix("matched_blocks="));
    let matched = matched.and_then(|ratio| ratio.split('/').next()?.parse().ok());
    matched.unwrap_or_else(|| panic!("no blocks: {line}"))
}

/// Its counters have fallen, and the plugin forgets what it had.
pub fn a_server_that_was_started_again_is_known_to_have_nothing_cached(gateway: &Gateway) {
    let ask = |number| {
        assert_eq!(gateway.send(question(gateway, DOCUMENTS, number)).status, 200);
        sleep(EXCHANGED);
        matched_blocks(gateway)
    };
    ask(0);
    let cached = ask(1);
    assert!(cached > 0);
    sleep(SCRAPE_TIME);
    let index = gateway.served_by(1)[0];
    gateway.servers.kill(index);
    gateway.servers.start_again(index);
    sleep(SCRAPE_TIME);
    assert_eq!((ask(2), ask(3)), (0, cached), "{}", gateway.known());
}
