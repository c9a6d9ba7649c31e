//! The text of a prompt, in the order in which a server puts it before the model.
//!
//! Chat templates begin with the tools, then comes what is said for all turns, then the turns. What is handed out is not
//! what the model reads: the template is the server's. It is the JSON of the request in one plain form, so that two prompts
//! share about as much of their start here as they do there, whoever wrote them:
//! - no white space between values;
//! - characters in place of their numbers (`\u00e9`), as far as they are not special in JSON;
//! - for a medium (by URL or by value) a hash of its string, over as many bytes as stand for its tokens;
//! - without what agents write anew with every request and servers leave out (docs/agents.md): the attribution of Claude
//!   Code, whose value changes, and the marks by which clients say up to where to cache, which move with the turns. A
//!   content of one text is that text, because clients make one of the other where they set such a mark.
//!
//! Most clients write that form already; their JSON is handed out as it stands.

use twox_hash::XxHash64;

use super::prompt::{
    ATTRIBUTION, BYTES_PER_TOKEN, CACHE_MARK_KEY, MEDIA_TOKENS, PromptSize, TEXT_KEY, is_media_key,
};
use crate::openai::json::{JsonString, read_string};

/// Bytes that are left out of a prompt for one attribution; a longer one is text like any other.
const MAX_ATTRIBUTION_BYTES: usize = 512;
/// Bytes that are left out for one cache mark; a longer one is text like any other.
const MAX_CACHE_MARK_BYTES: usize = 64;

/// What a prompt is made of; empty where a request has no such field.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct PromptParts<'a> {
    pub(super) tools: PromptPart<'a>,
    pub(super) system: PromptPart<'a>,
    /// Of servers' own APIs.
    pub(super) files: PromptPart<'a>,
    pub(super) text: PromptPart<'a>,
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
        PromptPart { json, is_plain: size.is_as_written() && is_plain(json) }
    }
}

/// Whether a valid JSON value of which nothing is rewritten has the plain form, as far as can be seen at a glance: a number that has to stay counts as
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
        for part in [self.tools, self.system, self.files, self.text, self.turns] {
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
    let mut writer = PlainWriter { sink, under_media: false, comma: Comma::None, is_attributed: false };
    let mut rest = json;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = match byte {
            b'"' => writer.string(tail),
            b' ' | b'\n' | b'\r' | b'\t' => tail,
            b',' => {
                writer.comma = if writer.comma == Comma::Dropped { Comma::None } else { Comma::Held };
                tail
            }
            b'[' => writer.list(tail),
            _ => {
                writer.write(&[byte]);
                tail
            }
        };
    }
}

/// What becomes of the comma next to a field that is left out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comma {
    None,
    /// One was read and is written before what follows, if that is.
    Held,
    /// The field was its object's first: the one behind it goes with it.
    Dropped,
}

struct PlainWriter<'a, S> {
    sink: &'a mut S,
    /// Whether the next string is a medium.
    under_media: bool,
    comma: Comma,
    /// Whether an attribution was left out; there is one at most.
    is_attributed: bool,
}

impl<S: FnMut(&[u8])> PlainWriter<'_, S> {
    fn write(&mut self, text: &[u8]) {
        if std::mem::replace(&mut self.comma, Comma::None) == Comma::Held {
            (self.sink)(b",");
        }
        (self.sink)(text);
    }

    /// The string whose opening quote was just read. Returns what follows it, and follows its value if both are left out.
    fn string<'t>(&mut self, text: &'t [u8]) -> &'t [u8] {
        let Some(string) = read_string(text) else { return &[] };
        let Some(value) = string.rest.trim_ascii_start().strip_prefix(b":") else {
            self.text(&string);
            return string.rest;
        };
        if string.content == CACHE_MARK_KEY
            && let Some(rest) = behind_cache_mark(value)
        {
            self.comma = if self.comma == Comma::Held { Comma::None } else { Comma::Dropped };
            self.under_media = false;
            return rest;
        }
        self.under_media = is_media_key(string.content);
        self.quoted(|sink| visit_content(&string, sink));
        string.rest
    }

    /// A string that is no key.
    fn text(&mut self, string: &JsonString<'_>) {
        if std::mem::take(&mut self.under_media) {
            return self.quoted(|sink| visit_medium(string.content, sink));
        }
        let left_out = if self.is_attributed { 0 } else { attribution_bytes(string.content) };
        self.is_attributed |= left_out > 0;
        let content = string.content.get(left_out..).unwrap_or_default();
        self.quoted(|sink| visit_content(&JsonString { content, ..*string }, sink));
    }

    /// The list whose opening bracket was just read; if it is one block of text, that text.
    fn list<'t>(&mut self, text: &'t [u8]) -> &'t [u8] {
        let Some((string, rest)) = lone_text(text) else {
            self.write(b"[");
            return text;
        };
        self.under_media = false;
        self.text(&string);
        rest
    }

    fn quoted(&mut self, content: impl FnOnce(&mut S)) {
        self.write(b"\"");
        content(self.sink);
        (self.sink)(b"\"");
    }
}

fn visit_content(string: &JsonString<'_>, sink: &mut impl FnMut(&[u8])) {
    if string.has_numbered_escapes { visit_escaped(string.content, sink) } else { sink(string.content) }
}

/// How many bytes at the start of a text are an attribution: its name and `key=value;` as often as it comes.
fn attribution_bytes(content: &[u8]) -> usize {
    let Some(mut rest) = content.strip_prefix(ATTRIBUTION) else { return 0 };
    while let Some(behind) = behind_attribute(rest) {
        rest = behind;
    }
    let bytes = content.len() - rest.len();
    if bytes <= MAX_ATTRIBUTION_BYTES { bytes } else { 0 }
}

fn behind_attribute(text: &[u8]) -> Option<&[u8]> {
    let text = text.trim_ascii_start();
    let end = text.iter().position(|byte| matches!(byte, b';' | b' ' | b'\\')).unwrap_or(text.len());
    let (attribute, rest) = text.split_at_checked(end)?;
    match rest {
        _ if !attribute.contains(&b'=') => None,
        [b';', rest @ ..] | rest @ [] => Some(rest),
        _ => None,
    }
}

/// What follows the value of a cache mark, if it is no longer than they are.
fn behind_cache_mark(value: &[u8]) -> Option<&[u8]> {
    let mut rest = value;
    let (mut depth, mut bytes) = (0_usize, 0);
    loop {
        let (&byte, tail) = rest.trim_ascii_start().split_first()?;
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        rest = tail;
        bytes += 1;
        if byte == b'"' {
            let string = read_string(tail)?;
            bytes += string.content.len();
            rest = string.rest;
        }
        if bytes > MAX_CACHE_MARK_BYTES {
            return None;
        }
        if depth == 0 && matches!(rest.trim_ascii_start().first(), Some(b',' | b'}')) {
            return Some(rest);
        }
    }
}

/// The text of a list that is one block of text, `{"type":"text","text":"…"}]`, with a cache mark or without; and what
/// follows the list.
fn lone_text(list: &[u8]) -> Option<(JsonString<'_>, &[u8])> {
    let mut rest = list.trim_ascii_start().strip_prefix(b"{")?;
    let (mut text, mut has_type) = (None, false);
    loop {
        let key = read_string(rest.trim_ascii_start().strip_prefix(b"\"")?)?;
        let value = key.rest.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
        rest = if key.content == CACHE_MARK_KEY {
            behind_cache_mark(value)?
        } else {
            let string = read_string(value.strip_prefix(b"\"")?)?;
            match key.content {
                b"type" if string.content == TEXT_KEY && !has_type => has_type = true,
                TEXT_KEY if text.is_none() => text = Some(string),
                _ => return None,
            }
            string.rest
        };
        rest = rest.trim_ascii_start();
        match rest.split_first()? {
            (b',', tail) => rest = tail,
            (b'}', tail) if has_type => return Some((text?, tail.trim_ascii_start().strip_prefix(b"]")?)),
            _ => return None,
        }
    }
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

    /// A Claude Code turn: its attribution, a constant prompt, and a conversation whose last text carries the mark.
    fn turn(cch: &str, marked: &str, more: &str) -> String {
        format!(
            r#"{{"model":"m","system":[{{"type":"text","text":"x-anthropic-billing-header: cc_version=2.1.0.1; cch={cch};"}},{{"type":"text","text":"You are.","cache_control":{{"type":"ephemeral"}}}}],"messages":[{{"role":"user","content":{marked}}}{more}]}}"#
        )
    }

    #[test]
    fn an_attribution_is_left_out_whatever_it_says() {
        let one = text_of(&turn("a5145", r#""Hi""#, ""));
        assert_eq!(text_of(&turn("ffffffff", r#""Hi""#, "")), one);
        let system = br#"[{"type":"text","text":""},{"type":"text","text":"You are."}]"#;
        assert!(one.starts_with(system), "{}", String::from_utf8_lossy(&one));
        let said = |text: &str| text_of(&format!(r#"{{"model":"m","system":"{text}"}}"#));
        let header = "x-anthropic-billing-header:";
        assert_eq!(said(&format!("{header} a=1; b=2;You are.")), br#""You are.""#);
        assert_eq!(said(&format!("{header} a=1;\\nYou are.")), br#""\nYou are.""#);
        assert_eq!(said(&format!("{header} a=1; b=2")), br#""""#);
        assert_eq!(said(&format!("{header}You are a=1.")), br#""You are a=1.""#);
        assert_eq!(said(&format!("{header} a=1; b 2;")), br#"" b 2;""#);
        assert_eq!(said("x-anthropic-billing"), br#""x-anthropic-billing""#);
    }

    #[test]
    fn of_attributions_one_is_left_out_and_only_as_long_as_they_are() {
        let header = |bytes: usize| format!("x-anthropic-billing-header: a={};", "1".repeat(bytes));
        let said = |one: &str, other: &str| {
            text_of(&format!(r#"{{"model":"m","messages":[{{"content":"{one}"}},{{"content":"{other}"}}]}}"#))
        };
        let second = header(3);
        let expected = format!(r#"[{{"content":""}},{{"content":"{second}"}}]"#);
        assert_eq!(said(&header(5), &second), expected.as_bytes());
        let (long, longer) = (header(512 - 31), header(512 - 30));
        assert_eq!(said(&long, "Hi"), br#"[{"content":""},{"content":"Hi"}]"#);
        let expected = format!(r#"[{{"content":"{longer}"}},{{"content":"Hi"}}]"#);
        assert_eq!(said(&longer, "Hi"), expected.as_bytes());
    }

    #[test]
    fn a_cache_mark_is_left_out_wherever_it_stands() {
        let of = |block: &str| {
            let text = text_of(&format!(r#"{{"model":"m","messages":[{block},1]}}"#));
            String::from_utf8(text).unwrap()
        };
        let mark = r#""cache_control":{"type":"ephemeral","ttl":"1h"}"#;
        assert_eq!(of(&format!(r#"{{"a":1,{mark}}}"#)), r#"[{"a":1},1]"#);
        assert_eq!(of(&format!(r#"{{{mark},"a":1}}"#)), r#"[{"a":1},1]"#);
        assert_eq!(of(&format!(r#"{{"a":1, {mark} ,"b":[2,3]}}"#)), r#"[{"a":1,"b":[2,3]},1]"#);
        assert_eq!(of(&format!(r#"{{{mark}}}"#)), "[{},1]");
        assert_eq!(of(r#"{"cache_control":null,"cache_control":[7],"a":{}}"#), r#"[{"a":{}},1]"#);
        let long = format!(r#"{{"cache_control":{{"type":"{}"}}}}"#, "e".repeat(64));
        assert_eq!(of(&long), format!("[{long},1]"));
    }

    #[test]
    fn a_content_of_one_text_is_that_text() {
        let plain = r#"{"model":"m","messages":[{"role":"user","content":"Hi"},1]}"#;
        let mark = r#""cache_control":{"type":"ephemeral"}"#;
        for block in [
            r#"[{"type":"text","text":"Hi"}]"#.to_owned(),
            r#" [ { "text" : "Hi", "type" : "text" } ] "#.to_owned(),
            format!(r#"[{{"type":"text","text":"Hi",{mark}}}]"#),
            format!(r#"[{{{mark},"type":"text","text":"Hi"}}]"#),
        ] {
            check(&plain.replace(r#""Hi""#, &block), &text_of(plain));
        }
        for other in [
            r#"[{"type":"text","text":"Hi"},{"type":"text","text":"Ho"}]"#,
            r#"[{"type":"input_text","text":"Hi"}]"#,
            r#"[{"text":"Hi"}]"#,
            r#"[{"type":"text","text":"Hi","text":"Ho"}]"#,
            r#"[{"type":"text","text":["Hi"]}]"#,
            r#"[{"type":"text"}]"#,
            r#"["Hi"]"#,
            "[]",
        ] {
            let body = plain.replace(r#""Hi""#, other);
            check(&body, format!(r#"[{{"role":"user","content":{other}}},1]"#).as_bytes());
        }
    }

    #[test]
    fn the_next_turn_of_an_agent_begins_like_the_one_before() {
        let marked = r#"[{"type":"text","text":"Read it.","cache_control":{"type":"ephemeral"}}]"#;
        let before = text_of(&turn("a5145", marked, ""));
        let more = r#",{"role":"assistant","content":"Done."}"#;
        let after = text_of(&turn("b6256", r#""Read it.""#, more));
        assert!(after.starts_with(before.strip_suffix(b"]").unwrap()));
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
