//! Bytes that another gateway answers, or asks with: bounded, the same when they are written again, no news of workers
//! here, and no harm to a worker that goes by them. Any bytes, and any bytes as a worker's in a page that is right
//! around them.
#![no_main]

use std::net::SocketAddr;

use inference_picker::config::Config;
use inference_picker::peers::{Asking, MAX_PAGE_BYTES, MAX_REMOTE_WORKERS, PATH, Page, Question};
use inference_picker::picker::Picker;
use inference_picker::pool::{DiscoveredEndpoint, encode};
use inference_picker::prefix::BATCHES_KEPT;
use libfuzzer_sys::fuzz_target;

const NOW_MS: u64 = 100_000;
/// A worker of this gateway.
const OWN: u64 = 7;
const CONFIGURATION: &str = r#"{"pools":[
    {"name":"p","cluster":"c","endpoints":["10.0.0.1:8000","10.0.0.2:8000"],"routingStrategy":"PREFIX_CACHE"}]}"#;

fuzz_target!(|bytes: &[u8]| {
    check_page(bytes);
    // A page's time, one worker, and the worker's id.
    check_page(&[encode(&(NOW_MS, 1_u64, 9_u64)), bytes.to_vec()].concat());
    check_told(bytes);
    check_question(&[PATH.as_bytes(), bytes].concat());
    check_question(&[PATH.as_bytes(), b"?since=", bytes].concat());
});

fn check_page(bytes: &[u8]) {
    let mut asking = Asking::new(20);
    let gateway = SocketAddr::from(([10, 0, 0, 9], 8000));
    asking.follow(&[DiscoveredEndpoint::new(gateway)], 0);
    let outcome = asking.answered(gateway, Ok(bytes), &[OWN], NOW_MS);
    assert_eq!(outcome.news.is_some(), Page::from_bytes(bytes).is_none());
    assert!(asking.workers(NOW_MS).len() <= outcome.workers.len().min(MAX_REMOTE_WORKERS));
    assert!(outcome.workers.iter().all(|worker| worker.id != OWN && worker.table.is_alive(NOW_MS)));
    if let Some(page) = Page::from_bytes(bytes) {
        let written = page.to_bytes();
        assert!(written.len() <= bytes.len());
        assert_eq!(Page::from_bytes(&written).map(|again| again.to_bytes()), Some(written));
    }
    let mut picker =
        Picker::<()>::new(Config::parse(CONFIGURATION.as_bytes()).unwrap(), fastrand::Rng::with_seed(1));
    picker.set_peers(outcome.workers.iter().map(|worker| &worker.table), NOW_MS);
    for worker in &outcome.workers {
        let events = worker.batches.iter().flat_map(|batch| &batch.events);
        events.for_each(|event| picker.hear(worker.id, event, NOW_MS));
    }
    picker.tick(NOW_MS);
    picker.decide_unread(0, false, NOW_MS);
}

/// As what a worker here has published.
fn check_told(bytes: &[u8]) {
    let mut page = Page::new(NOW_MS);
    page.add(OWN, bytes, 0, |_| Some(bytes.to_vec()));
    assert!(page.to_bytes().len() <= MAX_PAGE_BYTES);
    assert!(page.workers.iter().all(|worker| worker.batches.len() <= BATCHES_KEPT as usize));
    assert!(Page::from_bytes(&page.to_bytes()).is_some());
}

fn check_question(path: &[u8]) {
    if let Some(question) = Question::from_path(path) {
        assert_eq!(Question::from_path(question.to_path().as_bytes()), Some(question));
    }
}
