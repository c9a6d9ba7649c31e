//! Reads the fields of an ordinary request in one pass over its bytes, several times faster than `serde_json`.
//!
//! Contract: [`read_fields`] accepts nothing but JSON objects, and reads from them what `serde_json` would. Whatever
//! is wrong or out of the ordinary it hands back as `None`, for the slow reader to decide. So it makes no error
//! messages, decodes no keys, and neither recurses nor allocates as values nest.

use std::ops::Range;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as UnknownKey;

use super::fields::{Fields, Key, MAX_MODEL_FIELDS};
use super::prompt::PromptSize;
use super::prompt_text::PromptPart;
use crate::openai::json::{JsonString, read_string};

/// The fields of `body`, if it is a JSON object and nothing about it is out of the ordinary.
pub(super) fn read_fields(body: &[u8]) -> Option<Fields<'_>> {
    let text = |span: Range<usize>| str::from_utf8(body.get(span)?).ok();
    let mut scanner = Scanner { rest: body, is_plain: true, is_ascii: true };
    let mut fields = Fields::default();
    scanner.expect(b'{')?;
    let mut more = !scanner.eat(b'}');
    while more {
        let key = plain_key(scanner.key()?)?;
        scanner.skip_whitespace();
        let start = body.len() - scanner.rest.len();
        scanner.is_plain = true;
        let prompt = scanner.value()?;
        let is_plain = scanner.is_plain && prompt.is_as_written();
        let span = start..body.len() - scanner.rest.len();
        match key {
            Key::Model if fields.model_spans.len() == MAX_MODEL_FIELDS => return None,
            Key::Model => {
                fields.model = text(span.clone());
                fields.model_spans.push(span);
            }
            Key::Stream => fields.stream = text(span) == Some("true"),
            Key::StreamOptions => fields.stream_options = Some(span),
            Key::User => fields.user = text(span),
            Key::PreviousResponseId => fields.names.previous_response_id = text(span),
            Key::Conversation => fields.names.conversation = text(span),
            Key::CachedWith => fields.names.prompt_cache_key = text(span),
            Key::Metadata => fields.names.metadata = text(span),
            Key::CacheSalt => fields.cache_salt = body.get(span),
            Key::TruncatePromptTokens => fields.may_be_cut = true,
            Key::Other => {}
            Key::Tools | Key::System | Key::Messages | Key::Text | Key::InputExtra | Key::InputSuffix => {
                let json = body.get(span).unwrap_or_default();
                fields.add_prompt(key, prompt, PromptPart { json, is_plain });
            }
        }
        more = scanner.another(b'}')?;
    }
    scanner.skip_whitespace();
    // Outside of strings nothing but ASCII has been accepted.
    let is_text = scanner.is_ascii || str::from_utf8(body).is_ok();
    (scanner.rest.is_empty() && is_text).then_some(fields)
}

/// The field a key names, unless only decoding it would show it.
fn plain_key(key: &[u8]) -> Option<Key> {
    if key.contains(&b'\\') {
        return None;
    }
    Key::deserialize(IntoDeserializer::<UnknownKey>::into_deserializer(key)).ok()
}

/// The lists and objects around a value: below the highest bit that is set, one bit each, the innermost lowest.
type Nesting = u64;

const OUTSIDE: Nesting = 1;
const LIST: Nesting = 0;
const OBJECT: Nesting = 1;

/// `kind` inside of `nesting`, unless that is deeper than the bits last: 63 levels.
fn nest(nesting: Nesting, kind: Nesting) -> Option<Nesting> {
    (nesting.leading_zeros() > 0).then_some(nesting << 1 | kind)
}

struct Scanner<'a> {
    /// What is still to be read.
    rest: &'a [u8],
    /// Whether since this was set neither white space between values came, nor a character escaped by number.
    is_plain: bool,
    /// Whether all strings are ASCII.
    is_ascii: bool,
}

impl<'a> Scanner<'a> {
    /// Passes over a value. Returns what it counts if it is prompt.
    fn value(&mut self) -> Option<PromptSize> {
        let mut size = PromptSize::default();
        let mut under_media = false;
        let mut nesting = OUTSIDE;
        loop {
            match self.next()? {
                b'"' => size.add_text(&self.string()?, &mut under_media),
                b'{' if !self.eat(b'}') => {
                    nesting = nest(nesting, OBJECT)?;
                    under_media = size.add_key(self.key()?);
                    continue;
                }
                b'[' if !self.eat(b']') => {
                    nesting = nest(nesting, LIST)?;
                    continue;
                }
                b'{' | b'[' => {}
                b't' => self.literal(b"rue")?,
                b'f' => self.literal(b"alse")?,
                b'n' => self.literal(b"ull")?,
                first => {
                    self.number(first)?;
                    size.add_number();
                }
            }
            // The value has ended, and with it perhaps those around it.
            loop {
                if nesting == OUTSIDE {
                    return Some(size);
                }
                let in_object = nesting & 1 == OBJECT;
                if self.another(if in_object { b'}' } else { b']' })? {
                    if in_object {
                        under_media = size.add_key(self.key()?);
                    }
                    break;
                }
                nesting >>= 1;
            }
        }
    }

    /// Whether another element follows in the list or object that ends with `end`.
    fn another(&mut self, end: u8) -> Option<bool> {
        match self.next()? {
            b',' => Some(true),
            byte if byte == end => Some(false),
            _ => None,
        }
    }

    /// The raw text of a key; its colon is passed over.
    // By itself, it would keep the scanner in memory between any two steps: a tenth of reading a chat.
    #[inline(always)]
    fn key(&mut self) -> Option<&'a [u8]> {
        self.expect(b'"')?;
        let key = self.string()?.content;
        self.expect(b':')?;
        Some(key)
    }

    fn string(&mut self) -> Option<JsonString<'a>> {
        let string = read_string(self.rest)?;
        self.rest = string.rest;
        self.is_plain &= !string.has_numbered_escapes;
        self.is_ascii &= string.is_ascii;
        Some(string)
    }

    fn literal(&mut self, letters: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(letters)?;
        Some(())
    }

    /// Passes over a number; what follows a leading zero is for the caller to refuse.
    fn number(&mut self, first: u8) -> Option<()> {
        let first = if first == b'-' { self.take(|_| true)? } else { first };
        match first {
            b'0' => {}
            b'1'..=b'9' => self.skip(|byte| byte.is_ascii_digit()),
            _ => return None,
        }
        if self.take(|byte| byte == b'.').is_some() {
            self.digits()?;
        }
        if self.take(|byte| matches!(byte, b'e' | b'E')).is_some() {
            self.take(|byte| matches!(byte, b'+' | b'-'));
            self.digits()?;
        }
        Some(())
    }

    /// Passes over at least one digit.
    fn digits(&mut self) -> Option<()> {
        self.take(|byte| byte.is_ascii_digit())?;
        self.skip(|byte| byte.is_ascii_digit());
        Some(())
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    /// Passes over `byte` if it comes next.
    fn eat(&mut self, byte: u8) -> bool {
        self.skip_whitespace();
        self.take(|next| next == byte).is_some()
    }

    /// The next byte that is not whitespace.
    fn next(&mut self) -> Option<u8> {
        self.skip_whitespace();
        self.take(|_| true)
    }

    fn skip_whitespace(&mut self) {
        if matches!(self.rest.first(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.is_plain = false;
            self.skip(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t'));
        }
    }

    fn skip(&mut self, unwanted: impl Fn(u8) -> bool) {
        while self.take(&unwanted).is_some() {}
    }

    /// The very next byte, if it is wanted.
    fn take(&mut self, wanted: impl Fn(u8) -> bool) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        if !wanted(byte) {
            return None;
        }
        self.rest = rest;
        Some(byte)
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn accepted(body: &str) {
        let fields = read_fields(body.as_bytes()).unwrap_or_else(|| panic!("handed back: {body}"));
        assert_eq!(fields, parse::read_fields(body.as_bytes()).unwrap(), "{body}");
    }

    fn handed_back(body: &[u8]) {
        assert_eq!(read_fields(body), None, "{}", String::from_utf8_lossy(body));
    }

    /// A body whose value is `value`, in a prompt and elsewhere, alone and among others.
    fn around(value: &str) -> [String; 3] {
        [
            format!(r#"{{"model":"m","prompt":{value}}}"#),
            format!(r#"{{"x":{value},"model":"m"}}"#),
            format!(r#"{{"messages":[{value},{{"url":{value},"y":{value}}}]}}"#),
        ]
    }

    #[test]
    fn recorded_requests_are_ordinary() {
        accepted(include_str!("../../../tests/fixtures/vllm-0.32/chat_stream.req.json"));
        accepted(include_str!("../../../tests/fixtures/vllm-0.32/comp_stream_usage.req.json"));
        accepted(r#"{"stream_options": {"include_usage":false} ,"model":"m","stream_options":null }"#);
        accepted("{}");
        accepted(" {\n\"model\" : \"m\" ,\t\"stream\" : true , \"user\" : \"ann\" } \r\n");
    }

    #[test]
    fn every_kind_of_value_is_ordinary() {
        let words = "0 -0 10 -1.50 1e5 2E+07 0.0e-0 true false null [] {}".split(' ');
        let strings = [r#""""#, r#""\u4e2d\ud83d""#, r#""\"\\\/\b\f\n\r\t""#, "\"é中😀\u{7f}\""];
        let nested = ["[ [ ] , { } ]", r#"{"a\"\u0062":[{}, {"c":1}]}"#];
        for value in words.chain(strings).chain(nested) {
            around(value).iter().for_each(|body| accepted(body));
        }
    }

    #[test]
    fn what_is_no_json_is_handed_back() {
        let numbers = "01 - +1 .5 1. 1.e5 1e 1e+ --1 0x1 NaN 1//".split(' ');
        let literals = "tru truE nulll 'a' a".split(' ');
        let nested = r#"[1,] [,1] [1;2] [1} {"a"} {"a":} {"a":1,} {a:1} {1:1} {"a":1] [ ] { }"#.split(' ');
        let others = ["", "\"", r#""\x""#, r#""\u12""#, "\"\n\"", "1 1", "\u{c}1", "\u{a0}1"];
        for value in numbers.chain(literals).chain(nested).chain(others) {
            around(value).iter().for_each(|body| handed_back(body.as_bytes()));
        }
        for body in ["", " ", "1", "[]", "\"a\"", "{} {}", "{},", "\u{feff}{}", "{\"a\" \"b\"}"] {
            handed_back(body.as_bytes());
        }
    }

    #[test]
    fn what_is_out_of_the_ordinary_is_handed_back() {
        handed_back(br#"{"mod\u0065l":"m"}"#);
        handed_back(b"{\"x\":\"\xff\"}");
        let models = |count: usize| format!("{{{}}}", vec![r#""model":"m""#; count].join(","));
        accepted(&models(MAX_MODEL_FIELDS));
        handed_back(models(MAX_MODEL_FIELDS + 1).as_bytes());
        let nested = |depth: usize| format!(r#"{{"prompt":{}1{}}}"#, "[".repeat(depth), "]".repeat(depth));
        accepted(&nested(63));
        handed_back(nested(64).as_bytes());
        handed_back(format!(r#"{{"prompt":{}{{"a":1}}"#, "[".repeat(63)).as_bytes());
    }

    #[cfg(not(target_family = "wasm"))]
    mod properties {
        use proptest::collection::vec;
        use proptest::prelude::*;
        use proptest::sample::{Index, select};

        use super::super::super::parse;
        use super::super::read_fields;

        const KEYS: &str = r"model model stream stream_options user previous_response_id conversation prompt_cache_key metadata messages prompt input instructions system tools image_url url
            data é m mod\u0065l \n mess\u0061ges
            stream\u005foptions";
        const WORDS: &str = r#"true false null 0 -0 12 -1.50 2E+07 0.0e-0 [] {} "" "m" "true" "\u4e2d\ud83d" "\ud800"
            "\"\\\/\b\f\n\r\t" "[{\"model\":" "more_than_sixteen_bytes" "é中😀""#;
        const SPACES: [&str; 6] = ["", "", "", "", " ", "\r\n\t "];
        /// Bytes that have a meaning in JSON, and some that must not be there.
        const BYTES: &[u8] = b"{}[]\",:\\ \n0159eE.-+tfnu/\x00\x1f\x7f\x80\xc3\xff";

        fn one_of(words: &'static str) -> impl Strategy<Value = &'static str> {
            select(words.split_whitespace().collect::<Vec<_>>())
        }

        fn spaced(text: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
            (select(&SPACES[..]), text, select(&SPACES[..])).prop_map(|(a, text, b)| format!("{a}{text}{b}"))
        }

        fn value() -> impl Strategy<Value = String> {
            let word = prop_oneof![
                4 => one_of(WORDS).prop_map(str::to_owned),
                1 => any::<String>().prop_map(|text| serde_json::Value::from(text).to_string()),
                1 => any::<f64>().prop_map(|number| serde_json::Value::from(number).to_string()),
            ];
            spaced(word).prop_recursive(5, 30, 5, |value| {
                let list = vec(value.clone(), 1..4).prop_map(|values| format!("[{}]", values.join(",")));
                prop_oneof![spaced(list), object(value)]
            })
        }

        fn object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
            let key = spaced(one_of(KEYS).prop_map(|key| format!("\"{key}\"")));
            let field = (key, value).prop_map(|(key, value)| format!("{key}:{value}"));
            spaced(vec(field, 1..6).prop_map(|fields| format!("{{{}}}", fields.join(","))))
        }

        fn check(body: &[u8]) -> Result<(), TestCaseError> {
            if let Some(fields) = read_fields(body) {
                prop_assert_eq!(Some(fields), parse::read_fields(body).ok());
            }
            Ok(())
        }

        proptest! {
            #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..Default::default() })]

            #[test]
            fn both_readers_read_the_same(body in object(value())) {
                let fast = read_fields(body.as_bytes());
                let slow = parse::read_fields(body.as_bytes());
                prop_assert!(slow.is_ok());
                prop_assert!(fast == slow.ok() || fast.is_none() && body.contains('\\'));
            }

            #[test]
            fn what_the_slow_reader_refuses_is_never_accepted(
                body in object(value()),
                changes in vec((any::<Index>(), 0..3_usize, select(BYTES)), 1..4),
            ) {
                let mut body = body.into_bytes();
                for (place, removed, byte) in changes {
                    let start = place.index(body.len() + 1);
                    let end = (start + removed).min(body.len());
                    body.splice(start..end, [byte]);
                }
                check(&body)?;
            }

            #[test]
            fn a_part_of_a_body_is_never_accepted(body in object(value()), end in any::<Index>()) {
                let body = body.trim();
                prop_assert_eq!(read_fields(&body.as_bytes()[..end.index(body.len())]), None);
            }

            #[test]
            fn any_bytes_do(mut body in vec(prop_oneof![select(BYTES), any::<u8>()], 0..40)) {
                check(&body)?;
                body.splice(0..0, *b"{\"prompt\":");
                body.push(b'}');
                check(&body)?;
            }
        }
    }
}
