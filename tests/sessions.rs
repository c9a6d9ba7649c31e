//! Conversations go where they were served last: what a server has stored, and sessions that are strict.

mod common;

use common::{NOW_MS, Pod, address, pods, snapshot};
use inference_picker::config::Config;
use inference_picker::decide::{Decision, Pick, ResolvedRequest};
use inference_picker::openai::{Stored, input_file, named_in, read_request};
use inference_picker::picker::{Outcome as Decided, Picker, Sent};
use inference_picker::sessions::{Conversation, KnownBy, Last, Outcome, SessionKey, Visit};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const CONFIGURATION: &str = r#"{"scrapeCluster":"s","adminCluster":"a","pools":[{"name":"p","cluster":"c","sessionAffinity":"strict"}]}"#;

/// A worker in front of these pods, where sessions are strict.
fn picker(pods: &[Pod]) -> Picker<()> {
    configured(CONFIGURATION, pods)
}

/// The same, where they go by their cost.
fn picker_by_cost(pods: &[Pod]) -> Picker<()> {
    configured(&CONFIGURATION.replace("strict", "cost"), pods)
}

fn configured(configuration: &str, pods: &[Pod]) -> Picker<()> {
    let config = Config::parse(configuration.as_bytes()).unwrap();
    let mut picker = Picker::new(config, fastrand::Rng::with_seed(1));
    picker.apply([(0, snapshot(pods))].into_iter());
    picker
}

fn sent(decision: Decision) -> Pick {
    match decision {
        Decision::Send(pick) => pick,
        other => panic!("not sent: {other:?}"),
    }
}

/// The pod that a request is sent to.
fn place(pick: &Pick) -> usize {
    (0..8).find(|place| address(*place).to_string() == pick.first_choice()).unwrap()
}

/// An endpoint makes something, and says by which id it has stored it.
fn store(picker: &mut Picker<()>, id: &[u8]) -> (usize, SessionKey, Last) {
    let pick = sent(picker.decide_unread(0, false, None, NOW_MS));
    let request = picker.send(&pick, NOW_MS);
    let entry = picker.stored(0, &request, SessionKey::of_stored(id), NOW_MS).unwrap();
    picker.end(request, NOW_MS);
    (place(&pick), entry.key, entry.into())
}

/// Pods of which the one at `place` is another one.
fn with(place: usize, pod: Pod) -> Vec<Pod> {
    let mut all = pods(4);
    all[place] = pod;
    all
}

/// A request that names what was stored goes there, however full that is, and elsewhere only if it may not be picked.
fn check_follows(picker: &mut Picker<()>, what: &str, at: usize, last: Last) {
    let conversation = Conversation { by: KnownBy::Stored, last: Some(last), is_strict: true };
    for (pods, follows) in [
        (pods(4), true),
        (with(at, Pod::queue(50).kv(0.99)), true),
        (with(at, Pod::idle().unhealthy()), false),
        (with(at, Pod::idle().failing(3)), false),
    ] {
        picker.apply([(0, snapshot(&pods))].into_iter());
        let pick = sent(picker.decide_unread(0, false, Some(conversation), NOW_MS));
        let outcome = if follows { Outcome::Kept } else { Outcome::Moved };
        assert_eq!(
            (place(&pick) == at, pick.conversation),
            (follows, Some((KnownBy::Stored, outcome))),
            "{what}: {pods:?}"
        );
    }
}

/// No server that was seen has conversations, batches or files besides responses, so that they are tried here alone.
#[test]
fn whatever_a_server_has_stored_is_asked_of_it() {
    for (collection, id) in
        [("responses", "resp_1"), ("conversations", "conv_1"), ("batches", "batch_1"), ("files", "file-1")]
    {
        assert_eq!(Stored::at(format!("/v1/{collection}").as_bytes()), Some(Stored::Collection));
        let mut picker = picker(&pods(4));
        let (at, key, last) = store(&mut picker, id.as_bytes());
        for behind in ["", "/cancel", "/items", "/items/msg_1", "/content", "?after=x"] {
            let path = format!("/v1/{collection}/{id}{behind}");
            let named = Stored::at(path.as_bytes()).unwrap();
            assert_eq!(SessionKey::of_stored(named.id().unwrap()), key, "{path}");
            check_follows(&mut picker, &path, at, last);
        }
    }
}

#[test]
fn what_a_body_names_is_what_was_stored() {
    let response = |fields: &str| {
        let body = format!(r#"{{"model":"m","input":"Hello",{fields}}}"#);
        named_in(&read_request(body.as_bytes()).unwrap().names).collect::<Vec<_>>()
    };
    assert_eq!(response(r#""previous_response_id":"resp_1""#), ["resp_1"]);
    assert_eq!(response(r#""conversation":"conv_1""#), ["conv_1"]);
    assert_eq!(response(r#""conversation":{"id":"conv\u005f1"}"#), ["conv_1"]);
    let batch = br#"{"input_file_id":"file-1","endpoint":"/v1/chat/completions","completion_window":"24h"}"#;
    assert_eq!(input_file(batch).as_deref(), Some("file-1"));
}

/// The pod that a request of a session is sent to that was last at `last`, and what became of the session.
fn next_of_session(picker: &mut Picker<()>, last: Option<Last>, is_strict: bool) -> (usize, Outcome) {
    let request = read_request(br#"{"model":"m","prompt":"Hello"}"#).unwrap();
    let mut resolved = picker.prepare(&request, None, 0).unwrap();
    resolved.conversation = Some(Conversation { by: KnownBy::Name, last, is_strict });
    match picker.decide(1, &resolved, || (), NOW_MS) {
        Decided::Decided(decision) => {
            let pick = sent(decision);
            (place(&pick), pick.conversation.unwrap().1)
        }
        Decided::Waits => panic!("it waits"),
    }
}

#[test]
fn a_strict_session_stays_as_long_as_its_endpoint_may_be_picked_and_any_other_as_long_as_that_costs_less() {
    let mut picker = picker(&pods(4));
    assert_eq!(next_of_session(&mut picker, None, true).1, Outcome::New);
    let (at, _, last) = store(&mut picker, b"x");
    picker.apply([(0, snapshot(&with(at, Pod::queue(4))))].into_iter());
    assert_eq!(next_of_session(&mut picker, Some(last), true), (at, Outcome::Kept));
    let (elsewhere, outcome) = next_of_session(&mut picker, Some(last), false);
    assert!(elsewhere != at && outcome == Outcome::Moved);
    picker.apply([(0, snapshot(&with(at, Pod::idle().unhealthy())))].into_iter());
    let (elsewhere, outcome) = next_of_session(&mut picker, Some(last), true);
    assert!(elsewhere != at && outcome == Outcome::Moved);
}

/// A prompt of about 1,000 tokens, which a session sends twice.
fn long_prompt() -> String {
    format!(r#"{{"model":"m","prompt":"{}"}}"#, "Hello, you. ".repeat(400))
}

/// The next request of a session that was last here, as resolved.
fn visit(picker: &mut Picker<()>, key: SessionKey, last: Option<Last>) -> ResolvedRequest {
    let body = long_prompt();
    let mut resolved = picker.prepare(&read_request(body.as_bytes()).unwrap(), None, 0).unwrap();
    picker.set_session(&mut resolved, Some((key, last)), None);
    resolved
}

/// It is sent: where to, as what, and what is then noted.
fn send(picker: &mut Picker<()>, resolved: &ResolvedRequest) -> (usize, Sent, Last) {
    let Decided::Decided(decision) = picker.decide(1, resolved, || (), NOW_MS) else { panic!("it waits") };
    let pick = sent(decision);
    let request = picker.send(&pick, NOW_MS);
    let last = Last::from(picker.session_sent(0, &request, NOW_MS).unwrap());
    (place(&pick), request, last)
}

#[test]
fn many_requests_under_one_name_are_spread_like_any_others() {
    let mut picker = picker_by_cost(&pods(4));
    let key = SessionKey::of_stored(b"session");
    let (mut last, mut in_flight, mut sent_to) = (None, Vec::new(), [0; 4]);
    for _ in 0..40 {
        let resolved = visit(&mut picker, key, last);
        let (at, request, noted) = send(&mut picker, &resolved);
        sent_to[at] += 1;
        in_flight.push(request);
        last = Some(noted);
    }
    assert_eq!(sent_to, [10; 4]);
    in_flight.into_iter().for_each(|request| picker.end(request, NOW_MS));
    let resolved = visit(&mut picker, key, last);
    assert!(resolved.session.unwrap() == Visit::new(key, last, resolved.prompt.tokens), "it is known again");
}

#[test]
fn a_session_finds_what_it_had_until_the_cache_there_has_turned_over() {
    const ROOM: u64 = 20_000;
    const BEFORE: u64 = 15_000;
    for (computed, is_kept) in [
        // Its own request is not counted yet, or it is and nothing else.
        (BEFORE, true),
        (BEFORE + 2_000, true),
        (BEFORE + ROOM - 1, true),
        (BEFORE + ROOM + 4_000, false),
        // The server was started anew.
        (0, false),
        (5_000, false),
    ] {
        let mut picker = picker_by_cost(&vec![Pod::idle().cache(ROOM, BEFORE); 4]);
        let key = SessionKey::of_stored(b"session");
        let first = visit(&mut picker, key, None);
        let (at, request, last) = send(&mut picker, &first);
        picker.end(request, NOW_MS);
        assert_eq!(last.tokens, first.prompt.tokens);

        // Its endpoint is busier than the others, but not by as much as the prompt takes.
        let mut all = vec![Pod::idle().cache(ROOM, computed); 4];
        all[at] = Pod::idle().running(2).cache(ROOM, computed);
        picker.apply([(0, snapshot(&all))].into_iter());
        let next = visit(&mut picker, key, Some(last));
        assert_eq!(send(&mut picker, &next).0 == at, is_kept, "{computed} tokens computed");
    }
}
