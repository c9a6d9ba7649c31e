//! The exchange with other gateways: asks them what [`Asking`] says is due, publishes what they tell, and answers them.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::calls::call_answer;
use super::discovery::Discovery;
use super::host::{self, HostResult, LogLevel};
use super::shared::{self, LeasePlace, RemoteWorkersPlace};
use crate::config::{Config, ScrapeBy};
use crate::limits::LimitsReached;
use crate::peers::{Asking, MAX_PAGE_BYTES, News, Question};

/// Who asks the other gateways: the companion service, or a worker by a lease.
pub struct PeersAsking {
    scrape_cluster: String,
    timeout_ms: u64,
    discovery: Discovery,
    lease: Option<LeasePlace>,
    /// Whether this one asks.
    is_mine: bool,
    asking: Asking,
    place: RemoteWorkersPlace,
    calls: HashMap<u32, Call>,
}

/// A call that has not been answered.
enum Call {
    Discovery,
    Gateway(SocketAddr),
}

impl PeersAsking {
    /// `None` where gateways are not to know each other.
    pub fn new(config: &Config, me: u64) -> Option<PeersAsking> {
        let peers = config.peers.as_ref()?;
        Some(PeersAsking {
            scrape_cluster: config.scrape_cluster.clone()?,
            timeout_ms: config.scrape_timeout_ms,
            discovery: Discovery::new(config, &peers.cluster)?,
            lease: (config.scrape_by == ScrapeBy::Worker).then(|| LeasePlace::of_remote_workers(me)),
            is_mine: false,
            asking: Asking::new(peers.interval_ms),
            place: RemoteWorkersPlace::default(),
            calls: HashMap::new(),
        })
    }

    /// Asks who is due.
    pub fn tick(&mut self, now_ms: u64) {
        let is_mine = self.lease.as_ref().is_none_or(|lease| lease.is_held(now_ms));
        let was_mine = std::mem::replace(&mut self.is_mine, is_mine);
        if !is_mine {
            return;
        }
        if !was_mine {
            self.place.take_over();
        }
        self.place.list(self.asking.workers(now_ms));
        self.discover(now_ms);
        for (address, question) in self.asking.due(now_ms) {
            self.ask(address, &question, now_ms);
        }
    }

    /// Which limits were reached.
    pub fn limits(&mut self) -> &mut LimitsReached {
        &mut self.asking.limits
    }

    /// A call has been answered, or has failed. Calls of others are not known here.
    pub fn answered(&mut self, token: u32, now_ms: u64) {
        match self.calls.remove(&token) {
            Some(Call::Discovery) => self.discovered(now_ms),
            Some(Call::Gateway(address)) => {
                let page = call_answer(MAX_PAGE_BYTES + 1).map_err(|failure| failure.to_string());
                self.heard(address, page, now_ms);
            }
            None => {}
        }
    }

    fn ask(&mut self, address: SocketAddr, question: &Question, now_ms: u64) {
        let text = address.to_string();
        let destination = [("x-envoy-original-dst-host", text.as_str())];
        let path = question.to_path();
        match host::http_get(&self.scrape_cluster, &path, &text, &destination, self.timeout_ms) {
            Ok(token) => {
                self.calls.insert(token, Call::Gateway(address));
            }
            Err(error) => self.heard(address, Err(format!("{error:?}")), now_ms),
        }
    }

    fn heard(&mut self, address: SocketAddr, page: Result<Vec<u8>, String>, now_ms: u64) {
        let page = page.as_deref().map_err(String::clone);
        let outcome = self.asking.answered(address, page, &shared::workers(), now_ms);
        if self.is_mine {
            outcome.workers.iter().for_each(|worker| self.place.write(worker));
            self.place.list(self.asking.workers(now_ms));
        }
        if let Some(news) = outcome.news {
            report(address, &news);
        }
    }

    fn discover(&mut self, now_ms: u64) {
        match self.discovery.ask(now_ms) {
            Some(Ok(token)) => {
                self.calls.insert(token, Call::Discovery);
            }
            Some(Err(error)) => self.discovery_failed(&format!("{error:?}")),
            None => {}
        }
    }

    fn discovered(&mut self, now_ms: u64) {
        match self.discovery.answered() {
            Ok(gateways) => self.asking.follow(&gateways.endpoints, now_ms),
            Err(problem) => self.discovery_failed(&problem),
        }
    }

    /// Says once that discovery fails; it goes on trying.
    fn discovery_failed(&mut self, problem: &str) {
        if self.discovery.failed() {
            let message = format!(
                "inference-picker: discovery of the gateways of cluster {} failed: {problem}; the last known stay",
                self.discovery.cluster
            );
            host::log(LogLevel::Warn, &message);
        }
    }
}

fn report(address: SocketAddr, news: &News) {
    let what = match news {
        News::Failing(problem) => format!("tells nothing: {problem}; what it has in flight is not known"),
        News::Back => "tells again what it has in flight".to_owned(),
    };
    host::log(LogLevel::Info, &format!("inference-picker: gateway {address}: {what}"));
}

/// Whether a request comes from another gateway: it is on a route to the gateways' cluster, which only their exchange
/// listener has. None of them is sent on, or gateways would ask each other in circles.
pub fn is_route_of(config: &Config, cluster: &[u8]) -> bool {
    config.peers.as_ref().is_some_and(|peers| peers.cluster.as_bytes() == cluster)
}

/// Answers another gateway's question.
pub fn answer(path: &[u8]) -> HostResult<()> {
    match Question::from_path(path) {
        Some(question) => {
            let page = shared::page(&question, host::now_ms()).to_bytes();
            host::respond(200, "exchange", &[("content-type", "application/octet-stream")], &page)
        }
        None => host::respond(404, "exchange", &[], b""),
    }
}
