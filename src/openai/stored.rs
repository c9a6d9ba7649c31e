//! What servers store, and know again by an id: responses, conversations, batches and files. It is in one server alone.
//!
//! | path | |
//! |---|---|
//! | `POST …/v1/responses` | makes one |
//! | `…/v1/responses/ID`, `…/v1/responses/ID/cancel`, `…/v1/responses/ID/input_items` | is about the one of this id |
//!
//! and likewise the others. The body of a request may name one, too: `previous_response_id` and `conversation` of a response,
//! `input_file_id` of a batch.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::MAX_ID_BYTES;
use super::path::{decoded, without_query};
use super::request::Names;

/// What is stored, by the name in the path.
const COLLECTIONS: [&[u8]; 4] = [b"responses", b"conversations", b"batches", b"files"];

/// What a path says of something that a server stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// It is where such are made, or listed.
    Collection,
    /// It is about the one of this id.
    Named(Vec<u8>),
}

impl Stored {
    /// At this path, whatever its query.
    pub fn at(path: &[u8]) -> Option<Stored> {
        let path = decoded(without_query(path));
        let mut parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
        let mut before = None;
        loop {
            let part = parts.next()?;
            let is_one = COLLECTIONS.contains(&part) && before.is_none_or(|before| before == b"v1");
            if is_one {
                break;
            }
            before = Some(part);
        }
        Some(parts.next().map_or(Stored::Collection, |id| Stored::Named(id.to_vec())))
    }

    /// The id, if it is one that may be known.
    pub fn id(&self) -> Option<&[u8]> {
        match self {
            Stored::Collection => None,
            Stored::Named(id) => Some(id.as_slice()).filter(|id| is_id(id)),
        }
    }
}

fn is_id(id: &[u8]) -> bool {
    (1..MAX_ID_BYTES).contains(&id.len())
}

/// The ids that a request for a response names: that of the response before, and that of the conversation.
pub fn named_in(names: &Names<'_>) -> impl Iterator<Item = String> {
    let texts = [names.previous_response_id, names.conversation];
    texts.into_iter().flatten().filter_map(id_of).filter(|id| is_id(id.as_bytes()))
}

/// The id that stands in a JSON value: a string, or an object's `id`.
pub fn id_of(json: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Object<'a> {
        #[serde(borrow)]
        id: Cow<'a, str>,
    }
    match json.starts_with('{') {
        true => serde_json::from_slice(json.as_bytes()).ok().map(|object: Object<'_>| object.id.into_owned()),
        false => serde_json::from_slice(json.as_bytes()).ok(),
    }
}

/// The raw text of `user_id` in what a client says besides.
pub fn user_id_of(metadata: &str) -> Option<&str> {
    #[derive(Deserialize)]
    struct Metadata<'a> {
        #[serde(borrow)]
        user_id: &'a RawValue,
    }
    // From a text, serde_json cuts the value out with an index that may panic.
    serde_json::from_slice(metadata.as_bytes()).ok().map(|metadata: Metadata<'_>| metadata.user_id.get())
}

/// The id of the file that a batch is read from, by the body of a request for one.
pub fn input_file(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Batch<'a> {
        #[serde(borrow)]
        input_file_id: Cow<'a, str>,
    }
    let batch: Batch<'_> = serde_json::from_slice(body).ok()?;
    Some(batch.input_file_id.into_owned()).filter(|id| is_id(id.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn what_is_stored_is_known_by_its_path() {
        let id = |path: &str| Stored::at(path.as_bytes()).map(|stored| stored.id().map(<[u8]>::to_vec));
        for path in ["/v1/responses", "/v1/files/?limit=2", "/team/v1/batches", "/responses"] {
            assert_eq!(id(path), Some(None), "{path}");
        }
        for path in [
            "/v1/responses/resp_1",
            "/v1/responses/resp_1?stream=true",
            "/v1/conversations/resp_1/items/msg_1",
            "/a/b/v1/responses/resp%5F1/cancel",
            "/responses/resp_1/input_items",
            "//v1//files/resp_1/content",
        ] {
            assert_eq!(id(path), Some(Some(b"resp_1".to_vec())), "{path}");
        }
        for path in
            ["/v1/chat/completions", "/v1/models/responses", "/x/responses/resp_1", "/", "/v1/response/x"]
        {
            assert_eq!(id(path), None, "{path}");
        }
        assert_eq!(id(&format!("/v1/responses/{}", "a".repeat(4_096))), Some(None), "no id is so long");
    }

    #[test]
    fn an_id_is_a_string_or_an_objects() {
        for json in [r#""conv_1""#, r#"{"id":"conv_1"}"#, r#"{"x":[],"id":"conv\u005f1"}"#] {
            assert_eq!(id_of(json).as_deref(), Some("conv_1"), "{json}");
        }
        for json in ["null", "7", "[]", "{}", r#"{"id":7}"#, r#""\ud800""#] {
            assert_eq!(id_of(json), None, "{json}");
        }
        assert_eq!(
            input_file(br#"{"endpoint":"/v1/x","input_file_id":"file\/1"}"#).as_deref(),
            Some("file/1")
        );
        for body in ["", "[]", r#"{"input_file_id":7}"#, r#"{"input_file_id":""}"#] {
            assert_eq!(input_file(body.as_bytes()), None, "{body}");
        }
    }
}
