//! What one gateway asks another: the path of the exchange, and in its query what is known already.
//!
//! `GET /inference-picker/exchange?read=GATEWAY:CHUNK:OFFSET`, the gateway's id in hexadecimal: how far its journal was read.

use crate::ledger::Cursor;

/// The path at which a gateway answers.
pub const PATH: &str = "/inference-picker/exchange";

const QUERY: &str = "?read=";

/// What the asker has received already.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    read: Option<(u64, Cursor)>,
}

impl Question {
    /// A question of who has read the journal of this gateway so far.
    pub fn of_read(gateway: u64, cursor: Cursor) -> Question {
        Question { read: Some((gateway, cursor)) }
    }

    /// How far this gateway's journal was read, if it is the one that answered before.
    pub fn read_of(&self, gateway: u64) -> Option<Cursor> {
        self.read.filter(|(read, _)| *read == gateway).map(|(_, cursor)| cursor)
    }

    /// The request's path.
    pub fn to_path(&self) -> String {
        match self.read {
            None => PATH.to_owned(),
            Some((gateway, Cursor { chunk, offset })) => format!("{PATH}{QUERY}{gateway:x}:{chunk}:{offset}"),
        }
    }

    /// Reads a request's path; `None` for any other. What is not understood of the query was not received.
    pub fn from_path(path: &[u8]) -> Option<Question> {
        let query = std::str::from_utf8(path).ok()?.strip_prefix(PATH)?;
        if query.is_empty() {
            return Some(Question::default());
        }
        Some(Question { read: read(query.strip_prefix(QUERY)?) })
    }
}

fn read(text: &str) -> Option<(u64, Cursor)> {
    let (gateway, cursor) = text.split_once(':')?;
    let (chunk, offset) = cursor.split_once(':')?;
    let cursor = Cursor { chunk: chunk.parse().ok()?, offset: offset.parse().ok()? };
    Some((u64::from_str_radix(gateway, 16).ok()?, cursor))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn what_is_asked_is_what_is_read() {
        let of = |gateway, chunk, offset| Question::of_read(gateway, Cursor { chunk, offset });
        for question in [Question::default(), of(7, 1, 0), of(u64::MAX, u64::MAX, u64::MAX), of(0xabc, 0, 12)]
        {
            assert_eq!(Question::from_path(question.to_path().as_bytes()), Some(question));
        }
    }

    #[test]
    fn other_paths_ask_nothing() {
        for path in ["/", "/v1/models", "/inference-picker/exchanges", "/inference-picker/exchange?x=1"] {
            assert_eq!(Question::from_path(path.as_bytes()), None, "{path}");
        }
        assert_eq!(Question::from_path(b"/inference-picker/exchange?read=\xff"), None);
    }

    #[test]
    fn what_is_not_understood_was_not_received() {
        for query in ["", ":", "zz:1:2", "7", "7:1", "7:1:x", "7:-1:1", "7:1:2:3"] {
            let path = format!("/inference-picker/exchange?read={query}");
            assert_eq!(Question::from_path(path.as_bytes()), Some(Question::default()), "{query}");
        }
    }
}
