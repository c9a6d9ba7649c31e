//! What gateways tell each other, on its way: told at every tick, heard so much later.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use inference_picker::ledger::{Cursor, Sums};
use inference_picker::load::LoadBook;
use inference_picker::peers::{Page, Question};

use super::setting::TICK;
use super::shared_data::{Place, SharedData};

/// What one gateway tells the others.
pub type Told = Page;

/// One gateway's part in it.
pub struct Others {
    own: u64,
    /// How far its own journal was told.
    told: Cursor,
    /// What each of the others has in flight.
    sums: HashMap<u64, Sums>,
}

impl Others {
    pub fn new(own: u64) -> Others {
        Others { own, told: Cursor::default(), sums: HashMap::new() }
    }

    pub fn tell(&mut self, shared: &SharedData, now_ms: u64) -> Told {
        let mut ledger = shared.ledger.clone();
        ledger.refresh(now_ms);
        let question = Question::of_read(self.own, self.told);
        let page = Page::of(&ledger, &question, |number| shared.full_chunk(number), now_ms);
        self.told = page.end;
        page
    }

    /// Takes over what another has told, as whoever asks does. All have the same clock.
    pub fn hear(&mut self, told: &Told, shared: &mut SharedData, asker: &mut Place, now_ms: u64) {
        if told.gateway == self.own {
            return;
        }
        self.sums.insert(told.gateway, told.sums.clone());
        let mut sums = Sums::new();
        for (key, load) in self.sums.values().flat_map(Sums::iter) {
            sums.add(key, load);
        }
        shared.ledger.set_remote(&sums, now_ms);
        if !told.entries.is_empty() {
            asker.member.pass_on(told.entries.clone());
            asker.publish(shared, &mut LoadBook::default(), vec![], now_ms);
        }
    }
}

/// The way from each gateway to all others.
pub struct Telling {
    lateness: Duration,
    next_told: Duration,
    /// With the time at which it is heard, the next first.
    underway: VecDeque<(Duration, Told)>,
}

impl Telling {
    pub fn new(lateness: Duration) -> Telling {
        Telling { lateness, next_told: Duration::ZERO, underway: VecDeque::new() }
    }

    /// When something is next told or heard.
    pub fn next_tick(&self) -> Duration {
        self.underway.front().map_or(self.next_told, |(heard, _)| self.next_told.min(*heard))
    }

    /// Takes what all gateways tell, if it is time; returns what is heard by now.
    pub fn tick(&mut self, tell: impl FnOnce() -> Vec<Told>, now: Duration) -> Vec<Told> {
        if self.next_told <= now {
            self.next_told = now + TICK;
            let heard = now + self.lateness;
            self.underway.extend(tell().into_iter().map(|told| (heard, told)));
        }
        let count = self.underway.iter().take_while(|(heard, _)| *heard <= now).count();
        self.underway.drain(..count).map(|(_, told)| told).collect()
    }
}
