//! The routing core in front of the engines: gateways of one or more workers, joined as the plugin's shell joins them.
//!
//! A worker decides each request with the core's own functions, from a real configuration and a real request body. It
//! publishes its load at each pick, reads its peers' at most once a millisecond at a pick and at every tick, and takes
//! over at its tick what the gateway's scraper has published. Gateways share nothing but the engines, unless they tell
//! each other what their workers publish; then that comes late, and a worker reads it at its tick.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fastrand::Rng;
use inference_picker::config::Config;
use inference_picker::decide::{Decision, Pick};
use inference_picker::load::LoadTable;
use inference_picker::openai::{Usage, read_request};
use inference_picker::picker::{Outcome, Picker as CoreWorker, Sent};
use inference_picker::pool::{Pool, encode};
use inference_picker::prefix::{Batch, PrefixIndex};
use serde_json::json;

use super::scraping::Scraping;
use super::telling::{Telling, Told};
use super::watch::{Seen, State, Watch};
use super::{Gateways, Picker, Request};
use crate::model_server::engine::{Engine, Output};

/// The plugin's own tick.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// Some gateways that use the core.
pub struct CorePicker {
    gateways: Vec<Gateway>,
    telling: Option<Telling>,
    /// What counts in whose books.
    in_flight: HashMap<usize, InFlight>,
    rng: Rng,
    /// Looks at what picking takes, where that is asked for.
    watch: Option<Watch>,
}

struct InFlight {
    gateway: usize,
    worker: usize,
    sent: Sent,
}

struct Gateway {
    workers: Vec<Worker>,
    /// What each worker has published.
    tables: Vec<LoadTable>,
    /// What the other gateways' workers have published, as far as was heard.
    others_tables: BTreeMap<usize, Vec<LoadTable>>,
    /// What workers have told of their prompts, until all others have heard it.
    batches: Vec<ToldBatch>,
    /// What has not been told to the other gateways; nothing where they tell each other nothing.
    untold: Option<Vec<(u64, Batch)>>,
    scraping: Scraping,
}

/// What a worker has told of its prompts.
struct ToldBatch {
    worker: u64,
    batch: Batch,
    /// Workers of this gateway that have yet to hear it.
    unheard: usize,
}

/// What one of the plugin's workers keeps.
struct Worker {
    /// Tells it from the workers of all gateways.
    id: u64,
    core: CoreWorker<()>,
    /// The time of the last look at the peers' tables.
    read_ms: u64,
    /// The number of the last batch heard of each other worker.
    heard: HashMap<u64, u64>,
    next_tick: Duration,
}

impl CorePicker {
    pub fn new(strategy: &str, pods: usize, gateways: Gateways, mut rng: Rng) -> CorePicker {
        let config = configuration(strategy, pods);
        let telling = gateways.peers_ms.map(|lateness_ms| Telling::new(Duration::from_millis(lateness_ms)));
        let gateway = |index| {
            let first_id = (index * gateways.workers) as u64 + 1;
            let mut gateway = Gateway::new(config.clone(), gateways.workers, first_id, &mut rng);
            gateway.untold = telling.is_some().then(Vec::new);
            gateway
        };
        CorePicker {
            gateways: (0..gateways.gateways).map(gateway).collect(),
            telling,
            in_flight: HashMap::new(),
            rng,
            watch: None,
        }
    }

    /// The same, watched.
    pub fn watched(strategy: &str, pods: usize, gateways: Gateways, rng: Rng) -> CorePicker {
        CorePicker { watch: Some(Watch::default()), ..CorePicker::new(strategy, pods, gateways, rng) }
    }

    /// What picking took, if it was watched.
    pub fn seen(&self) -> Option<Seen> {
        self.watch.as_ref().map(Watch::seen)
    }
}

impl Picker for CorePicker {
    fn pick(&mut self, request: &Request<'_>, _engines: &[Engine], now: Duration) -> usize {
        let gateway = self.rng.usize(..self.gateways.len());
        let worker = self.rng.usize(..self.gateways[gateway].workers.len());
        let body =
            json!({"model": request.adapter.unwrap_or("model"), "stream": true, "prompt": request.prompt})
                .to_string();
        let began = self.watch.as_ref().map(|_| Instant::now());
        let (pick, sent) = self.gateways[gateway].pick(worker, body.as_bytes(), milliseconds(now));
        if let Some((watch, began)) = self.watch.as_mut().zip(began) {
            watch.picked(began.elapsed());
        }
        self.in_flight.insert(request.key, InFlight { gateway, worker, sent });
        pod_of(&pick)
    }

    fn first_output(&mut self, key: usize, output: &Output) {
        let Some(InFlight { gateway, worker, sent }) = self.in_flight.get(&key) else { return };
        self.gateways[*gateway].workers[*worker].core.first_output(sent, milliseconds(output.at));
    }

    fn ended(&mut self, key: usize, output: &Output) {
        let Some(InFlight { gateway, worker, mut sent }) = self.in_flight.remove(&key) else { return };
        let core = &mut self.gateways[gateway].workers[worker].core;
        let usage = Usage {
            prompt_tokens: output.prompt_tokens as u32,
            completion_tokens: output.output_tokens as u32,
            cached_tokens: Some(output.cached_tokens as u32),
        };
        core.answered(&mut sent, 0, Some(usage), milliseconds(output.at));
        core.end(sent, milliseconds(output.at));
    }

    fn next_tick(&self) -> Option<Duration> {
        let gateways = self.gateways.iter().map(Gateway::next_tick);
        gateways.chain(self.telling.as_ref().map(Telling::next_tick)).min()
    }

    fn tick(&mut self, engines: &[Engine], now: Duration) {
        for gateway in &mut self.gateways {
            gateway.tick(engines, now);
        }
        if let Some((watch, gateway)) = self.watch.as_mut().zip(self.gateways.first()) {
            watch.look(now, || gateway.state());
        }
        let Some(telling) = &mut self.telling else { return };
        let tell = || self.gateways.iter_mut().enumerate().map(|(index, one)| one.tell(index)).collect();
        for told in telling.tick(tell, now) {
            let others = self.gateways.iter_mut().enumerate().filter(|(index, _)| *index != told.gateway);
            others.for_each(|(_, other)| other.hear(&told));
        }
    }
}

impl Gateway {
    fn new(config: Config, workers: usize, first_id: u64, rng: &mut Rng) -> Gateway {
        let scraping = Scraping::new(&config);
        // Workers and the companion tick as often, but not together.
        let phase = TICK / (workers as u32 + 1);
        let worker = |index: usize| {
            Worker::new(first_id + index as u64, &config, phase * (index as u32 + 1), rng.fork())
        };
        Gateway {
            workers: (0..workers).map(worker).collect(),
            tables: vec![
                LoadTable {
                    published_ms: 0,
                    rows: vec![],
                    adapters: vec![],
                    missing: vec![],
                    batches: 0
                };
                workers
            ],
            others_tables: BTreeMap::new(),
            batches: Vec::new(),
            untold: None,
            scraping,
        }
    }

    /// What the first worker keeps and exchanges.
    fn state(&self) -> State {
        let index = self.workers.first().and_then(|worker| worker.core.pool(0)).and_then(Pool::prefixes);
        let read = peers(0, &self.tables).chain(self.others_tables.values().flatten());
        State {
            index_blocks: index.map_or(0, PrefixIndex::len),
            index_bytes: index.map_or(0, PrefixIndex::cache_bytes),
            published_bytes: self.tables.first().map_or(0, |table| encode(table).len()),
            read_bytes: read.map(|table| encode(table).len()).sum(),
            snapshot_bytes: self.scraping.published.as_ref().map_or(0, |snapshot| encode(snapshot).len()),
        }
    }

    fn next_tick(&self) -> Duration {
        let workers = self.workers.iter().map(|worker| worker.next_tick);
        workers.fold(self.scraping.next_tick, Duration::min)
    }

    fn pick(&mut self, index: usize, body: &[u8], now_ms: u64) -> (Pick, Sent) {
        let worker = &mut self.workers[index];
        if std::mem::replace(&mut worker.read_ms, now_ms) != now_ms {
            let others = self.others_tables.values().flatten();
            worker.core.set_peers(peers(index, &self.tables).chain(others), now_ms);
        }
        let picked = worker.pick(body, now_ms);
        self.tables[index] = worker.core.loads().table(now_ms);
        picked
    }

    fn tick(&mut self, engines: &[Engine], now: Duration) {
        let now_ms = milliseconds(now);
        if self.scraping.next_tick <= now {
            let others = self.others_tables.values().flatten();
            self.scraping.tick(engines, self.tables.iter().chain(others), now_ms);
        }
        for index in 0..self.workers.len() {
            if self.workers[index].next_tick <= now {
                self.tick_worker(index, now_ms);
            }
        }
        self.batches.retain(|told| told.unheard > 0);
    }

    fn tick_worker(&mut self, index: usize, now_ms: u64) {
        let others_in_gateway = self.workers.len() - 1;
        let worker = &mut self.workers[index];
        worker.next_tick += TICK;
        worker.core.tick(now_ms);
        self.tables[index] = worker.core.loads().table(now_ms);
        let others = self.others_tables.values().flatten();
        worker.core.set_peers(peers(index, &self.tables).chain(others), now_ms);
        worker.core.apply(self.scraping.published.clone().into_iter().map(|snapshot| (0, snapshot)));
        worker.hear(&mut self.batches, now_ms);
        if let Some(batch) = worker.core.take_events() {
            if let Some(untold) = &mut self.untold {
                untold.push((worker.id, batch.clone()));
            }
            self.batches.push(ToldBatch { worker: worker.id, batch, unheard: others_in_gateway });
        }
    }

    /// What this gateway, the one at this place, tells the others.
    fn tell(&mut self, gateway: usize) -> Told {
        let batches = self.untold.replace(Vec::new()).unwrap_or_default();
        Told { gateway, tables: self.tables.clone(), batches }
    }

    /// Takes over what another gateway has told, for the workers to read.
    fn hear(&mut self, told: &Told) {
        self.others_tables.insert(told.gateway, told.tables.clone());
        let unheard = self.workers.len();
        let batches = told.batches.iter().cloned();
        self.batches.extend(batches.map(|(worker, batch)| ToldBatch { worker, batch, unheard }));
    }
}

/// The tables of the workers other than the one at this place.
fn peers(me: usize, tables: &[LoadTable]) -> impl Iterator<Item = &LoadTable> {
    tables.iter().enumerate().filter(move |(index, _)| *index != me).map(|(_, table)| table)
}

impl Worker {
    fn new(id: u64, config: &Config, next_tick: Duration, rng: Rng) -> Worker {
        Worker {
            id,
            core: CoreWorker::new(config.clone(), rng),
            heard: HashMap::new(),
            read_ms: 0,
            next_tick,
        }
    }

    /// Decides a request, and counts it where it goes.
    fn pick(&mut self, body: &[u8], now_ms: u64) -> (Pick, Sent) {
        let request = read_request(body).expect("the body is a request");
        let prepared = self.core.prepare(&request, None, 0).expect("any model is served");
        match self.core.decide(0, &prepared, || (), now_ms) {
            Outcome::Decided(Decision::Send(pick)) => {
                let sent = self.core.send(&pick, now_ms);
                (pick, sent)
            }
            other => panic!("a pool with endpoints picks one of them, but: {other:?}"),
        }
    }

    /// Hears what has happened to the prompts of others.
    fn hear(&mut self, batches: &mut [ToldBatch], now_ms: u64) {
        for told in batches.iter_mut().filter(|told| told.worker != self.id) {
            let number = self.heard.entry(told.worker).or_default();
            if told.batch.number > *number {
                *number = told.batch.number;
                told.unheard -= 1;
                told.batch.events.iter().for_each(|event| self.core.hear(told.worker, event, now_ms));
            }
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    time.as_millis() as u64
}

/// Nothing is shed or held back: what is compared is picks.
fn configuration(strategy: &str, pods: usize) -> Config {
    let endpoints: Vec<_> = (0..pods).map(|pod| address_of(pod).to_string()).collect();
    let document = json!({
        "scrapeCluster": "pods",
        "pools": [{"name": "pool", "cluster": "pool", "endpoints": endpoints, "routingStrategy": strategy}],
    });
    Config::parse(document.to_string().as_bytes()).expect("the configuration is valid")
}

/// The pod is in the port: no request is ever sent there.
fn address_of(pod: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], FIRST_PORT + pod as u16))
}

pub(super) fn pod_at(address: SocketAddr) -> usize {
    usize::from(address.port() - FIRST_PORT)
}

const FIRST_PORT: u16 = 8000;

/// The first of the destinations.
fn pod_of(pick: &Pick) -> usize {
    let first = pick.destinations.split(',').next().unwrap_or_default();
    pod_at(first.parse().expect("a destination is an address"))
}
