//! When which gateway is asked, and what of its answer is taken over.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::{MAX_GATEWAYS, Page, Question};
use crate::ledger::{Cursor, REMOTE_EXPIRES_AFTER_MS, Sums};
use crate::limits::{Limit, LimitsReached};
use crate::load::MissingNote;
use crate::pool::DiscoveredEndpoint;

/// A gateway that has failed is asked again after this time, in milliseconds: one that starts is soon known, and one that
/// is gone costs five questions a second.
const REST_AFTER_FAILURE_MS: u64 = 200;

/// The other gateways.
#[derive(Debug)]
pub struct Asking {
    interval_ms: u64,
    gateways: Vec<Gateway>,
    /// Which limits were reached.
    pub limits: LimitsReached,
}

#[derive(Debug)]
struct Gateway {
    address: SocketAddr,
    due_ms: u64,
    in_progress: bool,
    fails: bool,
    /// What it has published last.
    known: Option<Known>,
}

/// What is known of another gateway.
#[derive(Debug)]
struct Known {
    gateway: u64,
    received_ms: u64,
    /// What it has in flight, with all times by this gateway's clock.
    sums: Sums,
    /// How far its journal was read.
    read: Cursor,
}

/// What an operator should read of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// The first failure, and why.
    Failing(String),
    /// It answers again.
    Back,
}

/// What came of a question.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Entries for this gateway's journal.
    pub entries: Vec<u8>,
    /// Notes for its ledger, with all times by this gateway's clock.
    pub notes: Vec<MissingNote>,
    /// What an operator should read.
    pub news: Option<News>,
}

impl Asking {
    /// No gateway is known yet.
    pub fn new(interval_ms: u64) -> Asking {
        Asking { interval_ms, gateways: Vec::new(), limits: LimitsReached::default() }
    }

    /// Follows this list of gateways, of which the first [`MAX_GATEWAYS`] are asked.
    pub fn follow(&mut self, listed: &[DiscoveredEndpoint], now_ms: u64) {
        self.limits.add_if(listed.len() > MAX_GATEWAYS, Limit::Gateways);
        let mut known: HashMap<SocketAddr, Gateway> =
            self.gateways.drain(..).map(|gateway| (gateway.address, gateway)).collect();
        let gateways = listed.iter().map(|listed| {
            let known = known.remove(&listed.address);
            known.unwrap_or_else(|| Gateway::new(listed.address, now_ms))
        });
        self.gateways = gateways.take(MAX_GATEWAYS).collect();
    }

    /// The gateways to ask now, and what; each counts as asked until [`Asking::answered`].
    pub fn due(&mut self, now_ms: u64) -> Vec<(SocketAddr, Question)> {
        // What is due later than any is put off was put off by a clock that has gone back since.
        let latest_ms = now_ms.saturating_add(longest_rest_ms(self.interval_ms));
        let is_due = |gateway: &&mut Gateway| gateway.due_ms <= now_ms || gateway.due_ms > latest_ms;
        let due = self.gateways.iter_mut().filter(|gateway| !gateway.in_progress).filter(is_due);
        due.map(|gateway| {
            gateway.in_progress = true;
            let read = gateway.known.as_ref().map(|known| Question::of_read(known.gateway, known.read));
            (gateway.address, read.unwrap_or_default())
        })
        .collect()
    }

    /// A question has been answered, or has failed. `own` is this gateway: when it has asked itself, nothing is published.
    pub fn answered(
        &mut self,
        address: SocketAddr,
        answer: Result<&[u8], String>,
        own: u64,
        now_ms: u64,
    ) -> Outcome {
        let Some(gateway) = self.gateways.iter_mut().find(|gateway| gateway.address == address) else {
            return Outcome::default();
        };
        let page = answer.and_then(|bytes| Page::from_bytes(bytes).ok_or_else(|| "not a page".to_owned()));
        let news = gateway.ended(self.interval_ms, page.as_ref().err(), now_ms);
        let Some(page) = page.ok().filter(|page| page.gateway != own) else {
            return Outcome { news, ..Outcome::default() };
        };
        let Page { gateway: id, sums, notes, entries, end, .. } = page.by_clock(now_ms);
        gateway.known = Some(Known { gateway: id, received_ms: now_ms, sums, read: end });
        Outcome { entries, notes, news }
    }

    /// Whether a gateway that was asked has not answered yet.
    pub fn is_waiting(&self) -> bool {
        self.gateways.iter().any(|gateway| gateway.in_progress)
    }

    /// What all other gateways have in flight that were received recently. One that is listed at two addresses counts once.
    pub fn sums(&self, now_ms: u64) -> Sums {
        let mut counted: Vec<u64> = Vec::new();
        let mut sums = Sums::new();
        for known in self.gateways.iter().filter_map(|gateway| gateway.known.as_ref()) {
            let is_known = now_ms.abs_diff(known.received_ms) < REMOTE_EXPIRES_AFTER_MS;
            if !is_known || counted.contains(&known.gateway) {
                continue;
            }
            counted.push(known.gateway);
            known.sums.iter().for_each(|(key, load)| sums.add(key, load));
        }
        sums
    }
}

/// The longest that a gateway is not asked, in milliseconds.
fn longest_rest_ms(interval_ms: u64) -> u64 {
    REST_AFTER_FAILURE_MS.max(interval_ms)
}

impl Gateway {
    fn new(address: SocketAddr, due_ms: u64) -> Gateway {
        Gateway { address, due_ms, in_progress: false, fails: false, known: None }
    }

    fn ended(&mut self, interval_ms: u64, failure: Option<&String>, now_ms: u64) -> Option<News> {
        self.in_progress = false;
        let failed_before = std::mem::replace(&mut self.fails, failure.is_some());
        self.due_ms = match failure {
            // One that answers slowly is given a rest of half an interval.
            None => (self.due_ms + interval_ms).max(now_ms + interval_ms / 2).min(now_ms + interval_ms),
            Some(_) => now_ms + longest_rest_ms(interval_ms),
        };
        match failure {
            Some(failure) if !failed_before => Some(News::Failing(failure.clone())),
            None if failed_before => Some(News::Back),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{EndpointKey, EndpointLoad, InFlight};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 9000))
    }

    fn listed(count: u8) -> Vec<DiscoveredEndpoint> {
        (1..=count).map(|last| DiscoveredEndpoint::new(address(last))).collect()
    }

    /// Gateways 1 to `count`, asked every 20 ms.
    fn asking(count: u8) -> Asking {
        let mut asking = Asking::new(20);
        asking.follow(&listed(count), 0);
        asking
    }

    fn asked(asking: &mut Asking, now_ms: u64) -> Vec<SocketAddr> {
        asking.due(now_ms).into_iter().map(|(address, _)| address).collect()
    }

    /// A page of this gateway, which has so many requests in flight and has written so much.
    fn page(gateway: u64, requests: u32, offset: u64) -> Vec<u8> {
        let in_flight = InFlight { requests, ..InFlight::default() };
        let load = EndpointLoad { in_flight, adapters: vec![] };
        let sums = [(EndpointKey::of(address(99)), load)].into_iter().collect();
        let end = Cursor { chunk: 0, offset };
        Page { gateway, now_ms: 5_000, sums, entries: b"entries".to_vec(), end, ..Page::default() }.to_bytes()
    }

    /// The id of the gateway that asks.
    const OWN: u64 = 77;

    fn receive(asking: &mut Asking, from: u8, bytes: &[u8], now_ms: u64) -> Outcome {
        asking.answered(address(from), Ok(bytes), OWN, now_ms)
    }

    fn requests(asking: &Asking, now_ms: u64) -> u32 {
        asking.sums(now_ms).iter().map(|(_, load)| load.in_flight.requests).sum()
    }

    #[test]
    fn each_gateway_is_asked_at_every_interval_and_never_twice_at_once() {
        let mut asking = asking(2);
        assert_eq!(asked(&mut asking, 0), [address(1), address(2)]);
        assert_eq!(asked(&mut asking, 500), []);
        receive(&mut asking, 1, &page(7, 0, 0), 3);
        assert_eq!(asked(&mut asking, 19), []);
        assert_eq!(asked(&mut asking, 20), [address(1)]);
        receive(&mut asking, 2, &page(8, 0, 0), 500);
        assert_eq!(asked(&mut asking, 509), [], "a slow one is given a rest");
        assert_eq!(asked(&mut asking, 510), [address(2)]);
    }

    #[test]
    fn it_waits_until_all_have_answered_or_failed_that_were_asked() {
        let mut asking = asking(2);
        assert!(!asking.is_waiting());
        asked(&mut asking, 0);
        receive(&mut asking, 1, &page(7, 0, 0), 3);
        assert!(asking.is_waiting());
        asking.answered(address(2), Err("no answer".to_owned()), OWN, 4);
        assert!(!asking.is_waiting());
    }

    #[test]
    fn a_gateway_that_fails_is_reported_once_and_asked_less_often() {
        let mut asking = asking(1);
        let fail = |asking: &mut Asking, now_ms| {
            asked(asking, now_ms);
            asking.answered(address(1), Err("no answer".to_owned()), OWN, now_ms).news
        };
        assert_eq!(fail(&mut asking, 0), Some(News::Failing("no answer".to_owned())));
        assert_eq!(asked(&mut asking, 199), []);
        assert_eq!(fail(&mut asking, 200), None);
        assert_eq!(asked(&mut asking, 400), [address(1)]);
        assert_eq!(receive(&mut asking, 1, &page(7, 0, 0), 400).news, Some(News::Back));
        assert_eq!(asked(&mut asking, 600), [address(1)]);
        let garbage = receive(&mut asking, 1, b"garbage", 600);
        assert_eq!(garbage.news, Some(News::Failing("not a page".to_owned())));
        assert!(garbage.entries.is_empty());
    }

    #[test]
    fn what_all_gateways_have_in_flight_is_added_up_while_they_answer() {
        let mut asking = asking(3);
        assert_eq!(receive(&mut asking, 1, &page(7, 2, 1), 5_000).entries, b"entries");
        receive(&mut asking, 2, &page(8, 3, 1), 6_000);
        receive(&mut asking, 3, &page(8, 3, 1), 6_000);
        assert_eq!(requests(&asking, 6_000), 5, "one gateway at two addresses");
        assert_eq!(requests(&asking, 4_999 + REMOTE_EXPIRES_AFTER_MS), 5);
        assert_eq!(requests(&asking, 5_000 + REMOTE_EXPIRES_AFTER_MS), 3);
        receive(&mut asking, 2, &page(8, 1, 2), 6_020);
        receive(&mut asking, 3, &page(8, 1, 2), 6_020);
        assert_eq!(requests(&asking, 6_020), 3, "in place of what it had");
    }

    #[test]
    fn a_gateway_that_asks_itself_takes_nothing_over() {
        let mut asking = asking(1);
        assert_eq!(receive(&mut asking, 1, &page(OWN, 2, 1), 5_000), Outcome::default());
        assert_eq!(requests(&asking, 5_000), 0);
    }

    #[test]
    fn a_question_says_how_far_the_journal_of_the_gateway_asked_was_read() {
        let mut asking = asking(2);
        receive(&mut asking, 1, &page(7, 1, 55), 5_000);
        let due = asking.due(5_020);
        let [(_, first), (_, second)] = &due[..] else { panic!("two gateways: {due:?}") };
        assert_eq!(first.read_of(7), Some(Cursor { chunk: 0, offset: 55 }));
        assert_eq!((first.read_of(8), second.read_of(7)), (None, None));
    }

    #[test]
    fn gateways_are_limited() {
        assert_eq!(asked(&mut asking(200), 0).len(), MAX_GATEWAYS);
    }

    #[test]
    fn gateways_come_and_go_and_an_answer_of_one_that_is_gone_is_nobodys() {
        let mut asking = asking(2);
        asked(&mut asking, 0);
        asking.follow(&listed(3)[1..], 5);
        assert_eq!(asked(&mut asking, 5), [address(3)], "2 has not answered yet");
        assert_eq!(receive(&mut asking, 1, &page(7, 1, 0), 10), Outcome::default());
        receive(&mut asking, 2, &page(7, 1, 0), 10);
        assert_eq!(requests(&asking, 10), 1);
    }
}
