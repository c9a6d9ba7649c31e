//! The queue, held against a naive one.
#![cfg(not(target_family = "wasm"))]

use std::collections::HashMap;

use inference_picker::queue::{Place, Queue};
use proptest::prelude::*;

/// A lane, the slow way: where its next request starts, and what waits, by id, time and cost.
#[derive(Debug)]
struct Lane {
    priority: i32,
    name: Option<String>,
    start: u64,
    waiting: Vec<(u32, u64, u32)>,
}

/// The queue, the slow way: one list of lanes, and where the last request of each priority has started.
#[derive(Default)]
struct Naive {
    lanes: Vec<Lane>,
    now: HashMap<i32, u64>,
}

impl Naive {
    fn push(&mut self, place: Place<'_>, id: u32, now_ms: u64) {
        let now = *self.now.entry(place.priority).or_default();
        let known = self
            .lanes
            .iter_mut()
            .find(|lane| lane.priority == place.priority && lane.name.as_deref() == place.lane);
        let entry = (id, now_ms, place.cost);
        match known {
            Some(lane) => {
                lane.start = if lane.waiting.is_empty() { lane.start.max(now) } else { lane.start };
                lane.waiting.push(entry);
            }
            None => self.lanes.push(Lane {
                priority: place.priority,
                name: place.lane.map(str::to_owned),
                start: now,
                waiting: vec![entry],
            }),
        }
    }

    fn pop(&mut self, max_wait_ms: u64, now_ms: u64) -> Option<u32> {
        let highest =
            self.lanes.iter().filter(|lane| !lane.waiting.is_empty()).map(|lane| lane.priority).max()?;
        let candidates =
            self.lanes.iter_mut().filter(|lane| lane.priority == highest && !lane.waiting.is_empty());
        let lane = candidates.min_by_key(|lane| lane.start)?;
        let stands = now_ms - lane.waiting[0].1 >= max_wait_ms / 2;
        let (id, _, cost) = lane.waiting.remove(if stands { lane.waiting.len() - 1 } else { 0 });
        let now = self.now.entry(highest).or_default();
        *now = (*now).max(lane.start);
        lane.start += u64::from(cost);
        self.forget(highest);
        Some(id)
    }

    fn pop_lowest(&mut self) -> Option<u32> {
        let all =
            || self.lanes.iter().flat_map(|lane| lane.waiting.iter().map(|(id, ..)| (lane.priority, *id)));
        let lowest = all().map(|(priority, _)| priority).min()?;
        let newest = all().filter(|(priority, _)| *priority == lowest).map(|(_, id)| id).max()?;
        self.remove(newest)
    }

    fn remove(&mut self, id: u32) -> Option<u32> {
        let lane = self.lanes.iter_mut().find(|lane| lane.waiting.iter().any(|(known, ..)| *known == id))?;
        lane.waiting.retain(|(known, ..)| *known != id);
        let priority = lane.priority;
        self.forget(priority);
        Some(id)
    }

    fn forget(&mut self, priority: i32) {
        if self.len() == 0 {
            *self = Naive::default();
            return;
        }
        let now = self.now.get(&priority).copied().unwrap_or(0);
        self.lanes.retain(|lane| lane.priority != priority || !lane.waiting.is_empty() || lane.start > now);
    }

    fn expired(&mut self, max_wait_ms: u64, now_ms: u64) -> Option<u32> {
        let all = self.lanes.iter().flat_map(|lane| &lane.waiting);
        let (id, since_ms, _) = *all.min_by_key(|(id, ..)| *id)?;
        (now_ms - since_ms >= max_wait_ms).then(|| self.remove(id)).flatten()
    }

    fn len(&self) -> usize {
        self.lanes.iter().map(|lane| lane.waiting.len()).sum()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push(Place<'static>),
    Pop,
    PopLowest,
    Remove(u32),
    Expired,
    Pass(u64),
}

fn any_place() -> impl Strategy<Value = Place<'static>> {
    let lane = prop::sample::select(vec![None, Some("a"), Some("b"), Some("c")]);
    (lane, -1..2_i32, 1..50_u32).prop_map(|(lane, priority, cost)| Place { priority, lane, cost, bytes: 1 })
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any_place().prop_map(Step::Push),
        1 => Just(Step::PopLowest),
        2 => Just(Step::Pop),
        1 => (0..40_u32).prop_map(Step::Remove),
        1 => Just(Step::Expired),
        2 => (0..60_u64).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

    #[test]
    fn the_queue_does_what_a_naive_one_does(steps in prop::collection::vec(any_step(), 0..80)) {
        let (mut queue, mut naive) = (Queue::default(), Naive::default());
        let (mut ids, mut now_ms) = (0.., 0);
        for step in steps {
            match step {
                Step::Push(place) => {
                    let id = ids.next().unwrap();
                    queue.push(place, id, id, now_ms);
                    naive.push(place, id, now_ms);
                }
                Step::PopLowest => {
                    prop_assert_eq!(queue.pop_lowest().map(|(id, _)| id), naive.pop_lowest());
                }
                Step::Pop => {
                    prop_assert_eq!(queue.pop(100, now_ms).map(|(id, _)| id), naive.pop(100, now_ms));
                }
                Step::Remove(id) => prop_assert_eq!(queue.remove(id), naive.remove(id)),
                Step::Expired => {
                    prop_assert_eq!(queue.expired(100, now_ms).map(|(id, _)| id), naive.expired(100, now_ms));
                }
                Step::Pass(ms) => now_ms += ms,
            }
            prop_assert_eq!(queue.len(), naive.len());
        }
    }
}
