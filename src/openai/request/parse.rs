//! Reads the fields of any request with `serde_json`: the reader that decides what is out of the ordinary, and says what
//! is wrong with what is no request.

use std::fmt;
use std::ops::Range;

use serde::Deserializer;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::fields::{Fields, Key, MAX_MODEL_FIELDS};
use super::prompt::PromptSize;
use super::prompt_text::PromptPart;

/// The fields of any JSON object, however strange, or what is wrong with it.
pub(super) fn read_fields(body: &[u8]) -> Result<Fields<'_>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let fields = deserializer.deserialize_map(FieldsVisitor { body })?;
    deserializer.end()?;
    Ok(fields)
}

struct FieldsVisitor<'a> {
    body: &'a [u8],
}

impl<'de> Visitor<'de> for FieldsVisitor<'de> {
    type Value = Fields<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields::default();
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                Key::Model => {
                    let value: &RawValue = map.next_value()?;
                    if fields.model_spans.len() == MAX_MODEL_FIELDS {
                        return Err(A::Error::custom("`model` is there too often"));
                    }
                    fields.model_spans.push(span_of(value, self.body));
                    fields.model = Some(value.get());
                }
                Key::Stream => fields.stream = map.next_value::<&RawValue>()?.get() == "true",
                Key::StreamOptions => fields.stream_options = Some(span_of(map.next_value()?, self.body)),
                Key::User => fields.user = Some(map.next_value::<&RawValue>()?.get()),
                Key::PreviousResponseId => {
                    fields.names.previous_response_id = Some(map.next_value::<&RawValue>()?.get());
                }
                Key::Conversation => fields.names.conversation = Some(map.next_value::<&RawValue>()?.get()),
                Key::CachedWith => {
                    fields.names.prompt_cache_key = Some(map.next_value::<&RawValue>()?.get());
                }
                Key::Metadata => fields.names.metadata = Some(map.next_value::<&RawValue>()?.get()),
                Key::CacheSalt => {
                    fields.cache_salt = Some(map.next_value::<&RawValue>()?.get().as_bytes());
                }
                Key::Tools | Key::System | Key::Messages | Key::Text | Key::InputExtra | Key::InputSuffix => {
                    let part = map.next_value::<&RawValue>()?.get().as_bytes();
                    let mut size = PromptSize::default();
                    size.add(part);
                    fields.add_prompt(key, size, PromptPart::of(part, size));
                }
                Key::TruncatePromptTokens => {
                    map.next_value::<IgnoredAny>()?;
                    fields.may_be_cut = true;
                }
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(fields)
    }
}

/// Where `value`, which borrows from `body`, stands in it.
pub(super) fn span_of(value: &RawValue, body: &[u8]) -> Range<usize> {
    let start = value.get().as_ptr() as usize - body.as_ptr() as usize;
    start..start + value.get().len()
}
