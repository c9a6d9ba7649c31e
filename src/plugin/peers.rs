//! The exchange with other gateways: asks them what [`Asking`] says is due, writes to the ledger what they publish, and answers
//! them.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::calls::call_answer;
use super::discovery::Discovery;
use super::host::{self, HostResult};
use super::sessions::Conversations;
use super::shared::{self, Exchange, LeasePlace};
use crate::config::{Config, ScrapeBy};
use crate::ledger::{Event, Ledger, entries};
use crate::limits::LimitsReached;
use crate::load::{LoadTracker, MissingNote};
use crate::peers::{Asking, MAX_PAGE_BYTES, News, Question};
use crate::sessions::{Entry, Note};

/// Who asks the other gateways: the companion service, or a worker by a lease.
pub struct PeersAsking {
    scrape_cluster: String,
    timeout_ms: u64,
    discovery: Discovery,
    lease: Option<LeasePlace>,
    /// Whether this one asks.
    is_mine: bool,
    asking: Asking,
    conversations: Conversations,
    /// What was received since the ledger was last written: notes, and whether there was anything.
    notes: Vec<MissingNote>,
    has_received: bool,
    /// This gateway.
    own: u64,
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
            lease: (config.scrape_by == ScrapeBy::Worker).then(|| LeasePlace::of_peers(me)),
            is_mine: false,
            asking: Asking::new(peers.interval_ms),
            conversations: Conversations::new(config),
            notes: Vec::new(),
            has_received: false,
            own: 0,
            calls: HashMap::new(),
        })
    }

    /// Publishes what was received, and asks who is due.
    pub fn tick(&mut self, exchange: &mut Exchange, loads: &mut LoadTracker, now_ms: u64) {
        self.is_mine = self.lease.as_mut().is_none_or(|lease| lease.is_held(now_ms));
        if !self.is_mine {
            return;
        }
        self.own = exchange.read(loads, now_ms).gateway();
        self.publish(exchange, loads, now_ms);
        self.discover(now_ms);
        for (address, question) in self.asking.due(now_ms) {
            self.ask(address, &question, exchange, now_ms);
        }
    }

    /// Publishes what was received since the last time.
    fn publish(&mut self, exchange: &mut Exchange, loads: &mut LoadTracker, now_ms: u64) {
        if !std::mem::take(&mut self.has_received) {
            return;
        }
        let (sums, notes) = (self.asking.sums(now_ms), std::mem::take(&mut self.notes));
        let change = |ledger: &mut Ledger| {
            ledger.set_remote(&sums, now_ms);
            notes.iter().for_each(|note| ledger.note(*note, true));
        };
        exchange.publish_with(loads, Vec::new(), change, now_ms);
    }

    /// Whether this one asks, so that it has something to do at every tick.
    pub fn is_mine(&self) -> bool {
        self.is_mine
    }

    /// Which limits were reached.
    pub fn limits(&mut self) -> &mut LimitsReached {
        &mut self.asking.limits
    }

    /// A call has been answered, or has failed. Calls of others are not known here. When all gateways that were asked have
    /// answered, it is published at once: the workers need not wait for the next tick.
    pub fn answered(&mut self, token: u32, exchange: &mut Exchange, loads: &mut LoadTracker, now_ms: u64) {
        match self.calls.remove(&token) {
            Some(Call::Discovery) => self.discovered(now_ms),
            Some(Call::Gateway(address)) => {
                let page = call_answer(MAX_PAGE_BYTES + 1).map_err(|failure| failure.to_string());
                self.received(address, page, exchange, now_ms);
                if self.is_mine && !self.asking.is_waiting() {
                    self.publish(exchange, loads, now_ms);
                }
            }
            None => {}
        }
    }

    fn ask(&mut self, address: SocketAddr, question: &Question, exchange: &mut Exchange, now_ms: u64) {
        let text = address.to_string();
        let destination = [("x-envoy-original-dst-host", text.as_str())];
        let path = question.to_path();
        match host::http_get(&self.scrape_cluster, &path, &text, &destination, self.timeout_ms) {
            Ok(token) => {
                self.calls.insert(token, Call::Gateway(address));
            }
            Err(error) => self.received(address, Err(format!("{error:?}")), exchange, now_ms),
        }
    }

    fn received(
        &mut self,
        address: SocketAddr,
        page: Result<Vec<u8>, String>,
        exchange: &mut Exchange,
        now_ms: u64,
    ) {
        let page = page.as_deref().map_err(String::clone);
        self.has_received |= page.is_ok();
        let outcome = self.asking.answered(address, page, self.own, now_ms);
        self.notes.extend(outcome.notes);
        for note in conversations(&outcome.entries) {
            self.conversations.note(note.by, &Entry { used_ms: now_ms, ..note.entry });
        }
        if !outcome.entries.is_empty() && self.is_mine {
            exchange.member.pass_on(outcome.entries);
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
            log::warn!(
                "discovery of the gateways of cluster {} failed: {problem}; the last known stay",
                self.discovery.cluster
            );
        }
    }
}

/// The conversations that another gateway has published.
fn conversations(published: &[u8]) -> impl Iterator<Item = Note> {
    // No worker has this id.
    entries(published, 0).filter_map(|entry| match entry.event {
        Event::Conversation(note) => Some(note),
        Event::Prompt(_) | Event::Ended => None,
    })
}

fn report(address: SocketAddr, news: &News) {
    let what = match news {
        News::Failing(problem) => format!("exchange failed: {problem}; its in-flight requests are not known"),
        News::Back => "exchange works again".to_owned(),
    };
    log::info!("gateway={address}: {what}");
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
