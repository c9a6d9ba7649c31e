//! Answers are written twice, with the name sent and with the name asked for; the first, however cut, must become
//! the second.
#![cfg(not(target_family = "wasm"))]

use inference_picker::openai::{AnswerFormat, AnswerReader};
use proptest::collection::vec;
use proptest::prelude::*;

const SENT: &str = "sql-lora";
const ASKED: &str = "the \"lora\" asked for";
const ASKED_JSON: &str = r#""the \"lora\" asked for""#;

/// A JSON value. Strings and numbers are kept as they are spelled.
#[derive(Debug, Clone)]
enum Json {
    Word(String),
    List(Vec<Json>),
    Object(Vec<(&'static str, Json)>),
}

/// Keys that matter, in two spellings, and keys that only look so.
const KEYS: [&str; 9] = [
    r#""model""#,
    r#""m\u006fdel""#,
    r#""response""#,
    r#""messag\u0065""#,
    r#""message""#,
    r#""models""#,
    r#""\"model\"""#,
    r#""""#,
    r#""é\n""#,
];

/// The name sent, spelled in two ways, and what is not that name.
const WORDS: [&str; 8] = [
    r#""sql-lora""#,
    r#""sql\u002Dlora""#,
    r#""sql-lora ""#,
    r#""\"model\":\"sql-lora\"""#,
    r#""{\"model\":\"sql-lora\"}\\""#,
    "-1.5E+7",
    "null",
    r#""\ud83d\ude00😀""#,
];

fn json() -> impl Strategy<Value = Json> {
    let word = prop_oneof![
        4 => prop::sample::select(&WORDS[..]).prop_map(str::to_owned),
        1 => any::<String>().prop_map(|text| serde_json::Value::from(text).to_string()),
        1 => any::<i64>().prop_map(|number| number.to_string()),
    ];
    word.prop_map(Json::Word).prop_recursive(
        5,
        40,
        6,
        |value| prop_oneof![1 => vec(value.clone(), 0..4).prop_map(Json::List), 3 => object(value)],
    )
}

fn object(value: impl Strategy<Value = Json>) -> impl Strategy<Value = Json> {
    vec((prop::sample::select(&KEYS[..]), value), 0..6).prop_map(Json::Object)
}

fn document() -> impl Strategy<Value = Json> {
    object(json())
}

fn decoded(word: &str) -> Option<String> {
    serde_json::from_str(word).ok()
}

/// The value as the servers write it, with `space` around every token.
fn sent(value: &Json, space: &str) -> String {
    written(value, space, &|_, word| word.to_owned(), &mut vec![])
}

/// The value as the client is to see it: a word's whole path says whether it names the model.
fn asked(value: &Json, space: &str) -> String {
    let rename = |path: &[String], word: &str| {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let names_model = matches!(path[..], ["model"] | ["response" | "message", "model"]);
        let replaced = names_model && decoded(word).as_deref() == Some(SENT);
        if replaced { ASKED_JSON.to_owned() } else { word.to_owned() }
    };
    written(value, space, &rename, &mut vec![])
}

fn written(
    value: &Json,
    space: &str,
    word: &dyn Fn(&[String], &str) -> String,
    path: &mut Vec<String>,
) -> String {
    let mut inside = |step: String, value: &Json| {
        path.push(step);
        let text = written(value, space, word, path);
        path.pop();
        text
    };
    let separator = format!("{space},{space}");
    match value {
        Json::Word(text) => word(path, text),
        Json::List(items) => {
            let items: Vec<String> = items.iter().map(|item| inside("[]".to_owned(), item)).collect();
            format!("[{space}{}{space}]", items.join(&separator))
        }
        Json::Object(members) => {
            let members: Vec<String> = members
                .iter()
                .map(|(key, value)| {
                    format!("{key}{space}:{space}{}", inside(decoded(key).unwrap_or_default(), value))
                })
                .collect();
            format!("{{{space}{}{space}}}", members.join(&separator))
        }
    }
}

/// As the content type would say it: what begins with a brace is a document.
fn format(answer: &[u8]) -> AnswerFormat {
    let is_document = answer.trim_ascii_start().starts_with(b"{");
    if is_document { AnswerFormat::Document } else { AnswerFormat::Events }
}

fn renaming(format: AnswerFormat, sent: &str, asked: &str) -> AnswerReader {
    let mut answer = AnswerReader::new(format);
    answer.rename_model(sent, asked);
    answer
}

/// Pieces of the given lengths, over and over.
fn rewrite(sent: &str, asked: &str, answer: &[u8], lengths: &[usize]) -> Vec<u8> {
    let mut model = renaming(format(answer), sent, asked);
    let (mut rest, mut rewritten) = (answer, vec![]);
    for length in lengths.iter().cycle() {
        let (piece, behind) = rest.split_at(rest.len().min(*length));
        rewritten.extend_from_slice(&model.push(piece, behind.is_empty()));
        rest = behind;
        if rest.is_empty() {
            break;
        }
    }
    rewritten
}

fn lengths() -> impl Strategy<Value = Vec<usize>> {
    vec(1..40_usize, 1..8)
}

fn check(answer: &str, expected: &str, lengths: &[usize]) {
    let rewritten = rewrite(SENT, ASKED, answer.as_bytes(), lengths);
    assert_eq!(String::from_utf8_lossy(&rewritten), expected, "{answer}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

    #[test]
    fn a_document_names_the_model_asked_for_and_changes_in_nothing_else(
        document in document(), space in "[ \t\r\n]{0,2}", lengths in lengths(),
    ) {
        check(&sent(&document, &space), &asked(&document, &space), &lengths);
    }

    #[test]
    fn so_does_every_event_of_a_stream(
        documents in vec(document(), 1..5),
        space in "[ \t\r]{0,2}",
        prefix in prop::sample::select(vec!["data:", "data: ", "event: message\r\ndata: ", ": {\"model\":\n\ndata: "]),
        line_end in prop::sample::select(vec!["\n\n", "\r\n\r\n", "\n"]),
        lengths in lengths(),
    ) {
        let stream = |write: fn(&Json, &str) -> String| -> String {
            documents.iter().map(|document| format!("{prefix}{}{line_end}", write(document, &space))).collect()
        };
        let done = format!("data: [DONE]{line_end}");
        check(&(stream(sent) + &done), &(stream(asked) + &done), &lengths);
    }

    #[test]
    fn a_damaged_answer_changes_in_names_alone_and_the_same_however_cut(
        document in document(),
        event in any::<bool>(),
        damage in any::<Option<(prop::sample::Index, u8)>>(),
        bytes in any::<prop::sample::Index>(),
        lengths in lengths(),
    ) {
        let mut answer = if event { format!("data: {}\n\n", sent(&document, "")) } else { sent(&document, "") }.into_bytes();
        if let Some((place, byte)) = damage {
            let place = place.index(answer.len());
            answer[place] = byte;
        }
        answer.truncate(bytes.index(answer.len() + 1));
        let rewritten = rewrite(SENT, ASKED, &answer, &lengths);
        prop_assert_eq!(&rewritten, &renaming(format(&answer), SENT, ASKED).push(&answer, true).into_owned());
        let back = rewrite(ASKED, SENT, &rewritten, &lengths);
        prop_assert_eq!(back, rewrite(SENT, SENT, &answer, &lengths));
    }

    #[test]
    fn bytes_that_name_no_model_pass_unchanged(
        bytes in vec(prop_oneof![any::<u8>(), prop::sample::select(&b"{}[]:,\"\\\ndata model"[..])], 0..400),
        lengths in lengths(),
    ) {
        prop_assert_eq!(rewrite(SENT, ASKED, &bytes, &lengths), bytes);
    }
}
