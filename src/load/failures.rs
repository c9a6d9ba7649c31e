//! Failures in a row at endpoints, as workers publish to each other. Each worker by itself would send an endpoint that fails as many
//! requests as lead to its ejection: a gateway of sixteen workers sixteen times as many as one of one.
//!
//! Of what is said of an endpoint, what was noted last holds, be it one failure more, an answer that ends them, or a request
//! that is sent to try it. A worker's next failure counts on from there.

use std::collections::BTreeMap;

use super::{EndpointKey, LoadId, is_published};

/// How many requests to an endpoint have failed in a row, as of when that was noted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failures {
    /// When, in milliseconds of the host's clock.
    pub noted_ms: u64,
    /// Requests that were not answered.
    pub requests: u32,
    /// Answers that broke off.
    pub answers: u32,
}

/// The same of one endpoint, for others to receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailureNote {
    /// Where.
    pub endpoint: EndpointKey,
    /// What was noted.
    pub failures: Failures,
}

impl FailureNote {
    /// Whether it is still to be published to others.
    pub fn is_published(&self, now_ms: u64) -> bool {
        is_published(self.failures.noted_ms, now_ms)
    }
}

#[derive(Debug)]
struct Noted {
    failures: Failures,
    /// Whether this worker has noted it itself.
    own: bool,
}

/// What was last noted, by endpoint.
#[derive(Debug, Default)]
pub(super) struct NotedFailures {
    noted: BTreeMap<LoadId, Noted>,
    /// Of which others have noted something that was not taken over yet.
    received: Vec<LoadId>,
}

impl NotedFailures {
    /// This worker has noted this.
    pub fn note(&mut self, id: LoadId, failures: Failures) {
        self.noted.insert(id, Noted { failures, own: true });
    }

    /// Another worker has noted this.
    pub fn receive(&mut self, id: LoadId, failures: Failures, now_ms: u64) {
        let before = self.noted.get(&id).map(|noted| noted.failures);
        // What was noted by a clock that has gone back since holds no longer.
        let is_news = before.is_none_or(|before| failures > before || before.noted_ms > now_ms);
        if !is_news || failures.noted_ms > now_ms {
            return;
        }
        self.noted.insert(id, Noted { failures, own: false });
        if !self.received.contains(&id) {
            self.received.push(id);
        }
    }

    /// What others have noted since this was last asked.
    pub fn take_received(&mut self) -> impl Iterator<Item = (LoadId, Failures)> {
        let received = std::mem::take(&mut self.received);
        received.into_iter().filter_map(|id| Some((id, self.noted.get(&id)?.failures)))
    }

    /// What is to be published to others.
    pub fn published(&self, now_ms: u64) -> impl Iterator<Item = (LoadId, Failures)> {
        let is_own = move |noted: &Noted| noted.own && is_published(noted.failures.noted_ms, now_ms);
        let published = self.noted.iter().filter(move |(_, noted)| is_own(noted));
        published.map(|(id, noted)| (*id, noted.failures))
    }

    /// Forgets the endpoints that are gone.
    pub fn keep_only(&mut self, known: impl Fn(LoadId) -> bool) {
        self.noted.retain(|id, _| known(*id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::PUBLISHED_FOR_MS;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const HERE: LoadId = LoadId(3);

    fn failures(noted_ms: u64, requests: u32) -> Failures {
        Failures { noted_ms, requests, answers: 0 }
    }

    /// What is taken over of what was received, one after the other.
    fn check(own: Option<Failures>, received: &[Failures], taken: Option<Failures>) {
        const NOW_MS: u64 = 10_000;
        let mut noted = NotedFailures::default();
        own.into_iter().for_each(|own| noted.note(HERE, own));
        received.iter().for_each(|failures| noted.receive(HERE, *failures, NOW_MS));
        assert_eq!(
            noted.take_received().next(),
            taken.map(|failures| (HERE, failures)),
            "{own:?} {received:?}"
        );
        assert_eq!(noted.take_received().count(), 0);
    }

    #[test]
    fn what_was_noted_last_holds() {
        let news = failures(9_000, 2);
        check(None, &[news], Some(news));
        check(None, &[news, failures(8_999, 5)], Some(news));
        check(Some(failures(8_999, 5)), &[news], Some(news));
        check(Some(failures(9_000, 1)), &[news], Some(news));
        check(Some(failures(9_001, 0)), &[news], None);
        check(Some(news), &[news], None);
        check(None, &[failures(10_001, 9)], None);
        check(Some(failures(10_001, 9)), &[news], Some(news));
    }

    #[test]
    fn only_what_this_worker_has_noted_is_published_and_only_for_a_while() {
        let mut noted = NotedFailures::default();
        noted.note(HERE, failures(5_000, 1));
        noted.receive(LoadId(4), failures(5_000, 1), 5_000);
        let published = |noted: &NotedFailures, now_ms| noted.published(now_ms).collect::<Vec<_>>();
        assert_eq!(published(&noted, 5_000 + PUBLISHED_FOR_MS - 1), [(HERE, failures(5_000, 1))]);
        assert_eq!(published(&noted, 5_000 + PUBLISHED_FOR_MS), []);
        noted.note(HERE, failures(6_000, 2));
        noted.keep_only(|id| id != HERE);
        assert_eq!(published(&noted, 6_000), []);
    }
}
