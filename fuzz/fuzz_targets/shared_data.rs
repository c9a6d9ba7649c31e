//! Bytes in shared data that a stranger wrote, as everything that is kept there: what can be read is no larger than its
//! bytes, survives being written again, and does a worker that goes by it no harm.
#![no_main]

use inference_picker::config::{Config, MAX_ENDPOINTS};
use inference_picker::decide::Decision;
use inference_picker::lease::{self, Lease};
use inference_picker::ledger::{Chunk, Cursor, Ledger, Member};
use inference_picker::openai::read_request;
use inference_picker::picker::{Outcome, Picker};
use inference_picker::pool::{Snapshot, decode, encode};
use inference_picker::slots::{MAX_SLOTS, Slots};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

const NOW_MS: u64 = 100_000;
/// One pool whose endpoints are configured, and one whose endpoints are those of the snapshot.
const CONFIGURATION: &str = r#"{"scrapeCluster":"s","adminCluster":"a","queue":{},"pools":[
    {"name":"p","cluster":"c","endpoints":["10.0.0.1:8000","10.0.0.2:8000"],"routingStrategy":"PREFIX_CACHE"},
    {"name":"q","cluster":"d","routingStrategy":"PREFIX_CACHE"}]}"#;

fuzz_target!(|bytes: &[u8]| {
    let config = Config::parse(CONFIGURATION.as_bytes()).unwrap();
    let mut picker = Picker::new(config, fastrand::Rng::with_seed(1));
    if let Some(snapshot) = Snapshot::from_bytes(bytes) {
        assert!(snapshot.endpoints.as_ref().is_none_or(|endpoints| endpoints.len() <= MAX_ENDPOINTS));
        picker.apply([(0, snapshot.clone()), (1, snapshot)].into_iter());
    }
    check_codec::<Snapshot>(bytes);
    if let Some(ledger) = Ledger::from_bytes(bytes) {
        assert!(ledger.to_bytes() == bytes, "there is one way to write it");
        check_ledger(&mut picker, ledger, bytes);
    }
    check_codec::<Chunk>(bytes);
    if let Some(mut slots) = check_codec::<Slots>(bytes) {
        assert!(slots.claim(7, NOW_MS) < MAX_SLOTS);
    }
    if let Some(lease) = check_codec::<Lease>(bytes) {
        lease::step(Some(lease), 1, NOW_MS);
    }
    (0..2).for_each(|pool| check_picks(&mut picker, pool));
});

/// A worker that reads it and writes to it, and full chunks of whose journal are these bytes.
fn check_ledger(picker: &mut Picker<()>, mut ledger: Ledger, bytes: &[u8]) {
    let mut member = Member::new(7);
    for now_ms in [NOW_MS, NOW_MS + 1_000] {
        ledger.refresh(now_ms);
        member.read(&ledger, picker.loads_mut(), now_ms);
        let received = member.receive(&ledger, |_| Chunk::from_bytes(bytes));
        picker.receive_all(&received, now_ms);
        check_picks(picker, 0);
        let events = picker.take_events();
        member.collect(picker.loads_mut(), events);
        let written = member.write(&mut ledger, picker.loads_mut(), now_ms);
        member.written(&written, &ledger);
        assert!(Ledger::from_bytes(&ledger.to_bytes()).is_some());
    }
    let mut cursor = Cursor { chunk: 3, offset: 5 };
    ledger.journal().unread(&mut cursor, |_| Chunk::from_bytes(bytes));
}

fn check_codec<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let value: T = decode(bytes)?;
    let written = encode(&value);
    assert!(written.len() <= bytes.len());
    // Bytes are compared, as a number that is none is not equal to itself.
    assert_eq!(decode::<T>(&written).map(|again| encode(&again)), Some(written));
    Some(value)
}

fn check_picks(picker: &mut Picker<()>, pool: usize) {
    let body = format!(r#"{{"model":"m","stream":true,"prompt":"{}"}}"#, "Once upon a time ".repeat(40));
    let request = read_request(body.as_bytes()).unwrap();
    for now_ms in [0, NOW_MS, NOW_MS + 1] {
        picker.tick(now_ms);
        let prepared = picker.prepare(&request, None, pool).unwrap();
        let Outcome::Decided(Decision::Send(pick)) = picker.decide(1, &prepared, || (), now_ms) else {
            continue;
        };
        for text in pick.destinations.split(',') {
            assert!(
                picker
                    .pool(pool)
                    .unwrap()
                    .endpoints()
                    .unwrap()
                    .iter()
                    .any(|endpoint| endpoint.text() == text)
            );
        }
        let mut sent = picker.send(&pick, now_ms);
        picker.first_output(&mut sent, now_ms);
        picker.answered(&mut sent, 0, None, now_ms);
        picker.end(sent, now_ms);
    }
}
