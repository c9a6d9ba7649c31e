//! The routing core in front of the engines: gateways of one or more workers, joined as the plugin's shell joins them.
//!
//! A worker decides each request with the core's own functions, from a real configuration and a real request body. It
//! reads its gateway's ledger before each pick and writes to it behind it, and with its tick writes what has ended. Gateways
//! share nothing but the engines, unless they publish to each other what is in their ledgers; then that comes late.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use fastrand::Rng;
use inference_picker::config::Config;
use inference_picker::decide::{Decision, Pick};
use inference_picker::interval::Interval;
use inference_picker::ledger::HEARTBEAT_MS;
use inference_picker::openai::{Usage, read_request};
use inference_picker::picker::{Outcome, Picker as CoreWorker, Sent};
use inference_picker::pool::{Pool, encode};
use inference_picker::prefill::PromptBy;
use inference_picker::prefix::PrefixIndex;
use inference_picker::promise::{Forecast, Promise, Promised};
use inference_picker::sessions::{Last, Name, SessionKey, Table};
use serde_json::json;

use super::configuration;
use super::exchange::{Exchange, Others, Published};
use super::scraping::Scraping;
use super::setting::{TICK, pod_at};
use super::shared_data::{InMemory, Place, SharedData};
use super::watch::{Seen, State, Watch};
use super::{Gateways, Picker, Request, Strategy};
use crate::model_server::engine::{Engine, Output};

/// The status of an answer to a request that is shed.
const SHED: u32 = 429;

/// How often the plugin's worker reads the ledger without a pick, and how old a snapshot may be known to it.
const READ_MS: u64 = 250;
const SNAPSHOT_READ_MS: u64 = 10;

/// Some gateways that use the core.
pub struct CorePicker {
    gateways: Vec<Gateway>,
    exchange: Option<Exchange>,
    /// What counts in whose books.
    in_flight: HashMap<usize, InFlight>,
    rng: Rng,
    /// Looks at what picking takes, where that is asked for.
    watch: Option<Watch>,
    /// What each request wants besides its answer, by its key.
    wanted: fn(&Request<'_>) -> Wanted,
    /// How far off the expected time to first token was, either way, of requests that were promised something.
    forecast_errors: Vec<Duration>,
}

/// How much a request matters, and what it is promised.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    pub priority: i32,
    pub promise: Promise,
}

struct InFlight {
    gateway: usize,
    worker: usize,
    sent: Sent,
    /// The engine that computes the prompt, if that is another one.
    prefill_pod: Option<usize>,
    arrived: Duration,
    forecast: Option<Box<Forecast>>,
}

struct Gateway {
    workers: Vec<Worker>,
    shared: SharedData,
    /// What the other gateways have published, and this one has published them; nothing where they publish to each other nothing.
    others: Option<Others>,
    /// Of each pool.
    scraping: Vec<Scraping>,
}

/// What one of the plugin's workers keeps.
struct Worker {
    core: CoreWorker<()>,
    place: Place,
    sessions: Table,
    reads: Interval,
    snapshot_reads: Interval,
    heartbeat: Interval,
    next_tick: Duration,
}

impl CorePicker {
    pub fn new(strategy: Strategy, engines: &[Engine], gateways: Gateways, rng: Rng) -> CorePicker {
        let config = configuration::together(strategy, engines, gateways.scrape_interval_ms);
        CorePicker::configured(&config, gateways, rng)
    }

    /// One gateway in front of engines of which the first ones only compute prompts: those of so many tokens and more that are
    /// not cached where they are answered.
    pub fn disaggregated(
        strategy: Strategy,
        engines: &[Engine],
        prefill_pods: usize,
        threshold_tokens: usize,
        rng: Rng,
    ) -> CorePicker {
        let config = configuration::disaggregated(strategy, engines, prefill_pods, threshold_tokens);
        CorePicker::configured(&config, Gateways::default(), rng)
    }

    fn configured(config: &Config, gateways: Gateways, mut rng: Rng) -> CorePicker {
        let exchange = gateways.peers_ms.map(|lateness_ms| Exchange::new(Duration::from_millis(lateness_ms)));
        let gateway = |index| {
            let first_id = (index * gateways.workers) as u64 + 1;
            let mut gateway =
                Gateway::new(config.clone(), gateways.workers, index as u64, first_id, &mut rng);
            gateway.others = exchange.is_some().then(|| Others::new(index as u64));
            gateway
        };
        CorePicker {
            gateways: (0..gateways.gateways).map(gateway).collect(),
            exchange,
            in_flight: HashMap::new(),
            rng,
            watch: None,
            wanted: |_| Wanted::default(),
            forecast_errors: Vec::new(),
        }
    }

    /// The same for requests that want something.
    #[must_use]
    pub fn wanting(self, wanted: fn(&Request<'_>) -> Wanted) -> CorePicker {
        CorePicker { wanted, ..self }
    }

    /// How far off the expected time to first token was, either way, of requests that were promised something.
    pub fn forecast_errors(&self) -> &[Duration] {
        &self.forecast_errors
    }

    /// The same, watched.
    pub fn watched(strategy: Strategy, engines: &[Engine], gateways: Gateways, rng: Rng) -> CorePicker {
        CorePicker { watch: Some(Watch::default()), ..CorePicker::new(strategy, engines, gateways, rng) }
    }

    /// What picking took, if it was watched.
    pub fn seen(&self) -> Option<Seen> {
        self.watch.as_ref().map(Watch::seen)
    }
}

impl Picker for CorePicker {
    fn pick(&mut self, request: &Request<'_>, engines: &[Engine], now: Duration) -> usize {
        self.pick_or_shed(request, engines, now).expect("what gives way to nobody is not shed")
    }

    fn pick_or_shed(&mut self, request: &Request<'_>, _engines: &[Engine], now: Duration) -> Option<usize> {
        let gateway = self.rng.usize(..self.gateways.len());
        let worker = self.rng.usize(..self.gateways[gateway].workers.len());
        let body = body_of(request);
        let began = self.watch.as_ref().map(|_| Instant::now());
        let wanted = (self.wanted)(request);
        let picked = self.gateways[gateway].pick(worker, body.as_bytes(), wanted, milliseconds(now));
        if let Some((watch, began)) = self.watch.as_mut().zip(began) {
            watch.picked(began.elapsed());
        }
        let (pick, sent) = picked?;
        let (pod, prefill_pod) = (pod_of(&pick), prefill_pod(&pick));
        let forecast = pick.forecast;
        let sent = InFlight { gateway, worker, sent, prefill_pod, arrived: now, forecast };
        self.in_flight.insert(request.key, sent);
        Some(pod)
    }

    fn prefill_pod(&self, key: usize) -> Option<usize> {
        self.in_flight.get(&key)?.prefill_pod
    }

    fn first_output(&mut self, key: usize, output: &Output) {
        let Some(InFlight { gateway, worker, sent, arrived, forecast, .. }) = self.in_flight.get_mut(&key)
        else {
            return;
        };
        if let Some(forecast) = forecast {
            let expected = *arrived + Duration::from_millis(forecast.first_token_ms);
            self.forecast_errors.push(output.at.abs_diff(expected));
        }
        self.gateways[*gateway].workers[*worker].core.first_output(sent, milliseconds(output.at));
    }

    fn ended(&mut self, key: usize, output: &Output) {
        let Some(InFlight { gateway, worker, mut sent, .. }) = self.in_flight.remove(&key) else { return };
        let worker = &mut self.gateways[gateway].workers[worker];
        let now_ms = milliseconds(output.at);
        let usage = Usage {
            prompt_tokens: output.prompt_tokens as u32,
            completion_tokens: output.output_tokens as u32,
            cached_tokens: Some(output.cached_tokens as u32),
        };
        worker.core.answered(&mut sent, 0, Some(usage), now_ms);
        worker.core.end(sent, now_ms);
    }

    fn next_tick(&self) -> Option<Duration> {
        let gateways = self.gateways.iter().map(Gateway::next_tick);
        gateways.chain(self.exchange.as_ref().map(Exchange::next_tick)).min()
    }

    fn tick(&mut self, engines: &[Engine], now: Duration) {
        for gateway in &mut self.gateways {
            gateway.tick(engines, now);
        }
        if let Some((watch, gateway)) = self.watch.as_mut().zip(self.gateways.first()) {
            watch.look(now, || gateway.state());
        }
        let Some(exchange) = &mut self.exchange else { return };
        let now_ms = milliseconds(now);
        let publish = || self.gateways.iter_mut().filter_map(|gateway| gateway.publish(now_ms)).collect();
        for published in exchange.tick(publish, now) {
            self.gateways.iter_mut().for_each(|gateway| gateway.receive(&published, now_ms));
        }
    }
}

impl Gateway {
    fn new(config: Config, workers: usize, name: u64, first_id: u64, rng: &mut Rng) -> Gateway {
        let scraping = config.pools.iter().map(|pool| Scraping::new(&config, pool)).collect();
        // Workers and the companion tick as often, but not together.
        let phase = TICK / (workers as u32 + 1);
        let worker = |index: usize| {
            Worker::new(first_id + index as u64, &config, phase * (index as u32 + 1), rng.fork())
        };
        Gateway {
            workers: (0..workers).map(worker).collect(),
            shared: SharedData::new(name),
            others: None,
            scraping,
        }
    }

    /// What the first worker keeps and exchanges.
    fn state(&self) -> State {
        let index = self.workers.first().and_then(|worker| worker.core.pool(0)).and_then(Pool::prefixes);
        let ledger_bytes = self.shared.ledger_bytes();
        let snapshots = self.scraping.iter().filter_map(|scraping| scraping.published.as_ref());
        State {
            index_blocks: index.map_or(0, PrefixIndex::len),
            index_bytes: index.map_or(0, PrefixIndex::cache_bytes),
            published_bytes: ledger_bytes,
            read_bytes: ledger_bytes,
            snapshot_bytes: snapshots.map(|snapshot| encode(snapshot).len()).sum(),
        }
    }

    fn next_tick(&self) -> Duration {
        let workers = self.workers.iter().map(|worker| worker.next_tick);
        let scraping = self.scraping.iter().map(|scraping| scraping.next_tick);
        workers.chain(scraping).min().unwrap_or(Duration::MAX)
    }

    fn pick(&mut self, index: usize, body: &[u8], wanted: Wanted, now_ms: u64) -> Option<(Pick, Sent)> {
        let worker = &mut self.workers[index];
        worker.read(&self.shared, &self.scraping, now_ms);
        let picked = worker.pick(body, wanted, &self.shared.sessions, now_ms);
        worker.publish(&mut self.shared, now_ms);
        picked
    }

    fn tick(&mut self, engines: &[Engine], now: Duration) {
        let now_ms = milliseconds(now);
        for scraping in self.scraping.iter_mut().filter(|scraping| scraping.next_tick <= now) {
            scraping.tick(engines, &mut self.shared, now_ms);
        }
        for worker in self.workers.iter_mut().filter(|worker| worker.next_tick <= now) {
            worker.tick(&mut self.shared, &self.scraping, now_ms);
        }
    }

    /// What this gateway publishes to the others, if they exchange anything.
    fn publish(&mut self, now_ms: u64) -> Option<Published> {
        self.others.as_mut().map(|others| others.publish(&self.shared, now_ms))
    }

    /// Takes over what a gateway has published, for the workers to read.
    fn receive(&mut self, published: &Published, now_ms: u64) {
        if let Some((others, asker)) = self.others.as_mut().zip(self.scraping.first_mut()) {
            others.receive(published, &mut self.shared, &mut asker.place, now_ms);
        }
    }
}

impl Worker {
    fn new(id: u64, config: &Config, next_tick: Duration, rng: Rng) -> Worker {
        Worker {
            core: CoreWorker::new(config.clone(), rng),
            place: Place::new(id),
            sessions: Table::new(config.sessions),
            reads: Interval::new(READ_MS),
            snapshot_reads: Interval::new(SNAPSHOT_READ_MS),
            heartbeat: Interval::new(HEARTBEAT_MS),
            next_tick,
        }
    }

    fn tick(&mut self, shared: &mut SharedData, scraping: &[Scraping], now_ms: u64) {
        self.next_tick += TICK;
        self.core.tick(now_ms);
        if self.reads.is_due(now_ms) {
            self.read(shared, scraping, now_ms);
        }
        let is_alive = self.heartbeat.is_due(now_ms) && self.place.member.has_load();
        if is_alive || self.core.loads().has_unpublished() || self.core.has_events() {
            self.publish(shared, now_ms);
        }
    }

    fn read(&mut self, shared: &SharedData, scraping: &[Scraping], now_ms: u64) {
        let received = self.place.read(shared, self.core.loads_mut(), now_ms);
        self.core.receive_all(&received, now_ms);
        if self.snapshot_reads.is_due(now_ms) {
            let published = scraping.iter().map(|scraping| scraping.published.clone()).enumerate();
            self.core.apply(published.filter_map(|(pool, snapshot)| Some((pool, snapshot?))));
        }
    }

    fn publish(&mut self, shared: &mut SharedData, now_ms: u64) {
        let events = self.core.take_events();
        self.place.publish(shared, self.core.loads_mut(), events, now_ms);
    }

    /// Decides a request, and counts it where it goes; nothing, if it is shed.
    fn pick(
        &mut self,
        body: &[u8],
        wanted: Wanted,
        sessions: &InMemory,
        now_ms: u64,
    ) -> Option<(Pick, Sent)> {
        let request = read_request(body).expect("the body is a request");
        let mut prepared = self.core.prepare(&request, None, 0).expect("any model is served");
        if let Some(name) = Name::in_body(&self.core.config().session_by, &request, None) {
            let key = SessionKey::of_session(0, name);
            let last = self.sessions.get(sessions, key, now_ms).map(Last::from);
            self.core.set_session(&mut prepared, Some((key, last)), None);
        }
        let Wanted { priority, promise } = wanted;
        prepared.priority = priority;
        prepared.promised = (!promise.is_empty()).then_some(Promised { promise, began_ms: now_ms });
        match self.core.decide(0, &prepared, || (), now_ms) {
            Outcome::Decided(Decision::Send(pick)) => {
                let sent = self.core.send(&pick, now_ms);
                let session = self.core.session_sent(0, &sent, now_ms);
                session.iter().for_each(|entry| _ = self.sessions.put(sessions, entry));
                Some((pick, sent))
            }
            Outcome::Decided(Decision::Refuse(error)) if error.status == SHED => None,
            other => panic!("a pool with endpoints picks one of them, but: {other:?}"),
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    time.as_millis() as u64
}

fn body_of(request: &Request<'_>) -> String {
    let mut body =
        json!({"model": request.adapter.unwrap_or("model"), "stream": true, "prompt": request.prompt});
    if let Some(session) = request.session {
        body["prompt_cache_key"] = name_of(session).into();
    }
    body.to_string()
}

/// What a client calls its session.
pub(super) fn name_of(session: usize) -> String {
    format!("session-{session}")
}

/// Who computes the prompt, if that is not who generates the answer.
fn prefill_pod(pick: &Pick) -> Option<usize> {
    match &pick.prompt_by {
        PromptBy::Other(other) => Some(pod_at(other.address.parse().expect("it is an address"))),
        PromptBy::Itself | PromptBy::Gone { .. } => None,
    }
}

/// The first of the destinations.
fn pod_of(pick: &Pick) -> usize {
    let first = pick.destinations.split(',').next().unwrap_or_default();
    pod_at(first.parse().expect("a destination is an address"))
}
