//! Requests that wait in the gateway while their pool is saturated.
//!
//! Models take turns: a model with a thousand requests waiting delays another's first one by a single request. A
//! model's requests leave in the order they came, as long as the queue clears. While it stands, its oldest request
//! having waited for half of the longest wait, the newest leaves first: more comes than can be served, somebody has
//! to come again, and first come first served would have everybody wait until shortly before that. A request that has
//! waited too long leaves by [`Queue::expired`]. What a request is does not matter here.

use std::collections::VecDeque;

/// A queue of one pool's requests.
#[derive(Debug)]
pub struct Queue<T> {
    lanes: VecDeque<Lane<T>>,
    length: usize,
}

/// One model's requests; never empty.
#[derive(Debug)]
struct Lane<T> {
    model: String,
    requests: VecDeque<Waiting<T>>,
}

#[derive(Debug)]
struct Waiting<T> {
    id: u32,
    since_ms: u64,
    request: T,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue { lanes: VecDeque::new(), length: 0 }
    }
}

impl<T> Queue<T> {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Puts a request at the end of its model's lane. `id` tells it from all others.
    pub fn push(&mut self, model: &str, id: u32, request: T, now_ms: u64) {
        let waiting = Waiting { id, since_ms: now_ms, request };
        self.length += 1;
        match self.lanes.iter_mut().find(|lane| lane.model == model) {
            Some(lane) => lane.requests.push_back(waiting),
            None => {
                self.lanes.push_back(Lane { model: model.to_owned(), requests: VecDeque::from([waiting]) })
            }
        }
    }

    /// Takes out the request whose turn it is, and its id.
    pub fn pop(&mut self, max_wait_ms: u64, now_ms: u64) -> Option<(u32, T)> {
        let mut lane = self.lanes.pop_front()?;
        let oldest_since_ms = lane.requests.front()?.since_ms;
        let stands = now_ms.saturating_sub(oldest_since_ms) >= max_wait_ms / 2;
        let first = if stands { lane.requests.pop_back() } else { lane.requests.pop_front() };
        if !lane.requests.is_empty() {
            self.lanes.push_back(lane);
        }
        self.length -= usize::from(first.is_some());
        first.map(|waiting| (waiting.id, waiting.request))
    }

    /// Takes out the request of this id, if it waits.
    pub fn remove(&mut self, id: u32) -> Option<T> {
        self.take_first(|waiting| waiting.id == id).map(|(_, request)| request)
    }

    /// Takes out a request that has waited for `max_wait_ms` or longer, if there is one.
    pub fn expired(&mut self, max_wait_ms: u64, now_ms: u64) -> Option<(u32, T)> {
        self.take_first(|waiting| now_ms.saturating_sub(waiting.since_ms) >= max_wait_ms)
    }

    fn take_first(&mut self, wanted: impl Fn(&Waiting<T>) -> bool) -> Option<(u32, T)> {
        let place = |lane: &Lane<T>| lane.requests.iter().position(&wanted);
        let (index, position) =
            self.lanes.iter().enumerate().find_map(|(index, lane)| Some((index, place(lane)?)))?;
        let lane = self.lanes.get_mut(index)?;
        let taken = lane.requests.remove(position)?;
        if lane.requests.is_empty() {
            self.lanes.remove(index);
        }
        self.length -= 1;
        Some((taken.id, taken.request))
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
            queue.push(model, id as u32, (), id as u64);
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
}
