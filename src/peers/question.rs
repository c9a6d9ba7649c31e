//! What one gateway asks another: the path of the exchange, and in its query what is known already.
//!
//! `GET /inference-picker/exchange?since=ID:NUMBER,ID:NUMBER`, ids in hexadecimal: for each worker the last batch that
//! was heard of it.

use std::collections::HashMap;
use std::fmt::Write;

use super::MAX_REMOTE_WORKERS;

/// The path at which a gateway answers.
pub const PATH: &str = "/inference-picker/exchange";

const QUERY: &str = "?since=";

/// What the asker has heard already.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Question {
    since: HashMap<u64, u64>,
}

impl Question {
    /// A question of who has heard these batches of these workers.
    pub fn new(heard: impl Iterator<Item = (u64, u64)>) -> Question {
        Question { since: heard.take(MAX_REMOTE_WORKERS).collect() }
    }

    /// The number of the last batch that was heard of a worker.
    pub fn since(&self, worker: u64) -> Option<u64> {
        self.since.get(&worker).copied()
    }

    /// The request's path.
    pub fn to_path(&self) -> String {
        let mut path = PATH.to_owned();
        for (index, (worker, number)) in self.since.iter().enumerate() {
            // Writing to a string cannot fail.
            let _ = write!(path, "{}{worker:x}:{number}", if index == 0 { QUERY } else { "," });
        }
        path
    }

    /// Reads a request's path; `None` for any other. What is not understood of the query was not heard.
    pub fn from_path(path: &[u8]) -> Option<Question> {
        let query = std::str::from_utf8(path).ok()?.strip_prefix(PATH)?;
        if query.is_empty() {
            return Some(Question::default());
        }
        let heard = query.strip_prefix(QUERY)?.split(',').filter_map(|one| {
            let (worker, number) = one.split_once(':')?;
            Some((u64::from_str_radix(worker, 16).ok()?, number.parse().ok()?))
        });
        Some(Question::new(heard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn what_is_asked_is_what_is_read() {
        for heard in [vec![], vec![(7, 1)], vec![(u64::MAX, u64::MAX), (1, 0), (0xabc, 12)]] {
            let question = Question::new(heard.into_iter());
            assert_eq!(Question::from_path(question.to_path().as_bytes()), Some(question));
        }
    }

    #[test]
    fn other_paths_ask_nothing() {
        for path in ["/", "/v1/models", "/inference-picker/exchanges", "/inference-picker/exchange?x=1"] {
            assert_eq!(Question::from_path(path.as_bytes()), None, "{path}");
        }
        assert_eq!(Question::from_path(b"/inference-picker/exchange?since=\xff"), None);
    }

    #[test]
    fn what_is_not_understood_was_not_heard() {
        let question = Question::from_path(b"/inference-picker/exchange?since=:,zz:1,7:x,,8:5,9").unwrap();
        assert_eq!(question, Question::new([(8, 5)].into_iter()));
    }
}
