//! What an answer has cost and what is hidden of it, found the slow way: the whole answer at once, each line parsed by
//! `serde_json`, and the values looked up by their place. For property tests and fuzz targets.
//!
//! `None` where no such thing is promised: broken JSON, and names that may be spelled with escapes.

use std::fmt;

use inference_picker::openai::{AnswerFormat, AnswerUsage, HiddenUsage, Usage};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// Usage, events with output, and whether the answer is complete.
pub type Account = (Option<Usage>, u32, bool);

/// A JSON value with its members in order, the repeated ones, too.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    Null,
    Whole(u64),
    Word(String),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// One line of a stream.
#[derive(Debug, PartialEq)]
pub enum Line {
    Document(Json),
    Other(Vec<u8>),
}

/// Lines of more bytes than this may be too long to be held back.
const LONGEST_LINE_BYTES: usize = 8 * 1024;

pub fn read(format: AnswerFormat, pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Account {
    let mut answer = AnswerUsage::new(format);
    pieces.into_iter().for_each(|piece| answer.push(piece.as_ref()));
    (answer.usage(), answer.output_events(), answer.is_complete())
}

pub fn hide(pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Vec<u8> {
    let mut answer = HiddenUsage::new();
    let mut rewritten: Vec<u8> =
        pieces.into_iter().flat_map(|piece| answer.push(piece.as_ref(), false).into_owned()).collect();
    rewritten.extend_from_slice(&answer.push(b"", true));
    rewritten
}

/// What [`read`] must say.
pub fn account(format: AnswerFormat, answer: &[u8]) -> Option<Account> {
    let mut counts = Counts::default();
    match format {
        AnswerFormat::Document => {
            let document = parse(answer)?;
            counts.add(&document);
            counts.complete = matches!(document, Json::Object(_) | Json::List(_));
        }
        AnswerFormat::Events => {
            for line in lines(answer)? {
                match line {
                    Line::Document(document) => counts.add_event(&document),
                    Line::Other(text) => counts.complete |= text == b"data:[DONE]",
                }
            }
        }
    }
    Some((counts.usage(), counts.output_events, counts.complete))
}

/// The lines of a stream without the blank ones, which the client must see; `None` as above.
pub fn visible(answer: &[u8]) -> Option<Vec<Line>> {
    let visible = lines(answer)?.into_iter().filter_map(|line| match line {
        Line::Document(Json::Object(members)) if is_hidden(&members) => None,
        Line::Document(Json::Object(mut members)) => {
            let mut place = 0;
            members.retain(|(key, value)| {
                place += 1;
                place == 1 || key != "usage" || *value != Json::Null
            });
            Some(Line::Document(Json::Object(members)))
        }
        line => Some(line),
    });
    Some(visible.collect())
}

/// The lines of a stream without the blank ones.
pub fn lines(answer: &[u8]) -> Option<Vec<Line>> {
    let lines = answer.split(|byte| *byte == b'\n').map(|line| {
        if line.len() > LONGEST_LINE_BYTES {
            return None;
        }
        let start = line.iter().take_while(|byte| **byte == b'\r').count();
        match line[start..].strip_prefix(b"data:") {
            Some(text) if text.trim_ascii() == b"[DONE]" => Some(Line::Other(b"data:[DONE]".to_vec())),
            Some(text) => Some(Line::Document(parse(text)?)),
            None => Some(Line::Other(line[start..].to_vec())),
        }
    });
    let lines: Option<Vec<Line>> = lines.collect();
    Some(lines?.into_iter().filter(|line| *line != Line::Other(vec![])).collect())
}

fn parse(text: &[u8]) -> Option<Json> {
    let decodes = text.windows(2).any(|pair| pair == b"\\u");
    if decodes { None } else { serde_json::from_slice(text).ok() }
}

fn is_hidden(members: &[(String, Json)]) -> bool {
    let all = |name: &str, right: fn(&Json) -> bool| {
        let mut values = members.iter().filter(|(key, _)| key == name).map(|(_, value)| value).peekable();
        values.peek().is_some() && values.all(right)
    };
    all("choices", |value| *value == Json::List(vec![]))
        && all("usage", |value| matches!(value, Json::Object(_)))
}

/// The last of each number that is called so.
#[derive(Default)]
struct Counts {
    numbers: std::collections::HashMap<String, u32>,
    output_events: u32,
    complete: bool,
}

impl Counts {
    fn add_event(&mut self, document: &Json) {
        self.add(document);
        let last_events = ["response.completed", "response.incomplete", "response.failed", "message_stop"];
        self.complete |= members(document).iter().any(|(key, value)| {
            key == "type" && last_events.iter().any(|last| is_text(value, |text| text == *last))
        });
    }

    fn add(&mut self, document: &Json) {
        for (key, value) in members(document) {
            match key.as_str() {
                "usage" => self.add_usage(value),
                "response" | "message" => {
                    members(value)
                        .iter()
                        .filter(|(key, _)| key == "usage")
                        .for_each(|(_, usage)| self.add_usage(usage));
                }
                _ => {}
            }
        }
        self.output_events += u32::from(members(document).iter().any(|(key, value)| match key.as_str() {
            "choices" => has_output(value),
            "delta" => has_output(value) || is_text(value, |text| !text.is_empty()),
            _ => false,
        }));
    }

    fn add_usage(&mut self, usage: &Json) {
        for (key, value) in members(usage) {
            match (key.as_str(), value) {
                ("prompt_tokens_details" | "input_tokens_details", details) => {
                    members(details).iter().filter(|(key, _)| key == "cached_tokens").for_each(
                        |(key, value)| {
                            self.add_number(key, value);
                        },
                    );
                }
                ("cached_tokens", _) => {}
                (_, value) => self.add_number(key, value),
            }
        }
    }

    fn add_number(&mut self, key: &str, value: &Json) {
        if let Json::Whole(number) = value
            && let Ok(number) = u32::try_from(*number)
        {
            self.numbers.insert(key.to_owned(), number);
        }
    }

    fn usage(&self) -> Option<Usage> {
        let number = |name: &str| self.numbers.get(name).copied();
        let uncached = ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"];
        let input = || {
            number("input_tokens")?;
            let sum: u64 = uncached.iter().filter_map(|name| number(name)).map(u64::from).sum();
            Some(u32::try_from(sum).unwrap_or(u32::MAX))
        };
        Some(Usage {
            prompt_tokens: number("prompt_tokens").or_else(input)?,
            completion_tokens: number("completion_tokens").or_else(|| number("output_tokens")).unwrap_or(0),
            cached_tokens: number("cached_tokens").or_else(|| number("cache_read_input_tokens")),
        })
    }
}

fn members(value: &Json) -> &[(String, Json)] {
    if let Json::Object(members) = value { members } else { &[] }
}

fn is_text(value: &Json, right: impl Fn(&str) -> bool) -> bool {
    matches!(value, Json::Text(text) if right(text))
}

fn has_output(value: &Json) -> bool {
    const NAMES: [&str; 8] = [
        "content",
        "text",
        "reasoning",
        "reasoning_content",
        "refusal",
        "arguments",
        "thinking",
        "partial_json",
    ];
    match value {
        Json::List(values) => values.iter().any(has_output),
        Json::Object(members) => members.iter().any(|(key, value)| {
            NAMES.contains(&key.as_str()) && is_text(value, |text| !text.is_empty()) || has_output(value)
        }),
        _ => false,
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Word(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Whole(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Word(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Word(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let mut values = vec![];
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Json::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut members = vec![];
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Json::Object(members))
    }
}
