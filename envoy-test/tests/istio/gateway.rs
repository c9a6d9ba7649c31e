//! A gateway to test: simulated model servers, a control plane with one of the deployments of `istio/`, and an Envoy that
//! has its configuration from there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_test::envoy::{Client, Envoy, Protocol, Request, Response, parse_access_log};
use envoy_test::model_server::ModelServers;
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::cluster::HOST;
use crate::control_plane::ControlPlane;
use crate::resources::Resources;
use crate::setup::Deployment;

/// How long anything that must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much of a log an error shows, in bytes.
const LOG_TAIL_BYTES: usize = 4_000;

/// Envoy, on a bootstrap of the tests' own or under Istio's agent.
pub enum Proxy {
    Envoy(Envoy),
    Agent(Agent),
}

impl Proxy {
    pub fn log_text(&self) -> String {
        match self {
            Proxy::Envoy(envoy) => envoy.log_text(),
            Proxy::Agent(agent) => agent.log_text(),
        }
    }

    /// The access log, which goes to standard output. It is not in one file with the log: Envoy writes what it has gathered
    /// in pieces that end anywhere, and a line of the log may come between two of them.
    fn access_log_text(&self) -> String {
        match self {
            Proxy::Envoy(envoy) => envoy.output_text(),
            Proxy::Agent(agent) => agent.output_text(),
        }
    }

    /// What Envoy's admin answers.
    pub fn admin_get(&self, path: &str) -> String {
        let admin = match self {
            Proxy::Envoy(envoy) => envoy.admin_address(),
            Proxy::Agent(agent) => agent.admin,
        };
        Client::new(admin, Protocol::Http1).send_blocking(Request::get(path)).unwrap().text()
    }
}

/// A running gateway, or sidecar.
pub struct Gateway {
    pub proxy: Proxy,
    pub pods: Arc<ModelServers>,
    pub deployment: Deployment,
    pub resources: Resources,
    pub control_plane: ControlPlane,
    pub address: SocketAddr,
}

impl Gateway {
    pub fn client(&self, protocol: Protocol) -> Client {
        Client::new(self.address, protocol)
    }

    pub fn send(&self, request: Request) -> Response {
        self.client(Protocol::Http1).send_blocking(request).unwrap()
    }

    /// Sends all at once, each on a connection of its own.
    pub fn burst(&self, requests: Vec<Request>) -> Vec<Response> {
        let answers = self.client(Protocol::Http1).burst_blocking(requests).unwrap();
        answers.into_iter().map(Result::unwrap).collect()
    }

    /// 32 equal requests at once come to four equal idle pods 8 ± 2 each.
    #[track_caller]
    pub fn check_burst_is_spread(&self, what: &str) -> Vec<usize> {
        let shares = self.shares(&self.burst(vec![long_chat(); 32]));
        assert!(shares.iter().all(|share| (6..=10).contains(share)), "{what}: {shares:?}");
        shares
    }

    /// How many of these answers each pod gave.
    pub fn shares(&self, answers: &[Response]) -> Vec<usize> {
        let pods = self.pods.addresses();
        let gave =
            |pod: &SocketAddr, answer: &Response| answer.header("x-served-by") == Some(&pod.to_string());
        pods.iter().map(|pod| answers.iter().filter(|answer| gave(pod, answer)).count()).collect()
    }

    /// Edits the resources and applies them.
    pub fn apply(&mut self, edit: impl FnOnce(&mut Resources)) {
        edit(&mut self.resources);
        self.control_plane.apply(&self.resources.0);
    }

    /// The access log's lines for POSTs, `count` of them or more.
    pub fn log(&self, count: usize) -> Vec<Value> {
        let posts =
            || -> Vec<Value> { self.lines().into_iter().filter(|line| line["method"] == "POST").collect() };
        until(&format!("{count} lines are in the log"), || posts().len() >= count);
        posts()
    }

    /// The access log's finished lines.
    fn lines(&self) -> Vec<Value> {
        parse_access_log(&self.proxy.access_log_text()).unwrap()
    }

    /// Waits until every pod's metrics, as they are now, are what the workers go by.
    pub fn wait_until_scraped(&self) {
        until("every pod is scraped twice", self.pods.scraped_twice());
        // The workers have it a tick or two after its end.
        std::thread::sleep(Duration::from_millis(100));
    }

    /// Asks for the list of models, which any pod gives, until the reason for a pick is one that is expected of later
    /// ones; then, if metrics are read, waits for those of every pod.
    pub fn wait_until_informed(&self) {
        let expected = if self.deployment.reads_metrics() { "metrics_age_ms=" } else { "cost=" };
        let is_informed = || {
            let asked = self.client(Protocol::Http1).send_blocking(get("/v1/models"));
            let lines = self.lines();
            let decision = lines.last().and_then(|line| line["decision"].as_str());
            asked.is_ok() && decision.is_some_and(|decision| decision.contains(expected))
        };
        if !comes_true(is_informed) {
            let log = self.proxy.log_text();
            let tail = &log[log.floor_char_boundary(log.len().saturating_sub(LOG_TAIL_BYTES))..];
            panic!("{:?}: the plugin does not get to know the pods:\n{tail}", self.deployment);
        }
        if self.deployment.reads_metrics() {
            self.wait_until_scraped();
        }
    }
}

/// Waits for something that must come true.
#[track_caller]
pub fn until(what: &str, holds: impl FnMut() -> bool) {
    assert!(comes_true(holds), "still not so after {PATIENCE:?}: {what}");
}

fn comes_true(mut holds: impl FnMut() -> bool) -> bool {
    let started_at = Instant::now();
    while started_at.elapsed() < PATIENCE {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

/// A GET to the models' host.
pub fn get(path: &str) -> Request {
    Request::get(path).header("host", HOST)
}

/// A POST to the models' host.
pub fn post(path: &str) -> Request {
    Request::post(path).header("host", HOST)
}

/// A chat request with a prompt of a few tokens and a short answer.
pub fn chat(model: &str) -> Request {
    chat_of(model, 4)
}

/// A chat with an answer so long that of a burst of them the last is sent before the first has ended: what has ended
/// counts no more.
pub fn long_chat() -> Request {
    chat_of("tiny", 200)
}

fn chat_of(model: &str, answer_tokens: u32) -> Request {
    let messages = json!([{"role": "user", "content": "Which pod will this be?"}]);
    let body = json!({"model": model, "max_tokens": answer_tokens, "messages": messages});
    post("/v1/chat/completions").json(&body)
}
