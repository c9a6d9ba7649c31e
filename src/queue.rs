//! Requests that wait in the gateway while their pool is saturated.
//!
//! Higher priorities leave first. Within a priority there are lanes, one a tenant, or where tenants are not distinguished, one
//! a model; what has no lane of its own shares one. Lanes share by start-time fair queueing: a lane's next request starts
//! when its last one has ended, or now; the one that starts first leaves, and moves the time of its priority there:
//! `end = start + cost`. A cost of 1 has lanes take turns, so that a model with a thousand requests waiting delays another's
//! first one by a single request. Tokens as costs give each tenant the same tokens, however large its requests are. A lane
//! whose requests have all left is remembered until its end, so that one request at a time is no way around that; an
//! empty queue remembers nothing.
//!
//! Lanes go by names that somebody else than a client has given, or that are trusted, and there are at most
//! [`MAX_LANES`] in a priority, so that no client gets more turns by inventing names. A lane's requests leave in the order
//! they came, as long as the queue clears. While it stands, its oldest request having waited for half of the longest wait,
//! the newest leaves first: more comes than can be served, somebody has to come again, and first come first served would
//! have everybody wait until shortly before that. A request that has waited too long leaves by [`Queue::expired`]. What a
//! request is does not matter here.
//!
//! Of `n` requests in `m` lanes, each step looks at about `log n` requests and at most `m` lanes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Lanes of one priority; whoever comes beyond shares one.
pub const MAX_LANES: usize = 1_024;

/// A queue of one pool's requests.
#[derive(Debug)]
pub struct Queue<T> {
    /// By number, in the order in which they came.
    waiting: BTreeMap<u64, Waiting<T>>,
    /// The number of each, by its id.
    numbers: HashMap<u32, u64>,
    /// The highest priority first.
    bands: BTreeMap<Reverse<i32>, Band>,
    next_number: u64,
    /// Of all that wait.
    bytes: usize,
}

/// Where a request waits.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Higher ones leave first.
    pub priority: i32,
    /// The lane, by its tenant or model; `None`: the one that is shared.
    pub lane: Option<&'a str>,
    /// What it takes of its lane's share, at least 1.
    pub cost: u32,
    /// Bytes that it holds in memory.
    pub bytes: usize,
}

/// One priority's requests.
#[derive(Debug, Default)]
struct Band {
    /// In the order in which they came.
    lanes: Vec<Lane>,
    /// Where the last request that left has started.
    now: u64,
}

/// One tenant's or model's requests; one without any has not ended yet.
#[derive(Debug)]
struct Lane {
    /// `None` for all that have no lane of their own.
    name: Option<String>,
    numbers: BTreeSet<u64>,
    /// When its next request starts.
    start: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    id: u32,
    since_ms: u64,
    priority: i32,
    lane: Option<String>,
    cost: u32,
    bytes: usize,
    request: T,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue {
            waiting: BTreeMap::new(),
            numbers: HashMap::new(),
            bands: BTreeMap::new(),
            next_number: 0,
            bytes: 0,
        }
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

    /// Bytes that those that wait hold in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The lowest priority of those that wait.
    pub fn lowest_priority(&self) -> Option<i32> {
        self.bands.iter().rev().find(|(_, band)| !band.is_empty()).map(|(Reverse(priority), _)| *priority)
    }

    /// Puts a request at the end of its lane. `id` distinguishes it from all others that wait.
    pub fn push(&mut self, place: Place<'_>, id: u32, request: T, now_ms: u64) {
        let number = self.next_number;
        self.next_number += 1;
        let Place { priority, lane, cost, bytes } = place;
        let lane = self.bands.entry(Reverse(priority)).or_default().push(lane, number);
        self.numbers.insert(id, number);
        self.bytes = self.bytes.saturating_add(bytes);
        self.waiting.insert(number, Waiting { id, since_ms: now_ms, priority, lane, cost, bytes, request });
    }

    /// Takes out the request whose turn it is, and its id.
    pub fn pop(&mut self, max_wait_ms: u64, now_ms: u64) -> Option<(u32, T)> {
        let band = self.bands.values_mut().find(|band| !band.is_empty())?;
        let lane = band.next()?;
        let oldest_since_ms = self.waiting.get(lane.numbers.first()?)?.since_ms;
        let stands = now_ms.saturating_sub(oldest_since_ms) >= max_wait_ms / 2;
        let number = if stands { lane.numbers.pop_last() } else { lane.numbers.pop_first() }?;
        let start = lane.start;
        lane.start += u64::from(self.waiting.get(&number)?.cost.max(1));
        band.left(start);
        self.take(number)
    }

    /// Takes out the newest request of the lowest priority, and its id.
    pub fn pop_lowest(&mut self) -> Option<(u32, T)> {
        let band = self.bands.values().rev().find(|band| !band.is_empty())?;
        let newest = band.lanes.iter().filter_map(|lane| lane.numbers.last()).max()?;
        self.take_from_lane(*newest)
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

    /// The ids of those that have waited for `wait_ms` or longer, and what they are; the one that came first comes first.
    pub fn waited(&self, wait_ms: u64, now_ms: u64) -> impl Iterator<Item = (u32, &T)> {
        let is_long = move |waiting: &&Waiting<T>| now_ms.abs_diff(waiting.since_ms) >= wait_ms;
        self.waiting.values().take_while(is_long).map(|waiting| (waiting.id, &waiting.request))
    }

    fn take_from_lane(&mut self, number: u64) -> Option<(u32, T)> {
        let Waiting { priority, lane: name, .. } = self.waiting.get(&number)?;
        let band = self.bands.get_mut(&Reverse(*priority))?;
        let lane = band.lanes.iter_mut().find(|lane| lane.name == *name)?;
        lane.numbers.remove(&number);
        band.forget_ended();
        self.take(number)
    }

    fn take(&mut self, number: u64) -> Option<(u32, T)> {
        let Waiting { id, bytes, request, .. } = self.waiting.remove(&number)?;
        self.bytes = self.bytes.saturating_sub(bytes);
        self.numbers.remove(&id);
        if self.waiting.is_empty() {
            self.bands.clear();
        }
        Some((id, request))
    }
}

impl Band {
    fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.numbers.is_empty())
    }

    /// Puts a request into the lane of this name, or, where there are too many, into the shared one. Gives the lane's name.
    fn push(&mut self, name: Option<&str>, number: u64) -> Option<String> {
        let place =
            |lanes: &[Lane], name: Option<&str>| lanes.iter().position(|lane| lane.name.as_deref() == name);
        let is_known = name.is_none() || place(&self.lanes, name).is_some();
        let name = name.filter(|_| is_known || self.lanes.len() < MAX_LANES);
        match place(&self.lanes, name).and_then(|place| self.lanes.get_mut(place)) {
            Some(lane) => {
                if lane.numbers.is_empty() {
                    lane.start = lane.start.max(self.now);
                }
                lane.numbers.insert(number);
            }
            None => {
                let (name, numbers) = (name.map(str::to_owned), BTreeSet::from([number]));
                self.lanes.push(Lane { name, numbers, start: self.now });
            }
        }
        name.map(str::to_owned)
    }

    /// The lane whose next request starts first.
    fn next(&mut self) -> Option<&mut Lane> {
        self.lanes.iter_mut().filter(|lane| !lane.numbers.is_empty()).min_by_key(|lane| lane.start)
    }

    /// A request that started at `start` has left.
    fn left(&mut self, start: u64) {
        self.now = self.now.max(start);
        self.forget_ended();
    }

    fn forget_ended(&mut self) {
        self.lanes.retain(|lane| !lane.numbers.is_empty() || lane.start > self.now);
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
            queue.push(place(Some(model)), id as u32, (), id as u64);
        }
        queue
    }

    /// At one priority, taking turns.
    fn place(lane: Option<&str>) -> Place<'_> {
        Place { priority: 0, lane, cost: 1, bytes: 10 }
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
            queue.push(place(model), id as u32, (), 0);
        }
        assert_eq!(drain(&mut queue), [0, 3, 4, 1, 2]);
    }

    #[test]
    fn higher_priorities_leave_first_and_the_lowest_newest_one_gives_way() {
        let mut queue = Queue::default();
        for (id, priority) in [0, 5, -3, 5, 99, -3, i32::MAX, i32::MIN].into_iter().enumerate() {
            queue.push(Place { priority, ..place(Some("a")) }, id as u32, (), 0);
        }
        assert_eq!((queue.lowest_priority(), queue.pop_lowest()), (Some(i32::MIN), Some((7, ()))));
        assert_eq!((queue.lowest_priority(), queue.pop_lowest()), (Some(-3), Some((5, ()))));
        assert_eq!(drain(&mut queue), [6, 4, 1, 3, 0, 2]);
        assert_eq!(queue.lowest_priority(), None);
    }

    #[test]
    fn tenants_share_by_tokens_and_not_by_requests() {
        let mut queue = Queue::default();
        // One has many small requests, the other few large ones.
        for id in 0..1_000 {
            queue.push(Place { cost: 10, ..place(Some("small")) }, id, (), 0);
        }
        for id in 1_000..1_100 {
            queue.push(Place { cost: 100, ..place(Some("large")) }, id, (), 0);
        }
        let left: Vec<u32> = std::iter::from_fn(|| queue.pop(1_000, 10)).map(|(id, ())| id).collect();
        for so_far in (11..1_000).step_by(11) {
            let large = left[..so_far].iter().filter(|id| **id >= 1_000).count();
            let (large, small) = (large * 100, (so_far - large) * 10);
            assert!(large.abs_diff(small) <= 100, "{large} tokens and {small}");
        }
    }

    #[test]
    fn a_tenant_with_one_request_at_a_time_has_no_more_than_its_share() {
        let mut queue = Queue::default();
        for id in 0..100 {
            queue.push(Place { cost: 10, ..place(Some("small")) }, id, (), 0);
        }
        queue.push(Place { cost: 100, ..place(Some("large")) }, 1_000, (), 0);
        let mut large = 0;
        for step in 1..=99 {
            if queue.pop(1_000, 10).is_some_and(|(id, ())| id >= 1_000) {
                large += 1;
                queue.push(Place { cost: 100, ..place(Some("large")) }, 1_000 + step, (), 0);
            }
        }
        assert!((9..=10).contains(&large), "{large} of 99, ten times as large as the others");
    }

    #[test]
    fn invented_tenants_share_a_lane_beyond_so_many() {
        let mut queue = Queue::default();
        for id in 0..MAX_LANES as u32 + 500 {
            queue.push(place(Some(&id.to_string())), id, (), 0);
        }
        let lanes = &queue.bands[&Reverse(0)].lanes;
        assert_eq!(lanes.len(), MAX_LANES + 1);
        assert_eq!(lanes.last().unwrap().numbers.len(), 500);
    }

    #[test]
    fn while_the_queue_stands_a_models_newest_request_leaves_first() {
        let mut queue = queue(&["a", "a", "b", "a"]);
        let mut pop = |now_ms| queue.pop(1_000, now_ms).map(|(id, ())| id);
        assert_eq!([pop(500), pop(501), pop(501), pop(501)], [Some(3), Some(2), Some(1), Some(0)]);
    }

    #[test]
    fn the_bytes_of_those_that_wait_are_known_however_they_leave() {
        let mut queue = queue(&["a", "b", "a", "b"]);
        assert_eq!(queue.bytes(), 40);
        queue.remove(2);
        queue.pop(1_000, 10);
        assert_eq!(queue.bytes(), 20);
        queue.expired(0, 10);
        queue.pop_lowest();
        assert_eq!(queue.bytes(), 0);
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
            queue.push(place(Some("a")), id, (), now_ms);
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
            queue.push(place(Some(["a", "b", "c"][id as usize % 3])), id, (), id.into());
        }
        for id in (COUNT / 2..COUNT).rev() {
            assert_eq!(queue.remove(id), Some(()));
        }
        let expired = std::iter::from_fn(|| queue.expired(0, COUNT.into())).map(|(id, ())| id);
        assert!(expired.eq(0..COUNT / 2));
        assert!(queue.is_empty() && queue.bands.is_empty() && queue.numbers.is_empty());
    }
}
