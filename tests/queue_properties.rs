//! The queue, held against a naive one.
#![cfg(not(target_family = "wasm"))]

use inference_picker::queue::Queue;
use proptest::prelude::*;

/// A lane, the slow way: the ids and times of what waits.
type Lane = Vec<(u32, u64)>;

/// The queue, the slow way: a list of lanes, by the model's name.
#[derive(Default)]
struct Naive(Vec<(Option<String>, Lane)>);

impl Naive {
    fn push(&mut self, model: Option<&str>, id: u32, now_ms: u64) {
        match self.0.iter_mut().find(|(name, _)| name.as_deref() == model) {
            Some((_, lane)) => lane.push((id, now_ms)),
            None => self.0.push((model.map(str::to_owned), vec![(id, now_ms)])),
        }
    }

    fn pop(&mut self, max_wait_ms: u64, now_ms: u64) -> Option<u32> {
        if self.0.is_empty() {
            return None;
        }
        let (name, mut lane) = self.0.remove(0);
        let stands = now_ms - lane[0].1 >= max_wait_ms / 2;
        let (id, _) = lane.remove(if stands { lane.len() - 1 } else { 0 });
        if !lane.is_empty() {
            self.0.push((name, lane));
        }
        Some(id)
    }

    fn remove(&mut self, id: u32) -> Option<u32> {
        let place = |lane: &[(u32, u64)]| lane.iter().position(|(known, _)| *known == id);
        let (index, place) =
            self.0.iter().enumerate().find_map(|(index, (_, lane))| Some((index, place(lane)?)))?;
        self.0[index].1.remove(place);
        self.0.retain(|(_, lane)| !lane.is_empty());
        Some(id)
    }

    fn expired(&mut self, max_wait_ms: u64, now_ms: u64) -> Option<u32> {
        let oldest = self.0.iter().map(|(_, lane)| lane[0]).min_by_key(|(id, _)| *id)?;
        (now_ms - oldest.1 >= max_wait_ms).then(|| self.remove(oldest.0)).flatten()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push(Option<&'static str>),
    Pop,
    Remove(u32),
    Expired,
    Pass(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::sample::select(vec![None, Some("a"), Some("b"), Some("c")]).prop_map(Step::Push),
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
                Step::Push(model) => {
                    let id = ids.next().unwrap();
                    queue.push(model, id, id, now_ms);
                    naive.push(model, id, now_ms);
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
            prop_assert_eq!(queue.len(), naive.0.iter().map(|(_, lane)| lane.len()).sum::<usize>());
        }
    }
}
