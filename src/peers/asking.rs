//! When which gateway is asked, and what of its answer is taken over.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::{MAX_GATEWAYS, MAX_REMOTE_WORKERS, Page, Question, WorkerPage};
use crate::limits::{Limit, LimitsReached};
use crate::load::is_recent;
use crate::pool::DiscoveredEndpoint;

/// A gateway that has failed is asked again after this time, in milliseconds: one that starts is soon known, and one that
/// is gone costs five questions a second.
const REST_AFTER_FAILURE_MS: u64 = 200;

/// The id that no worker has: a picker calls itself so.
const NO_WORKER: u64 = 0;

/// The other gateways.
#[derive(Debug)]
pub struct Asking {
    interval_ms: u64,
    gateways: Vec<Gateway>,
    /// The other gateways' workers.
    workers: HashMap<u64, Worker>,
    /// Which limits were reached.
    pub limits: LimitsReached,
}

#[derive(Debug)]
struct Gateway {
    address: SocketAddr,
    due_ms: u64,
    in_progress: bool,
    fails: bool,
}

/// What is known of a worker of another gateway.
#[derive(Debug)]
struct Worker {
    gateway: SocketAddr,
    published_ms: u64,
    /// Batches heard of it.
    batches: u64,
}

/// What an operator should hear of a question.
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
    /// The gateway's workers, with all times by this gateway's clock.
    pub workers: Vec<WorkerPage>,
    /// What an operator should hear.
    pub news: Option<News>,
}

impl Asking {
    /// No gateway is known yet.
    pub fn new(interval_ms: u64) -> Asking {
        Asking {
            interval_ms,
            gateways: Vec::new(),
            workers: HashMap::new(),
            limits: LimitsReached::default(),
        }
    }

    /// Follows this list of gateways, of which the first [`MAX_GATEWAYS`] are asked.
    pub fn follow(&mut self, listed: &[DiscoveredEndpoint], now_ms: u64) {
        self.limits.add_if(listed.len() > MAX_GATEWAYS, Limit::Gateways);
        let mut known: HashMap<SocketAddr, Gateway> =
            self.gateways.drain(..).map(|gateway| (gateway.address, gateway)).collect();
        let gateways = listed.iter().map(|listed| {
            let new = Gateway { address: listed.address, due_ms: now_ms, in_progress: false, fails: false };
            known.remove(&listed.address).unwrap_or(new)
        });
        self.gateways = gateways.take(MAX_GATEWAYS).collect();
    }

    /// The gateways to ask now, and what; each counts as asked until [`Asking::answered`].
    pub fn due(&mut self, now_ms: u64) -> Vec<(SocketAddr, Question)> {
        let workers = &self.workers;
        // What is due later than any is put off was put off by a clock that has gone back since.
        let latest_ms = now_ms.saturating_add(longest_rest_ms(self.interval_ms));
        let is_due = |gateway: &&mut Gateway| gateway.due_ms <= now_ms || gateway.due_ms > latest_ms;
        let due = self.gateways.iter_mut().filter(|gateway| !gateway.in_progress).filter(is_due);
        due.map(|gateway| {
            gateway.in_progress = true;
            let of_it = workers.iter().filter(|(_, worker)| worker.gateway == gateway.address);
            (gateway.address, Question::new(of_it.map(|(id, worker)| (*id, worker.batches))))
        })
        .collect()
    }

    /// A question has been answered, or has failed. `own` are this gateway's workers: what is told of them was told here.
    pub fn answered(
        &mut self,
        address: SocketAddr,
        answer: Result<&[u8], String>,
        own: &[u64],
        now_ms: u64,
    ) -> Outcome {
        let Some(gateway) = self.gateways.iter_mut().find(|gateway| gateway.address == address) else {
            return Outcome::default();
        };
        let page = answer.and_then(|bytes| Page::from_bytes(bytes).ok_or_else(|| "not a page".to_owned()));
        let news = gateway.ended(self.interval_ms, page.as_ref().err(), now_ms);
        let workers = page.map(|page| self.take_over(address, page, own, now_ms)).unwrap_or_default();
        Outcome { workers, news }
    }

    fn take_over(&mut self, gateway: SocketAddr, page: Page, own: &[u64], now_ms: u64) -> Vec<WorkerPage> {
        let there_ms = page.now_ms;
        let is_other = |id: u64| id != NO_WORKER && !own.contains(&id);
        let others = page.workers.into_iter().filter(|worker| is_other(worker.id));
        let heard = others.filter_map(|worker| {
            let table = worker.table.by_clock(there_ms, now_ms);
            let has_room = self.workers.contains_key(&worker.id) || self.workers.len() < MAX_REMOTE_WORKERS;
            self.limits.add_if(!has_room, Limit::RemoteWorkers);
            if !table.is_alive(now_ms) || !has_room {
                return None;
            }
            let known = Worker { gateway, published_ms: table.published_ms, batches: table.batches };
            self.workers.insert(worker.id, known);
            Some(WorkerPage { table, ..worker })
        });
        heard.collect()
    }

    /// The workers of other gateways that are still heard of, in order; the others are forgotten.
    pub fn workers(&mut self, now_ms: u64) -> Vec<u64> {
        self.workers.retain(|_, worker| is_recent(worker.published_ms, now_ms));
        let mut ids: Vec<u64> = self.workers.keys().copied().collect();
        ids.sort_unstable();
        ids
    }
}

/// The longest that a gateway is not asked, in milliseconds.
fn longest_rest_ms(interval_ms: u64) -> u64 {
    REST_AFTER_FAILURE_MS.max(interval_ms)
}

impl Gateway {
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
    use crate::load::{InFlight, LoadTable, Oldest, TABLE_EXPIRES_AFTER_MS};
    use crate::pool::encode;
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

    /// A page at `now_ms` of these workers, each with a request that was sent 30 ms and a table published 10 ms before.
    fn page(now_ms: u64, workers: &[u64]) -> Vec<u8> {
        let oldest = Some(Oldest { sent_ms: now_ms - 30, tokens: 100 });
        let load = InFlight { requests: 1, waiting: 1, waiting_tokens: 100, oldest, last_output_ms: 0 };
        let rows = vec![(address(99), load)];
        let table =
            LoadTable { published_ms: now_ms - 10, rows, adapters: vec![], missing: vec![], batches: 5 };
        let mut page = Page::new(now_ms);
        for &id in workers {
            page.add(id, &encode(&table), 0, |_| None);
        }
        page.to_bytes()
    }

    fn heard(asking: &mut Asking, from: u8, bytes: &[u8], now_ms: u64) -> Vec<WorkerPage> {
        asking.answered(address(from), Ok(bytes), &[1, 2], now_ms).workers
    }

    fn ids(workers: &[WorkerPage]) -> Vec<u64> {
        workers.iter().map(|worker| worker.id).collect()
    }

    #[test]
    fn each_gateway_is_asked_at_every_interval_and_never_twice_at_once() {
        let mut asking = asking(2);
        assert_eq!(asked(&mut asking, 0), [address(1), address(2)]);
        assert_eq!(asked(&mut asking, 500), []);
        heard(&mut asking, 1, &page(50, &[]), 3);
        assert_eq!(asked(&mut asking, 19), []);
        assert_eq!(asked(&mut asking, 20), [address(1)]);
        heard(&mut asking, 2, &page(50, &[]), 500);
        assert_eq!(asked(&mut asking, 509), [], "a slow one is given a rest");
        assert_eq!(asked(&mut asking, 510), [address(2)]);
    }

    #[test]
    fn a_gateway_that_fails_is_told_of_once_and_asked_less_often() {
        let mut asking = asking(1);
        let fail = |asking: &mut Asking, now_ms| {
            asked(asking, now_ms);
            asking.answered(address(1), Err("no answer".to_owned()), &[], now_ms).news
        };
        assert_eq!(fail(&mut asking, 0), Some(News::Failing("no answer".to_owned())));
        assert_eq!(asked(&mut asking, 199), []);
        assert_eq!(fail(&mut asking, 200), None);
        assert_eq!(asked(&mut asking, 400), [address(1)]);
        assert_eq!(asking.answered(address(1), Ok(&page(50, &[])), &[], 400).news, Some(News::Back));
        assert_eq!(asked(&mut asking, 600), [address(1)]);
        let garbage = asking.answered(address(1), Ok(b"garbage"), &[], 600);
        assert_eq!(garbage.news, Some(News::Failing("not a page".to_owned())));
        assert_eq!(garbage.workers, []);
    }

    #[test]
    fn times_are_by_the_clock_of_the_gateway_that_asks_whichever_is_ahead() {
        for (there_ms, here_ms) in [(1_000_000, 5_000), (5_000, 1_000_000), (5_000, 5_000)] {
            let workers = heard(&mut asking(1), 1, &page(there_ms, &[7]), here_ms);
            let (table, load) = (&workers[0].table, workers[0].table.rows[0].1);
            assert_eq!(table.published_ms, here_ms - 10);
            assert_eq!(load.oldest.map(|oldest| oldest.sent_ms), Some(here_ms - 30));
            assert_eq!(load.last_output_ms, 0, "never stays never");
        }
    }

    #[test]
    fn a_page_from_the_future_is_as_of_now() {
        let mut page = Page::from_bytes(&page(5_000, &[7])).unwrap();
        page.now_ms = 10;
        let workers = heard(&mut asking(1), 1, &page.to_bytes(), 800);
        assert_eq!(workers[0].table.published_ms, 800);
    }

    #[test]
    fn a_gateway_that_asks_itself_takes_nothing_over() {
        let mut asking = asking(2);
        assert_eq!(heard(&mut asking, 1, &page(5_000, &[1, 2]), 5_000), []);
        assert_eq!(ids(&heard(&mut asking, 2, &page(5_000, &[0, 2, 8, 9]), 5_000)), [8, 9]);
        assert_eq!(asking.workers(5_000), [8, 9]);
    }

    #[test]
    fn a_question_says_what_was_heard_of_the_gateway_asked() {
        let mut asking = asking(2);
        heard(&mut asking, 1, &page(5_000, &[7]), 5_000);
        heard(&mut asking, 2, &page(5_000, &[8]), 5_000);
        let due = asking.due(5_020);
        let [(_, first), (_, second)] = &due[..] else { panic!("two gateways: {due:?}") };
        assert_eq!([first.since(7), first.since(8)], [Some(5), None]);
        assert_eq!([second.since(7), second.since(8)], [None, Some(5)]);
    }

    #[test]
    fn workers_that_are_not_heard_of_are_forgotten() {
        let mut asking = asking(1);
        heard(&mut asking, 1, &page(5_000, &[7]), 5_000);
        assert_eq!(asking.workers(4_990 + TABLE_EXPIRES_AFTER_MS - 1), [7]);
        assert_eq!(asking.workers(4_990 + TABLE_EXPIRES_AFTER_MS), Vec::<u64>::new());
    }

    #[test]
    fn gateways_and_their_workers_are_limited() {
        let many: Vec<u64> = (10..20 + MAX_REMOTE_WORKERS as u64).collect();
        let mut asking = asking(200);
        assert_eq!(asked(&mut asking, 0).len(), MAX_GATEWAYS);
        assert_eq!(heard(&mut asking, 1, &page(5_000, &many), 5_000).len(), MAX_REMOTE_WORKERS);
        assert_eq!(ids(&heard(&mut asking, 2, &page(5_000, &[10, 5]), 5_000)), [10], "those known stay");
    }

    #[test]
    fn gateways_come_and_go_and_an_answer_of_one_that_is_gone_is_nobodys() {
        let mut asking = asking(2);
        asked(&mut asking, 0);
        asking.follow(&listed(3)[1..], 5);
        assert_eq!(asked(&mut asking, 5), [address(3)], "2 has not answered yet");
        assert_eq!(heard(&mut asking, 1, &page(5_000, &[7]), 10), []);
        assert_eq!(ids(&heard(&mut asking, 2, &page(5_000, &[7]), 10)), [7]);
    }
}
