//! Bytes that another gateway answers, or asks with: bounded, the same when they are written again, nothing of this gateway's
//! own, and no harm to a worker that goes by them. Any bytes, and any bytes as entries of the journal in a page that is right
//! around them.
#![no_main]

use std::net::SocketAddr;

use inference_picker::config::Config;
use inference_picker::ledger::{Ledger, Member};
use inference_picker::peers::{Asking, MAX_PAGE_BYTES, PATH, Page, Question};
use inference_picker::picker::Picker;
use inference_picker::pool::DiscoveredEndpoint;
use libfuzzer_sys::fuzz_target;

const NOW_MS: u64 = 100_000;
/// This gateway.
const OWN: u64 = 7;
const CONFIGURATION: &str = r#"{"pools":[
    {"name":"p","cluster":"c","endpoints":["10.0.0.1:8000","10.0.0.2:8000"],"routingStrategy":"PREFIX_CACHE"}]}"#;

fuzz_target!(|bytes: &[u8]| {
    check_page(bytes);
    // As the journal's entries, in a page that is right around them.
    check_page(&Page { gateway: 9, now_ms: NOW_MS, entries: bytes.to_vec(), ..Page::default() }.to_bytes());
    check_question(&[PATH.as_bytes(), bytes].concat());
    check_question(&[PATH.as_bytes(), b"?read=", bytes].concat());
});

fn check_page(bytes: &[u8]) {
    let mut asking = Asking::new(20);
    let gateway = SocketAddr::from(([10, 0, 0, 9], 8000));
    asking.follow(&[DiscoveredEndpoint::new(gateway)], 0);
    let outcome = asking.answered(gateway, Ok(bytes), OWN, NOW_MS);
    let page = Page::from_bytes(bytes);
    assert_eq!(outcome.news.is_some(), page.is_none());
    assert!(asking.sums(NOW_MS).len() <= bytes.len());
    if let Some(page) = page {
        assert!(page.gateway != OWN || asking.sums(NOW_MS).is_empty());
        let written = page.to_bytes();
        assert!(written.len() <= bytes.len());
        assert_eq!(Page::from_bytes(&written).map(|again| again.to_bytes()), Some(written));
    }
    check_published(&asking, outcome.notes, outcome.entries);
}

/// A worker that goes by what was published does so without harm.
fn check_published(asking: &Asking, notes: Vec<inference_picker::load::MissingNote>, entries: Vec<u8>) {
    let config = Config::parse(CONFIGURATION.as_bytes()).unwrap();
    let mut picker = Picker::<()>::new(config, fastrand::Rng::with_seed(1));
    let (mut ledger, mut asker, mut worker) = (Ledger::new(OWN, NOW_MS), Member::new(1), Member::new(2));
    ledger.set_remote(&asking.sums(NOW_MS), NOW_MS);
    notes.into_iter().for_each(|note| ledger.note(note, true));
    asker.pass_on(entries);
    asker.write(&mut ledger, picker.loads_mut(), NOW_MS);
    worker.read(&ledger, picker.loads_mut(), NOW_MS);
    let received = worker.receive(&ledger, |_| None);
    picker.receive_all(&received, NOW_MS);
    picker.tick(NOW_MS);
    picker.decide_unread(0, false, None, NOW_MS);
    let answer = Page::of(&ledger, &Question::default(), |_| None, NOW_MS);
    assert!(answer.to_bytes().len() <= MAX_PAGE_BYTES);
}

fn check_question(path: &[u8]) {
    if let Some(question) = Question::from_path(path) {
        assert_eq!(Question::from_path(question.to_path().as_bytes()), Some(question));
    }
}
