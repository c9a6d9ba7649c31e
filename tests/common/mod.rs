//! A pool with given numbers, and one worker that picks from it.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::net::SocketAddr;

use inference_picker::config::Config;
use inference_picker::decide::Decision;
use inference_picker::ledger::{Ledger, Member};
use inference_picker::metrics::{CacheConfig, EndpointMetrics, LoraState};
use inference_picker::openai::read_request;
use inference_picker::picker::{Outcome, Picker, Sent};
use inference_picker::pool::{EndpointReading, EnvoyHost, HostHealth, Reading, Snapshot};
use serde_json::json;

/// The time of every decision, in milliseconds; metrics are 10 ms old unless they are stale.
pub const NOW_MS: u64 = 100_000;

/// What an endpoint's metrics say.
#[derive(Debug, Clone)]
pub struct Pod {
    waiting: u32,
    running: u32,
    kv: f32,
    lora: Option<LoraState>,
    /// When it was last seen to start anew.
    restarted_ms: Option<u64>,
    context_tokens: Option<u32>,
    /// What its prefix cache has room for, and what it has computed since it was started, in tokens.
    cache_tokens: Option<(u64, u64)>,
    external: Option<u32>,
    scraped_ms: Option<u64>,
    scrape_failures: u32,
    /// It answers scrapes, with something other than metrics.
    unreadable: bool,
    resting: bool,
    host: EnvoyHost,
}

/// `count` idle pods.
pub fn pods(count: usize) -> Vec<Pod> {
    vec![Pod::idle(); count]
}

impl Pod {
    pub fn idle() -> Pod {
        Pod::queue(0)
    }

    pub fn queue(waiting: u32) -> Pod {
        let scraped_ms = Some(NOW_MS - 10);
        Pod {
            waiting,
            running: 0,
            kv: 0.0,
            lora: None,
            restarted_ms: None,
            context_tokens: None,
            cache_tokens: None,
            external: None,
            scraped_ms,
            scrape_failures: 0,
            unreadable: false,
            resting: false,
            host: EnvoyHost::default(),
        }
    }

    /// Never scraped.
    pub fn unread() -> Pod {
        Pod { scraped_ms: None, ..Pod::idle() }
    }

    pub fn running(self, running: u32) -> Pod {
        Pod { running, ..self }
    }

    pub fn kv(self, kv: f32) -> Pod {
        Pod { kv, ..self }
    }

    /// A prefix cache with room for so many tokens, and so many computed since it was started.
    pub fn cache(self, capacity_tokens: u64, computed_tokens: u64) -> Pod {
        Pod { cache_tokens: Some((capacity_tokens, computed_tokens)), ..self }
    }

    pub fn adapters(self, names: &[&str], slots: u32) -> Pod {
        let adapters = names.iter().map(|name| name.to_string()).collect();
        Pod { lora: Some(LoraState::named(adapters, slots)), ..self }
    }

    /// It takes prompts of so many tokens, with their answers.
    pub fn context(self, tokens: u32) -> Pod {
        Pod { context_tokens: Some(tokens), ..self }
    }

    /// It was seen to start anew then.
    pub fn restarted(self, restarted_ms: Option<u64>) -> Pod {
        Pod { restarted_ms, ..self }
    }

    /// So many of its requests are not this gateway's; all of them unless said otherwise.
    pub fn external(self, requests: u32) -> Pod {
        Pod { external: Some(requests), ..self }
    }

    pub fn stale(self) -> Pod {
        Pod { scraped_ms: Some(NOW_MS - 60_000), ..self }
    }

    pub fn failing(self, scrape_failures: u32) -> Pod {
        Pod { scrape_failures, ..self }
    }

    /// Its metrics cannot be read (any more), but it answers.
    pub fn unreadable(self) -> Pod {
        Pod { unreadable: true, ..self.stale() }
    }

    /// It says that it sleeps.
    pub fn resting(self) -> Pod {
        Pod { resting: true, ..self }
    }

    pub fn health(self, health: HostHealth) -> Pod {
        Pod { host: EnvoyHost { health, ..self.host }, ..self }
    }

    pub fn unhealthy(self) -> Pod {
        self.health(HostHealth::Unhealthy)
    }

    pub fn degraded(self) -> Pod {
        self.health(HostHealth::Degraded)
    }

    pub fn priority(self, priority: u32) -> Pod {
        Pod { host: EnvoyHost { priority, ..self.host }, ..self }
    }

    /// Envoy calls it so.
    pub fn named(self, name: &str) -> Pod {
        Pod { host: EnvoyHost { name: Some(name.to_owned()), ..self.host }, ..self }
    }

    /// 0 if nothing speaks against it; requests go only to those with the lowest number.
    pub fn naive_standing(&self) -> u8 {
        match self.host.health {
            HostHealth::Unhealthy | HostHealth::Excluded => 3,
            _ if self.scrape_failures >= 3 => 2,
            _ => u8::from(self.resting && !self.unreadable),
        }
    }

    /// What DEFAULT ranks it by, written down a second time: 1 if nothing is received from it, and its cost.
    pub fn naive_key(&self, prompt_tokens: f64) -> (u8, f64) {
        match self.scraped_ms {
            Some(scraped_ms) if NOW_MS - scraped_ms < 500 => {
                let requests = f64::from(self.waiting + self.running);
                let crowded = prompt_tokens * (1.0 + 0.5 * f64::from(self.waiting));
                let tokens = f64::from(self.waiting) * 512.0 + crowded + 32.0 * requests;

                (0, tokens / 8.0 * (1.0 + f64::from(self.kv)))
            }
            scraped_ms => {
                let is_unasked = scraped_ms.is_none() && self.scrape_failures == 0;
                (u8::from(!self.unreadable && !is_unasked), prompt_tokens / 8.0)
            }
        }
    }

    fn reading(&self) -> Option<Reading> {
        let (waiting, running) = (self.waiting, self.running);
        let kv_cache_utilization = Some(self.kv);
        let metrics = EndpointMetrics {
            waiting,
            running,
            kv_cache_utilization,
            base_model: Some("m".to_owned()),
            lora: self.lora.clone(),
            context_tokens: self.context_tokens,
            is_resting: self.resting,
            cache: self
                .cache_tokens
                .map(|(capacity_tokens, _)| CacheConfig { block_size_tokens: 16, capacity_tokens }),
            prefix_cache_queries: self.cache_tokens.map(|(_, computed_tokens)| computed_tokens as f64),
            ..Default::default()
        };
        let external_requests = self.external.unwrap_or(waiting + running);
        let external_waiting = external_requests.min(waiting);
        self.scraped_ms.map(|scraped_ms| Reading {
            scraped_ms,
            waiting,
            metrics,
            own_waiting: 0,
            external_waiting,
            external_requests,
        })
    }
}

/// The address of the pod at `index`.
pub fn address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (index / 256) as u8, (index % 256) as u8], 8000))
}

/// What a scraper would publish of these pods.
pub fn snapshot(pods: &[Pod]) -> Snapshot {
    let reading = |(index, pod): (usize, &Pod)| EndpointReading {
        address: address(index),
        host: pod.host.clone(),
        scrape_failures: pod.scrape_failures,
        unreadable_ms: pod.unreadable.then_some(NOW_MS - 10),
        restarted_ms: pod.restarted_ms,
        reading: pod.reading(),
    };
    Snapshot { endpoints: Some(pods.iter().enumerate().map(reading).collect()), ..Snapshot::default() }
}

/// One worker with one pool.
pub struct World(Picker<()>);

impl World {
    /// A pool of these pods, with metrics as given.
    pub fn new(strategy: &str, pods: &[Pod], seed: u64) -> World {
        World::configured(strategy, &[], seed).scraped(pods)
    }

    /// The same, with these models configured, each of which has itself as its only target.
    pub fn with_models(models: &[&str], pods: &[Pod]) -> World {
        World::configured("DEFAULT", models, 1).scraped(pods)
    }

    /// A pool whose endpoints are not known yet.
    pub fn discovering(seed: u64) -> World {
        World::configured("DEFAULT", &[], seed)
    }

    fn configured(strategy: &str, models: &[&str], seed: u64) -> World {
        let model = |name: &&str| json!({"modelName": name, "poolRef": {"name": "p"}, "targetModels": [{"name": name}]});
        let document = json!({
            "scrapeCluster": "s",
            "adminCluster": "a",
            "pools": [{"name": "p", "cluster": "c", "routingStrategy": strategy}],
            "models": models.iter().map(model).collect::<Vec<_>>(),
        });
        let config = Config::parse(document.to_string().as_bytes()).unwrap();
        World(Picker::new(config, fastrand::Rng::with_seed(seed)))
    }

    fn scraped(mut self, pods: &[Pod]) -> World {
        self.apply(snapshot(pods));
        self
    }

    pub fn apply(&mut self, snapshot: Snapshot) {
        self.0.apply([(0, snapshot)].into_iter());
    }

    /// Decides a request with a prompt of so many tokens.
    pub fn decide(&mut self, model: &str, prompt_tokens: usize) -> Decision {
        let body = format!(r#"{{"model":"{model}","prompt":"{}"}}"#, "abcd".repeat(prompt_tokens));
        let resolved = self.0.prepare(&read_request(body.as_bytes()).unwrap(), None, 0).unwrap();
        match self.0.decide(1, &resolved, || (), NOW_MS) {
            Outcome::Decided(decision) => decision,
            Outcome::Waits => panic!("there is no queue"),
        }
    }

    /// The pods a request would go to, best first, with nothing sent.
    pub fn pick(&mut self, model: &str, prompt_tokens: usize) -> Vec<usize> {
        let decision = self.decide(model, prompt_tokens);
        self.indexes(&decision)
    }

    /// The same for a request that is not read.
    pub fn pick_unread(&mut self) -> Vec<usize> {
        let decision = self.0.decide_unread(0, false, None, NOW_MS);
        self.indexes(&decision)
    }

    /// Sends a request that never ends; the pod it goes to.
    pub fn send(&mut self, model: &str, prompt_tokens: usize) -> usize {
        self.start(model, prompt_tokens).0
    }

    /// Sends a request that has ended before the next; the pod it goes to.
    pub fn serve(&mut self, model: &str, prompt_tokens: usize) -> usize {
        let (first, sent) = self.start(model, prompt_tokens);
        self.0.end(sent, NOW_MS);
        first
    }

    /// Sends a request that fails before the next; the pod it goes to.
    pub fn fail(&mut self, model: &str, prompt_tokens: usize) -> usize {
        let (first, sent) = self.start(model, prompt_tokens);
        self.0.failed(0, &sent, NOW_MS);
        self.0.end(sent, NOW_MS);
        first
    }

    fn start(&mut self, model: &str, prompt_tokens: usize) -> (usize, Sent) {
        let decision = self.decide(model, prompt_tokens);
        let first = self.indexes(&decision)[0];
        let Decision::Send(pick) = decision else { panic!("not sent: {decision:?}") };
        (first, self.0.send(&pick, NOW_MS))
    }

    /// Reads what other workers have in flight.
    pub fn read(&mut self, member: &mut Member, ledger: &Ledger) {
        member.read(ledger, self.0.loads_mut(), NOW_MS);
    }

    /// Publishes to the others what this worker has in flight.
    pub fn publish(&mut self, member: &mut Member, ledger: &mut Ledger) {
        let events = self.0.take_events();
        member.collect(self.0.loads_mut(), events);
        let written = member.write(ledger, self.0.loads_mut(), NOW_MS);
        member.written(&written, ledger);
    }

    fn indexes(&self, decision: &Decision) -> Vec<usize> {
        let Decision::Send(pick) = decision else { panic!("not sent: {decision:?}") };
        let endpoints = self.0.pool(0).unwrap().endpoints().unwrap();
        let place = |text: &str| endpoints.iter().position(|endpoint| endpoint.text() == text).unwrap();
        pick.destinations.split(',').map(place).collect()
    }
}
