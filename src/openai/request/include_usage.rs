//! Makes a streaming request ask for its usage.
//!
//! OpenAI's chat completions and completions say what they have cost at the end of a stream only if
//! `stream_options.include_usage` is `true`; the other APIs always do, and do not know the option. What the server
//! then says in addition is taken out of the answer by [`AnswerReader`](crate::openai::AnswerReader).
//!
//! A request stays as it is where it already asks, and where its `stream_options` are not what the servers' documents
//! describe: no object, another value than a boolean or `null`, or `continuous_usage_stats`, which would begin to put
//! usage on every event.

use std::fmt;

use serde::Deserializer;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use super::InferenceRequest;
use super::parse::span_of;
use super::rewrite::Edit;
use crate::openai::Api;

/// What to change in `body`, which was read as `request`, so that its stream reports its usage. `None` where nothing is
/// to be changed or nothing can be; the answer is then passed on as it comes.
pub fn include_usage(api: Api, body: &[u8], request: &InferenceRequest<'_>) -> Option<Edit> {
    if !(request.stream && api.has_stream_options()) {
        return None;
    }
    let Some(span) = &request.stream_options else {
        // A request that streams says so, so a comma is always right.
        let inside = body.iter().position(|byte| *byte == b'{')? + 1;
        return Some(insertion(inside, r#""stream_options":{"include_usage":true},"#));
    };
    let value = body.get(span.clone())?;
    if value == b"null" {
        return Some(Edit { span: span.clone(), text: r#"{"include_usage":true}"#.to_owned() });
    }
    let options = serde_json::Deserializer::from_slice(value).deserialize_map(OptionsVisitor).ok()?;
    if !is_off(options.continuous_usage) {
        return None;
    }
    match options.include_usage {
        Some(value) => {
            is_off(Some(value)).then(|| Edit { span: span_of(value, body), text: "true".to_owned() })
        }
        None if options.is_empty => Some(insertion(span.start + 1, r#""include_usage":true"#)),
        None => Some(insertion(span.start + 1, r#""include_usage":true,"#)),
    }
}

fn insertion(place: usize, text: &str) -> Edit {
    Edit { span: place..place, text: text.to_owned() }
}

fn is_off(value: Option<&RawValue>) -> bool {
    value.is_none_or(|value| matches!(value.get(), "false" | "null"))
}

/// What matters in a `stream_options` object; the last value where a key comes twice.
struct Options<'a> {
    include_usage: Option<&'a RawValue>,
    continuous_usage: Option<&'a RawValue>,
    is_empty: bool,
}

#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    IncludeUsage,
    ContinuousUsageStats,
    #[serde(other)]
    Other,
}

struct OptionsVisitor;

impl<'de> Visitor<'de> for OptionsVisitor {
    type Value = Options<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Options<'de>, A::Error> {
        let mut options = Options { include_usage: None, continuous_usage: None, is_empty: true };
        while let Some((key, value)) = map.next_entry::<Key, &RawValue>()? {
            options.is_empty = false;
            match key {
                Key::IncludeUsage => options.include_usage = Some(value),
                Key::ContinuousUsageStats => options.continuous_usage = Some(value),
                Key::Other => {}
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::{apply_edits, model_edits, read_request};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn edit(api: Api, body: &str) -> Option<Edit> {
        include_usage(api, body.as_bytes(), &read_request(body.as_bytes()).unwrap())
    }

    /// Only this is changed, and then there is nothing more to change.
    fn check(body: &str, expected: &str) {
        let edited =
            String::from_utf8(apply_edits(body.as_bytes(), edit(Api::Chat, body).into_iter().collect()))
                .unwrap();
        assert_eq!(edited, expected);
        assert_eq!(edit(Api::Chat, &edited), None, "{edited}");
    }

    fn check_options(options: &str, expected: &str) {
        let body =
            |options: &str| format!(r#"{{"model":"m","stream":true,"stream_options" : {options} ,"n":1}}"#);
        check(&body(options), &body(expected));
    }

    #[test]
    fn a_request_without_options_gets_them_in_front() {
        check(
            " {\"model\":\"{m\", \"stream\":true}",
            " {\"stream_options\":{\"include_usage\":true},\"model\":\"{m\", \"stream\":true}",
        );
    }

    #[test]
    fn options_that_do_not_ask_are_completed() {
        check_options("null", r#"{"include_usage":true}"#);
        check_options("{}", r#"{"include_usage":true}"#);
        check_options("{ }", r#"{"include_usage":true }"#);
        check_options(r#"{ "x":[1]}"#, r#"{"include_usage":true, "x":[1]}"#);
        check_options(
            r#"{"x":{"include_usage":true}}"#,
            r#"{"include_usage":true,"x":{"include_usage":true}}"#,
        );
        check_options(r#"{"include_usage" : false }"#, r#"{"include_usage" : true }"#);
        check_options(r#"{"x":1,"include_usage":null,"y":2}"#, r#"{"x":1,"include_usage":true,"y":2}"#);
        check_options(
            r#"{"include_usage":false,"continuous_usage_stats":false}"#,
            r#"{"include_usage":true,"continuous_usage_stats":false}"#,
        );
    }

    #[test]
    fn the_last_of_equal_keys_counts() {
        check_options(
            r#"{"include_usage":true,"include\u005fusage":false}"#,
            r#"{"include_usage":true,"include\u005fusage":true}"#,
        );
        check(
            r#"{"stream_options":{"include_usage":true},"model":"m","stream":true,"stream_options":{}}"#,
            r#"{"stream_options":{"include_usage":true},"model":"m","stream":true,"stream_options":{"include_usage":true}}"#,
        );
    }

    #[test]
    fn requests_that_ask_or_are_strange_stay_as_they_are() {
        for options in [
            r#"{"include_usage":true}"#,
            r#"{"include_usage":false,"include_usage":true}"#,
            r#"{"include_usage":1}"#,
            r#"{"include_usage":"false"}"#,
            r#"{"continuous_usage_stats":true}"#,
            r#"{"include_usage":false,"continuous_usage_stats":1}"#,
            "true",
            "[]",
            "\"{}\"",
            "7",
        ] {
            check_options(options, options);
        }
    }

    #[test]
    fn only_streams_of_completions_are_changed() {
        let (stream, whole) = (r#"{"model":"m","stream":true}"#, r#"{"model":"m","stream":false}"#);
        for api in [Api::Chat, Api::Completions] {
            assert!(edit(api, stream).is_some(), "{api:?}");
            assert_eq!(edit(api, whole), None, "{api:?}");
        }
        for api in [Api::OwnCompletions, Api::Responses, Api::Messages, Api::Embeddings, Api::Other] {
            assert_eq!(edit(api, stream), None, "{api:?}");
        }
        assert!(edit(Api::Chat, r#"{"stream":true}"#).is_some(), "without a model");
    }

    #[test]
    fn it_is_done_in_one_go_with_a_change_of_the_model() {
        for (body, expected) in [
            (
                r#"{"model":"m","stream":true}"#,
                r#"{"stream_options":{"include_usage":true},"model":"other","stream":true}"#,
            ),
            (
                r#"{"stream":true,"stream_options":{},"model":"m"}"#,
                r#"{"stream":true,"stream_options":{"include_usage":true},"model":"other"}"#,
            ),
        ] {
            let request = read_request(body.as_bytes()).unwrap();
            let mut edits = model_edits(&request, "other");
            edits.extend(include_usage(Api::Chat, body.as_bytes(), &request));
            assert_eq!(String::from_utf8(apply_edits(body.as_bytes(), edits)).unwrap(), expected);
        }
    }
}
