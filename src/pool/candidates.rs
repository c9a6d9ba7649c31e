//! The endpoints of a pool that may be picked, and what decides among them, four side by side: a pick goes over all of
//! them, of which there may be a thousand, and a processor takes several numbers at a time.
//!
//! Nothing is known here that [`Endpoint`] and [`LoadTracker`] do not say. Who may be picked and whose metrics are fresh changes
//! with what is scraped, with requests that fail, and at a time that is known beforehand; until then, only the load of
//! endpoints where something was sent or has ended is written anew.

use wide::{f32x4, i32x4, u32x4};

use super::endpoint::ExternalLoad;
use super::{Endpoint, Freshness, Levels};
use crate::config::RoutingStrategy;
use crate::load::{InFlight, LoadId, LoadTracker, Speed};

/// Candidates side by side.
const LANES: usize = 4;

/// The place of one that is absent.
const ABSENT: u32 = u32::MAX;

/// Prompt tokens taken for a queued request of another gateway, whose size nobody reports: a typical chat turn.
pub const EXTERNAL_PROMPT_TOKENS: u64 = 512;

/// Prompt tokens of this gateway that may wait at an endpoint whose server has computed nothing yet, as at any other: half a second
/// of work at 8 tokens a millisecond, so that a burst is spread evenly over a pool that has just started.
const UNPROVEN_TOKENS: u64 = 4_096;

/// How many times those beyond count. How fast the server is is then taken from the others; should it be slower, as servers are that
/// have just started, what is sent meanwhile waits for longer. So one that comes empty to a full pool gets little more than an
/// eighth of what would make it as full as the others, until it has shown that it works.
const UNPROVEN_FACTOR: u64 = 8;

/// By what it is decided who may be picked, and whose metrics can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Age in milliseconds from which metrics are stale; `None` where they do not count at all.
    pub metrics_stale_after_ms: Option<u64>,
    /// Failures in a row after which an endpoint leaves the candidates.
    pub max_consecutive_failures: u32,
}

impl Limits {
    fn freshness(self, endpoint: &Endpoint, now_ms: u64) -> Freshness {
        let stale_after_ms = self.metrics_stale_after_ms;
        stale_after_ms.map_or(Freshness::Stale, |stale_after_ms| endpoint.freshness(now_ms, stale_after_ms))
    }
}

/// Four candidates side by side; behind the last of a kind, some are absent.
#[derive(Debug, Clone, Copy)]
pub struct Lanes {
    /// Where each is in the pool's list, and the highest number where there is none.
    pub places: u32x4,
    /// Requests there, of whomever.
    pub requests: f32x4,
    /// Those of this gateway.
    pub own_requests: f32x4,
    /// Those without a first output.
    pub waiting: f32x4,
    /// How fast prompts are computed there, in tokens a millisecond; above zero.
    pub prefill_tokens_per_ms: f32x4,
    /// Share of the KV cache in use, 0..=1; 0 where metrics do not report it.
    pub kv_cache_utilization: f32x4,
    /// How long an answer's token takes there, in milliseconds; 0 where none was seen.
    pub per_token_ms: f32x4,
    /// Prompt tokens of those that wait.
    waiting_tokens: f32x4,
    /// Those of this gateway's request that has waited longest.
    oldest_tokens: f32x4,
    worked_on_since: Moments,
}

/// Four moments, in milliseconds of the host's clock, of which the low bits are enough for times up to three weeks.
#[derive(Debug, Clone, Copy)]
struct Moments(i32x4);

impl Moments {
    /// The low bits of a moment.
    fn low_bits(moment_ms: u64) -> i32 {
        moment_ms as i32
    }

    /// The time since each, in milliseconds; nothing where it is to come.
    #[inline]
    fn passed_ms(self, now_ms: u64) -> f32x4 {
        let passed_ms = i32x4::splat(Self::low_bits(now_ms)) - self.0;
        f32x4::from_i32x4(passed_ms.max(i32x4::ZERO))
    }
}

impl Lanes {
    const ABSENT: Lanes = Lanes {
        places: u32x4::new([ABSENT; LANES]),
        requests: f32x4::ZERO,
        own_requests: f32x4::ZERO,
        waiting: f32x4::ZERO,
        prefill_tokens_per_ms: f32x4::ONE,
        kv_cache_utilization: f32x4::ZERO,
        per_token_ms: f32x4::ZERO,
        waiting_tokens: f32x4::ZERO,
        oldest_tokens: f32x4::ZERO,
        worked_on_since: Moments(i32x4::new([0; LANES])),
    };

    /// Prompt tokens that are yet to be computed there: for four what [`InFlight::backlog_tokens`] is for one, and
    /// [`EXTERNAL_PROMPT_TOKENS`] for each queued request of others.
    #[inline]
    pub fn backlog_tokens(&self, now_ms: u64) -> f32x4 {
        let worked_off = self.prefill_tokens_per_ms * self.worked_on_since.passed_ms(now_ms);
        self.waiting_tokens - worked_off.fast_min(self.oldest_tokens)
    }

    /// Of something that there is for each of the four, that of those that are not absent, with their places.
    pub fn present<T>(&self, of_each: impl IntoIterator<Item = T>) -> impl Iterator<Item = (u32, T)> {
        self.places.to_array().into_iter().zip(of_each).filter(|(place, _)| *place != ABSENT)
    }

    fn load(&mut self, lane: usize, in_flight: InFlight, speed: Speed, external: ExternalLoad) {
        let oldest_tokens = in_flight.oldest.map_or(0, |oldest| oldest.tokens);
        let since_ms = in_flight.worked_on_since_ms().unwrap_or(0);
        let write = |lanes: &mut f32x4, value| set(lanes.as_mut_array(), lane, value);
        write(&mut self.requests, in_flight.requests.saturating_add(external.requests) as f32);
        write(&mut self.own_requests, in_flight.requests as f32);
        write(&mut self.waiting, in_flight.waiting.saturating_add(external.waiting) as f32);
        write(&mut self.prefill_tokens_per_ms, speed.prefill_tokens_per_ms as f32);
        write(&mut self.per_token_ms, speed.per_token_ms as f32);
        write(&mut self.kv_cache_utilization, external.kv_cache_utilization);
        // A table in shared data can say that less waits than its oldest.
        let own_tokens = in_flight.waiting_tokens.max(oldest_tokens.into());
        let own_tokens = if external.is_unproven { ramped(own_tokens) } else { own_tokens };
        let external_tokens = u64::from(external.waiting) * EXTERNAL_PROMPT_TOKENS;
        write(&mut self.waiting_tokens, own_tokens.saturating_add(external_tokens) as f32);
        write(&mut self.oldest_tokens, oldest_tokens as f32);
        set(self.worked_on_since.0.as_mut_array(), lane, Moments::low_bits(since_ms));
    }
}

/// What so many tokens count for at an endpoint whose server has computed nothing yet.
fn ramped(tokens: u64) -> u64 {
    let beyond = tokens.saturating_sub(UNPROVEN_TOKENS);
    tokens.saturating_add(beyond.saturating_mul(UNPROVEN_FACTOR - 1))
}

/// Writes one of some side by side.
fn set<T, const COUNT: usize>(lanes: &mut [T; COUNT], lane: usize, value: T) {
    if let Some(slot) = lanes.get_mut(lane) {
        *slot = value;
    }
}

/// Candidates that are weighed against each other.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// The place of their level.
    pub level: usize,
    /// Where its lanes begin and end.
    start: usize,
    end: usize,
}

impl Part {
    /// Of vectors with a lane for each endpoint, those of this part.
    pub fn of<'a, T>(&self, vectors: &'a [T]) -> &'a [T] {
        vectors.get(self.start..self.end).unwrap_or_default()
    }
}

/// Where a candidate is: its vector and its lane there.
#[derive(Debug, Clone, Copy)]
struct Row {
    vector: usize,
    lane: usize,
    freshness: Freshness,
}

/// The candidates: level by level, and in each, where the pool's strategy goes by metrics, those first that scrapes show to be
/// there.
#[derive(Debug, Default)]
pub struct Candidates {
    /// Whether those that scrapes show to be there come before the others of their level.
    known_first: bool,
    lanes: Vec<Lanes>,
    parts: Vec<Part>,
    levels: Levels,
    /// Where each endpoint of the pool's list is.
    rows: Vec<Option<Row>>,
    /// By what the list was made; `None` if it has to be made anew.
    made: Option<Made>,
    /// Changes of loads that are taken over.
    load_changes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Made {
    limits: Limits,
    at_ms: u64,
    until_ms: u64,
}

impl Candidates {
    /// None yet, of a pool with this strategy.
    pub(super) fn new(strategy: RoutingStrategy) -> Candidates {
        Candidates { known_first: strategy.uses_metrics(), ..Candidates::default() }
    }

    /// All of them.
    pub fn lanes(&self) -> &[Lanes] {
        &self.lanes
    }

    /// Its parts, one behind the other.
    pub fn all_parts(&self) -> &[Part] {
        &self.parts
    }

    /// The same in the order in which they are picked from: first the level whose turn it is by this number, which is drawn
    /// at random from all there are.
    pub fn parts(&self, draw: u32) -> impl Iterator<Item = &Part> {
        let drawn = self.levels.drawn(draw);
        let first = self.parts.iter().filter(move |part| part.level == drawn);
        first.chain(self.parts.iter().filter(move |part| part.level != drawn))
    }

    /// Of vectors with a lane for each endpoint, writes that of the endpoint at this place of the pool's list.
    pub fn write(&self, vectors: &mut [f32x4], place: usize, value: f32) {
        if let Some(row) = self.row(place)
            && let Some(vector) = vectors.get_mut(row.vector)
        {
            set(vector.as_mut_array(), row.lane, value);
        }
    }

    /// Of vectors with a lane for each endpoint, that of the endpoint at this place of the pool's list, if it may be picked.
    pub fn read(&self, vectors: &[f32x4], place: usize) -> Option<f32> {
        let row = self.row(place)?;
        vectors.get(row.vector)?.to_array().get(row.lane).copied()
    }

    /// How fresh the metrics are of the endpoint at this place of the pool's list, if it may be picked.
    pub fn freshness(&self, place: usize) -> Option<Freshness> {
        Some(self.row(place)?.freshness)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.rows.iter().flatten().count()
    }

    /// The place of the level of the endpoint at this place of the pool's list, if it may be picked.
    pub(super) fn level(&self, place: usize) -> Option<usize> {
        let vector = self.row(place)?.vector;
        Some(self.parts.iter().find(|part| (part.start..part.end).contains(&vector))?.level)
    }

    fn row(&self, place: usize) -> Option<Row> {
        *self.rows.get(place)?
    }

    /// An endpoint is another than it was when the list was made.
    pub(super) fn outdate(&mut self) {
        self.made = None;
    }

    /// Brings the list up to date; `place` gives where in the pool's list the endpoint of a load is, `levels` who may be picked.
    pub(super) fn update(
        &mut self,
        endpoints: &[Endpoint],
        levels: impl FnOnce() -> Levels,
        place: impl Fn(LoadId) -> Option<usize>,
        loads: &LoadTracker,
        limits: Limits,
        now_ms: u64,
    ) {
        let holds = |made: Made| made.limits == limits && (made.at_ms..made.until_ms).contains(&now_ms);
        let changed = loads.changes_since(self.load_changes).filter(|_| self.made.is_some_and(holds));
        match changed {
            Some(changed) => {
                for place in changed.iter().filter_map(|load_id| place(*load_id)) {
                    self.load(place, endpoints, loads);
                }
            }
            None => self.make(endpoints, levels(), loads, limits, now_ms),
        }
        self.load_changes = loads.changes();
    }

    fn make(
        &mut self,
        endpoints: &[Endpoint],
        levels: Levels,
        loads: &LoadTracker,
        limits: Limits,
        now_ms: u64,
    ) {
        self.lanes.clear();
        self.parts.clear();
        self.rows.clear();
        self.rows.resize(endpoints.len(), None);
        self.levels = levels;
        let mut eligible: Vec<(usize, Freshness, usize)> = Vec::with_capacity(endpoints.len());
        for (place, endpoint) in endpoints.iter().enumerate() {
            if let Some(level) = self.levels.level(endpoint, now_ms, limits.max_consecutive_failures) {
                eligible.push((level, limits.freshness(endpoint, now_ms), place));
            }
        }
        eligible.sort_unstable();
        let known_first = self.known_first;
        let part_of = |one: &(usize, Freshness, usize)| (one.0, known_first && one.1.is_known());
        for part in eligible.chunk_by(|one, next| part_of(one) == part_of(next)) {
            self.add_part(part);
        }
        (0..endpoints.len()).for_each(|place| self.load(place, endpoints, loads));
        let until_ms = endpoints.iter().map(|endpoint| endpoint.standing_until_ms(now_ms, limits)).min();
        self.made = Some(Made { limits, at_ms: now_ms, until_ms: until_ms.unwrap_or(u64::MAX) });
    }

    /// Adds endpoints of one level, each with its freshness and its place in the pool's list.
    fn add_part(&mut self, part: &[(usize, Freshness, usize)]) {
        let Some(&(level, ..)) = part.first() else { return };
        let start = self.lanes.len();
        for (lane, &(_, freshness, place)) in (0..LANES).cycle().zip(part) {
            if lane == 0 {
                self.lanes.push(Lanes::ABSENT);
            }
            self.add(lane, place, freshness);
        }
        self.parts.push(Part { level, start, end: self.lanes.len() });
    }

    fn add(&mut self, lane: usize, place: usize, freshness: Freshness) {
        let row = self.lanes.len().checked_sub(1).map(|vector| Row { vector, lane, freshness });
        if let (Some(slot), Some(lanes)) = (self.rows.get_mut(place), self.lanes.last_mut()) {
            *slot = row;
            set(lanes.places.as_mut_array(), lane, place as u32);
        }
    }

    /// Takes over the load of the endpoint at this place.
    fn load(&mut self, place: usize, endpoints: &[Endpoint], loads: &LoadTracker) {
        let Some(Row { vector, lane, freshness }) = self.row(place) else { return };
        if let (Some(lanes), Some(endpoint)) = (self.lanes.get_mut(vector), endpoints.get(place)) {
            let load_id = endpoint.load_id;
            let external = endpoint.external(freshness);
            lanes.load(lane, loads.in_flight(load_id), loads.speed(load_id), external);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, RoutingStrategy};
    use crate::load::{LoadTracker, RequestLoad};
    use crate::pool::{Limits, Pool};
    use crate::strategy::{Demand, rank};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// How often the list is made anew in twenty requests that are sent, every other one of which is not read and so is
    /// picked for as by DEFAULT.
    fn times_made(strategy: &str) -> usize {
        let document = format!(
            r#"{{"scrapeCluster":"s","pools":[{{"name":"p","cluster":"c","routingStrategy":"{strategy}",
            "endpoints":["10.0.0.1:8000","10.0.0.2:8000"]}}]}}"#
        );
        let config = Config::parse(document.as_bytes()).unwrap();
        let (mut loads, mut rng) = (LoadTracker::default(), fastrand::Rng::with_seed(1));
        let mut pool = Pool::new(&config.pools[0], &mut loads, 1);
        let limits = Limits { metrics_stale_after_ms: Some(500), max_consecutive_failures: 3 };
        let demand = Demand {
            prompt_tokens: 1,
            adapter: None,
            model: None,
            blocks: None,
            streamed: false,
            is_of_conversation: false,
            visited: None,
            due: None,
        };
        let mut made: Vec<u64> = Vec::new();
        for now_ms in 0..20 {
            let strategy = if now_ms % 2 == 0 { pool.routing_strategy } else { RoutingStrategy::Default };
            let load_id =
                rank(strategy, &mut pool, &loads, demand, limits, now_ms, &mut rng)[0].endpoint.load_id;
            let share = RequestLoad { tokens: 1, adapter: None, model: None, streamed: false };
            loads.start(load_id, share, now_ms);
            made.push(pool.candidates.made.unwrap().at_ms);
        }
        made.dedup();
        made.len()
    }

    #[test]
    fn the_list_is_made_once_whatever_requests_are_picked_for() {
        for strategy in ["DEFAULT", "PREFIX_CACHE", "LEAST_REQUEST", "ROUND_ROBIN", "RANDOM"] {
            assert_eq!(times_made(strategy), 1, "{strategy}");
        }
    }
}
