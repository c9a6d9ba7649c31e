//! What gateways publish to each other, on its way: published at every tick, received so much later.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use inference_picker::ledger::{Cursor, Sums};
use inference_picker::load::LoadTracker;
use inference_picker::peers::{Page, Question};

use super::setting::TICK;
use super::shared_data::{Place, SharedData};

/// What one gateway publishes to the others.
pub type Published = Page;

/// One gateway's part in it.
pub struct Others {
    own: u64,
    /// How far its own journal was published.
    published: Cursor,
    /// What each of the others has in flight.
    sums: BTreeMap<u64, Sums>,
}

impl Others {
    pub fn new(own: u64) -> Others {
        Others { own, published: Cursor::default(), sums: BTreeMap::new() }
    }

    pub fn publish(&mut self, shared: &SharedData, now_ms: u64) -> Published {
        let mut ledger = shared.ledger.clone();
        ledger.refresh(now_ms);
        let question = Question::of_read(self.own, self.published);
        let page = Page::of(&ledger, &question, |number| shared.full_chunk(number), now_ms);
        self.published = page.end;
        page
    }

    /// Takes over what another has published, as whoever asks does. All have the same clock.
    pub fn receive(
        &mut self,
        published: &Published,
        shared: &mut SharedData,
        asker: &mut Place,
        now_ms: u64,
    ) {
        if published.gateway == self.own {
            return;
        }
        self.sums.insert(published.gateway, published.sums.clone());
        let mut sums = Sums::new();
        for (key, load) in self.sums.values().flat_map(Sums::iter) {
            sums.add(key, load);
        }
        shared.ledger.set_remote(&sums, now_ms);
        if !published.entries.is_empty() {
            asker.member.pass_on(published.entries.clone());
            asker.publish(shared, &mut LoadTracker::default(), vec![], now_ms);
        }
    }
}

/// The way from each gateway to all others.
pub struct Exchange {
    lateness: Duration,
    next_exchange: Duration,
    /// With the time at which it is received, the next first.
    underway: VecDeque<(Duration, Published)>,
}

impl Exchange {
    pub fn new(lateness: Duration) -> Exchange {
        Exchange { lateness, next_exchange: Duration::ZERO, underway: VecDeque::new() }
    }

    /// When something is next published or received.
    pub fn next_tick(&self) -> Duration {
        self.underway.front().map_or(self.next_exchange, |(received, _)| self.next_exchange.min(*received))
    }

    /// Takes what all gateways publish, if it is time; returns what is received by now.
    pub fn tick(&mut self, publish: impl FnOnce() -> Vec<Published>, now: Duration) -> Vec<Published> {
        if self.next_exchange <= now {
            self.next_exchange = now + TICK;
            let received = now + self.lateness;
            self.underway.extend(publish().into_iter().map(|published| (received, published)));
        }
        let count = self.underway.iter().take_while(|(received, _)| *received <= now).count();
        self.underway.drain(..count).map(|(_, published)| published).collect()
    }
}
