//! Requests that wait in the gateway while their pool is saturated.
//!
//! Each model has a lane, and lanes take turns: a model with a thousand requests waiting delays another's first one by a
//! single request. Lanes go by names that somebody else than a client has given; the others share one, so that no
//! client gets more turns by inventing names. A lane's requests leave in the order they came, as long as the queue
//! clears. While it stands, its oldest request having waited for half of the longest wait, the newest leaves first: more
//! comes than can be served, somebody has to come again, and first come first served would have everybody wait until
//! shortly before that. A request that has waited too long leaves by [`Queue::expired`]. What a request is does not
//! matter here.
//!
//! Of `n` requests in `m` lanes, each step looks at about `log n` requests and at most `m` lanes.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// A queue of one pool's requests.
#[derive(Debug)]
pub struct Queue<T> {
    /// By number, in the order in which they came.
    waiting: BTreeMap<u64, Waiting<T>>,
    /// The number of each, by its id.
    numbers: HashMap<u32, u64>,
    /// The one whose turn it is first.
    lanes: VecDeque<Lane>,
    next_number: u64,
}

/// One model's requests; never empty.
#[derive(Debug)]
struct Lane {
    /// The model; `None` for all that have no lane of their own.
    model: Option<String>,
    numbers: BTreeSet<u64>,
}

#[derive(Debug)]
struct Waiting<T> {
    id: u32,
    since_ms: u64,
    lane: Option<String>,
    request: T,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue { waiting: BTreeMap::new(), numbers: HashMap::new(), lanes: VecDeque::new(), next_number: 0 }
    }
}

impl<T> Queue<T> {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Puts a request at the end of its model's lane, or of the one that is shared. `id` tells it from all others that
    /// wait.
    pub fn push(&mut self, model: Option<&str>, id: u32, request: T, now_ms: u64) {
        let number = self.next_number;
        self.next_number += 1;
        match self.lanes.iter_mut().find(|lane| lane.model.as_deref() == model) {
            Some(lane) => drop(lane.numbers.insert(number)),
            None => {
                let lane = Lane { model: model.map(str::to_owned), numbers: BTreeSet::from([number]) };
                self.lanes.push_back(lane);
            }
        }
        self.numbers.insert(id, number);
        self.waiting
            .insert(number, Waiting { id, since_ms: now_ms, lane: model.map(str::to_owned), request });
    }

    /// Takes out the request whose turn it is, and its id.
    pub fn pop(&mut self, max_wait_ms: u64, now_ms: u64) -> Option<(u32, T)> {
        let mut lane = self.lanes.pop_front()?;
        let oldest_since_ms = self.waiting.get(lane.numbers.first()?)?.since_ms;
        let stands = now_ms.saturating_sub(oldest_since_ms) >= max_wait_ms / 2;
        let number = if stands { lane.numbers.pop_last() } else { lane.numbers.pop_first() }?;
        if !lane.numbers.is_empty() {
            self.lanes.push_back(lane);
        }
        self.take(number)
    }

    /// Takes out the request of this id, if it waits.
    pub fn remove(&mut self, id: u32) -> Option<T> {
        let number = *self.numbers.get(&id)?;
        self.take_from_lane(number).map(|(_, request)| request)
    }

    /// Takes out the request that came first, if it has waited for `max_wait_ms` or longer: those behind it have not
    /// waited for longer. One that seems to have come later than now has waited for nobody knows how long.
    pub fn expired(&mut self, max_wait_ms: u64, now_ms: u64) -> Option<(u32, T)> {
        let (number, oldest) = self.waiting.first_key_value()?;
        let has_expired = now_ms.abs_diff(oldest.since_ms) >= max_wait_ms;
        let number = Some(*number).filter(|_| has_expired)?;
        self.take_from_lane(number)
    }

    fn take_from_lane(&mut self, number: u64) -> Option<(u32, T)> {
        let model = &self.waiting.get(&number)?.lane;
        let place = self.lanes.iter().position(|lane| lane.model == *model)?;
        let lane = self.lanes.get_mut(place)?;
        lane.numbers.remove(&number);
        if lane.numbers.is_empty() {
            self.lanes.remove(place);
        }
        self.take(number)
    }

    fn take(&mut self, number: u64) -> Option<(u32, T)> {
        let Waiting { id, request, .. } = self.waiting.remove(&number)?;
        self.numbers.remove(&id);
        Some((id, request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// A queue into which `models` came in this order, with ids from 0 on, a millisecond apart.
    fn queue(models: &[&str]) -> Queue<()> {
        let mut queue = Queue::default();
        for (id, model) in models.iter().enumerate() {
            queue.push(Some(model), id as u32, (), id as u64);
        }
        queue
    }

    fn drain(queue: &mut Queue<()>) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop(1_000, 10)).map(|(id, ())| id).collect()
    }

    #[test]
    fn one_models_requests_leave_in_the_order_they_came() {
        assert_eq!(drain(&mut queue(&["a", "a", "a"])), [0, 1, 2]);
    }

    #[test]
    fn models_take_turns() {
        assert_eq!(drain(&mut queue(&["a", "a", "a", "b", "c", "b"])), [0, 3, 4, 1, 5, 2]);
    }

    #[test]
    fn models_without_a_lane_of_their_own_take_one_turn_together() {
        let mut queue = Queue::default();
        for (id, model) in [None, None, None, Some("a"), Some("b")].into_iter().enumerate() {
            queue.push(model, id as u32, (), 0);
        }
        assert_eq!(drain(&mut queue), [0, 3, 4, 1, 2]);
    }

    #[test]
    fn while_the_queue_stands_a_models_newest_request_leaves_first() {
        let mut queue = queue(&["a", "a", "b", "a"]);
        let mut pop = |now_ms| queue.pop(1_000, now_ms).map(|(id, ())| id);
        assert_eq!([pop(500), pop(501), pop(501), pop(501)], [Some(3), Some(2), Some(1), Some(0)]);
    }

    #[test]
    fn a_request_whose_client_leaves_is_taken_out_wherever_it_stands() {
        let mut queue = queue(&["a", "b", "a"]);
        assert_eq!((queue.remove(1), queue.remove(1), queue.remove(9)), (Some(()), None, None));
        assert_eq!(queue.len(), 2);
        assert_eq!(drain(&mut queue), [0, 2]);
        assert!(queue.is_empty());
    }

    #[test]
    fn those_that_have_waited_too_long_are_given_out() {
        let mut queue = queue(&["a", "b", "a"]);
        assert_eq!(queue.expired(100, 99), None);
        assert_eq!(queue.expired(100, 101), Some((0, ())));
        assert_eq!(queue.expired(100, 101), Some((1, ())));
        assert_eq!(queue.expired(100, 101), None);
        assert_eq!(drain(&mut queue), [2]);
    }

    #[test]
    fn nobody_expires_before_those_who_came_first() {
        let mut queue = Queue::default();
        // The clock has gone back in between.
        for (id, now_ms) in [(0, 1_000), (1, 10), (2, 1_000)] {
            queue.push(Some("a"), id, (), now_ms);
        }
        assert_eq!(queue.expired(100, 1_050), None, "only the one that came first is looked at");
        assert_eq!(queue.expired(100, 950), None);
        let expired: Vec<u32> = std::iter::from_fn(|| queue.expired(100, 800)).map(|(id, ())| id).collect();
        assert_eq!(expired, [0, 1, 2], "however far the clock has gone back");
    }

    /// A queue of so many requests in this many lanes, at its limit, is emptied within as many steps: each step would
    /// take all of them if it looked at all that wait.
    #[test]
    fn a_queue_at_its_limit_is_emptied_by_expiry_and_by_clients_that_leave() {
        const COUNT: u32 = crate::config::QUEUE_MAX_REQUESTS_CEILING as u32;
        let mut queue = Queue::default();
        for id in 0..COUNT {
            queue.push(Some(["a", "b", "c"][id as usize % 3]), id, (), id.into());
        }
        for id in (COUNT / 2..COUNT).rev() {
            assert_eq!(queue.remove(id), Some(()));
        }
        let expired = std::iter::from_fn(|| queue.expired(0, COUNT.into())).map(|(id, ())| id);
        assert!(expired.eq(0..COUNT / 2));
        assert!(queue.is_empty() && queue.lanes.is_empty() && queue.numbers.is_empty());
    }
}
