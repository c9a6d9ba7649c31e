//! The real servers that claims are tried with: observed, killed, started anew.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use envoy_test::envoy::{Client, Protocol, Request};
use envoy_test::real_server::{RealServer, wait_until_ready};
use serde_json::Value;

/// What all of them call their model.
pub const MODEL: &str = "tiny";

/// What one kind of server has of its own.
pub struct Kind {
    /// As the plugin's configuration calls it.
    pub name: &'static str,
    /// All models that it serves.
    pub models: &'static [&'static str],
    /// It works on so many requests at once; further ones wait.
    pub running_max: usize,
    /// Words of a prompt that it takes a while to compute, and not so long that a busy machine does not get there.
    pub long_prompt_words: usize,
    /// Fields of a request that has all of its prompt computed anew, as what is said at no temperature may depend on how a
    /// cache was filled.
    pub anew: fn() -> Value,
    /// What the plugin's explanation of a pick has of its metrics.
    pub explained: &'static [&'static str],
    pub running: &'static str,
    pub waiting: &'static str,
    /// Tokens of answers.
    pub generated_tokens: &'static str,
    /// Tokens of prompts, which it counts in one series or several.
    pub prompt_tokens: &'static [&'static str],
    /// What it had cached of them.
    pub cached_tokens: &'static str,
}

/// All servers of a test. Dropping them ends their processes.
pub struct Servers {
    pub kind: &'static Kind,
    servers: Vec<Mutex<RealServer>>,
    addresses: Vec<SocketAddr>,
}

impl Servers {
    /// Returns when they answer.
    pub fn new(kind: &'static Kind, mut servers: Vec<RealServer>) -> Servers {
        wait_until_ready(&mut servers).unwrap();
        let addresses: Vec<SocketAddr> = servers.iter().map(RealServer::address).collect();
        eprintln!("  {} answers at {addresses:?}", kind.name);
        Servers { kind, servers: servers.into_iter().map(Mutex::new).collect(), addresses }
    }

    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub fn count(&self) -> usize {
        self.addresses.len()
    }

    pub fn client(&self, index: usize) -> Client {
        Client::new(self.addresses[index], Protocol::Http1)
    }

    /// Kills all processes of one server at once, as when its machine goes.
    pub fn kill(&self, index: usize) {
        self.with(index, RealServer::kill);
    }

    /// Starts a server that was killed, and returns when it answers.
    pub fn start_again(&self, index: usize) {
        self.with(index, |server| server.start_again().unwrap());
    }

    fn with<T>(&self, index: usize, act: impl FnOnce(&mut RealServer) -> T) -> T {
        act(&mut self.servers[index].lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The sum over all series of the metric `name`, as the server reports it now.
    pub fn metric(&self, index: usize, name: &str) -> usize {
        let page = self.page(index);
        let values = page.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with(['{', ' ']).then(|| rest.rsplit_once(' '))??.1.parse::<f64>().ok()
        });
        values.sum::<f64>() as usize
    }

    /// What the server reports about itself now.
    pub fn page(&self, index: usize) -> String {
        self.client(index).send_blocking(Request::get("/metrics")).unwrap().text()
    }

    /// What the servers report about requests and their caches.
    pub fn reported(&self) -> Vec<String> {
        let Kind { running, waiting, generated_tokens, prompt_tokens, cached_tokens, .. } = self.kind;
        let names: Vec<&str> =
            [&[*running, *waiting, *generated_tokens, *cached_tokens], *prompt_tokens].concat();
        let pages = (0..self.count()).map(|index| self.page(index));
        let lines = pages.flat_map(|page| page.lines().map(str::to_owned).collect::<Vec<_>>());
        lines.filter(|line| names.iter().any(|name| line.starts_with(name))).collect()
    }

    /// How many tokens of answers each server has made.
    pub fn generated_tokens(&self) -> Vec<usize> {
        (0..self.count()).map(|index| self.metric(index, self.kind.generated_tokens)).collect()
    }

    /// Prompt tokens that the servers have found in their prefix caches.
    pub fn cached_tokens(&self) -> usize {
        self.sum(self.kind.cached_tokens)
    }

    /// Prompt tokens that the servers have looked for in their prefix caches.
    pub fn prompt_tokens(&self) -> usize {
        self.kind.prompt_tokens.iter().map(|name| self.sum(name)).sum()
    }

    fn sum(&self, name: &str) -> usize {
        (0..self.count()).map(|index| self.metric(index, name)).sum()
    }

    /// How many requests a server runs, and how many wait there.
    pub fn in_progress(&self, index: usize) -> [usize; 2] {
        [self.kind.running, self.kind.waiting].map(|name| self.metric(index, name))
    }

    /// How many requests a server has.
    pub fn busy_with(&self, index: usize) -> usize {
        self.in_progress(index).iter().sum()
    }
}
