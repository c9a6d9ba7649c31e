//! What an answer has cost, how far it is, whether it failed, and what is hidden of it, found the slow way: the whole
//! answer at once, each line parsed by `serde_json`, and the values looked up by their place. For property tests and fuzz
//! targets.
//!
//! `None` where no such thing is promised: broken JSON.

use std::fmt;

use inference_picker::openai::{AnswerFailure, AnswerFormat, AnswerReader, Usage};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// What is known of an answer that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    pub usage: Option<Usage>,
    pub output_events: u32,
    pub has_output: bool,
    pub complete: bool,
    pub failure: Option<AnswerFailure>,
}

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
#[derive(Debug, Clone, PartialEq)]
pub enum Line {
    Document(Json),
    Other(Vec<u8>),
}

/// Lines of more bytes than this may be too long to be held back.
const LONGEST_LINE_BYTES: usize = 8 * 1024;

pub fn read(format: AnswerFormat, pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Account {
    let mut answer = AnswerReader::new(format);
    for piece in pieces {
        let piece = piece.as_ref();
        assert_eq!(answer.push(piece, false), piece);
    }
    assert!(answer.push(b"", true).is_empty());
    reported(&answer)
}

fn reported(answer: &AnswerReader) -> Account {
    Account {
        usage: answer.usage(),
        output_events: answer.output_events(),
        has_output: answer.has_output(),
        complete: answer.is_complete(),
        failure: answer.failure(),
    }
}

/// What the client sees of a stream; what is known of it must be the same.
pub fn hide(pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Vec<u8> {
    let mut answer = AnswerReader::new(AnswerFormat::Events);
    let mut untouched = AnswerReader::new(AnswerFormat::Events);
    answer.hide_usage();
    let mut rewritten = vec![];
    for piece in pieces {
        rewritten.extend_from_slice(&answer.push(piece.as_ref(), false));
        untouched.push(piece.as_ref(), false);
    }
    rewritten.extend_from_slice(&answer.push(b"", true));
    untouched.push(b"", true);
    assert_eq!(reported(&answer), reported(&untouched));
    rewritten
}

/// What [`read`] must say.
pub fn account(format: AnswerFormat, answer: &[u8]) -> Option<Account> {
    let mut counts = Counts::default();
    match format {
        AnswerFormat::Document => {
            let document = parse(answer)?;
            counts.add(&document);
            counts.has_output = true;
            counts.complete = matches!(document, Json::Object(_) | Json::List(_));
        }
        AnswerFormat::Events => {
            for event in events(answer)? {
                let is_error = |line: &Line| *line == Line::Other(b"event: error".to_vec());
                let mut ahead = false;
                for line in &event {
                    ahead |= is_error(line);
                    match line {
                        Line::Document(document) => counts.add_event(document, ahead),
                        Line::Other(text) => {
                            counts.complete |= text == b"data:[DONE]";
                            if ahead && is_data(line) {
                                counts.failure = Some(AnswerFailure { code: None });
                            }
                        }
                    }
                }
            }
        }
    }
    Some(counts.account())
}

/// The lines of a stream without the blank ones, which the client must see; `None` as above.
pub fn visible(answer: &[u8]) -> Option<Vec<Line>> {
    let (mut visible, mut finished, mut is_forced) = (vec![], None, false);
    for event in events(answer)? {
        let comments = event.iter().take_while(|line| is_comment(line)).count();
        let data: Vec<&Line> = event.iter().filter(|line| is_data(line)).collect();
        if let [Line::Document(Json::Object(members))] = data[..]
            && !is_forced
            && is_hidden(members)
        {
            visible.extend(event[..comments].iter().cloned());
            if let Some(place) = finished.take() {
                put_back(members, &mut visible[place]);
            }
            continue;
        }
        if !data.is_empty() {
            finished = None;
        }
        for line in event {
            is_forced |= matches!(&line, Line::Document(document) if reports_with_output(document));
            if matches!(&line, Line::Document(document) if has_finish_reason(document, |_| true)) {
                finished = Some(visible.len());
            }
            visible.push(without_null(line));
        }
    }
    Some(visible)
}

/// Whether the usage stands in an event with choices, as only those have it who report it to everybody.
fn reports_with_output(document: &Json) -> bool {
    let any = |name: &str, right: fn(&Json) -> bool| {
        members(document).iter().any(|(key, value)| key == name && right(value))
    };
    any("usage", |usage| matches!(usage, Json::Object(_)))
        && any("choices", |choices| !(items(choices).is_empty() && members(choices).is_empty()))
}

fn is_comment(line: &Line) -> bool {
    matches!(line, Line::Other(text) if text.starts_with(b":"))
}

fn is_data(line: &Line) -> bool {
    matches!(line, Line::Document(_)) || matches!(line, Line::Other(text) if text.starts_with(b"data:"))
}

/// Without each `usage: null` but one that stands first.
fn without_null(line: Line) -> Line {
    let Line::Document(Json::Object(mut members)) = line else { return line };
    let mut place = 0;
    members.retain(|(key, value)| {
        place += 1;
        place == 1 || key != "usage" || *value != Json::Null
    });
    Line::Document(Json::Object(members))
}

fn put_back(moved: &[(String, Json)], finished: &mut Line) {
    let Line::Document(Json::Object(members)) = finished else { return };
    let present = members.clone();
    for name in ["system_fingerprint", "timings"] {
        let last = moved.iter().rev().find(|(key, value)| key == name && *value != Json::Null);
        if let Some(member) = last
            && moved.iter().rfind(|(key, _)| key == name) == Some(member)
            && !present.iter().any(|(key, _)| key == name)
        {
            members.push(member.clone());
        }
    }
}

/// The lines of each event: what stands between blank lines.
fn events(answer: &[u8]) -> Option<Vec<Vec<Line>>> {
    let lines = all_lines(answer)?;
    let events = lines.split(|line| *line == Line::Other(vec![]));
    Some(events.map(<[Line]>::to_vec).collect())
}

/// The lines of a stream without the blank ones.
pub fn lines(answer: &[u8]) -> Option<Vec<Line>> {
    Some(all_lines(answer)?.into_iter().filter(|line| *line != Line::Other(vec![])).collect())
}

fn all_lines(answer: &[u8]) -> Option<Vec<Line>> {
    let lines = answer.split(|byte| *byte == b'\n').map(|line| {
        if line.len() > LONGEST_LINE_BYTES {
            return None;
        }
        let start = line.iter().take_while(|byte| **byte == b'\r').count();
        match line[start..].strip_prefix(b"data:") {
            Some(text) if text.trim_ascii() == b"[DONE]" => Some(Line::Other(b"data:[DONE]".to_vec())),
            Some(text) if text.trim_ascii().is_empty() => Some(Line::Other(line[start..].to_vec())),
            Some(text) => Some(Line::Document(parse(text)?)),
            None => Some(Line::Other(line[start..].to_vec())),
        }
    });
    lines.collect()
}

fn parse(text: &[u8]) -> Option<Json> {
    serde_json::from_slice(text).ok()
}

fn is_hidden(members: &[(String, Json)]) -> bool {
    let all = |name: &str, right: fn(&Json) -> bool| {
        let mut values = members.iter().filter(|(key, _)| key == name).map(|(_, value)| value).peekable();
        values.peek().is_some() && values.all(right)
    };
    all("choices", |value| *value == Json::List(vec![]))
        && all("usage", |value| matches!(value, Json::Object(_)))
}

/// The last of each number that is called so, and what else is reported.
#[derive(Default)]
struct Counts {
    numbers: std::collections::HashMap<String, u32>,
    output_events: u32,
    has_output: bool,
    complete: bool,
    failure: Option<AnswerFailure>,
}

impl Counts {
    fn account(&self) -> Account {
        let without_output = Some(AnswerFailure { code: None }).filter(|_| !self.has_output);
        Account {
            usage: self.usage(),
            output_events: self.output_events,
            has_output: self.has_output,
            complete: self.complete,
            failure: self.failure.or(without_output),
        }
    }

    fn add_event(&mut self, document: &Json, is_error: bool) {
        self.add(document);
        let last_events = ["response.completed", "response.incomplete", "response.failed", "message_stop"];
        self.complete |= members(document).iter().any(|(key, value)| {
            key == "type" && last_events.iter().any(|last| is_text(value, |text| text == *last))
        });
        if is_error {
            self.failure = Some(AnswerFailure { code: code_of(document) });
        }
        let has_failed = is_error || reports_failure(document);
        self.has_output |= begins(document) || is_of_no_api(document) && !has_failed;
    }

    fn add(&mut self, document: &Json) {
        if reports_failure(document) {
            self.failure = Some(AnswerFailure { code: code_of(document) });
        }
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
            "choices" => choices_have_output(value),
            "content_block" => has_output(value),
            "partial_image_b64" | "b64_json" => is_text(value, |text| !text.is_empty()),
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

/// Whether an event has what only a computed prompt can have.
fn begins(document: &Json) -> bool {
    let is_type =
        |text: &str| text == "response.completed" || text == "response.incomplete" || text.ends_with(".done");
    let in_choices = members(document).iter().filter(|(key, _)| key == "choices").any(|(_, choices)| {
        items(choices).iter().any(|choice| {
            let deltas = members(choice).iter().filter(|(key, _)| key == "delta");
            deltas.flat_map(|(_, delta)| members(delta)).any(|(key, calls)| {
                key == "tool_calls" && !(items(calls).is_empty() && members(calls).is_empty())
            })
        })
    });
    let at_top = members(document).iter().any(|(key, value)| match key.as_str() {
        "choices" => choices_have_output(value),
        "delta" => {
            has_output(value)
                || is_text(value, |text| !text.is_empty())
                || members(value)
                    .iter()
                    .any(|(key, value)| key == "stop_reason" && is_text(value, |text| !text.is_empty()))
        }
        "content_block" => {
            has_output(value)
                || members(value)
                    .iter()
                    .any(|(key, value)| key == "type" && is_text(value, |text| text.ends_with("tool_use")))
        }
        "partial_image_b64" | "b64_json" => is_text(value, |text| !text.is_empty()),
        "type" => is_text(value, is_type),
        _ => false,
    });
    in_choices || at_top || has_finish_reason(document, |reason| !reason.is_empty())
}

fn is_of_no_api(document: &Json) -> bool {
    let Json::Object(members) = document else { return true };
    !members.is_empty()
        && !members.iter().any(|(key, _)| ["choices", "type", "error", "usage"].contains(&key.as_str()))
}

fn has_finish_reason(document: &Json, right: impl Fn(&str) -> bool) -> bool {
    let choices = members(document).iter().filter(|(key, _)| key == "choices");
    choices
        .flat_map(|(_, choices)| items(choices))
        .flat_map(members)
        .any(|(key, reason)| key == "finish_reason" && is_text(reason, &right))
}

fn items(value: &Json) -> &[Json] {
    if let Json::List(items) = value { items } else { &[] }
}

/// The objects that may hold an error: the document, and those under `response` and `message`.
fn envelopes(document: &Json) -> impl Iterator<Item = &Json> {
    let inner = members(document).iter().filter(|(key, _)| key == "response" || key == "message");
    std::iter::once(document).chain(inner.map(|(_, value)| value))
}

fn errors(document: &Json) -> impl Iterator<Item = &Json> {
    let members = envelopes(document).flat_map(members).filter(|(key, _)| key == "error");
    members.map(|(_, error)| error)
}

fn reports_failure(document: &Json) -> bool {
    let is_error = |error: &Json| {
        matches!(error, Json::Object(_) | Json::List(_)) || is_text(error, |text| !text.is_empty())
    };
    errors(document).any(is_error)
        || members(document).iter().any(|(key, value)| match key.as_str() {
            "type" => is_text(value, |text| text == "error" || text == "response.failed"),
            "object" => is_text(value, |text| text == "error"),
            _ => false,
        })
}

/// Codes count in digits before names, and names of codes before kinds; of each the last one in the document.
fn code_of(document: &Json) -> Option<u16> {
    let (mut digits, mut code, mut kind) = (None, None, None);
    let mut see = |place: &str, value: &Json| {
        let text = match value {
            Json::Whole(number) => number.to_string(),
            Json::Text(text) => text.clone(),
            _ => return,
        };
        let number = Some(&text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let number = number.and_then(|text| text.parse::<u16>().ok());
        let named = NAMED.iter().find(|(name, _)| *name == text).map(|(_, code)| *code);
        match (place, value) {
            ("code", _) => {
                digits = number.filter(|code| (100..600).contains(code)).or(digits);
                code = named.or(code);
            }
            (_, Json::Text(_)) => kind = named.or(kind),
            _ => {}
        }
    };
    for (key, value) in members(document) {
        match key.as_str() {
            "code" => see("code", value),
            "error_type" => see("type", value),
            "error" => members(value).iter().for_each(|(key, value)| {
                if key == "code" || key == "type" {
                    see(key, value);
                }
            }),
            "response" | "message" => {
                for (_, error) in members(value).iter().filter(|(key, _)| key == "error") {
                    members(error)
                        .iter()
                        .filter(|(key, _)| key == "code" || key == "type")
                        .for_each(|(key, value)| see(key, value));
                }
            }
            _ => {}
        }
    }
    digits.or(code).or(kind)
}

/// Some of the names of errors.
const NAMED: [(&str, u16); 5] = [
    ("invalid_request_error", 400),
    ("rate_limit_exceeded", 429),
    ("server_error", 500),
    ("BadRequestError", 400),
    ("overloaded_error", 529),
];

/// The same of `choices`, whose `logprobs` repeat what is there anyway.
fn choices_have_output(choices: &Json) -> bool {
    let Json::List(choices) = choices else { return has_output(choices) };
    choices.iter().any(|choice| match choice {
        Json::Object(members) => {
            let others = members.iter().filter(|(key, _)| key != "logprobs").cloned().collect();
            has_output(&Json::Object(others))
        }
        other => has_output(other),
    })
}

fn has_output(value: &Json) -> bool {
    const NAMES: [&str; 9] = [
        "content",
        "text",
        "reasoning",
        "reasoning_content",
        "refusal",
        "arguments",
        "thinking",
        "partial_json",
        "transcript",
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
