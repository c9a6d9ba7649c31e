//! The routing core in front of the engines: gateways of one or more workers, joined as the plugin's shell joins them.
//!
//! A worker decides each request with the core's own functions, from a real configuration and a real request body. It
//! publishes its load at each pick, reads its peers' at most once a millisecond at a pick and at every tick, and takes
//! over at its tick what the gateway's scraper has published. Gateways share nothing but the engines.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use fastrand::Rng;
use inference_picker::config::Config;
use inference_picker::decide::{Decision, Pick};
use inference_picker::load::LoadTable;
use inference_picker::openai::{Usage, read_request};
use inference_picker::picker::{Outcome, Picker as CoreWorker, Sent};
use inference_picker::pool::Snapshot;
use inference_picker::prefix::Batch;
use serde_json::json;

use super::scraping::Scraping;
use super::{Gateways, Picker, Request};
use crate::model_server::engine::{Engine, Output};

/// The plugin's own tick.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// Some gateways that use the core.
pub struct CorePicker {
    gateways: Vec<Gateway>,
    /// What counts in whose books.
    in_flight: HashMap<usize, InFlight>,
    rng: Rng,
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
    /// What each worker has told of its prompts, until all others have heard it.
    batches: Vec<(usize, Batch, usize)>,
    scraping: Scraping,
}

/// What one of the plugin's workers keeps.
struct Worker {
    core: CoreWorker<()>,
    /// The time of the last look at the peers' tables.
    read_ms: u64,
    /// The number of the last batch heard of each other worker.
    heard: HashMap<usize, u64>,
    next_tick: Duration,
}

impl CorePicker {
    pub fn new(strategy: &str, pods: usize, gateways: Gateways, mut rng: Rng) -> CorePicker {
        let config = configuration(strategy, pods);
        let gateway = |_| Gateway::new(config.clone(), gateways.workers, &mut rng);
        CorePicker { gateways: (0..gateways.gateways).map(gateway).collect(), in_flight: HashMap::new(), rng }
    }
}

impl Picker for CorePicker {
    fn pick(&mut self, request: &Request<'_>, _engines: &[Engine], now: Duration) -> usize {
        let gateway = self.rng.usize(..self.gateways.len());
        let worker = self.rng.usize(..self.gateways[gateway].workers.len());
        let (pick, sent) = self.gateways[gateway].pick(worker, request.prompt, milliseconds(now));
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
        core.answered(&mut sent, Some(usage), milliseconds(output.at));
        core.end(sent, milliseconds(output.at));
    }

    fn next_tick(&self) -> Option<Duration> {
        self.gateways.iter().map(Gateway::next_tick).min()
    }

    fn tick(&mut self, engines: &[Engine], now: Duration) {
        for gateway in &mut self.gateways {
            gateway.tick(engines, now);
        }
    }
}

impl Gateway {
    fn new(config: Config, workers: usize, rng: &mut Rng) -> Gateway {
        let scraping = Scraping::new(&config);
        // Workers and the companion tick as often, but not together.
        let phase = TICK / (workers as u32 + 1);
        let worker = |index: usize| Worker::new(&config, phase * (index as u32 + 1), rng.fork());
        Gateway {
            workers: (0..workers).map(worker).collect(),
            tables: vec![LoadTable { published_ms: 0, rows: vec![], adapters: vec![], batches: 0 }; workers],
            batches: Vec::new(),
            scraping,
        }
    }

    fn next_tick(&self) -> Duration {
        let workers = self.workers.iter().map(|worker| worker.next_tick);
        workers.fold(self.scraping.next_tick, Duration::min)
    }

    fn pick(&mut self, index: usize, prompt: &[u32], now_ms: u64) -> (Pick, Sent) {
        let worker = &mut self.workers[index];
        if std::mem::replace(&mut worker.read_ms, now_ms) != now_ms {
            worker.read_peers(index, &self.tables, now_ms);
        }
        let picked = worker.pick(prompt, now_ms);
        self.tables[index] = worker.core.loads().table(now_ms);
        picked
    }

    fn tick(&mut self, engines: &[Engine], now: Duration) {
        let now_ms = milliseconds(now);
        if self.scraping.next_tick <= now {
            self.scraping.tick(engines, &self.tables, now_ms);
        }
        for (index, worker) in self.workers.iter_mut().enumerate() {
            if worker.next_tick <= now {
                worker.tick(index, &mut self.tables, self.scraping.published.as_ref(), now_ms);
                exchange(index, worker, &mut self.batches, now_ms);
            }
        }
        let others = self.workers.len() - 1;
        self.batches.retain(|(_, _, heard)| *heard < others);
    }
}

/// Tells what happened to the worker's prompts, and hears it of the others.
fn exchange(me: usize, worker: &mut Worker, batches: &mut Vec<(usize, Batch, usize)>, now_ms: u64) {
    for (other, batch, heard) in batches.iter_mut().filter(|(other, ..)| *other != me) {
        let number = worker.heard.entry(*other).or_default();
        if batch.number > *number {
            *number = batch.number;
            *heard += 1;
            batch.events.iter().for_each(|event| worker.core.hear(*other as u64 + 1, event, now_ms));
        }
    }
    batches.extend(worker.core.take_events().map(|batch| (me, batch, 0)));
}

impl Worker {
    fn new(config: &Config, next_tick: Duration, rng: Rng) -> Worker {
        Worker { core: CoreWorker::new(config.clone(), rng), heard: HashMap::new(), read_ms: 0, next_tick }
    }

    /// Decides a request, and counts it where it goes.
    fn pick(&mut self, prompt: &[u32], now_ms: u64) -> (Pick, Sent) {
        let body = json!({"model": "model", "stream": true, "prompt": prompt}).to_string();
        let request = read_request(body.as_bytes()).expect("the body is a request");
        let prepared = self.core.prepare(&request, None, 0).expect("any model is served");
        match self.core.decide(0, &prepared, || (), now_ms) {
            Outcome::Decided(Decision::Send(pick)) => {
                let sent = self.core.send(&pick, now_ms);
                (pick, sent)
            }
            other => panic!("a pool with endpoints picks one of them, but: {other:?}"),
        }
    }

    fn read_peers(&mut self, me: usize, tables: &[LoadTable], now_ms: u64) {
        let peers = tables.iter().enumerate().filter(|(index, _)| *index != me);
        self.core.set_peers(peers.map(|(_, table)| table), now_ms);
    }

    fn tick(&mut self, me: usize, tables: &mut [LoadTable], published: Option<&Snapshot>, now_ms: u64) {
        self.next_tick += TICK;
        self.core.tick(now_ms);
        tables[me] = self.core.loads().table(now_ms);
        self.read_peers(me, tables, now_ms);
        self.core.apply(published.cloned().into_iter().map(|snapshot| (0, snapshot)));
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
