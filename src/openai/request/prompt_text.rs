//! The text of a prompt, in the order in which a server puts it before the model.
//!
//! Chat templates begin with the tools, then comes what is said for all turns, then the turns. What is handed out is not
//! what the model reads: the template is the server's. It is the JSON of the request in one plain form, so that two prompts
//! share about as much of their start here as they do there, whoever wrote them:
//! - no white space between values;
//! - characters in place of their numbers (`\u00e9`), as far as they are not special in JSON;
//! - for a medium (by URL or by value) a hash of its string, over as many bytes as stand for its tokens.
//!
//! Most clients write that form already; their JSON is handed out as it stands.

use twox_hash::XxHash64;

use super::prompt::{BYTES_PER_TOKEN, MEDIA_TOKENS, PromptSize, is_media_key};
use crate::openai::json::read_string;

/// What a prompt is made of; empty where a request has no such field.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct PromptParts<'a> {
    pub(super) tools: PromptPart<'a>,
    pub(super) system: PromptPart<'a>,
    pub(super) turns: PromptPart<'a>,
}

/// The JSON of one field.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct PromptPart<'a> {
    pub json: &'a [u8],
    /// Whether it has the plain form.
    pub is_plain: bool,
}

impl<'a> PromptPart<'a> {
    /// A valid JSON value of this size.
    pub fn of(json: &'a [u8], size: PromptSize) -> PromptPart<'a> {
        PromptPart { json, is_plain: size.has_no_media() && is_plain(json) }
    }
}

/// Whether a valid JSON value without media has the plain form, as far as can be told at a glance: a number that has to stay counts as
/// one that has not.
fn is_plain(json: &[u8]) -> bool {
    let mut rest = json;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = match byte {
            b'"' => match read_string(tail) {
                Some(string) if !string.has_numbered_escapes => string.rest,
                _ => return false,
            },
            b' ' | b'\n' | b'\r' | b'\t' => return false,
            _ => tail,
        };
    }
    true
}

impl<'a> PromptParts<'a> {
    /// Hands out the text in pieces.
    pub fn visit(&self, mut sink: impl FnMut(&[u8])) {
        for part in [self.tools, self.system, self.turns] {
            if part.is_plain {
                sink(part.json);
            } else {
                visit_value(part.json, &mut sink);
            }
        }
    }
}

/// Hands out the plain form of a JSON value, which is known to be valid: one flat pass, without recursion.
fn visit_value(json: &[u8], sink: &mut impl FnMut(&[u8])) {
    let mut rest = json;
    let mut under_media = false;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = match byte {
            b'"' => visit_string(tail, &mut under_media, sink),
            b' ' | b'\n' | b'\r' | b'\t' => tail,
            _ => {
                sink(&[byte]);
                tail
            }
        };
    }
}

/// Hands out the string whose opening quote was just read, and returns what follows it.
fn visit_string<'a>(text: &'a [u8], under_media: &mut bool, sink: &mut impl FnMut(&[u8])) -> &'a [u8] {
    let Some(string) = read_string(text) else { return &[] };
    sink(b"\"");
    let is_key = string.rest.trim_ascii_start().first() == Some(&b':');
    if !is_key && std::mem::take(under_media) {
        visit_medium(string.content, sink);
    } else if string.has_numbered_escapes {
        visit_escaped(string.content, sink);
    } else {
        sink(string.content);
    }
    if is_key {
        *under_media = is_media_key(string.content);
    }
    sink(b"\"");
    string.rest
}

fn visit_medium(content: &[u8], sink: &mut impl FnMut(&[u8])) {
    let hash = XxHash64::oneshot(0, content).to_le_bytes();
    for _ in 0..MEDIA_TOKENS * BYTES_PER_TOKEN / hash.len() {
        sink(&hash);
    }
}

/// Hands out what numbered escapes stand for, because clients differ in which characters they write so; others stay as
/// they are. Halves of surrogate pairs that stand alone are handed out as they are written.
fn visit_escaped(content: &[u8], sink: &mut impl FnMut(&[u8])) {
    let mut rest = content;
    while let Some(place) = memchr::memchr(b'\\', rest) {
        let (plain, escape) = rest.split_at(place);
        sink(plain);
        rest = match escape {
            [_, b'u', ..] => visit_numbered(escape, sink),
            [_, _, tail @ ..] => {
                sink(escape.get(..2).unwrap_or(escape));
                tail
            }
            _ => &[],
        };
    }
    sink(rest);
}

fn visit_numbered<'a>(escape: &'a [u8], sink: &mut impl FnMut(&[u8])) -> &'a [u8] {
    let unit = |text: &[u8]| {
        let digits = str::from_utf8(text.strip_prefix(b"\\u")?.get(..4)?).ok()?;
        u16::from_str_radix(digits, 16).ok()
    };
    let (first, second) = (unit(escape), escape.get(6..).and_then(unit));
    let units = [first.unwrap_or_default(), second.unwrap_or_default()];
    let decoded = char::decode_utf16(units.into_iter().take(1 + usize::from(second.is_some()))).next();
    match decoded {
        Some(Ok(character)) if !matches!(character, '\0'..='\u{1f}' | '"' | '\\') => {
            sink(character.encode_utf8(&mut [0; 4]).as_bytes());
            escape.get(6 * character.len_utf16()..).unwrap_or_default()
        }
        _ => {
            sink(escape.get(..6).unwrap_or(escape));
            escape.get(6..).unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::read_request;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn text_of(body: &str) -> Vec<u8> {
        let request = read_request(body.as_bytes()).unwrap_or_else(|error| panic!("{body}: {error:?}"));
        let mut text = Vec::new();
        request.prompt.visit(|piece| text.extend_from_slice(piece));
        text
    }

    fn check(body: &str, text: &[u8]) {
        assert_eq!(String::from_utf8_lossy(&text_of(body)), String::from_utf8_lossy(text), "{body}");
    }

    #[test]
    fn tools_come_first_then_what_is_said_for_all_turns_then_the_turns() {
        let messages = r#""messages":[{"role":"user","content":"Hi"}]"#;
        check(
            &format!(r#"{{"model":"m",{messages},"system":"Be brief.","tools":["t"]}}"#),
            br#"["t"]"Be brief."[{"role":"user","content":"Hi"}]"#,
        );
        check(r#"{"model":"m","input":"Hi","instructions":"Be brief."}"#, br#""Be brief.""Hi""#);
        check(r#"{"model":"m","prompt":"Once"}"#, br#""Once""#);
        check(r#"{"model":"m"}"#, b"");
    }

    #[test]
    fn the_same_prompt_written_otherwise_is_the_same_text() {
        let one = r#"{"model":"m","messages":[{"role":"user","content":"a\n\"é\" 😀 \ud800 \t\\u00e9"}]}"#;
        let other = "{\"model\" : \"m\", \"messages\" :\n [ { \"role\" : \"\\u0075ser\",\r\n \"content\" : \
            \"a\\n\\\"\\u00e9\\\" \\ud83d\\ude00 \\ud800 \\t\\\\u00e9\" } ] }";
        check(other, &text_of(one));
    }

    #[test]
    fn a_turn_more_keeps_the_text_of_those_before() {
        let turn = |role: &str, text: &str| format!(r#"{{"role":"{role}","content":"{text}"}}"#);
        let (one, two) = (turn("user", "One"), turn("assistant", "Two"));
        let before = text_of(&format!(r#"{{"model":"m","messages":[{one}]}}"#));
        let after = text_of(&format!(r#"{{"model":"m","messages":[{one}, {two}]}}"#));
        assert!(after.starts_with(before.strip_suffix(b"]").unwrap()));
    }

    #[test]
    fn special_characters_keep_their_numbers() {
        let body = r#"{"model":"m","prompt":"\u0022\u005c\u000a\u00e9"}"#;
        check(body, r#""\u0022\u005c\u000aé""#.as_bytes());
    }

    #[test]
    fn what_is_plain_is_known_to_be() {
        let plain = |json: &str| {
            let mut size = PromptSize::default();
            size.add(json.as_bytes());
            PromptPart::of(json.as_bytes(), size).is_plain
        };
        assert!(plain(r#"[{"a":"b c\n","d":[1,-2.5e3,true,null]}]"#));
        for other in [r#"[1, 2]"#, r#"{"a" :1}"#, r#""\u00e9""#, r#""\u000a""#, r#"{"url":"x"}"#, "[1]\n"] {
            assert!(!plain(other), "{other}");
        }
    }

    #[test]
    fn media_differ_by_their_content_and_count_the_same_however_long() {
        let image = |url: &str| {
            text_of(&format!(
                r#"{{"model":"m","messages":[{{"type":"image_url","image_url":{{"url":"{url}"}}}}]}}"#
            ))
        };
        let (short, long) = (image("http://x/y.png"), image(&format!("data:{}", "A".repeat(100_000))));
        assert_eq!(short.len(), long.len());
        assert!(short.len() > MEDIA_TOKENS * BYTES_PER_TOKEN);
        assert_ne!(short, long);
        assert_eq!(image("http://x/y.png"), short);
    }
}
