//! What an answer costs and what is hidden of it, against a slow reader of whole answers.
#![cfg(not(target_family = "wasm"))]

mod usage_oracle;

use inference_picker::openai::{AnswerFormat, Api, apply_edits, include_usage, read_request};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use usage_oracle::{account, hide, lines, read, visible};

const KEYS: &str = r"usage usage us\u0061ge response message choices choices delta type content text arguments
    finish_reason tool_calls stop_reason content_block error code error_type object timings system_fingerprint
    prompt_tokens completion_tokens input_tokens output_tokens prompt_tokens_details input_tokens_details
    cached_tokens cache_read_input_tokens cache_creation_input_tokens usages model é \u0065rror logprobs id";
const WORDS: &str = r#"null null 0 7 12 345 4294967295 4294967296 -1 1.5 1e2 true [] {} "" "a" "message_stop"
    "response.completed" "response.failed" "error" "tool_use" "server_error" 503 "429" "}]\\" "\"usage\":{\"prompt_tokens\":9}" "zwölf""#;
/// What else events that are alike have in place of `TEXT`; all but the last two end as they begin, in a string.
const TEXTS: [&str; 8] =
    ["a", "", "usage", "message_stop", "\\\"", "\\\\", "\",\"usage\":1,\"a\":\"", "\":{\"choices\":\""];
/// What such events have in place of `OTHER`; all but the last four are values.
const OTHERS: [&str; 17] = [
    "0",
    "1",
    "12",
    r#""a-1""#,
    r#"{"content":[{"text":"}"}]}"#,
    "503",
    "-1",
    "null",
    "[]",
    r#""}]\\""#,
    r#"["]",[]]"#,
    r#"{"usage":{"prompt_tokens":9}}"#,
    "4294967296",
    "0123456789",
    "",
    "7:{}",
    "usage:{}",
];
/// Members that have one: what says nothing, and what counts.
const WITH_OTHER: [&str; 8] = [
    r#""index":OTHER"#,
    r#""ids":[OTHER]"#,
    r#""id":OTHER"#,
    r#""logprobs":OTHER"#,
    r#""usage":{"prompt_tokens":OTHER}"#,
    r#""usage":{"completion_tokens":OTHER,"total":OTHER,"input_tokens_details":{"cached_tokens":OTHER}}"#,
    r#""code":OTHER"#,
    r#""usage":OTHER"#,
];
const SPACES: [&str; 6] = ["", "", "", "", " ", "\r \t"];
/// Bytes that have a meaning in JSON or events.
const BYTES: &[u8] = b"{}[]\",:\\ \r\n019-nda\xff";

fn one_of(words: &'static str) -> impl Strategy<Value = String> {
    select(words.split_whitespace().collect::<Vec<_>>()).prop_map(str::to_owned)
}

fn spaced(text: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    (select(&SPACES[..]), text, select(&SPACES[..])).prop_map(|(a, text, b)| format!("{a}{text}{b}"))
}

fn value() -> impl Strategy<Value = String> {
    spaced(one_of(WORDS)).prop_recursive(4, 30, 5, |value| {
        let list = vec(value.clone(), 1..4).prop_map(|values| format!("[{}]", values.join(",")));
        prop_oneof![1 => spaced(list), 4 => object(value)]
    })
}

fn object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let key = spaced(one_of(KEYS).prop_map(|key| format!("\"{key}\"")));
    let member = (key, value).prop_map(|(key, value)| format!("{key}:{value}"));
    spaced(vec(member, 1..6).prop_map(|members| format!("{{{}}}", members.join(","))))
}

/// Documents that are more often to be hidden than others are.
fn document() -> impl Strategy<Value = String> {
    let last = (object(value()), value())
        .prop_map(|(usage, moved)| format!(r#"{{"choices":[ ],"usage":{usage},"timings":{moved}}}"#));
    let finished =
        value().prop_map(|other| format!(r#"{{"choices":[{{"finish_reason":"stop"}}],"x":{other}}}"#));
    prop_oneof![4 => object(value()), 2 => last, 1 => finished]
}

/// A document with output in it, among other things.
fn output() -> impl Strategy<Value = String> {
    let forms = select(vec![
        r#""choices":[{BEFORE"text":"TEXT"BEHIND}]"#,
        r#""delta":{BEFORE"text":"TEXT"BEHIND}"#,
        r#""delta":"TEXT""#,
    ]);
    let any_member = || (one_of(KEYS), value()).prop_map(|(key, value)| format!("\"{key}\":{value}"));
    let member = || prop_oneof![any_member(), select(&WITH_OTHER[..]).prop_map(str::to_owned)];
    let before = || {
        prop::option::of(member()).prop_map(|member| member.map_or_else(String::new, |member| member + ","))
    };
    let behind = || {
        prop::option::of(member())
            .prop_map(|member| member.map_or_else(String::new, |member| ",".to_owned() + &member))
    };
    (forms, before(), before(), behind(), behind()).prop_map(
        |(form, outer_before, before, behind, outer_behind)| {
            let form = form.replace("BEFORE", &before).replace("BEHIND", &behind);
            format!("{{{outer_before}{form}{outer_behind}}}")
        },
    )
}

/// A text and another value for each event of those that are alike.
fn own(
    texts: &'static [&str],
    others: &'static [&str],
) -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    vec((select(texts), prop_oneof![2 => select(&others[..5]), 1 => select(others)]), 1..6)
}

/// Events that differ in nothing else.
fn alike(document: &str, own: &[(&str, &str)]) -> String {
    let event = |(text, other): &(&str, &str)| {
        format!("data: {}", document.replace("TEXT", text).replace("OTHER", other))
    };
    own.iter().map(event).collect::<Vec<_>>().join("\n\n")
}

fn stream() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        4 => document().prop_map(|document| format!("data: {document}")),
        4 => (output(), own(&TEXTS[..6], &OTHERS[..13])).prop_map(|(document, own)| alike(&document, &own)),
        1 => select(vec!["data: [DONE]", ": usage", "event: error", "data", "id: {\"usage\":null}", "", "data:"])
            .prop_map(str::to_owned),
    ];
    let end = select(vec!["\n\n", "\n\n", "\n\n", "\r\n\r\n", "\n"]);
    vec((line, end), 0..6).prop_map(|lines| lines.iter().map(|(line, end)| format!("{line}{end}")).collect())
}

/// Where how many bytes are gone, and which one is there instead.
type Damage = Vec<(Index, usize, u8)>;

fn damage() -> impl Strategy<Value = Damage> {
    vec((any::<Index>(), 0..3_usize, select(BYTES)), 1..4)
}

fn damaged(text: &str, damage: &Damage) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for (place, removed, byte) in damage {
        let start = place.index(bytes.len() + 1);
        let end = (start + removed).min(bytes.len());
        bytes.splice(start..end, [*byte]);
    }
    bytes
}

fn lengths() -> impl Strategy<Value = Vec<usize>> {
    vec(1..40_usize, 1..8)
}

/// Pieces of the given lengths, over and over.
fn cut<'a>(answer: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    let (mut rest, mut pieces) = (answer, vec![]);
    for length in lengths.iter().cycle() {
        let (piece, behind) = rest.split_at(rest.len().min(*length));
        pieces.push(piece);
        rest = behind;
        if rest.is_empty() {
            break;
        }
    }
    pieces
}

/// The same whole and in pieces; and what the slow reader finds, where it reads the answer.
fn check(answer: &[u8], lengths: &[usize]) -> Result<bool, TestCaseError> {
    for format in [AnswerFormat::Document, AnswerFormat::Events] {
        let found = read(format, cut(answer, lengths));
        prop_assert_eq!(found, read(format, [answer]), "{:?} {:?}", String::from_utf8_lossy(answer), lengths);
        prop_assert_eq!(found, account(format, answer).unwrap_or(found));
    }
    let rewritten = hide(cut(answer, lengths));
    prop_assert_eq!(&rewritten, &hide([answer]));
    let expected = visible(answer);
    let is_readable = expected.is_some();
    if is_readable {
        prop_assert_eq!(lines(&rewritten), expected);
    }
    Ok(is_readable)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn a_document_is_read_as_the_slow_reader_reads_it(document in document(), lengths in lengths()) {
        prop_assert!(account(AnswerFormat::Document, document.as_bytes()).is_some());
        check(document.as_bytes(), &lengths)?;
    }

    #[test]
    fn so_is_a_stream_and_what_is_to_be_hidden_is_gone(stream in stream(), lengths in lengths()) {
        prop_assert!(check(stream.as_bytes(), &lengths)?);
    }

    #[test]
    fn a_damaged_answer_is_read_the_same_however_cut(
        stream in stream(),
        damage in damage(),
        bytes in any::<Index>(),
        lengths in lengths(),
    ) {
        let stream = damaged(&stream, &damage);
        check(&stream, &lengths)?;
        check(&stream[..bytes.index(stream.len() + 1)], &lengths)?;
    }

    #[test]
    fn so_are_damaged_events_that_are_alike(
        output in output(),
        damage in prop_oneof![Just(vec![]), damage()],
        own in own(&TEXTS, &OTHERS),
        lengths in lengths(),
    ) {
        let document = damaged(&output, &damage);
        check(alike(&String::from_utf8_lossy(&document), &own).as_bytes(), &lengths)?;
    }

    #[test]
    fn so_are_any_bytes(bytes in vec(prop_oneof![any::<u8>(), select(BYTES)], 0..200), lengths in lengths()) {
        check(&bytes, &lengths)?;
        check(&[b"data: {\"choices\":[],\"usage\":{", &bytes[..]].concat(), &lengths)?;
    }

    /// The same stream is written with usage and without; the first, however cut, must become the second.
    #[test]
    fn the_client_sees_byte_for_byte_what_it_would_have_seen_without(
        chunks in vec((".{0,20}", any::<bool>(), any::<bool>(), value()), 0..6),
        nulls in any::<bool>(),
        finished in any::<bool>(),
        timings in object(value()).prop_map(|timings| timings.trim().to_owned()),
        ahead in select(vec!["", "", ": alive\n\n", "id: 1\n", "event: x\n: y\n"]),
        end in select(vec!["\n\n", "\r\n\r\n"]),
        lengths in lengths(),
    ) {
        // Comments that are events of their own stay.
        let ahead_of_hidden = if ahead.starts_with(':') { ahead } else { "" };
        let stream = |with_usage: bool| -> String {
            let null = if with_usage && nulls { r#","usage":null"# } else { "" };
            let mut events: Vec<String> = chunks.iter().map(|(text, early, late, other)| {
                let text = serde_json::Value::from(text.as_str());
                let (early, late) = (if *early { null } else { "" }, if *late { null } else { "" });
                format!(r#"{{"id":"1"{early},"choices":[{{"text":{text},"x":{other}}}]{late},"x":{other}}}"#)
            }).collect();
            let moved = if finished { format!(r#","system_fingerprint":"f","timings":{timings}"#) } else { String::new() };
            if finished {
                let moved = if with_usage { "" } else { &moved };
                events.push(format!(r#"{{"id":"1","choices":[{{"text":"","finish_reason":"stop"}}]{moved}}}"#));
            }
            if with_usage {
                events.push(format!(r#"{{"id":"1","choices":[],"usage":{{"prompt_tokens":9,"x":{{"y":[1]}}}}{moved}}}"#));
            }
            events.push("[DONE]".to_owned());
            events.iter().map(|event| format!("{ahead}data: {event}{end}")).collect()
        };
        let with_usage = stream(true);
        let mut expected = stream(false);
        let done = expected.rfind(&format!("{ahead}data: [DONE]")).unwrap();
        expected.insert_str(done, ahead_of_hidden);
        prop_assert_eq!(String::from_utf8(hide(cut(with_usage.as_bytes(), &lengths))).unwrap(), expected);
        let untouched = hide(cut(stream(false).as_bytes(), &lengths));
        prop_assert_eq!(String::from_utf8(untouched).unwrap(), stream(false));
    }

    /// A request asks for its usage afterwards, and differs in nothing else.
    #[test]
    fn a_stream_is_made_to_ask_for_its_usage(
        before in object(value()),
        options in prop::option::of(prop_oneof![
            select(vec!["null", "{}", " { } ", r#"{"include_usage":false}"#, r#"{"x":{},"include_usage" : null }"#])
                .prop_map(str::to_owned),
            object(value()),
        ]),
        after in object(value()),
    ) {
        let body = |options: Option<&str>| {
            let options = options.map(|options| format!(r#","stream_options":{options}"#)).unwrap_or_default();
            format!(r#" {{"before":{before},"model":"m"{options},"stream":true,"after":{after}}}"#)
        };
        let original = body(options.as_deref());
        let request = read_request(original.as_bytes()).unwrap();
        let edit = include_usage(Api::Completions, original.as_bytes(), &request);
        let edited = apply_edits(original.as_bytes(), edit.into_iter().collect());
        let edited: serde_json::Value = serde_json::from_slice(&edited).unwrap();
        let mut expected: serde_json::Value = serde_json::from_str(&original).unwrap();
        if expected["stream_options"].is_null() {
            expected["stream_options"] = serde_json::json!({});
        }
        expected["stream_options"]["include_usage"] = true.into();
        prop_assert_eq!(edited, expected);
    }
}
