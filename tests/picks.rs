//! Every pick against a plain restatement of who may be picked, what it costs there, and who goes first: while time
//! passes, requests come and end, and snapshots and peers publish other things.
#![cfg(not(target_family = "wasm"))]

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;

use inference_picker::config::Config;
use inference_picker::decide::{Decision, Prompt};
use inference_picker::hash::mix;
use inference_picker::ledger::Sums;
use inference_picker::load::{AdapterId, EndpointKey, EndpointLoad, InFlight, Oldest};
use inference_picker::metrics::{CacheConfig, EndpointMetrics, LoraState};
use inference_picker::openai::read_request;
use inference_picker::picker::{Outcome, Picker, Sent};
use inference_picker::pool::{EndpointReading, EnvoyHost, HostHealth, Reading, Snapshot};
use inference_picker::prefix::BLOCK_BYTES;
use inference_picker::promise::{Promise, Promised};
use proptest::prelude::*;
use serde_json::json;

const STALE_AFTER_MS: u64 = 500;
const MAX_FAILURES: u32 = 3;
const ADAPTERS: [&str; 3] = ["adapter 0", "adapter 1", "adapter 2"];
const START_MS: u64 = 1_000_000;

/// What an endpoint's metrics say; `None`: it was never scraped.
type Scraped = Option<(u64, EndpointMetrics, u32)>;

/// What the scraper says of an endpoint.
#[derive(Debug, Clone)]
struct Pod {
    host: EnvoyHost,
    scrape_failures: u32,
    /// So long ago it answered a scrape, last with something other than metrics.
    unreadable_age_ms: Option<u64>,
    scraped: Scraped,
}

#[derive(Debug, Clone)]
enum Step {
    Passed { ms: u64 },
    WentBack { ms: u64 },
    Ask { model: usize, letters: Vec<u8>, promised_ms: Option<u32> },
    Output { which: usize },
    Ended { which: usize },
    Failed { which: usize },
    Missing { which: usize },
    Scraped { pods: Vec<Pod> },
    Received { rows: Vec<(usize, u32, u32, u64, Option<usize>)> },
}

fn any_metrics() -> impl Strategy<Value = EndpointMetrics> {
    let kv =
        prop_oneof![Just(None), Just(Some(0.5)), (0..=100_u8).prop_map(|kv| Some(f32::from(kv) / 100.0))];
    let lora = prop::option::of((prop::collection::vec(0..ADAPTERS.len(), 0..3), 0..4_u32));
    let base_model = prop_oneof![30 => Just("base"), 1 => Just(ADAPTERS[0])];
    let is_resting = prop_oneof![9 => Just(false), 1 => Just(true)];
    let activity = prop_oneof![8 => Just(Some(100.0)), 1 => Just(Some(0.0)), 1 => Just(None)];
    let metrics = (kv, lora, base_model, prop::option::of(1..64_u32), is_resting, activity);
    metrics.prop_map(|(kv, lora, base_model, block_tokens, is_resting, activity)| EndpointMetrics {
        is_resting,
        activity,
        kv_cache_utilization: kv,
        lora: lora.map(|(places, slots)| LoraState::named(names(&places), slots)),
        base_model: Some(base_model.to_owned()),
        cache: block_tokens
            .map(|block_size_tokens| CacheConfig { block_size_tokens, capacity_tokens: 64_000 }),
        ..EndpointMetrics::default()
    })
}

fn names(places: &[usize]) -> Vec<String> {
    let distinct: HashSet<usize> = places.iter().copied().collect();
    distinct.into_iter().map(|place| ADAPTERS[place].to_owned()).collect()
}

/// Few different ones, so that many endpoints are alike.
fn any_pod(is_flat: bool) -> impl Strategy<Value = Pod> {
    let odd = if is_flat { 0 } else { 3 };
    let health = prop_oneof![
        12 => Just(HostHealth::Healthy),
        odd => Just(HostHealth::Degraded),
        1 => Just(HostHealth::Unhealthy),
        1 => Just(HostHealth::Excluded),
    ];
    let priority = prop_oneof![10 => Just(0_u32), odd => 0..4_u32];
    let name = prop_oneof![9 => Just(None), odd => Just(Some(()))];
    let scrape_failures = prop_oneof![9 => Just(0_u32), 1 => 0..5_u32];
    let scraped = prop_oneof![9 => (0..700_u64, any_metrics(), 0..6_u32).prop_map(Some), 1 => Just(None)];
    let unreadable_age_ms = prop_oneof![5 => Just(None), 1 => (0..700_u64).prop_map(Some)];
    (health, priority, name, scrape_failures, unreadable_age_ms, scraped).prop_map(
        |(health, priority, name, scrape_failures, unreadable_age_ms, scraped)| {
            let name = name.map(|()| "envoy://inner".to_owned());
            Pod { host: EnvoyHost { health, priority, name }, scrape_failures, unreadable_age_ms, scraped }
        },
    )
}

fn any_pods(endpoints: usize) -> impl Strategy<Value = Vec<Pod>> {
    any::<bool>().prop_flat_map(move |is_flat| prop::collection::vec(any_pod(is_flat), endpoints))
}

fn any_step(endpoints: usize) -> impl Strategy<Value = Step> {
    let row = (0..endpoints, 1..5_u32, 0..5_u32, 0..3_000_u64, prop::option::of(0..ADAPTERS.len()));
    prop_oneof![
        6 => (0..700_u64).prop_map(|ms| Step::Passed { ms: ms * ms / 700 }),
        1 => (0..1_500_u64).prop_map(|ms| Step::WentBack { ms }),
        20 => (0..=ADAPTERS.len(), prop::collection::vec(0..2_u8, 0..6), prop::option::of(0..3_000_u32))
            .prop_map(|(model, letters, promised_ms)| Step::Ask { model, letters, promised_ms }),
        6 => any::<usize>().prop_map(|which| Step::Output { which }),
        4 => any::<usize>().prop_map(|which| Step::Ended { which }),
        4 => any::<usize>().prop_map(|which| Step::Failed { which }),
        2 => any::<usize>().prop_map(|which| Step::Missing { which }),
        2 => any_pods(endpoints).prop_map(|pods| Step::Scraped { pods }),
        2 => prop::collection::vec(row, 0..20).prop_map(|rows| Step::Received { rows }),
    ]
}

fn any_story() -> impl Strategy<Value = Vec<Step>> {
    let count = prop_oneof![1..6_usize, 1..40_usize, 100..300_usize];
    count.prop_flat_map(|endpoints| {
        let first = any_pods(endpoints).prop_map(|pods| Step::Scraped { pods });
        (first, prop::collection::vec(any_step(endpoints), 1..80))
            .prop_map(|(first, then)| [first].into_iter().chain(then).collect())
    })
}

fn address(place: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 1, 1], 1_000 + place as u16))
}

/// What decides between endpoints that cost the same.
fn tie_break(draw: u32, endpoint: usize) -> u32 {
    let step =
        |tie_break: u32, shift: u32, factor: u32| (tie_break ^ (tie_break >> shift)).wrapping_mul(factor);
    step(step(step(draw ^ endpoint as u32, 16, 0x7feb_352d), 15, 0x846c_a68b), 16, 1)
}

/// A request that was sent and has not ended.
struct Open {
    sent: Sent,
    endpoint: usize,
    sent_ms: u64,
    tokens: u32,
    model: AdapterId,
    digest: u64,
    adapter: Option<AdapterId>,
    waits: bool,
}

/// What is known of one endpoint, in the plainest form.
struct Known {
    published: EndpointReading,
    failures: u32,
    ejected_until_ms: u64,
    last_output_ms: u64,
    others: InFlight,
    others_adapters: Vec<(AdapterId, u32)>,
    /// The one used last comes last.
    recent_adapters: Vec<AdapterId>,
    /// By model, when it was last noted to be missing, and how often in a row that was; 0: it is there.
    missing: HashMap<AdapterId, (u64, u32)>,
}

impl Known {
    fn lacks(&self, model: AdapterId, now_ms: u64) -> bool {
        let base = self.fresh(now_ms).and_then(|reading| reading.metrics.base_model.as_deref());
        let is_named = base.is_some_and(|base| AdapterId::of(base) == model);
        let is_paused =
            |(noted_ms, times): &(u64, u32)| *noted_ms <= now_ms && now_ms < noted_ms + pause_ms(*times);
        !is_named && self.missing.get(&model).is_some_and(is_paused)
    }

    /// 0 for one that is ready; only those with the lowest number may be picked.
    fn standing(&self, now_ms: u64) -> u8 {
        let left_ms = self.ejected_until_ms.saturating_sub(now_ms);
        let is_ejected = self.failures >= MAX_FAILURES && left_ms > 0 && left_ms <= 30_000;
        let published = &self.published;
        let sleeps = published.reading.as_ref().is_some_and(|reading| reading.metrics.is_resting);
        match published.host.health {
            HostHealth::Unhealthy | HostHealth::Excluded => 3,
            _ if published.scrape_failures >= MAX_FAILURES || is_ejected => 2,
            _ if sleeps && published.unreadable_ms.is_none() => 1,
            _ => 0,
        }
    }

    /// Whether it has answered a scrape lately, or no scrape of it has ended.
    fn is_known(&self, now_ms: u64) -> bool {
        let EndpointReading { unreadable_ms, scrape_failures, reading, .. } = &self.published;
        let is_unasked = reading.is_none() && unreadable_ms.is_none() && *scrape_failures == 0;
        is_unasked
            || self.fresh(now_ms).is_some()
            || unreadable_ms.is_some_and(|unreadable_ms| now_ms.abs_diff(unreadable_ms) < STALE_AFTER_MS)
    }

    /// Its priority, and whether it is degraded.
    fn level(&self) -> (u32, bool) {
        (self.published.host.priority, self.published.host.health == HostHealth::Degraded)
    }

    fn fresh(&self, now_ms: u64) -> Option<&Reading> {
        let reading = self.published.reading.as_ref();
        reading.filter(|reading| now_ms.abs_diff(reading.scraped_ms) < STALE_AFTER_MS)
    }

    fn adapter_used(&mut self, adapter: AdapterId) {
        self.recent_adapters.retain(|recent| *recent != adapter);
        self.recent_adapters.push(adapter);
    }

    fn rest(&mut self, now_ms: u64) {
        if self.failures >= MAX_FAILURES {
            let doublings = (self.failures - MAX_FAILURES).min(10);
            self.ejected_until_ms = now_ms + (1_000 << doublings).min(30_000);
        }
    }
}

/// How long a model is not asked for that was found missing so often in a row.
fn pause_ms(times: u32) -> u64 {
    if times == 0 { 0 } else { (1_000 << (times - 1).min(10)).min(30_000) }
}

/// A candidate: its level's place and whether nothing is received from it, whether the prompt does not belong there, the cost,
/// the tie-break, and which it is.
type Place = ((usize, bool), bool, f32, u32, usize);

/// What decides at an endpoint besides what a request needs there.
struct Load {
    backlog: f32,
    requests: f32,
    waiting: f32,
    delayed: f32,
    speed: f32,
    kv: f32,
}

/// A worker, and beside it what it should know.
struct World {
    picker: Picker<()>,
    strategy: &'static str,
    rng: fastrand::Rng,
    now_ms: u64,
    endpoints: Vec<Known>,
    open: Vec<Open>,
    seen_adapters: HashSet<String>,
    /// Where each prompt has failed since it was last answered.
    failed_at: HashMap<u64, HashSet<usize>>,
}

impl World {
    fn new(strategy: &'static str, seed: u64) -> World {
        // Scrapes may take so long that no story lasts until they are missed: then, their failures would be forgotten.
        let document = json!({
            "scrapeCluster": "s", "adminCluster": "a", "scrapeTimeout": "1h",
            "metricsStaleAfter": "500ms", "maxConsecutiveFailures": MAX_FAILURES,
            "pools": [{"name": "p", "cluster": "c", "routingStrategy": strategy}],
        });
        let config = Config::parse(document.to_string().as_bytes()).unwrap();
        let mut rng = fastrand::Rng::with_seed(seed);
        let picker = Picker::new(config, rng.clone());
        // Drawn for the pool.
        rng.u64(..);
        World {
            picker,
            strategy,
            rng,
            now_ms: START_MS,
            endpoints: Vec::new(),
            open: Vec::new(),
            seen_adapters: HashSet::new(),
            failed_at: HashMap::new(),
        }
    }

    fn own(&self, endpoint: usize) -> InFlight {
        let open = self.open.iter().filter(|open| open.endpoint == endpoint);
        let waiting = || open.clone().filter(|open| open.waits);
        InFlight {
            requests: open.clone().count() as u32,
            waiting: waiting().count() as u32,
            waiting_tokens: waiting().map(|open| u64::from(open.tokens)).sum(),
            oldest: waiting().next().map(|open| Oldest { sent_ms: open.sent_ms, tokens: open.tokens }),
            last_output_ms: self.endpoints[endpoint].last_output_ms,
        }
    }

    fn in_flight(&self, endpoint: usize) -> InFlight {
        self.own(endpoint) + self.endpoints[endpoint].others
    }

    fn adapter(&self, model: &str) -> Option<AdapterId> {
        let readings = || self.endpoints.iter().filter_map(|known| known.published.reading.as_ref());
        let mut bases = readings().filter_map(|reading| reading.metrics.base_model.as_deref());
        let any_lora = readings().any(|reading| reading.metrics.lora.is_some());
        let is_one = any_lora && self.seen_adapters.contains(model) && !bases.any(|base| base == model);
        is_one.then(|| AdapterId::of(model))
    }

    fn adapter_tokens(&self, endpoint: usize, adapter: AdapterId) -> f32 {
        let known = &self.endpoints[endpoint];
        let Some(reading) = known.fresh(self.now_ms) else { return 0.0 };
        let lora = reading.metrics.lora.as_ref();
        let mut there: HashSet<AdapterId> =
            lora.iter().flat_map(|lora| &lora.adapters).map(|name| AdapterId::of(name)).collect();
        there.extend(known.others_adapters.iter().map(|(adapter, _)| *adapter));
        there.extend(
            self.open.iter().filter(|open| open.endpoint == endpoint).filter_map(|open| open.adapter),
        );
        let idle_slots = lora.map_or(0, |lora| lora.slots as usize).saturating_sub(there.len());
        let recent = known.recent_adapters.iter().rev().filter(|recent| !there.contains(recent));
        let idle: HashSet<AdapterId> = recent.take(idle_slots).copied().collect();
        if there.contains(&adapter) || idle.contains(&adapter) {
            0.0
        } else if lora.is_none() || idle.len() < idle_slots {
            512.0
        } else if idle_slots > 0 {
            1_024.0
        } else {
            8_192.0
        }
    }

    fn matched_blocks(&self, endpoint: usize, prompt: &Prompt) -> usize {
        let load_id = self.picker.loads().known(&address(endpoint)).unwrap();
        let prefixes = self.picker.pool(0).unwrap().prefixes();
        prefixes
            .zip(prompt.blocks.as_ref())
            .map_or(0, |(prefixes, blocks)| prefixes.matched(load_id, blocks).blocks)
    }

    fn uncached_tokens(&self, endpoint: usize, prompt: &Prompt) -> u32 {
        let Some(blocks) = &prompt.blocks else { return prompt.tokens };
        let matched_bytes = (self.matched_blocks(endpoint, prompt) * BLOCK_BYTES) as f64;
        let cached = (f64::from(prompt.tokens) * (matched_bytes / blocks.bytes.max(1) as f64)) as u32;
        let reading = self.endpoints[endpoint].published.reading.as_ref();
        let block_tokens =
            reading.and_then(|reading| Some(reading.metrics.cache.as_ref()?.block_size_tokens));
        (prompt.tokens - (cached - cached % block_tokens.unwrap_or(1))).max(1)
    }

    /// What decides there besides what a request needs.
    fn load(&self, endpoint: usize) -> Load {
        let (known, in_flight) = (&self.endpoints[endpoint], self.in_flight(endpoint));
        let load_id = self.picker.loads().known(&address(endpoint)).unwrap();
        let speed = self.picker.loads().prefill_tokens_per_ms(load_id) as f32;
        let fresh = known.fresh(self.now_ms);
        let others_waiting = fresh.map_or(0, |reading| reading.external_waiting);
        let others = fresh.map_or(0, |reading| reading.external_requests);
        let kv = fresh.and_then(|reading| reading.metrics.kv_cache_utilization).unwrap_or(0.0);
        let oldest_tokens = in_flight.oldest.map_or(0.0, |oldest| oldest.tokens as f32);
        let worked_off = (speed * in_flight.working_ms(self.now_ms) as f32).min(oldest_tokens);
        let is_unproven = fresh.is_some_and(|reading| reading.metrics.activity == Some(0.0));
        let beyond = in_flight.waiting_tokens.saturating_sub(4_096);
        let own_tokens = in_flight.waiting_tokens + if is_unproven { beyond * 7 } else { 0 };
        let waiting_tokens = own_tokens + u64::from(others_waiting) * 512;
        let backlog = waiting_tokens as f32 - worked_off;
        let waiting = (in_flight.waiting + others_waiting) as f32;
        let requests = (in_flight.requests + others) as f32;
        let delayed = waiting + 0.3 * (requests - waiting).max(0.0);
        Load { backlog, requests, waiting, delayed, speed, kv }
    }

    fn cost(&self, endpoint: usize, work: f32, least_work: f32) -> f32 {
        let Load { backlog, requests, waiting, delayed, speed, kv } = self.load(endpoint);
        (backlog + (work + work * (waiting * 0.5)) + 32.0 * requests + (work - least_work) * delayed) / speed
            * (1.0 + kv)
    }

    /// How full an endpoint is that keeps the promise of a first token after so long.
    fn fullness(&self, endpoint: usize, work: f32, least_work: f32, promised_ms: u32) -> Option<f32> {
        let Load { backlog, requests, delayed, speed, kv, .. } = self.load(endpoint);
        let step_ms = if requests > 0.0 { 250.0 } else { 0.0 };
        let latest_ms = (backlog + work) / speed * (4.0 * kv + 1.0) * 1.25 + step_ms;
        let is_kept = latest_ms <= promised_ms as f32 && kv < 0.8;
        let fullness = ((backlog - (work - least_work) * (1.0 + delayed)) / speed).max(0.0);
        let may_be_filled = latest_ms <= promised_ms as f32 * (1.0 / 6.0);
        is_kept.then_some(if may_be_filled { fullness } else { 0.0 })
    }

    /// Whether its first token would come later than promised.
    fn misses(&self, endpoint: usize, work: f32, promised_ms: u32) -> bool {
        let Load { backlog, speed, .. } = self.load(endpoint);
        promised_ms as f32 - (backlog + work) / speed < 0.0
    }

    /// How many of a hundred picks a level gets, of the endpoints that stand so: by Envoy's rule, step by step.
    fn shares(&self, standing: u8) -> BTreeMap<(bool, u32), u32> {
        let known =
            || self.endpoints.iter().filter(|known| known.published.host.health != HostHealth::Excluded);
        let mut availability: BTreeMap<(bool, u32), u32> = BTreeMap::new();
        for usable in known().filter(|known| known.standing(self.now_ms) == standing) {
            let (priority, is_degraded) = usable.level();
            let alike = known().filter(|other| {
                other.standing(self.now_ms) == standing && other.level() == (priority, is_degraded)
            });
            let all = known().filter(|other| other.level().0 == priority).count();
            availability.insert((is_degraded, priority), (140 * alike.count() / all).min(100) as u32);
        }
        let total = availability.values().sum::<u32>().min(100);
        let mut left = 100;
        let mut shares = availability.clone();
        // Healthy hosts come before degraded ones, and the first priority before the others.
        for (level, share) in &mut shares {
            *share = (availability[level] * 100).checked_div(total).unwrap_or(0).min(left);
            left -= *share;
        }
        let first = shares.iter().find(|(_, share)| **share > 0).or(shares.iter().next());
        if let Some(first) = first.map(|(level, _)| *level) {
            *shares.get_mut(&first).unwrap() += left;
        }
        shares.retain(|_, share| *share > 0);
        shares
    }

    /// The place of each endpoint's level in the order in which levels are picked from; `None`: it may not be picked.
    fn levels(&self, draw: u32) -> Vec<Option<usize>> {
        let best = self.endpoints.iter().map(|known| known.standing(self.now_ms)).min().unwrap_or(0);
        let shares = if best == 3 { BTreeMap::new() } else { self.shares(best) };
        let mut levels: Vec<(u32, bool)> =
            shares.keys().map(|&(is_degraded, priority)| (priority, is_degraded)).collect();
        levels.sort_unstable();
        let mut percent = ((u64::from(draw) * 100) >> 32) as u32;
        let drawn = levels.iter().position(|&(priority, is_degraded)| {
            let share = shares[&(is_degraded, priority)];
            let is_drawn = percent < share;
            percent = percent.saturating_sub(share);
            is_drawn
        });
        if let Some(drawn) = drawn {
            let first = levels.remove(drawn);
            levels.insert(0, first);
        }
        let level = |known: &Known| match best {
            _ if known.standing(self.now_ms) != best => None,
            3 => Some(0),
            _ => levels.iter().position(|level| *level == known.level()),
        };
        self.endpoints.iter().map(level).collect()
    }

    /// The endpoints in order, the fullest first that keeps what is promised, unless the cheapest neither keeps nor misses it. Then, by a full sort: those of the level that is drawn, those of which something is received, then where the
    /// prompt belongs, then the cheap ones, then by tie-break.
    fn ranking(&mut self, prompt: &Prompt, promised_ms: Option<u32>) -> Vec<usize> {
        let (now_ms, adapter) = (self.now_ms, self.adapter(&prompt.model));
        let draw = self.rng.u32(..);
        let levels = self.levels(draw);
        let mut eligible: Vec<usize> =
            (0..self.endpoints.len()).filter(|endpoint| levels[*endpoint].is_some()).collect();
        let model = AdapterId::of(&prompt.model);
        if !eligible.iter().all(|endpoint| self.endpoints[*endpoint].lacks(model, now_ms)) {
            eligible.retain(|endpoint| !self.endpoints[*endpoint].lacks(model, now_ms));
        }
        let loading = |endpoint| adapter.map_or(0.0, |adapter| self.adapter_tokens(endpoint, adapter));
        let (choice, found) = self.rendezvous_choice(&levels, &eligible, prompt);
        let unknown = |endpoint| if choice == Some(endpoint) { 1.0 - found } else { 1.0 };
        let work =
            |endpoint| self.uncached_tokens(endpoint, prompt) as f32 * unknown(endpoint) + loading(endpoint);
        let least_work = eligible.iter().map(|endpoint| work(*endpoint)).fold(f32::INFINITY, f32::min);
        let mut ranked: Vec<Place> = Vec::new();
        for &endpoint in &eligible {
            let is_stale = !self.endpoints[endpoint].is_known(now_ms);
            ranked.push((
                (levels[endpoint].unwrap(), is_stale),
                true,
                self.cost(endpoint, work(endpoint), least_work),
                tie_break(draw, endpoint),
                endpoint,
            ));
        }
        if let Some(place) = self.place(&ranked, prompt) {
            ranked[place].1 = false;
        }
        let fullness = |endpoint| self.fullness(endpoint, work(endpoint), least_work, promised_ms?);
        let first_part = ranked.iter().map(|(part, ..)| *part).min();
        let of_first = ranked.iter().filter(|(part, ..)| Some(*part) == first_part);
        let keepers = of_first.filter_map(|&(_, _, cost, lot, endpoint)| {
            Some((fullness(endpoint)?, -cost, Reverse(lot), endpoint))
        });
        let keeper = keepers.max_by(|one, other| one.partial_cmp(other).unwrap()).map(|(.., keeper)| keeper);
        ranked.sort_by(|one, other| one.partial_cmp(other).unwrap());
        let cheapest = ranked[0].4;
        let is_missed = promised_ms.is_some_and(|due_ms| self.misses(cheapest, work(cheapest), due_ms));
        let keeper = keeper.filter(|_| is_missed || fullness(cheapest).is_some());
        let by_cost =
            ranked.into_iter().map(|(.., endpoint)| endpoint).filter(|other| Some(*other) != keeper);
        keeper.into_iter().chain(by_cost).collect()
    }

    /// Where others are taken to have sent the prompt, and how much of it is taken to be cached there.
    fn rendezvous_choice(
        &self,
        levels: &[Option<usize>],
        eligible: &[usize],
        prompt: &Prompt,
    ) -> (Option<usize>, f32) {
        let candidates = || (0..self.endpoints.len()).filter(|endpoint| levels[*endpoint].is_some());
        let reading = |endpoint: usize| self.endpoints[endpoint].fresh(self.now_ms);
        let others = |endpoint| reading(endpoint).map_or(0, |reading| reading.external_requests) as f32;
        let own: f32 = candidates().map(|endpoint| self.in_flight(endpoint).requests as f32).sum();
        let all = own + candidates().map(others).sum::<f32>();
        let pool = self.picker.pool(0).unwrap();
        let known = pool.prefixes().zip(prompt.blocks.as_ref()).filter(|_| all > own);
        let own_block = known.and_then(|(prefixes, blocks)| prefixes.own_block(blocks));
        let endpoints = pool.endpoints().unwrap();
        let choice = own_block.and_then(|own_block| {
            let key = u64::from(u32::from_le_bytes(own_block));
            eligible.iter().copied().max_by_key(|endpoint| mix(key ^ endpoints[*endpoint].address_hash))
        });
        (choice, 0.9 * (all - own) / all.max(1.0))
    }

    /// Which of the ranked ones the prompt's first new block belongs to.
    fn place(&self, ranked: &[Place], prompt: &Prompt) -> Option<usize> {
        let most = ranked.iter().map(|(.., endpoint)| self.matched_blocks(*endpoint, prompt)).max()?;
        let first_new = *prompt.blocks.as_ref()?.hashes.get(most)?;
        let first_part = ranked.iter().map(|(part, ..)| *part).min()?;
        let eligible = || ranked.iter().enumerate().filter(|(_, (part, ..))| *part == first_part);
        let least = eligible().map(|(_, (_, _, cost, ..))| *cost).fold(f32::INFINITY, f32::min);
        let near = eligible().filter(|(_, (_, _, cost, ..))| *cost <= least * 1.05);
        let endpoints = self.picker.pool(0).unwrap().endpoints().unwrap();
        let score = |endpoint: usize| {
            mix(u64::from(u32::from_le_bytes(first_new)) ^ endpoints[endpoint].address_hash)
        };
        near.min_by_key(|(_, (.., endpoint))| Reverse(score(*endpoint))).map(|(place, _)| place)
    }

    fn text(&self, endpoint: usize) -> String {
        let name = &self.endpoints[endpoint].published.host.name;
        name.clone().unwrap_or_else(|| address(endpoint).to_string())
    }

    fn ask(&mut self, model: usize, letters: &[u8], promised_ms: Option<u32>) {
        let model = ADAPTERS.get(model).copied().unwrap_or("base");
        let text: String =
            letters.iter().map(|letter| char::from(b'a' + letter).to_string().repeat(300)).collect();
        let body = json!({"model": model, "stream": true, "prompt": text}).to_string();
        let mut prepared = self.picker.prepare(&read_request(body.as_bytes()).unwrap(), None, 0).unwrap();
        prepared.promised = promised_ms.map(|promised_ms| {
            let promise = Promise { first_token_us: Some(promised_ms * 1_000), per_token_us: None };
            Promised { promise, began_ms: self.now_ms }
        });
        let expected = self.ranking(&prepared.prompt, promised_ms);
        let outcome = self.picker.decide(0, &prepared, || (), self.now_ms);
        let Outcome::Decided(Decision::Send(pick)) = outcome else { panic!("not sent: {outcome:?}") };
        let texts: Vec<String> = expected.iter().take(3).map(|endpoint| self.text(*endpoint)).collect();
        assert_eq!(pick.destinations, texts.join(","), "{} {}", self.strategy, pick.explanation);
        let sent = self.picker.send(&pick, self.now_ms);
        let (tokens, adapter) = (pick.share.tokens, pick.share.adapter);
        let known = &mut self.endpoints[expected[0]];
        known.rest(self.now_ms);
        adapter.into_iter().for_each(|adapter| known.adapter_used(adapter));
        let model = AdapterId::of(&prepared.prompt.model);
        if let Some((noted_ms, _)) = known.missing.get_mut(&model).filter(|(_, times)| *times > 0) {
            *noted_ms = self.now_ms;
        }
        self.open.push(Open {
            sent,
            model,
            digest: prepared.prompt.digest,
            endpoint: expected[0],
            sent_ms: self.now_ms,
            tokens,
            adapter,
            waits: true,
        });
    }

    fn output(&mut self, place: usize) {
        let endpoint = self.open[place].endpoint;
        let (open, known) = (&mut self.open[place], &mut self.endpoints[endpoint]);
        if std::mem::take(&mut open.waits) {
            known.last_output_ms = self.now_ms;
        }
        known.failures = 0;
        if let Some(noted) = known.missing.get_mut(&open.model).filter(|(_, times)| *times > 0) {
            *noted = (self.now_ms, 0);
        }
        self.failed_at.remove(&open.digest);
        self.picker.first_output(&mut open.sent, self.now_ms);
        self.picker.succeeded(0, &open.sent, self.now_ms);
    }

    fn scraped(&mut self, pods: Vec<Pod>) {
        let published: Vec<EndpointReading> = pods
            .into_iter()
            .enumerate()
            .map(|(place, Pod { host, scrape_failures, unreadable_age_ms, scraped })| {
                let reading = scraped.map(|(age_ms, metrics, external)| Reading {
                    scraped_ms: self.now_ms - age_ms,
                    waiting: metrics.waiting,
                    metrics,
                    own_waiting: 0,
                    external_waiting: external / 2,
                    external_requests: external,
                });
                let name = host.name.map(|name| format!("{name}/{}", address(place)));
                EndpointReading {
                    address: address(place),
                    host: EnvoyHost { name, ..host },
                    scrape_failures,
                    unreadable_ms: unreadable_age_ms.map(|age_ms| self.now_ms - age_ms),
                    restarted_ms: None,
                    reading,
                }
            })
            .collect();
        let readings = published.iter().filter_map(|published| published.reading.as_ref());
        let adapters =
            readings.filter_map(|reading| reading.metrics.lora.as_ref()).flat_map(|lora| &lora.adapters);
        self.seen_adapters.extend(adapters.cloned());
        self.picker
            .apply([(0, Snapshot { endpoints: Some(published.clone()), ..Snapshot::default() })].into_iter());
        if self.endpoints.is_empty() {
            let new = |published| Known {
                published,
                failures: 0,
                ejected_until_ms: 0,
                last_output_ms: 0,
                others: InFlight::default(),
                others_adapters: Vec::new(),
                recent_adapters: Vec::new(),
                missing: HashMap::new(),
            };
            self.endpoints = published.into_iter().map(new).collect();
        } else {
            self.endpoints
                .iter_mut()
                .zip(published)
                .for_each(|(known, published)| known.published = published);
        }
        for known in &mut self.endpoints {
            let lora = known.published.reading.as_ref().and_then(|reading| reading.metrics.lora.clone());
            let names = lora.into_iter().flat_map(|lora| lora.adapters);
            names.for_each(|name| known.adapter_used(AdapterId::of(&name)));
        }
    }

    fn received(&mut self, rows: &[(usize, u32, u32, u64, Option<usize>)]) {
        let mut sums = Sums::new();
        for known in &mut self.endpoints {
            known.others = InFlight::default();
        }
        for &(endpoint, requests, waiting, age_ms, adapter) in rows {
            let oldest = (waiting > 0).then_some(Oldest { sent_ms: self.now_ms - age_ms, tokens: 300 });
            let in_flight = InFlight {
                requests: requests + waiting,
                waiting,
                waiting_tokens: 300 * u64::from(waiting),
                oldest,
                last_output_ms: self.now_ms - age_ms / 2,
            };
            let adapters = adapter.map(|adapter| (AdapterId::of(ADAPTERS[adapter]), 1)).into_iter().collect();
            sums.add(EndpointKey::of(address(endpoint)), &EndpointLoad { in_flight, adapters });
            let known = &mut self.endpoints[endpoint];
            known.others = known.others + in_flight;
        }
        // An adapter that more of the others use than before was used just now.
        for (endpoint, known) in self.endpoints.iter_mut().enumerate() {
            let now = sums.get(EndpointKey::of(address(endpoint))).map(|load| load.adapters.clone());
            let before = std::mem::replace(&mut known.others_adapters, now.unwrap_or_default());
            for (adapter, count) in known.others_adapters.clone() {
                if !before.iter().any(|(known, before)| *known == adapter && *before >= count) {
                    known.adapter_used(adapter);
                }
            }
        }
        self.picker.loads_mut().set_others(sums.into_iter());
    }

    /// What was noted before counts as long as it is not long over, and requests that were sent before it say nothing new.
    fn missing(&mut self, place: usize) {
        let Open { sent, endpoint, model, digest, sent_ms, .. } = &self.open[place];
        let (endpoint, model, now_ms) = (*endpoint, *model, self.now_ms);
        self.picker.succeeded(0, sent, now_ms);
        self.picker.model_missing(sent, now_ms);
        self.failed_at.remove(digest);
        let known = &mut self.endpoints[endpoint];
        known.failures = 0;
        known.recent_adapters.retain(|recent| *recent != model);
        known.others_adapters.retain(|(others, _)| *others != model);
        let is_valid = |(noted_ms, times): &(u64, u32)| {
            *noted_ms <= now_ms && now_ms < noted_ms + pause_ms(*times) + 30_000
        };
        let before = known.missing.get(&model).copied().filter(is_valid);
        if before.is_none_or(|(noted_ms, times)| times == 0 || *sent_ms >= noted_ms) {
            known.missing.insert(model, (now_ms, before.map_or(0, |(_, times)| times) + 1));
        }
        for open in self.open.iter_mut().filter(|open| open.endpoint == endpoint) {
            open.adapter = open.adapter.filter(|adapter| *adapter != model);
        }
    }

    fn failed(&mut self, place: usize) {
        let Open { sent, endpoint, digest, .. } = &self.open[place];
        let failed_at = self.failed_at.entry(*digest).or_default();
        failed_at.insert(*endpoint);
        if failed_at.len() == 1 {
            let known = &mut self.endpoints[*endpoint];
            known.failures += 1;
            known.rest(self.now_ms);
        }
        self.picker.failed(0, sent, self.now_ms);
    }

    fn step(&mut self, step: Step) {
        let place = |which: usize| (!self.open.is_empty()).then(|| which % self.open.len());
        match step {
            Step::Passed { ms } => {
                self.now_ms += ms;
                assert!(!self.picker.tick(self.now_ms));
            }
            Step::WentBack { ms } => self.now_ms -= ms,
            Step::Ask { model, letters, promised_ms } => self.ask(model, &letters, promised_ms),
            Step::Output { which } => {
                if let Some(place) = place(which) {
                    self.output(place);
                }
            }
            Step::Ended { which } => {
                if let Some(place) = place(which) {
                    let Open { mut sent, endpoint, adapter, waits, .. } = self.open.remove(place);
                    let was_behind_another =
                        self.open[..place].iter().any(|other| other.endpoint == endpoint && other.waits);
                    let known = &mut self.endpoints[endpoint];
                    if waits && !was_behind_another {
                        known.last_output_ms = self.now_ms;
                    }
                    adapter.into_iter().for_each(|adapter| known.adapter_used(adapter));
                    self.picker.answered(&mut sent, 0, None, self.now_ms);
                    self.picker.end(sent, self.now_ms);
                }
            }
            Step::Failed { which } => {
                if let Some(place) = place(which) {
                    self.failed(place);
                }
            }
            Step::Missing { which } => {
                if let Some(place) = place(which) {
                    self.missing(place);
                }
            }
            Step::Scraped { pods } => self.scraped(pods),
            Step::Received { rows } => self.received(&rows),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

    #[test]
    fn every_pick_is_that_of_a_plain_restatement(story in any_story(), seed: u64) {
        for strategy in ["DEFAULT", "PREFIX_CACHE"] {
            let mut world = World::new(strategy, seed);
            story.iter().cloned().for_each(|step| world.step(step));
        }
    }
}
