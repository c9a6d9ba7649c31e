//! Sessions with requests that are not answered yet.
//!
//! A request that continues a conversation cannot come before the answer to the one before it. So as long as a session has a request
//! in flight, its next one finds nothing cached: many requests under one name are spread like any others, whatever prefix they claim
//! to share. A worker knows its own requests; of several workers, each takes one of them for a continuation.

use std::collections::HashMap;

use super::{Last, SessionKey};

/// How many requests of each session are in flight: no more entries than requests.
#[derive(Debug, Default)]
pub struct Unanswered {
    requests: HashMap<SessionKey, u32>,
}

impl Unanswered {
    /// A request of this session is sent.
    pub fn start(&mut self, key: SessionKey) {
        *self.requests.entry(key).or_default() += 1;
    }

    /// One that was sent has ended.
    pub fn end(&mut self, key: SessionKey) {
        if let Some(requests) = self.requests.get_mut(&key) {
            *requests = requests.saturating_sub(1);
            if *requests == 0 {
                self.requests.remove(&key);
            }
        }
    }

    /// Where a session was, with what of it its next request finds there.
    pub fn known(&self, key: SessionKey, last: Last) -> Last {
        if self.requests.contains_key(&key) { Last { tokens: 0, ..last } } else { last }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::EndpointKey;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn what_a_session_had_counts_again_when_its_last_request_has_ended() {
        let keys = ["one", "two"].map(|name| SessionKey::of_stored(name.as_bytes()));
        let last = Last { endpoint: EndpointKey::from_bits(7), tokens: 100, turnover_tokens: 5 };
        let mut unanswered = Unanswered::default();
        let mut check = |step: fn(&mut Unanswered, SessionKey), tokens: u32| {
            step(&mut unanswered, keys[0]);
            assert_eq!(unanswered.known(keys[0], last), Last { tokens, ..last });
            assert_eq!(unanswered.known(keys[1], last), last, "another session");
        };
        check(|_, _| (), 100);
        check(Unanswered::start, 0);
        check(Unanswered::start, 0);
        check(Unanswered::end, 0);
        check(Unanswered::end, 100);
        check(Unanswered::end, 100);
        assert!(unanswered.requests.is_empty());
    }
}
