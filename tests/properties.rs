//! The core against obviously right versions of itself, on inputs nobody thought of.
#![cfg(not(target_family = "wasm"))]

mod common;

use std::collections::HashMap;

use common::{Pod, World, address};
use inference_picker::load::{InFlight, InFlightRequest, LoadTracker, RequestLoad};
use inference_picker::openai::{apply_edits, model_edits, read_request};
use inference_picker::pool::{Snapshot, encode};
use proptest::prelude::*;
use serde_json::{Value, json};

fn any_pod() -> impl Strategy<Value = Pod> {
    (0..20u32, 0..20u32, 0..100u32, 0..10u32).prop_map(|(waiting, running, kv, state)| {
        let pod = Pod::queue(waiting).running(running).kv(kv as f32 / 100.0);
        match state {
            0 => pod.stale(),
            1 => pod.failing(3),
            2 => pod.unhealthy(),
            3 => pod.unreadable(),
            4 => pod.resting(),
            _ => pod,
        }
    })
}

/// Any JSON value, with keys that matter among its keys.
fn any_json() -> impl Strategy<Value = Value> {
    let key =
        prop_oneof![Just("model".to_owned()), Just("stream".to_owned()), Just("url".to_owned()), ".{0,6}"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(key.clone(), inner, 0..6).prop_map(|map| json!(map)),
        ]
    })
}

/// A request's fields around its model, as text with white space wherever JSON allows it.
fn any_body() -> impl Strategy<Value = (String, String)> {
    let fields = || prop::collection::vec((".{0,8}", any_json()), 0..6);
    let blank = prop_oneof![Just(""), Just(" "), Just("\r\n\t ")];
    (fields(), ".{1,40}", fields(), blank).prop_map(|(before, model, after, blank)| {
        let text = |(key, value): &(String, Value)| {
            // A key of the same name would decide about the model.
            format!("{}{blank}:{blank}{value}", Value::from(format!("x{key}")))
        };
        let own = format!("\"model\"{blank}:{blank}{}", Value::from(model.as_str()));
        let all: Vec<String> = before.iter().map(text).chain([own]).chain(after.iter().map(text)).collect();
        (format!("{blank}{{{blank}{}{blank}}}{blank}", all.join(&format!("{blank},{blank}"))), model)
    })
}

/// What an obviously right reader finds in prompt-bearing values that hold no media: text bytes and numbers.
fn naive_size(value: &Value) -> (usize, usize) {
    match value {
        Value::String(text) => (text.len(), 0),
        Value::Number(_) => (0, 1),
        Value::Array(values) => values.iter().map(naive_size).fold((0, 0), add),
        Value::Object(map) => map.values().map(naive_size).fold((0, 0), add),
        _ => (0, 0),
    }
}

fn add(one: (usize, usize), other: (usize, usize)) -> (usize, usize) {
    (one.0 + other.0, one.1 + other.1)
}

fn has_media_key(value: &Value) -> bool {
    match value {
        Value::Array(values) => values.iter().any(has_media_key),
        Value::Object(map) => map.contains_key("url") || map.values().any(has_media_key),
        _ => false,
    }
}

/// Costs that differ by no more than this share are alike: they are computed with 24 bits.
const ROUNDING: f64 = 1e-6;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

    /// The three best are those that a full sort by the same rule gives, up to ties.
    #[test]
    fn a_ranking_is_the_head_of_a_full_sort(pods in prop::collection::vec(any_pod(), 1..40), seed: u64) {
        let picks = World::new("DEFAULT", &pods, seed).pick("m", 100);
        let mut distinct = picks.clone();
        distinct.sort();
        distinct.dedup();
        prop_assert_eq!(distinct.len(), picks.len());
        let best = pods.iter().map(Pod::naive_standing).min().unwrap();
        let usable = pods.iter().filter(|pod| pod.naive_standing() == best).count();
        prop_assert_eq!(picks.len(), usable.min(3));
        let keys: Vec<(u8, f64)> = picks.iter().map(|&pick| pods[pick].naive_key(100.0)).collect();
        let in_order = |pair: &[(u8, f64)]| pair[0].0 < pair[1].0 || (pair[0].0 == pair[1].0 && pair[0].1 <= pair[1].1 * (1.0 + ROUNDING));
        prop_assert!(keys.windows(2).all(in_order));
        let worst = keys.last().unwrap();
        for (index, pod) in pods.iter().enumerate() {
            if !picks.contains(&index) && pod.naive_standing() == best {
                prop_assert!(in_order(&[*worst, pod.naive_key(100.0)]), "{} was passed over", index);
            }
        }
    }

    /// Whatever happens in whatever order, the sums are those of the requests that are open.
    #[test]
    fn loads_are_the_sums_over_open_requests(steps in prop::collection::vec((0..4u8, 0..5usize, 1..9_000u32), 1..200)) {
        let mut book = LoadTracker::default();
        let mut open: Vec<(InFlightRequest, usize, u32, bool)> = Vec::new();
        for (action, index, tokens) in steps {
            let place = index % open.len().max(1);
            match action {
                0 => {
                    let id = book.id(address(index));
                    open.push((book.start(id, RequestLoad { tokens, adapter: None, model: None, streamed: true }, 0), index, tokens, true));
                }
                1 if !open.is_empty() => {
                    book.first_output(&open[place].0, 0);
                    open[place].3 = false;
                }
                2 if !open.is_empty() => book.end(open.swap_remove(place).0, 0),
                3 => book.keep_only(|_| false),
                _ => {}
            }
        }
        let mut naive: HashMap<usize, InFlight> = HashMap::new();
        for (_, index, tokens, waiting) in &open {
            let load = naive.entry(*index).or_default();
            load.requests += 1;
            load.waiting += u32::from(*waiting);
            load.waiting_tokens += u64::from(*tokens) * u64::from(*waiting);
        }
        for index in 0..5 {
            let (load, naive) = (book.in_flight_at(&address(index)), naive.get(&index).copied().unwrap_or_default());
            let sums = |load: InFlight| (load.requests, load.waiting, load.waiting_tokens);
            prop_assert_eq!(sums(load), sums(naive));
        }
    }

    /// The model is found wherever it stands, and replacing it changes nothing else.
    #[test]
    fn only_the_models_value_changes((body, model) in any_body(), target in ".{1,40}") {
        let request = read_request(body.as_bytes()).unwrap();
        prop_assert_eq!(&*request.model, &model);
        let rewritten = apply_edits(body.as_bytes(), model_edits(&request, &target));
        let span = request.model_spans[0].clone();
        prop_assert_eq!(&rewritten[..span.start], &body.as_bytes()[..span.start]);
        prop_assert!(rewritten.ends_with(&body.as_bytes()[span.end..]));
        let again = read_request(&rewritten).unwrap();
        prop_assert_eq!(&*again.model, &target);
    }

    /// Every top-level model is replaced, the last one decides, and not a byte besides changes.
    #[test]
    fn every_top_level_model_is_replaced_and_nothing_else(
        parts in prop::collection::vec((any_json(), ".{1,10}"), 1..6),
        target in ".{1,20}",
        padding in 0..3usize,
    ) {
        let key = |index: usize| ["\"model\"", "\"mod\\u0065l\"", "\"\\u006dodel\""][index % 3];
        let number = "123456789012345678901234567890.5e-400";
        let document = |name: &dyn Fn(&str) -> String| {
            let fields = parts.iter().enumerate().map(|(index, (value, model))| {
                format!("\"x\":{value} ,\n{}\t: {},\"n\":{number}", key(index), name(model))
            });
            let large = "y".repeat(padding * 500_000);
            format!("{{\"large\":\"{large}\",{}}}", fields.collect::<Vec<_>>().join(","))
        };
        let body = document(&|model| Value::from(model).to_string());
        let request = read_request(body.as_bytes()).unwrap();
        prop_assert_eq!(&*request.model, &parts.last().unwrap().1);
        let rewritten = apply_edits(body.as_bytes(), model_edits(&request, &target));
        let expected = document(&|_| Value::from(target.as_str()).to_string());
        prop_assert!(rewritten == expected.as_bytes());
    }

    /// A prompt's size is that of its strings and numbers, however they nest.
    #[test]
    fn prompt_tokens_agree_with_a_naive_count(prompt in any_json()) {
        prop_assume!(!has_media_key(&prompt));
        let body = json!({"model": "m", "prompt": prompt.clone()}).to_string();
        let (bytes, numbers) = naive_size(&prompt);
        // Control characters are escaped in six bytes and counted as three.
        let escaped = body.matches("\\u00").count();
        let tokens = read_request(body.as_bytes()).unwrap().prompt_tokens as usize;
        let (least, most) = (bytes.div_ceil(4) + numbers, (bytes + 2 * escaped).div_ceil(4) + numbers);
        prop_assert!((least.max(1)..=most.max(1)).contains(&tokens), "{} not in {}..={}", tokens, least, most);
    }

    /// Any bytes are a request or an error, and a request's spans lie within them.
    #[test]
    fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(request) = read_request(&body) {
            prop_assert!(request.model_spans.iter().all(|span| body.get(span.clone()).is_some()));
        }
    }

    /// Any bytes in shared data are a snapshot or nothing.
    #[test]
    fn any_bytes_are_a_snapshot_or_nothing(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Some(snapshot) = Snapshot::from_bytes(&bytes) {
            let again = Snapshot::from_bytes(&encode(&snapshot)).map(|again| encode(&again));
            prop_assert_eq!(again, Some(encode(&snapshot)));
        }
    }
}
